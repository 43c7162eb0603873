// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_SKETCHED_DETAIL_EVIDENCE_HPP
#define LOWRANK_FACTOR_SKETCHED_DETAIL_EVIDENCE_HPP

/// \file
/// What the sketched methods say about the error of U diag(s) V^T: from the weight where there is one, from samples
/// elsewhere.

#include <lowrank/core/config.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/error_evidence.hpp>

namespace lowrank::inline LOWRANK_ABI::detail {

/// Error evidence for W ~ U diag(s) V^T with U^T W = diag(s) V^T, from the weight itself.
template <real S, storage T>
[[nodiscard]] error_evidence dense_evidence(const dense_view<const T>& w, const matrix<S>& u, const vector<S>& s,
                                            const matrix<S>& v);

/// Error evidence from Z = unit A G for a matrix G of independent signs that had no part in U.
template <real S>
[[nodiscard]] error_evidence sampled_evidence(matrix<S> z, double unit, const matrix<S>& u, const vector<S>& s);

}  // namespace lowrank::inline LOWRANK_ABI::detail

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/factor/sketched/detail/evidence.ipp>
#endif

#endif  // LOWRANK_FACTOR_SKETCHED_DETAIL_EVIDENCE_HPP
