// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_RANKS_RANK_RULES_HPP
#define LOWRANK_FACTOR_RANKS_RANK_RULES_HPP

/// \file
/// How many singular values to keep: every convention in use, each under its own name.
///
///     auto s = spec.s;                                                // descending
///     lowrank::index a = lowrank::rank_from_fraction(0.05, m, n);    // LASER: floor(rho min(m, n))
///     lowrank::index b = lowrank::rank_from_energy(s, 0.9);          // 90 % of sum s^2
///     lowrank::index c = lowrank::rank_from_frobenius_share(s, 0.9); // 90 % of sqrt(sum s^2): not the same
///     lowrank::index d = lowrank::marchenko_pastur_rank(s, m, n);    // what noise cannot explain
///
/// Four tools call four different things "keep 90 %"; the names here say which one is meant. Rules read from shapes
/// come first, then shares, then single numbers that describe a spectrum, then noise thresholds.
///
/// Roy, Vetterli, EUSIPCO 2007 (effective rank). Gavish, Donoho, IEEE Trans. Inf. Theory 60 (2014), "The optimal hard
/// threshold for singular values is 4/sqrt(3)". kohya sd-scripts resize_lora, PEFT, LyCORIS (conventions and goldens).

#include <limits>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/decomposition.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// What rank rules read: singular values, descending, from any vector or expression of one, float or double, or from a
/// complete decomposition.
class singular_values_in {
public:
    template <detail::dense_expression D>
    requires(real<typename D::Scalar>&& bool(D::IsVectorAtCompileTime)) singular_values_in(const D& s)  // NOLINT
        : singular_values_in(detail::evaluated(s), s.size(),
                             static_cast<double>(std::numeric_limits<typename D::Scalar>::epsilon())) {}
    template <real S>
    singular_values_in(const decomposition<S>& f)  // NOLINT: conversions are the point
        : singular_values_in(f.value().s) {
        detail::expects(f.complete(),
                        "singular_values_in: a rank rule reads all singular values; rank_within takes a "
                        "partial decomposition");
    }

    [[nodiscard]] index size() const noexcept { return s_.size(); }
    [[nodiscard]] double operator()(index i) const { return s_(i); }
    [[nodiscard]] const vector<double>& values() const noexcept { return s_; }
    /// Of the scalar they come in.
    [[nodiscard]] double epsilon() const noexcept { return epsilon_; }

private:
    template <class D>
    singular_values_in(const D& s, index size, double epsilon) : s_(head_in<double>(s, size)), epsilon_(epsilon) {}

    vector<double> s_;
    double epsilon_;
};

namespace detail {

/// Singular values are finite, not negative and descending.
LOWRANK_API void expects_spectrum(const char* function, const singular_values_in& s);

}  // namespace detail

// ---- From the shape alone.

/// k, but at most min(m, n). \pre k, m, n >= 0
LOWRANK_API [[nodiscard]] index clamped_rank(index k, index m, index n);

/// floor(rho min(m, n)): LASER's fraction of the full rank, the product rounded in double as in the reference code.
/// \pre 0 <= rho <= 1
///
/// 0.29 of 100 is 28, because no double is 0.29 and the product is 28.999999999999996.
LOWRANK_API [[nodiscard]] index rank_from_fraction(double rho, index m, index n);

/// int(min(m, n) * ((10 - rate) * 0.1)): `--rate` of the LASER reference code, with its rounding. \pre 0 <= rate <= 10
///
/// Rate 9.9 of 4096 is 40 there (0.1 is not a decimal), as here.
LOWRANK_API [[nodiscard]] index rank_from_laser_rate(double rate, index m, index n);

/// The largest k whose factors hold at most `ratio` of the weight's m n numbers, floor(ratio m n / (m + n)), rounded up
/// to a multiple of `align`, at most min(m, n). \pre ratio >= 0, align >= 1
LOWRANK_API [[nodiscard]] index rank_from_parameter_ratio(double ratio, index m, index n, index align = 1);

