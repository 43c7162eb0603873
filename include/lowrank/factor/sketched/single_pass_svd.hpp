// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_SKETCHED_SINGLE_PASS_SVD_HPP
#define LOWRANK_FACTOR_SKETCHED_SINGLE_PASS_SVD_HPP

/// \file
/// A truncated SVD of data that can be read only once, in panels of rows, in any order, on any number of machines.
///
///     lowrank::single_pass_sketch<float> sketch(rows, cols, 32, {.seed = 7});
///     for (each panel) throw_if_failed(sketch.add_rows(first, panel));     // nothing is kept of the panel
///     auto f = sketch.finish(32);                                          // k triplets, with a sampled error
///
/// Two sketches are kept, Y = A Omega and Z = Psi A; a third, Theta A, is held back for the error. All are linear in
/// A, so sketches of shards add up, and a row that was added can be subtracted.
///
/// Tropp, Yurtsever, Udell, Cevher, SIAM J. Matrix Anal. Appl. 38 (2017), Algorithms 4 and 7.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/orthonormalize.hpp>
#include <lowrank/factor/sketched/randomized_svd.hpp>
#include <lowrank/factor/sketched/sketch.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/factor/truncated_svd.hpp>

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
    single_pass_sketch(index rows, index cols, index rank, const single_pass_options& options = {})
        : rows_(rows), cols_(cols), rank_(rank), seed_(options.seed) {
        const index most = std::min(rows, cols);
        detail::expects_in_range("single_pass_sketch", "rank", rank, index{0}, most);
        detail::expects(options.range >= 0 && options.corange >= 0 && options.error_samples >= 0,
                        "single_pass_sketch: no option may be negative");
        range_ =
            std::min(most, std::max(rank, options.range > 0 ? options.range : rank + std::max<index>(rank / 2, 8)));
        corange_ = std::min(rows, std::max(range_, options.corange > 0 ? options.corange : 2 * range_ + 1));
        samples_ = options.error_samples;
        omega_ = sign_sketch<S>(cols, range_, philox(seed_, 0));
        y_ = matrix<S>::Zero(rows, range_);
        z_ = matrix<S>::Zero(corange_ + samples_, cols);
    }

    [[nodiscard]] index rows() const noexcept { return rows_; }
    [[nodiscard]] index cols() const noexcept { return cols_; }

    /// Adds `scale` times a panel to rows first .. first + panel.rows(). \return `non_finite`, with nothing added.
    /// \cost 2 (range + corange) n flops per row.
    template <detail::dense_weight W>
    requires std::same_as<weight_scalar<W>, S> status add_rows(index first, const W& panel, S scale = S(1)) {
        detail::expects_shape("single_pass_sketch::add_rows", "panel", panel.rows(), panel.cols(), panel.rows(), cols_);
        detail::expects_in_range("single_pass_sketch::add_rows", "first", first, index{0}, rows_ - panel.rows());
        if (!all_finite(panel)) {
            return {errc::non_finite, "single_pass_sketch::add_rows: the panel holds NaN or infinity"};
        }
        const matrix<S> a = panel.template cast<S>() * scale;
        y_.middleRows(first, a.rows()).noalias() += a * omega_;
        z_.noalias() += signs(first, a.rows()).transpose() * a;
        return {};
    }

    /// Adds what another sketch has seen. \pre One shape, rank, options and seed.
    void merge(const single_pass_sketch& other) {
        detail::expects(rows_ == other.rows_ && cols_ == other.cols_ && range_ == other.range_ &&
                            corange_ == other.corange_ && samples_ == other.samples_ && seed_ == other.seed_,
                        "single_pass_sketch::merge: sketches must share shape, rank, options and seed");
        y_ += other.y_;
        z_ += other.z_;
    }

    /// The k leading triplets of what was added, k <= rank. The error is sampled from the rows held back.
    /// \return `non_finite` if the sums overflowed.
    [[nodiscard]] truncated_svd_result<S> finish(index k) const {
        detail::expects_in_range("single_pass_sketch::finish", "rank", k, index{0}, rank_);
        truncated_svd_result<S> out;
        if (!all_finite(y_) || !all_finite(z_)) {
            return {.why = {errc::non_finite, "single_pass_sketch::finish: a sketch overflowed; scale the data down"}};
        }
        matrix<S> q = y_;
        orthonormalize(q);
        // Psi Q X = Psi A in the least squares sense, in double: X is then the coordinates of A in Q.
        const matrix<double> psi_q = signed_rows(q).topRows(corange_);
        const auto qr = thin_qr<double>(psi_q);
        matrix<double> x = qr.q.transpose() * z_.topRows(corange_).template cast<double>();
        qr.r.template triangularView<Eigen::Upper>().solveInPlace(x);
        const matrix<double> xt = x.transpose();
        auto f = svd(xt);
        if (!f) {
            return {.why = std::move(f.why)};
        }
        out.u = q * f.v.leftCols(k).template cast<S>();
        out.s = f.s.head(k).template cast<S>();
        out.v = f.u.leftCols(k).template cast<S>();
        detail::fix_signs(out.u, out.v);
        out.error = evidence(out);
        return out;
    }

private:
    /// Rows first .. first + count of the transposed Psi and Theta, signs that depend on the row's number alone.
    [[nodiscard]] matrix<S> signs(index first, index count) const {
        const index width = corange_ + samples_;
        const index words = (width + 31) / 32;
        const philox rng(seed_, 1);
        matrix<S> out(count, width);
        for (index i = 0; i < count; ++i) {
            for (index w = 0; w < words; ++w) {
                const std::uint32_t bits = rng.bits(static_cast<std::uint64_t>((first + i) * words + w));
                for (index j = 32 * w; j < std::min(width, 32 * (w + 1)); ++j) {
                    out(i, j) = ((bits >> (j - 32 * w)) & 1U) != 0 ? S(-1) : S(1);
                }
            }
        }
        return out;
    }

    /// [Psi; Theta] X in double, by panels of rows.
    [[nodiscard]] matrix<double> signed_rows(const matrix<S>& x) const {
        constexpr index panel = 512;
        matrix<double> out = matrix<double>::Zero(corange_ + samples_, x.cols());
        for (index first = 0; first < rows_; first += panel) {
            const index count = std::min(panel, rows_ - first);
            out.noalias() += signs(first, count).template cast<double>().transpose() *
                             x.middleRows(first, count).template cast<double>();
        }
        return out;
    }

    [[nodiscard]] error_evidence evidence(const truncated_svd_result<S>& f) const {
        error_evidence e{.how = error_source::sampled};
        const matrix<double> theta_a = z_.bottomRows(samples_).template cast<double>();
        matrix<double> rest = theta_a;
        if (f.s.size() > 0) {
            const matrix<double> theta_u = signed_rows(f.u).bottomRows(samples_);
            rest -= theta_u * f.s.template cast<double>().asDiagonal() * f.v.template cast<double>().transpose();
        }
        const double count = static_cast<double>(std::max<index>(samples_, 1));
        e.frobenius = rest.stableNorm() / std::sqrt(count);
        const double norm = theta_a.stableNorm() / std::sqrt(count);
        e.relative = norm > 0.0 ? e.frobenius / norm : 0.0;
        e.deviation = samples_ > 0 ? std::sqrt(0.5 / count) : 1.0;
        return e;
    }

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

#endif  // LOWRANK_FACTOR_SKETCHED_SINGLE_PASS_SVD_HPP
