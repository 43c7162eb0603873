// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_MIXED_BATCH_IPP
#define LOWRANK_LORA_MIXED_BATCH_IPP

#include <lowrank/lora/mixed_batch.hpp>

#include <algorithm>
#include <cstddef>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// Y[:, j] += `multiply`'s result for the columns j that `mine(j)` names, gathered.
template <real S, class Mine, class F>
void for_gathered(const const_column_view<S>& x, const column_view<S>& y, workspace& ws, Mine&& mine, F&& multiply) {
    index count = 0;
    for (index j = 0; j < x.cols(); ++j) {
        count += mine(j) ? 1 : 0;
    }
    if (count == 0) {
        return;
    }
    if (count == x.cols()) {
        multiply(x, y);
        return;
    }
    const workspace::frame scope(ws);
    auto from = ws.take<S>(x.rows(), count);
    auto to = ws.take<S>(y.rows(), count);
    to.setZero();
    index at = 0;
    for (index j = 0; j < x.cols(); ++j) {
        if (mine(j)) {
            std::copy_n(x.data() + j * x.outerStride(), x.rows(), from.data() + x.rows() * at++);
        }
    }
    multiply(const_column_view<S>(from), to);
    at = 0;
    for (index j = 0; j < x.cols(); ++j) {
        if (mine(j)) {
            axpy(S(1), to.data() + y.rows() * at++, const_cast<S*>(y.data()) + j * y.outerStride(), y.rows());
        }
    }
}

template <real S>
void check_mixed(const operator_reference<S>& base, std::span<const used_adapter<S>> adapters,
                 std::span<const index> which, const const_column_view<S>& x, const column_view<S>& y) {
    expects(static_cast<index>(which.size()) == x.cols(), "mixed batch: needs one adapter number per column");
    expects_shape("mixed batch", "x", x.rows(), x.cols(), base.cols(), y.cols());
    expects_shape("mixed batch", "y", y.rows(), y.cols(), base.rows(), x.cols());
    for (const index w : which) {
        expects(w < static_cast<index>(adapters.size()), "mixed batch: an adapter number is too large");
    }
}

/// The columns of adapter number a, if it acts.
template <real S>
bool acts(std::span<const used_adapter<S>> adapters, index a) {
    if (a < 0) {
        return false;
    }
    const auto& used = adapters[static_cast<std::size_t>(a)];
    return used.adapter != nullptr && used.strength != S(0);
}

template <real S>
bool replaces(std::span<const used_adapter<S>> adapters, index a) {
    return acts(adapters, a) && !adapters[static_cast<std::size_t>(a)].adapter->additive();
}

/// The columns of every adapter that acts. `minus` is how often the base is taken from kinds that are not additive.
template <real S>
void add_mixed(operator_reference<S> base, std::span<const used_adapter<S>> adapters, std::span<const index> which,
               const const_column_view<S>& x, const column_view<S>& y, workspace& ws, S minus) {
    for (index a = 0; a < static_cast<index>(adapters.size()); ++a) {
        if (!acts(adapters, a)) {
            continue;
        }
        const auto& used = adapters[static_cast<std::size_t>(a)];
        for_gathered<S>(
            x, y, ws, [&](index j) { return which[static_cast<std::size_t>(j)] == a; },
            [&](const const_column_view<S>& from, const column_view<S>& to) {
                used.adapter->add_product(base, used.strength, from, to, ws);
                if (!used.adapter->additive() && minus != S(0)) {
                    base.add_product(-minus, from, to, ws);
                }
            });
    }
}

}  // namespace detail

template <real S>
void add_mixed_changes(std::type_identity_t<operator_reference<S>> base, std::span<const used_adapter<S>> adapters,
                       std::span<const index> which, const_column_view<S> x, column_view<S> y, workspace& ws) {
    detail::check_mixed<S>(base, adapters, which, x, y);
    detail::add_mixed<S>(base, adapters, which, x, y, ws, S(1));
}

template <real S>
void add_mixed_product(std::type_identity_t<operator_reference<S>> base, std::span<const used_adapter<S>> adapters,
                       std::span<const index> which, const_column_view<S> x, column_view<S> y, workspace& ws) {
    detail::check_mixed<S>(base, adapters, which, x, y);
    detail::for_gathered<S>(
        x, y, ws, [&](index j) { return !detail::replaces<S>(adapters, which[static_cast<std::size_t>(j)]); },
        [&](const const_column_view<S>& from, const column_view<S>& to) { base.add_product(S(1), from, to, ws); });
    detail::add_mixed<S>(base, adapters, which, x, y, ws, S(0));
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_MIXED_BATCH_OF(S)                                                                                 \
    template void add_mixed_changes<S>(operator_reference<S>, std::span<const used_adapter<S>>,                   \
                                       std::span<const index>, const_column_view<S>, column_view<S>, workspace&); \
    template void add_mixed_product<S>(operator_reference<S>, std::span<const used_adapter<S>>,                   \
                                       std::span<const index>, const_column_view<S>, column_view<S>, workspace&);
LOWRANK_MIXED_BATCH_OF(float)
LOWRANK_MIXED_BATCH_OF(double)
#undef LOWRANK_MIXED_BATCH_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_MIXED_BATCH_IPP
