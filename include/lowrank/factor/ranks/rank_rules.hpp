// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_RANKS_RANK_RULES_HPP
#define LOWRANK_FACTOR_RANKS_RANK_RULES_HPP

/// \file
/// How many singular values to keep: every convention in use, each under its own name.
///
///     auto s = spec.values();                               // descending
///     index a = lowrank::rank_from_fraction(0.05, m, n);    // LASER: floor(rho min(m, n))
///     index b = lowrank::rank_from_energy(s, 0.9);          // 90 % of sum s^2
///     index c = lowrank::rank_from_frobenius_share(s, 0.9); // 90 % of sqrt(sum s^2): not the same
///     index d = lowrank::marchenko_pastur_rank(s, m, n);    // what noise cannot explain
///
/// Four tools call four different things "keep 90 %"; the names here say which one is meant. Rules read from shapes
/// come first, then shares, then single numbers that describe a spectrum, then noise thresholds.
///
/// Roy, Vetterli, EUSIPCO 2007 (effective rank). Gavish, Donoho, IEEE Trans. Inf. Theory 60 (2014), "The optimal hard
/// threshold for singular values is 4/sqrt(3)". kohya sd-scripts resize_lora, PEFT, LyCORIS (conventions and goldens).

#include <algorithm>
#include <cmath>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

inline void expects_share(const char* function, double share) { expects_in_range(function, "share", share, 0.0, 1.0); }

/// Singular values are finite, not negative and descending.
template <real S>
void expects_spectrum(const char* function, const vector<S>& s) {
    bool good = true;
    for (index i = 0; i < s.size(); ++i) {
        good = good && is_finite(s(i)) && s(i) >= S(0) && (i == 0 || s(i) <= s(i - 1));
    }
    if (!good) [[unlikely]] {
        fail_contract_with(function, ": singular values must be finite, not negative and in descending order");
    }
}

/// floor(x), where a product of decimals that rounding left a hair below an integer counts as the integer.
[[nodiscard]] inline index careful_floor(double x) {
    return static_cast<index>(std::floor(x * (1.0 + 4e-16) + 1e-300));
}

/// The smallest k with sum_{i<k} s_i^p >= share * sum s_i^p, for p = 1 or 2. 0 for a spectrum of zeros.
template <real S>
[[nodiscard]] index smallest_with_share(const vector<S>& s, double share, bool squared) {
    if (s.size() == 0 || !(s(0) > S(0))) {
        return 0;
    }
    const double unit = static_cast<double>(s(0));
    const auto part = [&](index i) {
        const double x = static_cast<double>(s(i)) / unit;
        return squared ? x * x : x;
    };
    double total = 0.0;
    for (index i = 0; i < s.size(); ++i) {
        total += part(i);
    }
    double sum = 0.0;
    for (index k = 0; k < s.size(); ++k) {
        if (sum >= share * total) {
            return k;
        }
        sum += part(k);
    }
    return s.size();
}

}  // namespace detail

// ---- From the shape alone.

/// k, but at most min(m, n). \pre k, m, n >= 0
[[nodiscard]] inline index clamped_rank(index k, index m, index n) {
    detail::expects(k >= 0 && m >= 0 && n >= 0, "clamped_rank: arguments must not be negative");
    return std::min({k, m, n});
}

/// floor(rho min(m, n)): LASER's fraction of the full rank, the product rounded in double as in the reference code.
/// \pre 0 <= rho <= 1
///
/// 0.29 of 100 is 28, because no double is 0.29 and the product is 28.999999999999996.
[[nodiscard]] inline index rank_from_fraction(double rho, index m, index n) {
    detail::expects_in_range("rank_from_fraction", "rho", rho, 0.0, 1.0);
    return static_cast<index>(rho * static_cast<double>(std::min(m, n)));
}

/// int(min(m, n) * ((10 - rate) * 0.1)): `--rate` of the LASER reference code, with its rounding. \pre 0 <= rate <= 10
///
/// Rate 9.9 of 4096 is 40 there (0.1 is not a decimal), as here.
[[nodiscard]] inline index rank_from_laser_rate(double rate, index m, index n) {
    detail::expects_in_range("rank_from_laser_rate", "rate", rate, 0.0, 10.0);
    return static_cast<index>(static_cast<double>(std::min(m, n)) * ((10.0 - rate) * 0.1));
}