/// The largest k for which two factors are no larger than the dense weight, floor(m n / (m + n)).
LOWRANK_API [[nodiscard]] index break_even_rank(index m, index n);

/// The numbers that a weight of rank k needs: k (m + n) in two factors, or m n as it is where that is less.
LOWRANK_API [[nodiscard]] index stored_numbers(index k, index m, index n);

// ---- Shares of the spectrum. All take descending values and return the smallest k that is enough; zero spectra need
// 0.

/// sum_{i<k} s_i^2 >= share * sum s_i^2: energy, PEFT's threshold. \pre 0 <= share <= 1
LOWRANK_API [[nodiscard]] index rank_from_energy(const singular_values_in& s, double share);

/// ||W_k||_F >= share * ||W||_F, the square root of the energy. \pre 0 <= share <= 1
LOWRANK_API [[nodiscard]] index rank_from_frobenius_share(const singular_values_in& s, double share);

/// sum_{i<k} s_i >= share * sum s_i: share of the nuclear norm. \pre 0 <= share <= 1
LOWRANK_API [[nodiscard]] index rank_from_sum_share(const singular_values_in& s, double share);

/// ||W - W_k||_F <= tolerance * ||W||_F, summed from the small end: exact down to rounding of s itself.
/// \pre tolerance >= 0
LOWRANK_API [[nodiscard]] index rank_from_relative_error(const singular_values_in& s, double tolerance);

/// #(s > threshold): values above an absolute level (LyCORIS "threshold"; mergekit's sv_epsilon). \pre threshold >= 0
LOWRANK_API [[nodiscard]] index rank_above_threshold(const singular_values_in& s, double threshold);

/// #(s > ratio * s_1): values above a fraction of the largest (LyCORIS "ratio"). \pre 0 <= ratio
LOWRANK_API [[nodiscard]] index rank_above_ratio(const singular_values_in& s, double ratio);

/// #(k : sum_{i<=k} s_i < q * sum s_i), at least 1 for a spectrum that is not empty: LyCORIS "quantile". It keeps one
/// value less than `rank_from_sum_share`. \pre 0 <= q <= 1
LOWRANK_API [[nodiscard]] index lycoris_quantile_rank(const singular_values_in& s, double q);

// ---- kohya's resize: an index clamped to [1, size - 1], then one more, at most `max_rank`. A spectrum with s_1 <= 1e-6
// ---- gives 1. The sums run in double here, in float there, so an exact tie can fall either way.

/// `--dynamic_method sv_ratio`: found = #(s > s_1 / ratio). \pre ratio > 0, max_rank >= 0
LOWRANK_API [[nodiscard]] index kohya_ratio_rank(const singular_values_in& s, double ratio, index max_rank);

/// `--dynamic_method sv_cumulative`: found = the rank of `rank_from_sum_share`. \pre 0 <= share <= 1, max_rank >= 0
LOWRANK_API [[nodiscard]] index kohya_cumulative_rank(const singular_values_in& s, double share, index max_rank);

/// `--dynamic_method sv_fro`: found = the rank of `rank_from_frobenius_share`. \pre 0 <= share <= 1, max_rank >= 0
LOWRANK_API [[nodiscard]] index kohya_frobenius_rank(const singular_values_in& s, double share, index max_rank);

// ---- Single numbers. 0 for a spectrum that is empty or zero.

/// exp(-sum p_i ln p_i), p_i = s_i / sum s (Roy and Vetterli): between 1 and the rank.
LOWRANK_API [[nodiscard]] double effective_rank(const singular_values_in& s);

/// ||W||_F^2 / ||W||_2^2 = sum s^2 / s_1^2.
LOWRANK_API [[nodiscard]] double stable_rank(const singular_values_in& s);

/// (sum s^2)^2 / sum s^4.
LOWRANK_API [[nodiscard]] double participation_ratio(const singular_values_in& s);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/factor/ranks/rank_rules.ipp>
#endif

#endif  // LOWRANK_FACTOR_RANKS_RANK_RULES_HPP
