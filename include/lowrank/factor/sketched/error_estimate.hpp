// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_SKETCHED_ERROR_ESTIMATE_HPP
#define LOWRANK_FACTOR_SKETCHED_ERROR_ESTIMATE_HPP

/// \file
/// How far off a factorization is, from a few random products: the spectral norm of the rest with its confidence, and
/// the leave-one-out error of a sketch.
///
///     auto e = lowrank::spectral_norm(lowrank::residual(w, f), {.samples = 10});
///     std::printf("between %g and %g, sure to %g\n", e.lower, e.upper, e.confidence);
///
/// Halko, Martinsson, Tropp, SIAM Review 53 (2011), Lemma 4.1; Dixon, SIAM J. Numer. Anal. 20 (1983), for the powers.
/// Epperly, Tropp, SIAM J. Sci. Comput. 46 (2024), for leaving one out.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numbers>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/orthonormalize.hpp>
#include <lowrank/factor/sketched/randomized_svd.hpp>
#include <lowrank/factor/sketched/sketch.hpp>
#include <lowrank/factor/truncated_svd.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A - U diag(s) V^T as a linear operator, never formed. The weight must outlive it; the factors are copied.
template <operator_like M>
[[nodiscard]] operator_sum<operator_scalar<M>> residual(const M& m, const truncated_svd_result<operator_scalar<M>>& f) {
    using S = operator_scalar<M>;
    return operator_sum<S>({{any_operator<S>(as_operator(m)), S(1)}, {any_operator<S>(f.product()), S(-1)}});
}

struct spectral_norm_options {
    index samples = 10;        ///< Random directions r: the upper bound fails with probability 2^-r.
    int power_iterations = 3;  ///< q: each tightens both bounds and costs two products with `samples` columns.
    std::uint64_t seed = 0;    ///< Same seed, same directions.
};

/// lower <= ||E||_2 always (to rounding), ||E||_2 <= upper with probability `confidence`.
struct spectral_norm_result {
    double lower = 0.0;
    double upper = 0.0;
    double confidence = 0.0;
    status why = {};

    explicit operator bool() const noexcept { return static_cast<bool>(why); }
};

/// Bounds on ||E||_2 for any linear operator, from r Gaussian directions w and q powers:
/// ||E|| <= (2 sqrt(2 / pi) max_i ||(E E^T)^q E w_i||)^(1 / (2 q + 1)) with probability 1 - 2^-r.
///
/// \pre    samples >= 1, power_iterations >= 0.
/// \return `non_finite` if a product holds NaN or infinity.
/// \cost   2 q + 1 products with r columns, and one more.
template <operator_like M>
[[nodiscard]] spectral_norm_result spectral_norm(const M& m, const spectral_norm_options& options = {}) {
    using S = operator_scalar<M>;
    const auto& e = as_operator(m);
    detail::expects(options.samples >= 1 && options.power_iterations >= 0,
                    "spectral_norm: needs at least one sample and no negative power");
    spectral_norm_result out{.confidence = 1.0 - std::exp2(-static_cast<double>(options.samples))};
    if (e.rows() == 0 || e.cols() == 0) {
        return out;
    }
    workspace ws;
    matrix<S> x = gaussian_sketch<S>(e.cols(), options.samples, philox(options.seed));
    matrix<S> y;
    vector<double> log_size = vector<double>::Zero(options.samples);  // ln ||.|| of each direction so far
    const auto normalize = [&](matrix<S>& z) {
        for (index j = 0; j < z.cols(); ++j) {
            const S size = z.col(j).stableNorm();
            if (size > S(0)) {
                log_size(j) += std::log(static_cast<double>(size));
                z.col(j) /= size;
            } else {
                log_size(j) = -std::numeric_limits<double>::infinity();
            }
        }
    };
    // Directions stay Gaussian in the first product; from then on they are kept at length one.
    for (int half_step = 0; half_step <= 2 * options.power_iterations; ++half_step) {
        detail::product_into(e, x, y, half_step % 2 == 1, ws);
        if (!all_finite(y)) {
            out.why = detail::non_finite_operator("spectral_norm");
            return out;
        }
        if (half_step > 0) {
            // x has length one, so the growth is a Rayleigh quotient.
            for (index j = 0; j < y.cols(); ++j) {
                out.lower = std::max(out.lower, static_cast<double>(y.col(j).stableNorm()));
            }
        }
        normalize(y);
        x.swap(y);
    }
    detail::product_into(e, x, y, true, ws);  // the number of steps is odd, so this is E^T
    for (index j = 0; j < y.cols(); ++j) {
        out.lower = std::max(out.lower, static_cast<double>(y.col(j).stableNorm()));
    }
    const double most = log_size.maxCoeff();
    if (most > -std::numeric_limits<double>::infinity()) {
        const double constant = std::log(2.0 * std::sqrt(2.0 / std::numbers::pi));
        out.upper = std::max(out.lower, std::exp((most + constant) / (2.0 * options.power_iterations + 1.0)));
    }
    return out;
}

/// The leave-one-out error of a sketch Y = A Omega (Omega with independent columns of identity covariance): an unbiased
/// estimate of E ||A - Q Q^T A||_F^2 for a sketch of one column less, square root taken; no product with A needed.
///
/// Each column is predicted from the others; what they miss of column i has length 1 / sqrt((Y^T Y)^-1_ii).
/// \pre    Y is finite, and has at most as many columns as rows. 0 for dependent columns: the range is found.
/// \cost   2 m w^2 flops in double.
template <real S>
[[nodiscard]] double leave_one_out_error(const matrix<S>& y) {
    detail::expects(y.cols() <= y.rows(), "leave_one_out_error: more columns than rows");
    const index w = y.cols();
    if (w == 0) {
        return 0.0;
    }
    const double unit = static_cast<double>(y.cwiseAbs().maxCoeff());
    if (!(unit > 0.0)) {
        return 0.0;
    }
    const matrix<double> r = triangular_factor<double>(y.template cast<double>() / unit);
    if (!(r.diagonal().cwiseAbs().minCoeff() > std::numeric_limits<double>::epsilon() * r.norm())) {
        return 0.0;
    }
    const matrix<double> inverse = r.triangularView<Eigen::Upper>().solve(matrix<double>::Identity(w, w));
    // Rows of R^-1 have the squared lengths (Y^T Y)^-1_ii.
    const double mean = inverse.rowwise().squaredNorm().cwiseInverse().mean();
    return unit * std::sqrt(mean);
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_SKETCHED_ERROR_ESTIMATE_HPP
