// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_FACTORED_ALGEBRA_HPP
#define LOWRANK_FACTOR_FACTORED_ALGEBRA_HPP

/// \file
/// Algebra on products of two factors: everything through QR and a small core, nothing ever m x n.
///
///     auto sum = lowrank::add(a, b, 0.5F, 0.5F);       // exact: factors side by side, rank ka + kb
///     auto small = lowrank::resize(sum, 16).product(); // best rank 16, as a dense SVD would give it
///     double cosine = lowrank::inner_product(a, b) / (lowrank::frobenius_norm(a) * lowrank::frobenius_norm(b));
///
/// With left = Q_l R_l and right^T = Q_r R_r, the singular values of left * right are those of the k x k matrix
/// R_l R_r^T, and its singular vectors are those of the core multiplied by Q_l and Q_r.

#include <span>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/decomposition.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/factor/svd.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// alpha A. \cost k min(m, n) multiplications; the product of the factors is scaled once.
template <real S>
[[nodiscard]] low_rank<S> scale(low_rank<S> a, S alpha) {
    detail::expects_factors("scale", a);
    (a.rows() <= a.cols() ? a.left : a.right) *= alpha;
    return a;
}

/// A^T.
template <real S>
[[nodiscard]] low_rank<S> transpose(const low_rank<S>& a);

/// sum_i weights_i A_i, exact, of rank sum k_i: the factors side by side. `resize` makes it small again.
/// \pre At least one term, all of one shape; as many weights as terms.
template <real S>
[[nodiscard]] low_rank<S> weighted_sum(std::span<const low_rank<S>> terms, std::span<const S> weights);

/// alpha A + beta B, exact, of rank ka + kb.
template <real S>
[[nodiscard]] low_rank<S> add(const low_rank<S>& a, const low_rank<S>& b, S alpha = S(1), S beta = S(1));

/// A B, exact, of rank min(ka, kb). \pre A.cols() == B.rows() \cost 2 n ka kb flops, then one factor product.
template <real S>
[[nodiscard]] low_rank<S> multiply(const low_rank<S>& a, const low_rank<S>& b);

/// <A, B> = trace(A^T B) in double, through the two k_a x k_b cores. \pre A and B have one shape.
/// \cost 2 (m + n) ka kb flops.
template <real S>
[[nodiscard]] double inner_product(const low_rank<S>& a, const low_rank<S>& b);

/// The thin SVD of left * right, min(m, n, k) triplets, without forming the product.
///
/// \return `non_finite` if a factor holds NaN or infinity; values are within a few eps of ||left|| ||right||, also
///         where they nearly cancel, for the core is formed in double.
/// \cost   6 k^2 (m + n) + 20 k^3 flops: for k = 64 and m = n = 4096 a thousand times less than the dense way.
template <real S>
[[nodiscard]] decomposition<S> svd(const low_rank<S>& a);

/// The best approximation of left * right of rank at most k.
///
/// \pre    0 <= k <= min(m, n)
/// \return As `svd` of a low_rank; `product(sigma_split::square)` has factors of equal norm. A rank above that of the
///         factors gives what there is, min(m, n, inner dimension).
/// \cost   6 r^2 (m + n) flops for the inner dimension r that A has now.
template <real S>
[[nodiscard]] decomposition<S> resize(const low_rank<S>& a, index k);

/// The smallest rank with ||A - A_k||_F <= tolerance ||A||_F: numerically exact recompression for a tolerance of a few
/// eps. \pre tolerance >= 0 \return, \cost As `resize`.
template <real S>
[[nodiscard]] decomposition<S> recompress(const low_rank<S>& a, double tolerance);

/// The same product with orthonormal columns on the left: left := Q, right := R right. The product is unchanged.
/// For k > m the inner dimension becomes m. \pre Factors are finite.
template <real S>
[[nodiscard]] low_rank<S> orthogonalize_left(const low_rank<S>& a);

/// The same product with orthonormal rows on the right: left := left R^T, right := Q^T. \pre Factors are finite.
template <real S>
[[nodiscard]] low_rank<S> orthogonalize_right(const low_rank<S>& a);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/factor/factored_algebra.ipp>
#endif

#endif  // LOWRANK_FACTOR_FACTORED_ALGEBRA_HPP
