// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_SKETCHED_SINGLE_PASS_SVD_HPP
#define LOWRANK_FACTOR_SKETCHED_SINGLE_PASS_SVD_HPP

/// \file
/// A truncated SVD of data that can be read only once, in panels of rows, in any order, on any number of machines.
///
///     lowrank::single_pass_sketch<float> sketch(m, n, 32, {.seed = 7});
///     lowrank::index first = 0;
///     for (const auto& panel : panels) {                                   // a panel of rows is read once
///         lowrank::throw_if_failed(sketch.add_rows(first, panel));
///         first += panel.rows();
///     }
///     auto f = sketch.finish(32);                                          // k triplets, with a sampled error
///
/// Two sketches are kept, Y = A Omega and Z = Psi A; a third, Theta A, is held back for the error. All are linear in
/// A, so sketches of shards add up, and a row that was added can be subtracted.
///
/// Tropp, Yurtsever, Udell, Cevher, SIAM J. Matrix Anal. Appl. 38 (2017), Algorithms 4 and 7.

#include <concepts>
#include <cstdint>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/svd.hpp>

namespace lowrank::inline LOWRANK_ABI {

struct single_pass_options {
    index range = 0;           ///< Columns of Y; 0 takes rank + max(rank / 2, 8).
    index corange = 0;         ///< Rows of Z; 0 takes 2 range + 1. More is more accurate.
    index error_samples = 16;  ///< Rows held back for the error.
    std::uint64_t seed = 0;    ///< Same seed, same sketches, on every machine. Shards share it.
};

/// The linear sketches of an m x n matrix seen row panel by row panel. Memory: (m + 2 n + ..) of about 1.5 ranks.
template <real S>
class single_pass_sketch {
public:
    /// \pre 0 <= rank <= min(rows, cols); no option is negative.
    single_pass_sketch(index rows, index cols, index rank, const single_pass_options& options = {});

    [[nodiscard]] index rows() const noexcept { return rows_; }
    [[nodiscard]] index cols() const noexcept { return cols_; }

    /// Adds `scale` times a panel to rows first .. first + panel.rows(). \return `non_finite`, with nothing added.
    /// \cost 2 (range + corange) n flops per row.
    template <detail::dense_weight W>
    requires std::same_as<weight_scalar<W>, S> status add_rows(index first, const W& panel, S scale = S(1)) {
        detail::expects_shape("single_pass_sketch::add_rows", "panel", panel.rows(), panel.cols(), panel.rows(), cols_);
        detail::expects_in_range("single_pass_sketch::add_rows", "first", first, index{0}, rows_ - panel.rows());
        return add_panel(first, copy_in<S>(panel), scale);
    }

    /// Adds what another sketch has seen. \pre One shape, rank, options and seed.
    void merge(const single_pass_sketch& other);

    /// The k leading triplets of what was added, k <= rank. The error is sampled from the rows held back.
    /// \return `non_finite` if the sums overflowed.
    [[nodiscard]] decomposition<S> finish(index k) const;

private:
    status add_panel(index first, const matrix<S>& panel, S scale);
    /// Rows first .. first + count of the transposed Psi and Theta, signs that depend on the row's number alone.
    [[nodiscard]] matrix<S> signs(index first, index count) const;
    /// [Psi; Theta] X in double, by panels of rows.
    [[nodiscard]] matrix<double> signed_rows(const matrix<S>& x) const;
    [[nodiscard]] error_evidence evidence(const decomposition<S>& f) const;

    index rows_;
    index cols_;
    index rank_;
    std::uint64_t seed_;
    index range_ = 0;
    index corange_ = 0;
    index samples_ = 0;
    matrix<S> omega_ = {};
    matrix<S> y_ = {};  ///< A Omega.
    matrix<S> z_ = {};  ///< [Psi; Theta] A.
};

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/factor/sketched/single_pass_svd.ipp>
#endif

#endif  // LOWRANK_FACTOR_SKETCHED_SINGLE_PASS_SVD_HPP
