// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_ALGEBRA_CAYLEY_HPP
#define LOWRANK_LORA_ALGEBRA_CAYLEY_HPP

/// \file
/// Orthogonal matrices from skew-symmetric ones: the Cayley transform, its Neumann series, and both backwards.
///
///     const auto q = lowrank::skew_from_upper(entries, 8);       // n (n - 1) / 2 entries, row by row
///     const auto r = lowrank::cayley(q);                         // (I - Q)^-1 (I + Q), orthogonal
///     const auto dq = lowrank::cayley_backward(q, r, dr);
///
/// The series with N terms is the one of PEFT's OFT: I + 2 Q + 2 Q^2 + ... + 2 Q^(N-2) + Q^(N-1), which for N = 3 has
/// the value of N = 4. Everything here is in double: blocks are small and are rounded once by who stores them.

#include <concepts>
#include <vector>

#include <Eigen/LU>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The n x n matrix Q = -Q^T whose strict upper triangle, row by row, is `entries`.
template <class D>
[[nodiscard]] matrix<double> skew_from_upper(const D& entries, index n) {
    detail::expects(entries.size() == n * (n - 1) / 2, "skew_from_upper: needs n (n - 1) / 2 entries");
    matrix<double> q = matrix<double>::Zero(n, n);
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
template <std::same_as<double> S = double>
[[nodiscard]] matrix<S> cayley(const detail::only_matrix<S>& q) {
    const matrix<S> id = matrix<S>::Identity(q.rows(), q.cols());
    return (id - q).partialPivLu().solve(id + q);
}

/// dQ from dC: dQ = D (I + C^T) with D = (I - Q)^-T dC.
template <std::same_as<double> S = double>
[[nodiscard]] matrix<S> cayley_backward(const detail::only_matrix<S>& q, const detail::only_matrix<S>& c,
                                        const detail::only_matrix<S>& dc) {
    const matrix<S> a = (matrix<S>::Identity(q.rows(), q.cols()) - q).transpose();
    const matrix<S> d = a.partialPivLu().solve(dc);
    return d + d * c.transpose();
}

namespace detail {

/// Coefficients of the truncated series, lowest power first.
[[nodiscard]] inline std::vector<double> neumann_coefficients(index terms) {
    expects(terms >= 1, "cayley_neumann: needs at least one term");
    if (terms <= 2) {
        return terms == 1 ? std::vector<double>{1} : std::vector<double>{1, 2};
    }
    std::vector<double> c(static_cast<std::size_t>(terms < 4 ? 4 : terms), 2.0);
    c.front() = 1;
    c.back() = 1;
    return c;
}

/// The values of Horner's scheme: h[k] = c_k I + Q h[k + 1]; h[0] is the polynomial.
template <std::same_as<double> S = double>
[[nodiscard]] std::vector<matrix<S>> horner(const only_matrix<S>& q, const std::vector<double>& c) {
    std::vector<matrix<S>> h(c.size());
    for (std::size_t k = c.size(); k-- > 0;) {
        h[k] = c[k] * matrix<S>::Identity(q.rows(), q.cols());
        if (k + 1 < c.size()) {
            h[k] += q * h[k + 1];
        }
    }
    return h;
}

}  // namespace detail

/// The truncated series of (I + Q)(I - Q)^-1: orthogonal up to the terms left out.
template <std::same_as<double> S = double>
[[nodiscard]] matrix<S> cayley_neumann(const detail::only_matrix<S>& q, index terms) {
    return detail::horner<S>(q, detail::neumann_coefficients(terms)).front();
}

/// dQ from the gradient of `cayley_neumann(q, terms)`.
template <std::same_as<double> S = double>
[[nodiscard]] matrix<S> cayley_neumann_backward(const detail::only_matrix<S>& q, index terms,
                                                const detail::only_matrix<S>& dr) {
    const auto h = detail::horner<S>(q, detail::neumann_coefficients(terms));
    matrix<S> dq = matrix<S>::Zero(q.rows(), q.cols());
    matrix<S> dh = dr;
    for (std::size_t k = 0; k + 1 < h.size(); ++k) {
        dq += dh * h[k + 1].transpose();
        dh = q.transpose() * dh;
    }
    return dq;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_ALGEBRA_CAYLEY_HPP
