// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_SPECTRUM_HPP
#define LOWRANK_FACTOR_SPECTRUM_HPP

/// \file
/// One decomposition per weight serves every rank: truncations, what they drop, and their exact errors.
///
///     auto spec = lowrank::make_spectrum(w);           // one SVD
///     if (!spec) return log(spec.error().message);
///     auto w8 = spec->truncate(8);                     // best rank 8, as two factors
///     auto gone = spec->dropped(8);                    // W - W_8, as two factors
///     double e = spec->relative_error(8);              // ||W - W_8||_F / ||W||_F, no product formed
///
/// Eckart, Young, Psychometrika 1 (1936); Mirsky, Quart. J. Math. 11 (1960).

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/factor/svd.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Where the singular values go when a part of the spectrum becomes two factors.
enum class sigma_split {
    left,    ///< left = U diag(s), right = V^T.
    right,   ///< left = U, right = diag(s) V^T.
    square,  ///< sqrt(s) on both sides: factors of equal norm.
};

/// The SVD of one weight with the questions that LASER, PiSSA, extraction and rank rules ask of it. Immutable; const
/// operations are safe to call concurrently.
template <real S>
class spectrum {
public:
    using scalar = S;

    /// An empty 0 x 0 spectrum.
    spectrum() = default;

    /// Takes over a decomposition. \pre It succeeded, s is descending and not negative, shapes agree.
    explicit spectrum(svd_result<S> f) : u_(std::move(f.u)), s_(std::move(f.s)), v_(std::move(f.v)) {
        detail::expects(static_cast<bool>(f.why), "spectrum: the decomposition must have succeeded");
        detail::expects(u_.cols() == s_.size() && v_.cols() == s_.size(), "spectrum: u, s and v must agree in size");
        // Summed from the small end, so that a tail is exact even when the head is 1e8 times larger. Scaled by the
        // largest value, so that no square overflows or underflows.
        tail_.resize(static_cast<std::size_t>(s_.size()) + 1);
        largest_ = s_.size() > 0 ? static_cast<double>(s_(0)) : 0.0;
        double sum = 0.0;
        tail_.back() = 0.0;
        for (index i = s_.size(); i-- > 0;) {
            const double x = largest_ > 0.0 ? static_cast<double>(s_(i)) / largest_ : 0.0;
            sum += x * x;
            tail_[static_cast<std::size_t>(i)] = sum;
        }
    }

    [[nodiscard]] index rows() const noexcept { return u_.rows(); }
    [[nodiscard]] index cols() const noexcept { return v_.rows(); }
    /// The number of singular values, min(rows, cols).
    [[nodiscard]] index size() const noexcept { return s_.size(); }

    /// Singular values, descending.
    [[nodiscard]] const vector<S>& values() const noexcept { return s_; }
    /// Left singular vectors, rows() x size().
    [[nodiscard]] const matrix<S>& u() const noexcept { return u_; }
    /// Right singular vectors, cols() x size().
    [[nodiscard]] const matrix<S>& v() const noexcept { return v_; }

    /// The best rank-k part, sum_{i<k} s_i u_i v_i^T. \pre 0 <= k <= size()
    [[nodiscard]] low_rank<S> truncate(index k, sigma_split split = sigma_split::left) const {
        detail::expects_in_range("spectrum::truncate", "k", k, index{0}, size());
        return part(0, k, split);
    }

    /// What truncate(k) removes, sum_{i>=k} s_i u_i v_i^T. \pre 0 <= k <= size()
    [[nodiscard]] low_rank<S> dropped(index k, sigma_split split = sigma_split::left) const {
        detail::expects_in_range("spectrum::dropped", "k", k, index{0}, size());
        return part(k, size(), split);
    }

    /// The band sum_{first<=i<last} s_i u_i v_i^T. \pre 0 <= first <= last <= size()
    [[nodiscard]] low_rank<S> band(index first, index last, sigma_split split = sigma_split::left) const {
        detail::expects_in_range("spectrum::band", "last", last, index{0}, size());
        detail::expects_in_range("spectrum::band", "first", first, index{0}, last);
        return part(first, last, split);
    }

