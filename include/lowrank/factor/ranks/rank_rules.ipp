// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_RANKS_RANK_RULES_IPP
#define LOWRANK_FACTOR_RANKS_RANK_RULES_IPP

#include <lowrank/factor/ranks/rank_rules.hpp>

#include <algorithm>
#include <cmath>

#include <lowrank/core/check.hpp>
#include <lowrank/core/finite.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

LOWRANK_BODY void expects_spectrum(const char* function, const singular_values_in& s) {
    bool good = true;
    for (index i = 0; i < s.size(); ++i) {
        good = good && is_finite(s(i)) && s(i) >= 0.0 && (i == 0 || s(i) <= s(i - 1));
    }
    if (!good) [[unlikely]] {
        fail_contract_with(function, ": singular values must be finite, not negative and in descending order");
    }
}

/// floor(x), where a product of decimals that rounding left a hair below an integer counts as the integer.
[[nodiscard]] inline index careful_floor(double x) {
    return static_cast<index>(std::floor(x * (1.0 + 4e-16) + 1e-300));
}

/// (s_i / s_1)^power.
[[nodiscard]] inline double relative_power(const singular_values_in& s, index i, int power) {
    const double x = s(i) / s(0);
    return power == 1 ? x : power == 2 ? x * x : x * x * x * x;
}

/// The sum of these for power 1, 2 or 4, from the small end; 0 for values that are none or zero.
[[nodiscard]] inline double power_sum(const singular_values_in& s, int power) {
    double sum = 0.0;
    for (index i = s.size(); i-- > 0 && s(0) > 0.0;) {
        sum += relative_power(s, i, power);
    }
    return sum;
}

/// The smallest k with sum_{i<k} s_i^p >= share * sum s_i^p, for p = 1 or 2. 0 for values that are none or zero.
LOWRANK_API [[nodiscard]] index smallest_with_share(const char* function, const singular_values_in& s, double share,
                                                    double of_sum, int power);

LOWRANK_BODY index smallest_with_share(const char* function, const singular_values_in& s, double share, double of_sum,
                                       int power) {
    expects_in_range(function, "share", share, 0.0, 1.0);
    expects_spectrum(function, s);
    double total = 0.0, sum = 0.0;
    for (index i = 0; i < s.size() && s(0) > 0.0; ++i) {
        total += relative_power(s, i, power);
    }
    index k = 0;
    for (; k < s.size() && s(0) > 0.0 && sum < of_sum * total; ++k) {
        sum += relative_power(s, k, power);
    }
    return k;
}

}  // namespace detail

LOWRANK_BODY index clamped_rank(index k, index m, index n) {
    detail::expects(k >= 0 && m >= 0 && n >= 0, "clamped_rank: arguments must not be negative");
    return std::min({k, m, n});
}

LOWRANK_BODY index rank_from_fraction(double rho, index m, index n) {
    detail::expects_in_range("rank_from_fraction", "rho", rho, 0.0, 1.0);
    return static_cast<index>(rho * static_cast<double>(std::min(m, n)));
}

LOWRANK_BODY index rank_from_laser_rate(double rate, index m, index n) {
    detail::expects_in_range("rank_from_laser_rate", "rate", rate, 0.0, 10.0);
    return static_cast<index>(static_cast<double>(std::min(m, n)) * ((10.0 - rate) * 0.1));
}

LOWRANK_BODY index rank_from_parameter_ratio(double ratio, index m, index n, index align) {
    detail::expects(ratio >= 0.0 && align >= 1, "rank_from_parameter_ratio: ratio must be >= 0 and align >= 1");
    if (m <= 0 || n <= 0) {
        return 0;
    }
    const double k = ratio * static_cast<double>(m) * static_cast<double>(n) / static_cast<double>(m + n);
    const index floor = detail::careful_floor(std::min(k, static_cast<double>(std::min(m, n))));
    return std::min((floor + align - 1) / align * align, std::min(m, n));
}

LOWRANK_BODY index break_even_rank(index m, index n) { return m <= 0 || n <= 0 ? 0 : m * n / (m + n); }

LOWRANK_BODY index stored_numbers(index k, index m, index n) { return std::min(k * (m + n), m * n); }

