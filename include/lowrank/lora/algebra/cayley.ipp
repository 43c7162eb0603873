// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_ALGEBRA_CAYLEY_IPP
#define LOWRANK_LORA_ALGEBRA_CAYLEY_IPP

#include <lowrank/lora/algebra/cayley.hpp>

#include <cstddef>
#include <limits>
#include <vector>

#include <lowrank/core/dense.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// I + factor Q, or I + factor Q^T.
LOWRANK_API matrix<double> identity_plus(double factor, const dense_view<const double>& q) {
    matrix<double> sum(q.rows(), q.cols());
    for (index j = 0; j < q.cols(); ++j) {
        for (index i = 0; i < q.rows(); ++i) {
            sum(i, j) = (i == j ? 1.0 : 0.0) + factor * q(i, j);
        }
    }
    return sum;
}

/// A^-1 B. NaN where A is singular, which I - Q never is for a finite skew-symmetric Q.
LOWRANK_API matrix<double> solved(matrix<double> a, matrix<double> b) {
    if (!solve(a, b)) {
        b.setConstant(std::numeric_limits<double>::quiet_NaN());
    }
    return b;
}

/// Coefficients of the truncated series, lowest power first.
LOWRANK_API std::vector<double> neumann_coefficients(index terms) {
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
LOWRANK_API std::vector<matrix<double>> horner(const matrix<double>& q, const std::vector<double>& c) {
    std::vector<matrix<double>> h(c.size());
    for (std::size_t k = c.size(); k-- > 0;) {
        h[k].setZero(q.rows(), q.cols());
        for (index i = 0; i < q.rows(); ++i) {
            h[k](i, i) = c[k];
        }
        if (k + 1 < c.size()) {
            add_product(1.0, q, h[k + 1], h[k]);
        }
    }
    return h;
}

}  // namespace detail

LOWRANK_BODY matrix<double> cayley(const matrix<double>& q) {
    return detail::solved(detail::identity_plus(-1.0, q), detail::identity_plus(1.0, q));
}

LOWRANK_BODY matrix<double> cayley_backward(const matrix<double>& q, const matrix<double>& c,
                                            const matrix<double>& dc) {
    const matrix<double> d = detail::solved(detail::identity_plus(-1.0, transposed(q)), dc);
    matrix<double> dq = d;
    add_product(1.0, d, transposed(c), dq);
    return dq;
}

LOWRANK_BODY matrix<double> cayley_neumann(const matrix<double>& q, index terms) {
    return detail::horner(q, detail::neumann_coefficients(terms)).front();
}

LOWRANK_BODY matrix<double> cayley_neumann_backward(const matrix<double>& q, index terms, const matrix<double>& dr) {
    const auto h = detail::horner(q, detail::neumann_coefficients(terms));
    matrix<double> dq;
    dq.setZero(q.rows(), q.cols());
    matrix<double> dh = dr;
    for (std::size_t k = 0; k + 1 < h.size(); ++k) {
        add_product(1.0, dh, transposed(h[k + 1]), dq);
        dh = product(transposed(q), dh);
    }
    return dq;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_ALGEBRA_CAYLEY_IPP
