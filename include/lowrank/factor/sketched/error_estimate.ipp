// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_SKETCHED_ERROR_ESTIMATE_IPP
#define LOWRANK_FACTOR_SKETCHED_ERROR_ESTIMATE_IPP

#include <lowrank/factor/sketched/error_estimate.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/factor/orthonormalize.hpp>
#include <lowrank/factor/sketched/sketch.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// ||y_j|| of each column.
template <real S>
[[nodiscard]] vector<double> column_norms(const matrix<S>& y) {
    vector<double> norms(y.cols());
    for (index j = 0; j < y.cols(); ++j) {
        norms(j) = norm_of(y.col(j));
    }
    return norms;
}

}  // namespace detail

template <real S>
spectral_norm_result detail::spectral_norm_of(sketched_operator<S> e, const spectral_norm_options& options) {
    expects(options.samples >= 1 && options.power_iterations >= 0,
            "spectral_norm: needs at least one sample and no negative power");
    spectral_norm_result out;
    out.confidence = 1.0 - std::exp2(-static_cast<double>(options.samples));
    if (e.rows() == 0 || e.cols() == 0) {
        return out;
    }
    matrix<S> x = gaussian_sketch<S>(e.cols(), options.samples, philox(options.seed));
    vector<double> log_size;  // ln ||.|| of each direction so far
    log_size.setZero(options.samples);
    // Directions stay Gaussian in the first product; from then on they are kept at length one, so that the growth is
    // a Rayleigh quotient.
    for (int half_step = 0; half_step <= 2 * options.power_iterations; ++half_step) {
        matrix<S> y = half_step % 2 == 1 ? e.transposed_times(x) : e.times(x);
        if (!all_finite(y)) {
            out.why = non_finite_operator("spectral_norm");
            return out;
        }
        const vector<double> norms = column_norms(y);
        for (index j = 0; j < y.cols(); ++j) {
            if (half_step > 0) {
                out.lower = std::max(out.lower, norms(j));
            }
            log_size(j) += std::log(norms(j));  // ln 0 = -inf stays
            for (index i = 0; norms(j) > 0.0 && i < y.rows(); ++i) {
                y(i, j) = static_cast<S>(static_cast<double>(y(i, j)) / norms(j));
            }
        }
        x.swap(y);
    }
    const vector<double> norms = column_norms(e.transposed_times(x));  // the number of steps is odd
    double largest = log_size(0);
    for (index j = 0; j < norms.size(); ++j) {
        out.lower = std::max(out.lower, norms(j));
        largest = std::max(largest, log_size(j));
    }
    if (largest > -std::numeric_limits<double>::infinity()) {
        const double constant = std::log(2.0 * std::sqrt(2.0 / std::numbers::pi));
        out.upper = std::max(out.lower, std::exp((largest + constant) / (2.0 * options.power_iterations + 1.0)));
    }
    out.lower /= e.unit();
    out.upper /= e.unit();
    return out;
}

template <real S>
double leave_one_out_error(const matrix<S>& y) {
    detail::expects(y.cols() <= y.rows(), "leave_one_out_error: more columns than rows");
    const index w = y.cols();
    const double unit = static_cast<double>(max_abs(y));
    if (!(unit > 0.0)) {
        return 0.0;
    }
    matrix<double> scaled = copy_in<double>(y);
    scaled /= unit;
    const matrix<double> r = triangular_factor<double>(std::move(scaled));
    const double floor = std::numeric_limits<double>::epsilon() * norm_of(r);
    for (index i = 0; i < w; ++i) {
        if (!(std::abs(r(i, i)) > floor)) {
            return 0.0;
        }
    }
    matrix<double> inverse;
    inverse.setIdentity(w, w);
    solve_left_upper(r, inverse);
    // Rows of R^-1 have the squared lengths (Y^T Y)^-1_ii.
    const vector<double> squares = column_squares(transposed(inverse));
    double sum = 0.0;
    for (const double x : squares) {
        sum += 1.0 / x;
    }
    return unit * std::sqrt(sum / static_cast<double>(w));
}

#ifdef LOWRANK_COMPILED
template spectral_norm_result detail::spectral_norm_of(sketched_operator<float>, const spectral_norm_options&);
template spectral_norm_result detail::spectral_norm_of(sketched_operator<double>, const spectral_norm_options&);
template double leave_one_out_error(const matrix<float>&);
template double leave_one_out_error(const matrix<double>&);
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_SKETCHED_ERROR_ESTIMATE_IPP
