// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_SKETCHED_ADAPTIVE_SVD_HPP
#define LOWRANK_FACTOR_SKETCHED_ADAPTIVE_SVD_HPP

/// \file
/// The smallest truncated SVD whose error meets a tolerance, found without knowing the rank.
///
///     auto f = lowrank::adaptive_svd(w, {.tolerance = 0.1});             // ||W - W_k||_F <= 0.1 ||W||_F
///     auto g = lowrank::adaptive_svd(w, {.tolerance = lowrank::tolerance_for_energy(0.95)});
///     std::printf("rank %td\n", f.s.size());
///
/// A block at a time, Q grows and W = A^T Q with it; ||A||_F^2 - ||W||_F^2 is the squared error of A ~ Q W^T exactly,
/// at no cost. The blocks come from a Krylov space, so few more columns are computed than are kept.
///
/// Yu, Gu, Li, SIAM J. Matrix Anal. Appl. 39 (2018), randQB_EI.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/detail/krylov_space.hpp>
#include <lowrank/factor/sketched/randomized_svd.hpp>
#include <lowrank/factor/truncated_svd.hpp>

namespace lowrank::inline LOWRANK_ABI {

struct adaptive_svd_options {
    double tolerance = 0.1;    ///< ||A - A_k||_F <= tolerance ||A||_F.
    index max_rank = -1;       ///< Largest rank; negative: no limit. The result then says what error it has.
    index block = 32;          ///< Columns per product.
    std::uint64_t seed = 0;    ///< Same seed, same start, on every machine.
    index error_samples = 16;  ///< Columns held back: the error of a map without a weight, and of errors near rounding.
};

/// The tolerance at which a truncation keeps `share` of sum s^2: sqrt(1 - share). \pre 0 <= share <= 1
[[nodiscard]] inline double tolerance_for_energy(double share) {
    detail::expects_in_range("tolerance_for_energy", "share", share, 0.0, 1.0);
    return std::sqrt(1.0 - share);
}

/// The leading triplets of A, as many as ||A - A_k||_F <= tolerance ||A||_F needs.
///
/// For a dense weight the promise is checked against the weight itself before the result is returned; the rank is the
/// smallest within the space found, which may be one or two above the optimum. For another map the error is estimated
/// from held-back columns, and the promise holds up to the stated deviation.
/// \pre    tolerance >= 0, block >= 1.
/// \return `non_finite` if a product holds NaN or infinity. With `most` reached, the best of that rank and its error.
/// \cost   2 products with `block` columns for each `block` columns of the space, which ends a little above the rank.
/// \note   As `krylov_svd`.
template <operator_like M>
[[nodiscard]] truncated_svd_result<operator_scalar<M>> adaptive_svd(const M& m, const adaptive_svd_options& options,
                                                                    workspace& ws) {
    using S = operator_scalar<M>;
    const auto& a = as_operator(m);
    const index full = std::min<index>(a.rows(), a.cols());
    detail::expects(options.tolerance >= 0.0 && options.block >= 1 && options.error_samples >= 1,
                    "adaptive_svd: tolerance must not be negative, block and error_samples at least 1");
    const index limit = options.max_rank < 0 ? full : std::min(options.max_rank, full);
    constexpr bool dense = detail::dense_weight<M> || detail::operator_with_weight<M>;
    double norm2 = 0.0;
    if constexpr (detail::dense_weight<M>) {
        norm2 = std::pow(detail::dense_norm(m), 2);
    } else if constexpr (detail::operator_with_weight<M>) {
        norm2 = std::pow(detail::dense_norm(m.weight()), 2);
    }

    // Beyond `limit` the space still grows by half to make the kept part accurate.
    const index capacity = std::min(full, limit + std::max(limit / 2, 2 * options.block));
    detail::krylov_space<S> space(a.rows(), a.cols(), capacity, options.seed);
    status why = space.start(a, options.block, options.error_samples, ws);
    double wanted = options.tolerance;
    for (;; why = space.grow(a, ws)) {
        if (!why) {
            return {.why = std::move(why)};
        }
        const double captured = space.w().template cast<double>().squaredNorm();
        const double sampled = space.sampled_rest();
        if constexpr (!dense) {
            norm2 = captured + sampled;
        }
        double rest = norm2 - captured;
        if (!dense || !(rest > 1e4 * static_cast<double>(std::numeric_limits<S>::epsilon()) * norm2)) {
            rest = sampled;  // the difference has no digits left
        }
        const bool end = space.exhausted() || space.dimension() == capacity;
        if (!end && rest > wanted * wanted * norm2) {
            continue;
        }
        auto out = detail::svd_within<S>(matrix<S>(space.q()), matrix<S>(space.w()), space.dimension());
        if (!out) {
            return out;
        }
        index k = out.s.size();
        for (double tail = rest; k > 0; --k) {
            const double s = static_cast<double>(out.s(k - 1));
            tail += s * s;
            if (tail > wanted * wanted * norm2) {
                break;
            }
        }
        k = std::min(k, limit);
        out.u.conservativeResize(Eigen::NoChange, k);
        out.s.conservativeResize(k);
        out.v.conservativeResize(Eigen::NoChange, k);
        out.error = detail::evidence_for(m, space.samples(), out.u, out.s, out.v);
        if (end || k == limit || !dense || out.error.relative <= options.tolerance) {
            return out;
        }
        wanted *= 0.9;  // the estimate was a little low
    }
}

/// The same with scratch memory of its own.
template <operator_like M>
[[nodiscard]] truncated_svd_result<operator_scalar<M>> adaptive_svd(const M& m,
                                                                    const adaptive_svd_options& options = {}) {
    workspace ws;
    return adaptive_svd(m, options, ws);
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_SKETCHED_ADAPTIVE_SVD_HPP
