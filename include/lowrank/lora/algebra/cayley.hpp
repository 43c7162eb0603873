// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_ALGEBRA_CAYLEY_HPP
#define LOWRANK_LORA_ALGEBRA_CAYLEY_HPP

/// \file
/// Orthogonal matrices from skew-symmetric ones: the Cayley transform, its Neumann series, and both backwards.
///
///     const lowrank::vector<double> entries = lowrank::vector<double>::Constant(28, 0.1);
///     const auto q = lowrank::skew_from_upper(entries, 8);       // n (n - 1) / 2 entries, row by row
///     const lowrank::matrix<double> r = lowrank::cayley(q);      // (I - Q)^-1 (I + Q), orthogonal
///     const auto dq = lowrank::cayley_backward(q, r, lowrank::matrix<double>::Identity(8, 8));
///
/// The series with N terms is the one of PEFT: I + 2 Q + 2 Q^2 + ... + 2 Q^(N-2) + Q^(N-1), which for N = 3 has
/// the value of N = 4. Everything here is in double: blocks are small and are rounded once by who stores them.

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The n x n matrix Q = -Q^T whose strict upper triangle, row by row, is `entries`.
template <class D>
[[nodiscard]] matrix<double> skew_from_upper(const D& entries, index n) {
    detail::expects(entries.size() == n * (n - 1) / 2, "skew_from_upper: needs n (n - 1) / 2 entries");
    matrix<double> q;
    q.setZero(n, n);
    for (index i = 0, at = 0; i < n; ++i) {
        for (index j = i + 1; j < n; ++j, ++at) {
            q(i, j) = static_cast<double>(entries(at));
            q(j, i) = -q(i, j);
        }
    }
    return q;
}

/// The gradient of `entries` from that of Q: dQ_ij - dQ_ji for i < j.
[[nodiscard]] inline vector<double> skew_backward(const matrix<double>& dq) {
    const index n = dq.rows();
    vector<double> d(n * (n - 1) / 2);
    for (index i = 0, at = 0; i < n; ++i) {
        for (index j = i + 1; j < n; ++j, ++at) {
            d(at) = dq(i, j) - dq(j, i);
        }
    }
    return d;
}

/// C = (I - Q)^-1 (I + Q). Orthogonal for a skew-symmetric Q, and the identity, to the bit, for Q = 0.
LOWRANK_API [[nodiscard]] matrix<double> cayley(const matrix<double>& q);

/// dQ from dC: dQ = D (I + C^T) with D = (I - Q)^-T dC.
LOWRANK_API [[nodiscard]] matrix<double> cayley_backward(const matrix<double>& q, const matrix<double>& c,
                                                         const matrix<double>& dc);

/// The truncated series of (I + Q)(I - Q)^-1: orthogonal up to the terms left out. \pre terms >= 1
LOWRANK_API [[nodiscard]] matrix<double> cayley_neumann(const matrix<double>& q, index terms);

/// dQ from the gradient of `cayley_neumann(q, terms)`.
LOWRANK_API [[nodiscard]] matrix<double> cayley_neumann_backward(const matrix<double>& q, index terms,
                                                                 const matrix<double>& dr);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/algebra/cayley.ipp>
#endif

#endif  // LOWRANK_LORA_ALGEBRA_CAYLEY_HPP
