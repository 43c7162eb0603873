// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_SVD_HPP
#define LOWRANK_FACTOR_SVD_HPP

/// \file
/// The thin singular value decomposition W = U diag(s) V^T, accurate to working precision in float and double.
///
///     auto f = lowrank::svd(w);                        // any storage order, f16/bf16/f32/f64 storage
///     if (!f) return log(f.why.message);               // NaN in the weight
///     auto w8 = f.truncate(8);                         // its best rank 8, as two factors
///
/// How: the eigenvectors V0 of the Gram matrix, in double, turn A into B = A V0 with nearly orthogonal columns. For
/// float input B has all the digits that float can hold, and its normalized (where that is not safe: QR) columns are U.
/// For double input V0 is only a preconditioner: B = Q R, and one-sided Jacobi on R^T removes what squaring the
/// condition number lost. Every step is an orthogonal transformation of A itself, so no digit depends on the Gram
/// matrix. The Jacobi rotations are applied many at a time, as a product with the exponential of a small skew matrix.
///
/// Drmac, Veselic: New fast and accurate Jacobi SVD algorithm. SIAM J. Matrix Anal. Appl. 29 (2008).

#include <string>
#include <type_traits>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/decomposition.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The scalar the decomposition of a dense weight computes in.
template <detail::dense_expression W>
using weight_scalar = compute_t<typename std::remove_cvref_t<W>::Scalar>;

namespace detail {

/// Columns of b, orthogonal to `safe_ratio` accuracy where their norm is large, into orthonormal columns and norms.
/// Sorts; `follows` is permuted alike.
///
/// Columns whose norm is not above `vanishing` times the largest become any directions that complete the basis; so do
/// those that b lacks against `follows`, whose norm counts as zero.
template <real S>
void normalize_columns(matrix<S>& b, vector<S>& s, matrix<S>& follows, S safe_ratio, S vanishing = S(0));

/// The SVD of a finite matrix that is at least as tall as wide; u and v are empty unless wanted. `function` is named in
/// messages.
template <real S>
[[nodiscard]] decomposition<S> svd_of_tall(const char* function, matrix<S> a, bool want_vectors);

/// Makes the largest entry of each column of u positive, and turns v with it.
template <real S>
void fix_signs(matrix<S>& u, matrix<S>& v);

[[nodiscard]] inline status non_finite_matrix(const char* function) {
    return failed_in(function, errc::non_finite, "the matrix holds NaN or infinity; repair or exclude the weight");
}

[[nodiscard]] inline status value_beyond_range(const char* function) {
    return failed_in(function, errc::non_finite,
                     "the largest singular value exceeds the range of the scalar; scale the matrix down");
}

/// Any storage order and type, any shape.
template <real S, class W>
[[nodiscard]] decomposition<S> svd_of_dense(const char* function, const W& expression, bool want_vectors = true) {
    decltype(auto) w = evaluated(expression);
    if (!all_finite(w)) {
        return non_finite_matrix(function);
    }
    const bool tall = w.rows() >= w.cols();
    auto out = svd_of_tall<S>(function, tall ? copy_in<S>(w) : copy_in<S>(transposed(w)), want_vectors);
    if (!tall) {
        out.u.swap(out.v);
    }
    fix_signs(out.u, out.v);
    return out;
}

}  // namespace detail

/// W = U diag(s) V^T for a dense W (m x n) of any storage type and order, all of it: p = min(m, n) triplets.
///
/// \return `non_finite` if W holds NaN or infinity, or if s_1 does not fit the scalar or ||W||_F a double;
///         `no_convergence` if an iteration does not end. Residual and orthogonality are within 20 eps sqrt(max(m, n)),
///         singular values within 4 eps of those of W relative to the largest, at every scale, or within the smallest
///         number of the scalar. Empty matrices give empty factors.
/// \cost   With p = min(m, n), q = max(m, n): about 3 q p^2 + 5 p^3 flops in double for float input, 4 q p^2 more where
///         s_p < 3e-5 s_1; three to four times that for double input.
/// \note   Bit-equal for one binary and CPU. Where two entries of a column of U tie for the largest magnitude, or
///         singular values coincide, rounding decides.
template <detail::dense_expression W>
[[nodiscard]] decomposition<weight_scalar<W>> svd(const W& w) {
    return detail::svd_of_dense<weight_scalar<W>>("svd", w);
}

/// The singular values of W alone, descending: those of `svd` to within 4 eps of the largest.
///
/// \return As `svd`.
/// \cost   With p = min(m, n), q = max(m, n): q p^2 + 4/3 p^3 flops in double for float input. Double input needs a
///         basis to keep its digits: half of what `svd` costs.
/// \note   Bit-equal for one binary and CPU.
template <detail::dense_expression W>
[[nodiscard]] result<vector<weight_scalar<W>>> singular_values(const W& w) {
    using S = weight_scalar<W>;
    auto f = detail::svd_of_dense<S>("singular_values", w, false);
    if (!f) {
        return std::move(f.why);
    }
    return std::move(f.s);
}

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/factor/svd.ipp>
#endif

#endif  // LOWRANK_FACTOR_SVD_HPP
