// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_DECOMPOSITION_HPP
#define LOWRANK_FACTOR_DECOMPOSITION_HPP

/// \file
/// U diag(s) V^T: all of a matrix or its leading part, with evidence of what is not there. Every factorizer returns one,
/// and every rank rule, edit, score and init takes one.
///
///     auto f = lowrank::svd(w);                        // or krylov_svd(w, 64): the leading 64
///     if (!f) return log(f.why.message);
///     auto w8 = f.truncate(8);                         // best rank 8, as two factors
///     double e = f.relative_error(8);                  // ||W - W_8||_F / ||W||_F, no product formed
///     auto gone = f.dropped(8);                        // W - W_8, of a complete decomposition
///
/// Eckart, Young, Psychometrika 1 (1936); Mirsky, Quart. J. Math. 11 (1960).

#include <span>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/error_evidence.hpp>
#include <lowrank/factor/low_rank.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Where the singular values go when a part of a decomposition becomes two factors.
enum class sigma_split {
    left,    ///< left = U diag(s), right = V^T.
    right,   ///< left = U, right = diag(s) V^T.
    square,  ///< sqrt(s) on both sides: factors of equal norm.
};

/// U (m x k), s (k, descending, not negative), V (n x k) with A ~ U diag(s) V^T, and the error of that. On failure all
/// three are empty, `why` says why, and every question below is a broken contract.
///
/// The columns of U and V are orthonormal to rounding. Where values of s are denormal numbers, the sketched methods let them
/// take what s cannot hold: U^T U and V^T V are 1 to 150 sqrt(k) units of rounding.
///
/// Sign convention: in each column of U the entry of largest magnitude (the first of them) is positive.
template <real S>
struct decomposition : fallible {
    using scalar = S;

    matrix<S> u = {};
    vector<S> s = {};
    matrix<S> v = {};
    error_evidence error = {};  ///< ||A - U diag(s) V^T||_F: zero and exact where nothing is missing.

    /// That of the 0 x 0 matrix.
    decomposition() = default;
    /// A failure. \pre `failed` is not ok.
    decomposition(status failed);  // NOLINT: conversion is the point, as for `result`
    /// \pre u.cols() == s.size() == v.cols(); s is descending and not negative.
    decomposition(matrix<S> left, vector<S> values, matrix<S> right, const error_evidence& missing = {});

    /// The shape of A.
    [[nodiscard]] index rows() const noexcept { return u.rows(); }
    [[nodiscard]] index cols() const noexcept { return v.rows(); }
    /// The number of singular triplets here.
    [[nodiscard]] index size() const noexcept { return s.size(); }
    /// Whether nothing is missing: A is U diag(s) V^T to rounding.
    [[nodiscard]] bool complete() const noexcept { return error.how == error_source::exact && error.frobenius == 0.0; }

    /// The decomposition itself; throws `failure` if there is none.
    [[nodiscard]] const decomposition& value() const&;
    [[nodiscard]] decomposition value() &&;

    /// The best rank-k part, A_k = sum_{i<k} s_i u_i v_i^T. \pre 0 <= k <= size()
    [[nodiscard]] low_rank<S> truncate(index k, sigma_split split = sigma_split::left) const;
    /// All that is here, U diag(s) V^T.
    [[nodiscard]] low_rank<S> product(sigma_split split = sigma_split::left) const { return truncate(size(), split); }
    /// A - A_k, what truncate(k) removes. \pre 0 <= k <= size(); complete()
    [[nodiscard]] low_rank<S> dropped(index k, sigma_split split = sigma_split::left) const;
    /// The band sum_{first<=i<last} s_i u_i v_i^T. \pre 0 <= first <= last <= size()
    [[nodiscard]] low_rank<S> band(index first, index last, sigma_split split = sigma_split::left) const;
    /// The part of any index set, in the order given: by importance, every other one, the tail only.
    /// \pre Each index is in [0, size()) and occurs once.
    [[nodiscard]] low_rank<S> select(std::span<const index> keep, sigma_split split = sigma_split::left) const;
    /// The first k triplets alone, with evidence of what they leave out. \pre 0 <= k <= size()
    [[nodiscard]] decomposition leading(index k) const;

    /// ||A||_F, from the singular values and what is missing.
    [[nodiscard]] double norm() const;
    /// ||A - A_k||_F^2 = sum_{i>=k} s_i^2 + error.frobenius^2, and how it is known: as `error` is, with less uncertainty the more
    /// of it is in the singular values. For a sketch of a single pass, which is no projection, an estimate for every k.
    /// \pre 0 <= k <= size()
    [[nodiscard]] error_evidence evidence_at(index k) const;
    /// The number of it: ||A - A_k||_F, exact for a complete decomposition. \pre 0 <= k <= size()
    [[nodiscard]] double error_at(index k) const { return evidence_at(k).frobenius; }
    /// ||A - A_k||_F / ||A||_F, and 0 for A = 0. \pre 0 <= k <= size()
    [[nodiscard]] double relative_error(index k) const { return evidence_at(k).relative; }
    /// ||A - A_k||_2 = s_k, and 0 for k = size(). \pre 0 <= k <= size(), and k < size() unless complete()
    [[nodiscard]] double spectral_error(index k) const;
    /// ||A - select(keep)||_F. \pre As for `select`.
    [[nodiscard]] double error_at(std::span<const index> keep) const;
};

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/factor/decomposition.ipp>
#endif

#endif  // LOWRANK_FACTOR_DECOMPOSITION_HPP
