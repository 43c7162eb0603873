// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_STRUCTURED_SHIRA_IPP
#define LOWRANK_LORA_KINDS_STRUCTURED_SHIRA_IPP

#include <lowrank/lora/kinds/structured/shira.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/lora/adapter_kind.ipp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
void shira_adapter<S>::check() const {
    detail::expects(
        shira_indices.cols() == shira_weight.size() && (shira_weight.size() == 0 || shira_indices.rows() == 2),
        "shira_adapter: shira_indices needs a row and a column for each entry of shira_weight");
    for (index k = 0; k < shira_indices.cols(); ++k) {
        detail::expects(shira_indices(0, k) >= 0 && shira_indices(0, k) < out && shira_indices(1, k) >= 0 &&
                            shira_indices(1, k) < in,
                        "shira_adapter: an entry lies outside of the weight");
    }
}

template <real S>
void shira_adapter<S>::add_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& /*ws*/) const {
    detail::expects_shape("shira_adapter::add_product", "x", x.rows(), x.cols(), in, y.cols());
    detail::expects_shape("shira_adapter::add_product", "y", y.rows(), y.cols(), out, x.cols());
    for (index j = 0; j < x.cols(); ++j) {
        for (index k = 0; k < shira_weight.size(); ++k) {
            y(shira_indices(0, k), j) += alpha * shira_weight(k) * x(shira_indices(1, k), j);
        }
    }
}

template <real S>
void shira_adapter<S>::add_transposed_product(S alpha, const_column_view<S> x, column_view<S> y,
                                              workspace& /*ws*/) const {
    detail::expects_shape("shira_adapter::add_transposed_product", "x", x.rows(), x.cols(), out, y.cols());
    detail::expects_shape("shira_adapter::add_transposed_product", "y", y.rows(), y.cols(), in, x.cols());
    for (index j = 0; j < x.cols(); ++j) {
        for (index k = 0; k < shira_weight.size(); ++k) {
            y(shira_indices(1, k), j) += alpha * shira_weight(k) * x(shira_indices(0, k), j);
        }
    }
}

template <real S>
void shira_adapter<S>::backward(const_column_view<S> x, const_column_view<S> dy, shira_adapter& gradient,
                                column_view<S>* dx, workspace& ws) const {
    detail::expects_shape("shira_adapter::backward", "x", x.rows(), x.cols(), in, dy.cols());
    detail::expects_shape("shira_adapter::backward", "dy", dy.rows(), dy.cols(), out, x.cols());
    detail::expects(gradient.shira_weight.size() == shira_weight.size(),
                    "shira_adapter::backward: the gradient was made for another adapter");
    for (index j = 0; j < x.cols(); ++j) {
        for (index k = 0; k < shira_weight.size(); ++k) {
            gradient.shira_weight(k) += dy(shira_indices(0, k), j) * x(shira_indices(1, k), j);
        }
    }
    if (dx != nullptr) {
        add_transposed_product(S(1), dy, *dx, ws);
    }
}

namespace detail {

/// A sparse matrix, its entries in the order of the rows.
struct sparse_rows {
    index out = 0;
    index in = 0;
    std::vector<std::size_t> starts = {};  ///< Of the rows, and the end of the last.
    std::vector<std::int32_t> columns = {};
    std::vector<double> values = {};

    [[nodiscard]] index rows() const noexcept { return out; }
    [[nodiscard]] index cols() const noexcept { return in; }
    void add_rows(double factor, index first, column_view<double> to) const {
        for (index i = 0; i < to.cols(); ++i) {
            const std::size_t end = starts[static_cast<std::size_t>(first + i) + 1];
            for (std::size_t k = starts[static_cast<std::size_t>(first + i)]; k < end; ++k) {
                to(columns[k], i) += factor * values[k];
            }
        }
    }
};

}  // namespace detail

template <real S>
weight_change<S> shira_adapter<S>::change() const {
    check();
    const auto n = static_cast<std::size_t>(shira_weight.size());
    detail::sparse_rows d{.out = out, .in = in};
    d.starts.assign(static_cast<std::size_t>(out) + 1, 0);
    for (std::size_t k = 0; k < n; ++k) {
        ++d.starts[static_cast<std::size_t>(shira_indices(0, static_cast<index>(k))) + 1];
    }
    for (std::size_t i = 0; i + 1 < d.starts.size(); ++i) {
        d.starts[i + 1] += d.starts[i];
    }
    d.columns.resize(n);
    d.values.resize(n);
    std::vector<std::size_t> next(d.starts.begin(), d.starts.end() - 1);
    for (index k = 0; k < shira_weight.size(); ++k) {
        const std::size_t to = next[static_cast<std::size_t>(shira_indices(0, k))]++;
        d.columns[to] = shira_indices(1, k);
        d.values[to] = static_cast<double>(shira_weight(k));
    }
    return added_rows_change{added_rows(std::move(d))};
}

template <real S>
bool adapter_kind<shira_adapter<S>>::permute_rows(shira_adapter<S>& a, std::span<const index> rows) {
    std::vector<std::int32_t> to(rows.size());
    for (std::size_t i = 0; i < rows.size(); ++i) {
        to[static_cast<std::size_t>(rows[i])] = static_cast<std::int32_t>(i);
    }
    for (index k = 0; k < a.shira_indices.cols(); ++k) {
        a.shira_indices(0, k) = to[static_cast<std::size_t>(a.shira_indices(0, k))];
    }
    return true;
}

template <real S>
shira_adapter<S> make_shira(index out, index in, const shira_options& options) {
    detail::expects(out >= 1 && in >= 1 && options.r >= 1 && options.r <= out * in / (out + in),
                    "make_shira: r (out + in) must be at least 1 and at most out in");
    shira_adapter<S> a{.r = options.r, .out = out, .in = in};
    a.shira_indices = torch_random_positions(out, in, options.r * (out + in), options.seed);
    std::vector<std::pair<std::int32_t, std::int32_t>> sorted;  // a mask is read row by row
    for (index k = 0; k < a.shira_indices.cols(); ++k) {
        sorted.emplace_back(a.shira_indices(0, k), a.shira_indices(1, k));
    }
    std::sort(sorted.begin(), sorted.end());
    for (index k = 0; k < a.shira_indices.cols(); ++k) {
        a.shira_indices(0, k) = sorted[static_cast<std::size_t>(k)].first;
        a.shira_indices(1, k) = sorted[static_cast<std::size_t>(k)].second;
    }
    a.shira_weight.setZero(a.shira_indices.cols());
    return a;
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_SHIRA_OF(S)                                                                                \
    template struct shira_adapter<S>;                                                                      \
    template bool adapter_kind<shira_adapter<S>>::permute_rows(shira_adapter<S>&, std::span<const index>); \
    template shira_adapter<S> make_shira<S>(index, index, const shira_options&);
LOWRANK_SHIRA_OF(float)
LOWRANK_SHIRA_OF(double)
#undef LOWRANK_SHIRA_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_STRUCTURED_SHIRA_IPP
