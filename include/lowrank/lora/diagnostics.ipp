// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_DIAGNOSTICS_IPP
#define LOWRANK_LORA_DIAGNOSTICS_IPP

#include <lowrank/lora/diagnostics.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/factor/factored_algebra.hpp>
#include <lowrank/factor/orthonormalize.hpp>
#include <lowrank/factor/ranks/rank_rules.hpp>
#include <lowrank/factor/subspace.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
result<change_diagnostics<S>> diagnose(const low_rank<S>& change) {
    auto spec = svd(change);
    if (!spec) {
        return spec.why;
    }
    const auto& s = spec.s;
    const double eps = static_cast<double>(std::numeric_limits<S>::epsilon());
    change_diagnostics<S> d{
        .inner_rank = change.rank(),
        .numerical_rank = rank_above_ratio(
            s, 8 * eps * std::sqrt(static_cast<double>(std::max({change.rows(), change.cols(), index{1}})))),
        .rank_for_90 = rank_from_energy(s, 0.9),
        .rank_for_99 = rank_from_energy(s, 0.99),
        .effective_rank = effective_rank(s),
        .stable_rank = stable_rank(s),
        .norm = spec.norm()};
    d.values = std::move(spec);
    return d;
}

namespace detail {

/// The directions on one side of a change, as many as its numerical rank.
template <real S>
matrix<S> directions_used(const change_diagnostics<S>& d, direction_side side) {
    return columns_of(side == direction_side::inputs ? d.values.v : d.values.u, 0, d.numerical_rank);
}

}  // namespace detail

template <real S>
result<matrix<double>> adapter_similarity(const low_rank<S>& a, const low_rank<S>& b, direction_side side) {
    const auto x = diagnose(a);
    const auto y = diagnose(b);
    if (!x || !y) {
        return x ? y.error() : x.error();
    }
    return subspace_similarities(detail::directions_used(*x, side), detail::directions_used(*y, side));
}

template <real S>
result<matrix<double>> weight_similarity(const low_rank<S>& change, const decomposition<S>& w, direction_side side) {
    const auto d = diagnose(change);
    if (!d) {
        return d.error();
    }
    return subspace_similarities(detail::directions_used(*d, side), side == direction_side::inputs ? w.v : w.u);
}

namespace detail {

template <real S>
amplification_result amplification_of(const low_rank<S>& change,
                                      const std::function<matrix<S>(const matrix<S>&)>& times, index r,
                                      std::uint64_t seed) {
    const auto d = diagnose(change);
    if (!d) {
        return {{.why = d.error()}};
    }
    expects_in_range("amplification", "r", r, index{0}, d->values.size());
    amplification_result out;
    out.change_norm = d->norm;
    out.r = r > 0 ? r : d->numerical_rank;
    const auto seen = [&](const matrix<S>& u, const matrix<S>& v) { return norm_of(product(transposed(u), times(v))); };
    out.projected = seen(columns_of(d->values.u, 0, out.r), columns_of(d->values.v, 0, out.r));
    out.factor = out.projected > 0 ? out.change_norm / out.projected : 0.0;
    matrix<S> u(change.rows(), out.r);
    matrix<S> v(change.cols(), out.r);
    fill_normal(u, S(1), philox(seed, 0));
    fill_normal(v, S(1), philox(seed, 1));
    orthonormalize(u);
    orthonormalize(v);
    out.of_random = seen(u, v);
    return out;
}

}  // namespace detail

template <real S>
amplification_result amplification(const low_rank<S>& change, const decomposition<S>& w, index r, std::uint64_t seed) {
    auto out = amplification(change, w.truncate(w.size()), r, seed);
    if (out) {
        out.of_weight_top = norm_of(head_in<S>(w.s, std::min(out.r, w.size())));
    }
    return out;
}

template <real S>
std::vector<intruder> find_intruders(const decomposition<S>& w, const decomposition<S>& merged,
                                     const intruder_options& options) {
    detail::expects_shape("find_intruders", "merged", merged.rows(), merged.cols(), w.rows(), w.cols());
    detail::expects(options.top >= 0, "find_intruders: top must not be negative");
    std::vector<intruder> found;
    const index top = std::min(options.top, merged.size());
    const matrix<S> overlap = product(transposed(w.u), columns_of(merged.u, 0, top));
    for (index i = 0; i < top; ++i) {
        const auto cosine = static_cast<double>(max_abs(dense_view<const S>(overlap).middle_cols(i, 1)));
        if (cosine < options.epsilon) {
            found.push_back({.position = i, .cosine = cosine});
        }
    }
    return found;
}

template <real S>
reduced_change<S> reduce_intruders(const low_rank<S>& change, const decomposition<S>& merged,
                                   std::span<const intruder> found, double lambda) {
    detail::expects_in_range("reduce_intruders", "lambda", lambda, 0.0, 1.0);
    reduced_change<S> reduced;
    if (found.empty()) {
        reduced.product = change;
        return reduced;
    }
    std::vector<index> positions;
    for (const auto& one : found) {
        positions.push_back(one.position);
    }
    const low_rank<S> grown = add(change, merged.select(positions), S(1), static_cast<S>(lambda - 1));
    const auto small = resize(grown, std::min({change.rank(), change.rows(), change.cols()}));
    reduced.why = small.why;
    if (small) {
        reduced.product = small.product(sigma_split::square);
        reduced.error = small.error;
    }
    return reduced;
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_DIAGNOSTICS_OF(S)                                                                                      \
    template result<change_diagnostics<S>> diagnose<S>(const low_rank<S>&);                                            \
    template result<matrix<double>> adapter_similarity<S>(const low_rank<S>&, const low_rank<S>&, direction_side);     \
    template result<matrix<double>> weight_similarity<S>(const low_rank<S>&, const decomposition<S>&, direction_side); \
    template amplification_result detail::amplification_of<S>(                                                         \
        const low_rank<S>&, const std::function<matrix<S>(const matrix<S>&)>&, index, std::uint64_t);                  \
    template amplification_result amplification<S>(const low_rank<S>&, const decomposition<S>&, index, std::uint64_t); \
    template std::vector<intruder> find_intruders<S>(const decomposition<S>&, const decomposition<S>&,                 \
                                                     const intruder_options&);                                         \
    template reduced_change<S> reduce_intruders<S>(const low_rank<S>&, const decomposition<S>&,                        \
                                                   std::span<const intruder>, double);
LOWRANK_DIAGNOSTICS_OF(float)
LOWRANK_DIAGNOSTICS_OF(double)
#undef LOWRANK_DIAGNOSTICS_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_DIAGNOSTICS_IPP