    /// The part of any index set, in the order given: by importance, every other one, the tail only.
    /// \pre Each index is in [0, size()) and occurs once.
    [[nodiscard]] low_rank<S> select(std::span<const index> keep, sigma_split split = sigma_split::left) const {
        (void)kept_mask("spectrum::select", keep);
        const index k = static_cast<index>(keep.size());
        low_rank<S> out{.left = matrix<S>(rows(), k), .right = matrix<S>(k, cols())};
        for (index i = 0; i < k; ++i) {
            const index from = keep[static_cast<std::size_t>(i)];
            const auto [a, b] = shares(s_(from), split);
            out.left.col(i) = u_.col(from) * a;
            out.right.row(i) = v_.col(from).transpose() * b;
        }
        return out;
    }

    /// ||W||_F, from the singular values.
    [[nodiscard]] double norm() const { return error(0); }

    /// ||W - W_k||_F = sqrt(sum_{i>=k} s_i^2), exact. \pre 0 <= k <= size()
    [[nodiscard]] double error(index k) const {
        detail::expects_in_range("spectrum::error", "k", k, index{0}, size());
        return tail_.empty() ? 0.0 : largest_ * std::sqrt(tail_[static_cast<std::size_t>(k)]);
    }

    /// ||W - W_k||_F / ||W||_F, and 0 for W = 0. \pre 0 <= k <= size()
    [[nodiscard]] double relative_error(index k) const {
        detail::expects_in_range("spectrum::relative_error", "k", k, index{0}, size());
        return !tail_.empty() && tail_[0] > 0.0 ? std::sqrt(tail_[static_cast<std::size_t>(k)] / tail_[0]) : 0.0;
    }

    /// ||W - W_k||_2 = s_k, and 0 for k = size(). \pre 0 <= k <= size()
    [[nodiscard]] double spectral_error(index k) const {
        detail::expects_in_range("spectrum::spectral_error", "k", k, index{0}, size());
        return k < size() ? static_cast<double>(s_(k)) : 0.0;
    }

    /// ||W - select(keep)||_F. \pre As for `select`.
    [[nodiscard]] double error(std::span<const index> keep) const {
        const auto kept = kept_mask("spectrum::error", keep);
        double sum = 0.0;
        for (index i = size(); i-- > 0;) {
            if (!kept[static_cast<std::size_t>(i)] && largest_ > 0.0) {
                const double x = static_cast<double>(s_(i)) / largest_;
                sum += x * x;
            }
        }
        return largest_ * std::sqrt(sum);
    }

private:
    static std::pair<S, S> shares(S sigma, sigma_split split) {
        switch (split) {
            case sigma_split::left: return {sigma, S(1)};
            case sigma_split::right: return {S(1), sigma};
            case sigma_split::square: break;
        }
        return {std::sqrt(sigma), std::sqrt(sigma)};
    }

    [[nodiscard]] low_rank<S> part(index first, index last, sigma_split split) const {
        const index k = last - first;
        low_rank<S> out{.left = u_.middleCols(first, k), .right = v_.middleCols(first, k).transpose()};
        for (index i = 0; i < k; ++i) {
            const auto [a, b] = shares(s_(first + i), split);
            out.left.col(i) *= a;
            out.right.row(i) *= b;
        }
        return out;
    }

    [[nodiscard]] std::vector<bool> kept_mask(const char* function, std::span<const index> keep) const {
        std::vector<bool> kept(static_cast<std::size_t>(size()), false);
        for (const index i : keep) {
            detail::expects_in_range(function, "index", i, index{0}, size() - 1);
            detail::expects(!kept[static_cast<std::size_t>(i)], "spectrum: an index set must not repeat an index");
            kept[static_cast<std::size_t>(i)] = true;
        }
        return kept;
    }

    matrix<S> u_ = {};
    vector<S> s_ = {};
    matrix<S> v_ = {};
    std::vector<double> tail_ = {};  ///< tail_[k] = sum_{i>=k} (s_i / s_0)^2.
    double largest_ = 0.0;
};

/// The spectrum of a dense weight of any storage type and order, by one `svd`.
///
/// \return As `svd`: `non_finite` if W holds NaN or infinity.
/// \cost   That of `svd`; keeps U and V, (m + n) min(m, n) scalars.
template <detail::dense_weight W>
[[nodiscard]] result<spectrum<weight_scalar<W>>> make_spectrum(const W& w) {
    auto f = svd(w);
    if (!f) {
        return std::move(f.why);
    }
    return spectrum<weight_scalar<W>>(std::move(f));
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_SPECTRUM_HPP