/// The largest k whose factors hold at most `ratio` of the weight's m n numbers, floor(ratio m n / (m + n)), rounded up
/// to a multiple of `align`, at most min(m, n). \pre ratio >= 0, align >= 1
[[nodiscard]] inline index rank_from_parameter_ratio(double ratio, index m, index n, index align = 1) {
    detail::expects(ratio >= 0.0 && align >= 1, "rank_from_parameter_ratio: ratio must be >= 0 and align >= 1");
    if (m <= 0 || n <= 0) {
        return 0;
    }
    const double k = ratio * static_cast<double>(m) * static_cast<double>(n) / static_cast<double>(m + n);
    const index floor = detail::careful_floor(std::min(k, static_cast<double>(std::min(m, n))));
    return std::min((floor + align - 1) / align * align, std::min(m, n));
}

/// The largest k for which two factors are no larger than the dense weight, floor(m n / (m + n)).
[[nodiscard]] inline index break_even_rank(index m, index n) { return m <= 0 || n <= 0 ? 0 : m * n / (m + n); }

// ---- Shares of the spectrum. All take descending values and return the smallest k that is enough; zero spectra need
// 0.

/// sum_{i<k} s_i^2 >= share * sum s_i^2: energy, PEFT's threshold. \pre 0 <= share <= 1
template <real S>
[[nodiscard]] index rank_from_energy(const vector<S>& s, double share) {
    detail::expects_share("rank_from_energy", share);
    detail::expects_spectrum("rank_from_energy", s);
    return detail::smallest_with_share(s, share, true);
}

/// ||W_k||_F >= share * ||W||_F, the square root of the energy. \pre 0 <= share <= 1
template <real S>
[[nodiscard]] index rank_from_frobenius_share(const vector<S>& s, double share) {
    detail::expects_share("rank_from_frobenius_share", share);
    detail::expects_spectrum("rank_from_frobenius_share", s);
    return detail::smallest_with_share(s, share * share, true);
}

/// sum_{i<k} s_i >= share * sum s_i: share of the nuclear norm. \pre 0 <= share <= 1
template <real S>
[[nodiscard]] index rank_from_sum_share(const vector<S>& s, double share) {
    detail::expects_share("rank_from_sum_share", share);
    detail::expects_spectrum("rank_from_sum_share", s);
    return detail::smallest_with_share(s, share, false);
}

/// ||W - W_k||_F <= tolerance * ||W||_F, summed from the small end: exact down to rounding of s itself.
/// \pre tolerance >= 0
template <real S>
[[nodiscard]] index rank_from_relative_error(const vector<S>& s, double tolerance) {
    detail::expects(tolerance >= 0.0, "rank_from_relative_error: tolerance must not be negative");
    detail::expects_spectrum("rank_from_relative_error", s);
    if (s.size() == 0 || !(s(0) > S(0))) {
        return 0;
    }
    const auto square = [&](index i) {
        const double x = static_cast<double>(s(i)) / static_cast<double>(s(0));
        return x * x;
    };
    double total = 0.0;
    for (index i = s.size(); i-- > 0;) {
        total += square(i);
    }
    double tail = 0.0;
    for (index k = s.size(); k > 0; --k) {
        tail += square(k - 1);
        if (tail > tolerance * tolerance * total) {
            return k;
        }
    }
    return 0;
}

/// #(s > threshold): values above an absolute level (LyCORIS "threshold"; mergekit's sv_epsilon). \pre threshold >= 0
template <real S>
[[nodiscard]] index rank_above_threshold(const vector<S>& s, double threshold) {
    detail::expects(threshold >= 0.0, "rank_above_threshold: threshold must not be negative");
    detail::expects_spectrum("rank_above_threshold", s);
    return static_cast<index>(
        std::count_if(s.begin(), s.end(), [&](S x) { return static_cast<double>(x) > threshold; }));
}

/// #(s > ratio * s_1): values above a fraction of the largest (LyCORIS "ratio"). \pre 0 <= ratio
template <real S>
[[nodiscard]] index rank_above_ratio(const vector<S>& s, double ratio) {
    detail::expects(ratio >= 0.0, "rank_above_ratio: ratio must not be negative");
    detail::expects_spectrum("rank_above_ratio", s);
    return s.size() == 0 ? 0 : rank_above_threshold(s, ratio * static_cast<double>(s(0)));
}

