// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_FACTORED_ALGEBRA_HPP
#define LOWRANK_FACTOR_FACTORED_ALGEBRA_HPP

/// \file
/// Algebra on products of two factors: everything through QR and a small core, nothing ever m x n.
///
///     auto sum = lowrank::add(a, b, 0.5F, 0.5F);       // exact: factors side by side, rank ka + kb
///     auto small = lowrank::resize(sum, 16);           // best rank 16, as a dense SVD would give it
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
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/factor/spectrum.hpp>
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
[[nodiscard]] svd_result<S> svd(const low_rank<S>& a);

/// The spectrum of left * right: every rank, rule and error of it, from one small decomposition.
/// \return As `svd` of a low_rank.
template <real S>
[[nodiscard]] result<spectrum<S>> make_spectrum(const low_rank<S>& a) {
    auto f = svd(a);
    if (!f) {
        return std::move(f.why);
    }
    return spectrum<S>(std::move(f));
}

/// A smaller product and what it loses.
template <real S>
struct resize_result : fallible {
    low_rank<S> product = {};
    double error = 0.0;     ///< ||A - product||_F.
    double relative = 0.0;  ///< The same over ||A||_F.
};

/// The best approximation of left * right of rank at most k, factors of equal norm unless asked otherwise.
///
/// \pre    k >= 0
/// \return As `svd` of a low_rank. A rank above that of the factors gives them at their own rank, min(m, n, k).
/// \cost   6 k^2 (m + n) flops for the rank k that A has now.
template <real S>
[[nodiscard]] resize_result<S> resize(const low_rank<S>& a, index k, sigma_split split = sigma_split::square);

/// The smallest rank with ||A - product||_F <= tolerance ||A||_F: numerically exact recompression for a tolerance of a
/// few eps. \pre tolerance >= 0
template <real S>
[[nodiscard]] resize_result<S> recompress(const low_rank<S>& a, double tolerance,
                                          sigma_split split = sigma_split::square);

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
