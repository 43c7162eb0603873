// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_SUBSPACE_HPP
#define LOWRANK_FACTOR_SUBSPACE_HPP

/// \file
/// How close two subspaces are: principal angles, and the similarity phi of the LoRA paper.
///
///     auto angles = lowrank::principal_angles(a.left, b.left);          // radians, ascending
///     double phi = lowrank::subspace_similarity(spec.v, spec.v, 8, 16);   // in [0, 1]
///
/// Bjorck, Golub, Math. Comp. 27 (1973). Knyazev, Argentati, SIAM J. Sci. Comput. 23 (2002), for angles that are small.
/// Hu et al., LoRA, arXiv 2106.09685, section 7.2.

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// phi(U, V, i, j) = ||U_i^T V_j||_F^2 / min(i, j) for the first i columns of U and the first j of V: 1 if one space
/// contains the other, 0 if they are orthogonal, max(i, j) / n on average for random ones.
///
/// \pre  U and V have orthonormal columns of one length; 1 <= i <= U.cols(), 1 <= j <= V.cols().
/// \cost 2 n i j flops.
template <real S>
[[nodiscard]] double subspace_similarity(const matrix<S>& u, const matrix<S>& v, index i, index j);

/// phi(U, V, i, j) for every i <= U.cols() and j <= V.cols() at once: entry (i - 1, j - 1), the heat map of the paper.
/// \pre As `subspace_similarity`. \cost One product U^T V.
template <real S>
[[nodiscard]] matrix<double> subspace_similarities(const matrix<S>& u, const matrix<S>& v);

/// The min(p, q) principal angles between the ranges of A (n x p) and B (n x q), ascending, in [0, pi / 2].
///
/// Small angles come from sines and large ones from cosines, so all keep their digits: sqrt(eps) is not the floor.
/// \pre    A and B have full column rank and n rows each.
/// \return `non_finite` if an argument holds NaN or infinity.
/// \cost   About 4 n (p^2 + q^2) flops in double.
template <real S>
[[nodiscard]] result<vector<double>> principal_angles(const matrix<S>& a, const matrix<S>& b);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/factor/subspace.ipp>
#endif

#endif  // LOWRANK_FACTOR_SUBSPACE_HPP
