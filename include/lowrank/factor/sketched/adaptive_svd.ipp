// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_SKETCHED_ADAPTIVE_SVD_IPP
#define LOWRANK_FACTOR_SKETCHED_ADAPTIVE_SVD_IPP

#include <lowrank/factor/sketched/adaptive_svd.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/factor/sketched/detail/krylov_space.hpp>
#include <lowrank/factor/sketched/detail/projected_svd.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
decomposition<S> detail::adaptive_svd_of(sketched_operator<S> a, const adaptive_svd_options& options) {
    expects(options.tolerance >= 0.0 && options.block >= 1 && options.error_samples >= 1,
            "adaptive_svd: tolerance must not be negative, block and error_samples at least 1");
    const index full = std::min(a.rows(), a.cols());
    const index limit = options.max_rank < 0 ? full : std::min(options.max_rank, full);
    const bool dense = a.has_weight();
    const double of_weight = dense ? a.norm() : 0.0;
    const double digits =
        1e4 * std::max(double{std::numeric_limits<S>::epsilon()}, rounding_of_values<double>(1, of_weight));

    // Beyond `limit` the space still grows by half to make the kept part accurate.
    const index capacity = std::min(full, limit + std::max(limit / 2, 2 * options.block));
    krylov_space<S> space("adaptive_svd", a, capacity, options.seed);
    status why = space.start(options.block, options.error_samples);
    double wanted = options.tolerance;
    for (;; why = space.grow()) {
        if (!why) {
            return why;
        }
        // Squares relative to ||A||_F^2, which neither overflow nor underflow.
        const double captured = norm_of(space.w()), sampled = space.sampled_rest();
        const double norm = dense ? of_weight * a.unit() : std::hypot(captured, sampled);
        const auto share = [&](double x) { return norm > 0.0 ? (x / norm) * (x / norm) : 0.0; };
        double rest = norm > 0.0 ? 1.0 - share(captured) : 0.0;
        if (!dense || !(rest > digits)) {
            rest = share(sampled);  // the difference has no digits left
        }
        const bool end = space.exhausted() || space.dimension() == capacity;
        if (!end && rest > wanted * wanted) {
            continue;
        }
        auto out = svd_within<S>("adaptive_svd", copy_in<S>(space.q()), copy_in<S>(space.w()), space.dimension());
        if (!out) {
            return out;
        }
        index k = out.s.size();
        for (double tail = rest; k > 0; --k) {
            tail += share(static_cast<double>(out.s(k - 1)));
            if (tail > wanted * wanted) {
                break;
            }
        }
        k = std::min(k, limit);
        out = a.finished("adaptive_svd", out.leading(k), space.samples());
        if (!out || end || k == limit || !dense || out.error.relative <= options.tolerance) {
            return out;
        }
        wanted *= 0.9;  // the estimate was a little low
    }
}

#ifdef LOWRANK_COMPILED
template decomposition<float> detail::adaptive_svd_of(sketched_operator<float>, const adaptive_svd_options&);
template decomposition<double> detail::adaptive_svd_of(sketched_operator<double>, const adaptive_svd_options&);
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_SKETCHED_ADAPTIVE_SVD_IPP
