// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_SYMMETRIC_EIGEN_HPP
#define LOWRANK_FACTOR_SYMMETRIC_EIGEN_HPP

/// \file
/// Eigenvalues and eigenvectors of a symmetric matrix, largest first: G = V diag(lambda) V^T.
///
///     auto e = lowrank::symmetric_eigen(gram);         // float or double in, computed in double
///     if (!e) return log(e.why.message);
///
/// Reduction to tridiagonal form, divide and conquer, and the way back by blocks of reflections. The one place that
/// instantiates an eigensolver. Everything that needs one (SVD, weightings, low-rank cores) comes here with a plain
/// `matrix<double>`, so a program compiles it once.

#include <algorithm>
#include <utility>

#include <Eigen/Core>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/detail/divide_and_conquer.hpp>
#include <lowrank/factor/detail/tridiagonal.hpp>
#include <lowrank/factor/orthonormalize.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Eigenvalues in descending order, and the orthonormal eigenvectors in the columns of `vectors`. Both are empty on
/// failure; `vectors` also when only the values were asked for.
struct symmetric_eigen_result {
    vector<double> values = {};
    matrix<double> vectors = {};
    status why = {};

    explicit operator bool() const noexcept { return static_cast<bool>(why); }
};

namespace detail {

template <real S>
[[nodiscard]] symmetric_eigen_result symmetric_eigen_of(const matrix<S>& a, bool want_vectors) {
    symmetric_eigen_result out;
    const index n = a.rows();
    if (n == 0) {
        return out;
    }
    // Of magnitude one, so that no square overflows or underflows.
    S largest = S(0);
    for (index j = 0; j < n; ++j) {
        largest = std::max(largest, a.col(j).tail(n - j).cwiseAbs().maxCoeff());
    }
    const S unit = power_of_two_scale(largest);
    matrix<S> reduced = a * unit;
    tridiagonal_form<S> t = tridiagonalize(reduced);
    vector<S> d = t.diagonal;
    vector<S> e = t.off;
    matrix<S> q;
    bool done = false;
    if (want_vectors) {
        done = divide_and_conquer<S>(d, e, q).run();
        if (!done) {  // slower by an order, but the more patient method
            d = t.diagonal;
            e = t.off;
            q.setIdentity(n, n);
            done = ql_iteration<S>(d, e, 0, n, &q);
            sort_columns<S>(d, q, 0, n);
        }
    } else {
        done = ql_iteration<S>(d, e, 0, n, nullptr);
        std::sort(d.data(), d.data() + n);
    }
    if (!done) {
        out.why = {errc::no_convergence,
                   "symmetric_eigen: the QL iteration used up its limit; scale the matrix or perturb it slightly"};
        return out;
    }
    out.values = d.reverse() / unit;
    if (want_vectors) {
        apply_reflections(reduced, t.scale, q);
        out.vectors = q.rowwise().reverse();
    }
    return out;
}

}  // namespace detail

/// G = V diag(lambda) V^T for a symmetric G, of which only the lower triangle is read.
///
/// \pre    G is square.
/// \return `non_finite` if the lower triangle holds NaN or infinity; `no_convergence` if the iteration does not end.
///         Values are within a few eps of the largest magnitude, vectors orthonormal to about eps sqrt(n).
/// \cost   At most 5 n^3 flops, 4/3 n^3 for values only; four n x n matrices of double, two for values only.
/// \note   Bit-equal for one binary and CPU.
template <real S>
[[nodiscard]] symmetric_eigen_result symmetric_eigen(const matrix<S>& g, bool want_vectors = true) {
    detail::expects_shape("symmetric_eigen", "g", g.rows(), g.cols(), g.rows(), g.rows());
    matrix<double> a = matrix<double>::Zero(g.rows(), g.rows());
    a.template triangularView<Eigen::Lower>() = g.template cast<double>();
    if (!all_finite(a)) {
        return {.why = {errc::non_finite, "symmetric_eigen: the matrix holds NaN or infinity"}};
    }
    return detail::symmetric_eigen_of<double>(a, want_vectors);
}

#ifdef LOWRANK_EXTERN_TEMPLATES
extern template symmetric_eigen_result detail::symmetric_eigen_of<double>(const matrix<double>&, bool);
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_SYMMETRIC_EIGEN_HPP
