// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_ERROR_EVIDENCE_HPP
#define LOWRANK_FACTOR_ERROR_EVIDENCE_HPP

/// \file
/// The error of an approximation, and how it is known.
///
///     const lowrank::error_evidence& e = lowrank::randomized_svd(w, 64).error;
///     log(e.relative, to_string(e.how));               // 0.127 "difference of norms"

#include <algorithm>
#include <cmath>
#include <limits>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// How an error is known.
enum class error_source {
    exact,       ///< The tail of the full spectrum.
    difference,  ///< sqrt(||A||_F^2 - ||s||^2) of a projection, which has the digits stated in `deviation`.
    residual,    ///< ||A - U diag(s) V^T||_F formed panel by panel.
    sampled,     ///< Estimated from random vectors the factorization has not seen.
};

/// The stable name of a source.
[[nodiscard]] inline const char* to_string(error_source how) noexcept {
    switch (how) {
        case error_source::exact: return "exact";
        case error_source::difference: return "difference of norms";
        case error_source::residual: return "residual";
        case error_source::sampled: return "sampled";
    }
    return "unknown";
}

/// ||A - A_k||_F and how it is known.
struct error_evidence {
    double frobenius = 0.0;  ///< ||A - A_k||_F.
    double relative = 0.0;   ///< The same over ||A||_F; 0 for A = 0.
    error_source how = error_source::exact;
    /// Relative uncertainty of `frobenius`: rounding for the computed kinds, at most one standard deviation for a
    /// sampled one.
    double deviation = 0.0;
};

namespace detail {

/// What rounding `count` singular values and their norm to S changes at most, relative to that norm: eps, and more
/// where they are near the smallest number there is.
template <real S>
[[nodiscard]] double rounding_of_values(index count, double norm) {
    using limits = std::numeric_limits<S>;
    const double smallest = std::sqrt(static_cast<double>(count + 1)) * double{limits::denorm_min()};
    return std::max(double{limits::epsilon()}, norm > 0.0 ? std::min(smallest / norm, 1.0) : 0.0);
}

}  // namespace detail

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_ERROR_EVIDENCE_HPP