LOWRANK_BODY index rank_from_energy(const singular_values_in& s, double share) {
    return detail::smallest_with_share("rank_from_energy", s, share, share, 2);
}

LOWRANK_BODY index rank_from_frobenius_share(const singular_values_in& s, double share) {
    return detail::smallest_with_share("rank_from_frobenius_share", s, share, share * share, 2);
}

LOWRANK_BODY index rank_from_sum_share(const singular_values_in& s, double share) {
    return detail::smallest_with_share("rank_from_sum_share", s, share, share, 1);
}

LOWRANK_BODY index rank_from_relative_error(const singular_values_in& s, double tolerance) {
    detail::expects(tolerance >= 0.0, "rank_from_relative_error: tolerance must not be negative");
    detail::expects_spectrum("rank_from_relative_error", s);
    const double total = detail::power_sum(s, 2);
    double tail = 0.0;
    for (index k = total > 0.0 ? s.size() : 0; k > 0; --k) {
        tail += detail::relative_power(s, k - 1, 2);
        if (tail > tolerance * tolerance * total) {
            return k;
        }
    }
    return 0;
}

LOWRANK_BODY index rank_above_threshold(const singular_values_in& s, double threshold) {
    detail::expects(threshold >= 0.0, "rank_above_threshold: threshold must not be negative");
    detail::expects_spectrum("rank_above_threshold", s);
    const auto& all = s.values();
    return static_cast<index>(std::count_if(all.begin(), all.end(), [&](double x) { return x > threshold; }));
}

LOWRANK_BODY index rank_above_ratio(const singular_values_in& s, double ratio) {
    detail::expects(ratio >= 0.0, "rank_above_ratio: ratio must not be negative");
    return s.size() == 0 ? 0 : rank_above_threshold(s, ratio * s(0));
}

LOWRANK_BODY index lycoris_quantile_rank(const singular_values_in& s, double q) {
    return s.size() == 0 ? 0 : std::max<index>(1, rank_from_sum_share(s, q) - 1);
}

namespace detail {

LOWRANK_API [[nodiscard]] index kohya_rank(const singular_values_in& s, index found, index max_rank);

LOWRANK_BODY index kohya_rank(const singular_values_in& s, index found, index max_rank) {
    expects(max_rank >= 0, "kohya's rank rules: max_rank must not be negative");
    if (s.size() == 0) {
        return 0;
    }
    if (!(s(0) > 1e-6)) {
        return std::min<index>(1, max_rank);
    }
    return std::min({std::clamp<index>(found, 1, std::max<index>(s.size() - 1, 1)) + 1, s.size(), max_rank});
}

}  // namespace detail

LOWRANK_BODY index kohya_ratio_rank(const singular_values_in& s, double ratio, index max_rank) {
    detail::expects(ratio > 0.0, "kohya_ratio_rank: ratio must be positive");
    return detail::kohya_rank(s, rank_above_ratio(s, 1.0 / ratio), max_rank);
}

LOWRANK_BODY index kohya_cumulative_rank(const singular_values_in& s, double share, index max_rank) {
    return detail::kohya_rank(s, rank_from_sum_share(s, share), max_rank);
}

LOWRANK_BODY index kohya_frobenius_rank(const singular_values_in& s, double share, index max_rank) {
    return detail::kohya_rank(s, rank_from_frobenius_share(s, share), max_rank);
}

LOWRANK_BODY double effective_rank(const singular_values_in& s) {
    detail::expects_spectrum("effective_rank", s);
    const double total = detail::power_sum(s, 1);
    if (!(total > 0.0)) {
        return 0.0;
    }
    double entropy = 0.0;
    for (const double value : s.values()) {
        const double p = value / s(0) / total;
        entropy -= p > 0.0 ? p * std::log(p) : 0.0;
    }
    return std::exp(entropy);
}

LOWRANK_BODY double stable_rank(const singular_values_in& s) {
    detail::expects_spectrum("stable_rank", s);
    return detail::power_sum(s, 2);
}

LOWRANK_BODY double participation_ratio(const singular_values_in& s) {
    detail::expects_spectrum("participation_ratio", s);
    const double squares = detail::power_sum(s, 2);
    return squares > 0.0 ? squares * squares / detail::power_sum(s, 4) : 0.0;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_RANKS_RANK_RULES_IPP
