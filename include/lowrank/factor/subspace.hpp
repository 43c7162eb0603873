// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_SUBSPACE_HPP
#define LOWRANK_FACTOR_SUBSPACE_HPP

/// \file
/// How close two subspaces are: principal angles, and the similarity phi of the LoRA paper.
///
///     auto angles = lowrank::principal_angles(a.left, b.left);              // radians, ascending
///     double phi = lowrank::subspace_similarity(a_svd.v, b_svd.v, 8, 16);   // in [0, 1]
///
/// Bjorck, Golub, Math. Comp. 27 (1973). Knyazev, Argentati, SIAM J. Sci. Comput. 23 (2002), for angles that are small.
/// Hu et al., LoRA, arXiv 2106.09685, section 7.2.

#include <algorithm>
#include <cmath>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/orthonormalize.hpp>
#include <lowrank/factor/svd.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// phi(U, V, i, j) = ||U_i^T V_j||_F^2 / min(i, j) for the first i columns of U and the first j of V: 1 if one space
/// contains the other, 0 if they are orthogonal, max(i, j) / n on average for random ones.
///
/// \pre  U and V have orthonormal columns of one length; 1 <= i <= U.cols(), 1 <= j <= V.cols().
/// \cost 2 n i j flops.
template <real S>
[[nodiscard]] double subspace_similarity(const matrix<S>& u, const matrix<S>& v, index i, index j) {
    detail::expects_shape("subspace_similarity", "v", v.rows(), v.cols(), u.rows(), v.cols());
    detail::expects_in_range("subspace_similarity", "i", i, index{1}, u.cols());
    detail::expects_in_range("subspace_similarity", "j", j, index{1}, v.cols());
    const matrix<double> overlap =
        u.leftCols(i).template cast<double>().transpose() * v.leftCols(j).template cast<double>();
    return overlap.squaredNorm() / static_cast<double>(std::min(i, j));
}

/// phi(U, V, i, j) for every i <= U.cols() and j <= V.cols() at once: entry (i - 1, j - 1), the heat map of the paper.
/// \pre As `subspace_similarity`. \cost One product U^T V.
template <real S>
[[nodiscard]] matrix<double> subspace_similarities(const matrix<S>& u, const matrix<S>& v) {
    detail::expects_shape("subspace_similarities", "v", v.rows(), v.cols(), u.rows(), v.cols());
    matrix<double> phi = (u.template cast<double>().transpose() * v.template cast<double>()).cwiseAbs2();
    for (index i = 1; i < phi.rows(); ++i) {  // sums over all leading blocks, row by row and column by column
        phi.row(i) += phi.row(i - 1);
    }
    for (index j = 1; j < phi.cols(); ++j) {
        phi.col(j) += phi.col(j - 1);
    }
    for (index j = 0; j < phi.cols(); ++j) {
        for (index i = 0; i < phi.rows(); ++i) {
            phi(i, j) /= static_cast<double>(std::min(i, j) + 1);
        }
    }
    return phi;
}

/// The min(p, q) principal angles between the ranges of A (n x p) and B (n x q), ascending, in [0, pi / 2].
///
/// Small angles come from sines and large ones from cosines, so all keep their digits: sqrt(eps) is not the floor.
/// \pre    A and B have full column rank and n rows each.
/// \return `non_finite` if an argument holds NaN or infinity.
/// \cost   About 4 n (p^2 + q^2) flops in double.
template <real S>
[[nodiscard]] result<vector<double>> principal_angles(const matrix<S>& a, const matrix<S>& b) {
    detail::expects_shape("principal_angles", "b", b.rows(), b.cols(), a.rows(), b.cols());
    detail::expects(a.cols() <= a.rows() && b.cols() <= b.rows(), "principal_angles: more columns than rows");
    if (!all_finite(a) || !all_finite(b)) {
        return status{errc::non_finite, "principal_angles: an argument holds NaN or infinity"};
    }
    const bool swap = a.cols() < b.cols();
    matrix<double> x = (swap ? b : a).template cast<double>();  // the larger space
    matrix<double> y = (swap ? a : b).template cast<double>();
    orthonormalize(x);
    orthonormalize(y);
    vector<double> angles(y.cols());
    if (angles.size() == 0) {
        return angles;
    }
    const matrix<double> overlap = x.transpose() * y;
    const auto cosines = svd(overlap);
    // Sines of the same angles: what of y lies outside x.
    const matrix<double> outside = y - x * overlap;
    const auto sines = svd(outside);
    if (!cosines || !sines) {
        return cosines ? sines.why : cosines.why;
    }
    for (index i = 0; i < angles.size(); ++i) {
        const double c = std::clamp(cosines.s(i), 0.0, 1.0);                    // descending
        const double s = std::clamp(sines.s(angles.size() - 1 - i), 0.0, 1.0);  // ascending
        angles(i) = c * c > 0.5 ? std::asin(s) : std::acos(c);
    }
    return angles;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_SUBSPACE_HPP