/// #(k : sum_{i<=k} s_i < q * sum s_i), at least 1 for a spectrum that is not empty: LyCORIS "quantile". It keeps one
/// value less than `rank_from_sum_share`. \pre 0 <= q <= 1
template <real S>
[[nodiscard]] index lycoris_quantile_rank(const vector<S>& s, double q) {
    return s.size() == 0 ? 0 : std::max<index>(1, rank_from_sum_share(s, q) - 1);
}

// ---- kohya's resize: an index clamped to [1, size - 1], then one more, at most `most`. A spectrum with s_1 <= 1e-6
// ---- gives 1. The sums run in double here, in float there, so an exact tie can fall either way.

namespace detail {

template <real S>
[[nodiscard]] index kohya_rank(const vector<S>& s, index found, index most) {
    if (s.size() == 0) {
        return 0;
    }
    if (!(static_cast<double>(s(0)) > 1e-6)) {
        return std::min<index>(1, most);
    }
    return std::min({std::clamp<index>(found, 1, std::max<index>(s.size() - 1, 1)) + 1, s.size(), most});
}

}  // namespace detail

/// `--dynamic_method sv_ratio`: found = #(s > s_1 / ratio). \pre ratio > 0, most >= 0
template <real S>
[[nodiscard]] index kohya_ratio_rank(const vector<S>& s, double ratio, index most) {
    detail::expects(ratio > 0.0 && most >= 0, "kohya_ratio_rank: ratio must be positive, most not negative");
    return detail::kohya_rank(s, rank_above_ratio(s, 1.0 / ratio), most);
}

/// `--dynamic_method sv_cumulative`: found = the rank of `rank_from_sum_share`. \pre 0 <= share <= 1, most >= 0
template <real S>
[[nodiscard]] index kohya_cumulative_rank(const vector<S>& s, double share, index most) {
    detail::expects(most >= 0, "kohya_cumulative_rank: most must not be negative");
    return detail::kohya_rank(s, rank_from_sum_share(s, share), most);
}

/// `--dynamic_method sv_fro`: found = the rank of `rank_from_frobenius_share`. \pre 0 <= share <= 1, most >= 0
template <real S>
[[nodiscard]] index kohya_frobenius_rank(const vector<S>& s, double share, index most) {
    detail::expects(most >= 0, "kohya_frobenius_rank: most must not be negative");
    return detail::kohya_rank(s, rank_from_frobenius_share(s, share), most);
}

// ---- Single numbers. 0 for a spectrum that is empty or zero.

/// exp(-sum p_i ln p_i), p_i = s_i / sum s (Roy and Vetterli): between 1 and the rank.
template <real S>
[[nodiscard]] double effective_rank(const vector<S>& s) {
    detail::expects_spectrum("effective_rank", s);
    if (s.size() == 0 || !(s(0) > S(0))) {
        return 0.0;
    }
    const vector<double> p = s.template cast<double>() / static_cast<double>(s(0));
    const double total = p.sum();
    double entropy = 0.0;
    for (const double x : p) {
        entropy -= x > 0.0 ? x / total * std::log(x / total) : 0.0;
    }
    return std::exp(entropy);
}

/// ||W||_F^2 / ||W||_2^2 = sum s^2 / s_1^2.
template <real S>
[[nodiscard]] double stable_rank(const vector<S>& s) {
    detail::expects_spectrum("stable_rank", s);
    return s.size() == 0 || !(s(0) > S(0)) ? 0.0
                                           : (s.template cast<double>() / static_cast<double>(s(0))).squaredNorm();
}

/// (sum s^2)^2 / sum s^4.
template <real S>
[[nodiscard]] double participation_ratio(const vector<S>& s) {
    detail::expects_spectrum("participation_ratio", s);
    if (s.size() == 0 || !(s(0) > S(0))) {
        return 0.0;
    }
    const vector<double> x = (s.template cast<double>() / static_cast<double>(s(0))).cwiseAbs2();
    return x.sum() * x.sum() / x.squaredNorm();
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_RANKS_RANK_RULES_HPP
