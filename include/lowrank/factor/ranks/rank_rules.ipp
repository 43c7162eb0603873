// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_RANKS_RANK_RULES_IPP
#define LOWRANK_FACTOR_RANKS_RANK_RULES_IPP

#include <algorithm>
#include <cmath>

#include <lowrank/core/check.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/factor/ranks/rank_rules.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

inline void expects_share(const char* function, double share) { expects_in_range(function, "share", share, 0.0, 1.0); }

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

/// sum (s_i / s_1)^power; 0 for a spectrum that is empty or zero.
template <real S>
[[nodiscard]] double power_sum(const vector<S>& s, int power) {
    double sum = 0.0;
    for (index i = 0; i < s.size() && s(0) > S(0); ++i) {
        sum += std::pow(static_cast<double>(s(i)) / static_cast<double>(s(0)), power);
    }
    return sum;
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

template <real S>
index rank_from_energy(const vector<S>& s, double share) {
    detail::expects_share("rank_from_energy", share);
    detail::expects_spectrum("rank_from_energy", s);
    return detail::smallest_with_share(s, share, true);
}

template <real S>
index rank_from_frobenius_share(const vector<S>& s, double share) {
    detail::expects_share("rank_from_frobenius_share", share);
    detail::expects_spectrum("rank_from_frobenius_share", s);
    return detail::smallest_with_share(s, share * share, true);
}

template <real S>
index rank_from_sum_share(const vector<S>& s, double share) {
    detail::expects_share("rank_from_sum_share", share);
    detail::expects_spectrum("rank_from_sum_share", s);
    return detail::smallest_with_share(s, share, false);
}

template <real S>
index rank_from_relative_error(const vector<S>& s, double tolerance) {
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

template <real S>
index rank_above_threshold(const vector<S>& s, double threshold) {
    detail::expects(threshold >= 0.0, "rank_above_threshold: threshold must not be negative");
    detail::expects_spectrum("rank_above_threshold", s);
    return static_cast<index>(
        std::count_if(s.begin(), s.end(), [&](S x) { return static_cast<double>(x) > threshold; }));
}

template <real S>
index rank_above_ratio(const vector<S>& s, double ratio) {
    detail::expects(ratio >= 0.0, "rank_above_ratio: ratio must not be negative");
    detail::expects_spectrum("rank_above_ratio", s);
    return s.size() == 0 ? 0 : rank_above_threshold(s, ratio * static_cast<double>(s(0)));
}

template <real S>
index lycoris_quantile_rank(const vector<S>& s, double q) {
    return s.size() == 0 ? 0 : std::max<index>(1, rank_from_sum_share(s, q) - 1);
}

namespace detail {

template <real S>
[[nodiscard]] index kohya_rank(const vector<S>& s, index found, index max_rank) {
    if (s.size() == 0) {
        return 0;
    }
    if (!(static_cast<double>(s(0)) > 1e-6)) {
        return std::min<index>(1, max_rank);
    }
    return std::min({std::clamp<index>(found, 1, std::max<index>(s.size() - 1, 1)) + 1, s.size(), max_rank});
}

}  // namespace detail

template <real S>
index kohya_ratio_rank(const vector<S>& s, double ratio, index max_rank) {
    detail::expects(ratio > 0.0 && max_rank >= 0, "kohya_ratio_rank: ratio must be positive, max_rank not negative");
    return detail::kohya_rank(s, rank_above_ratio(s, 1.0 / ratio), max_rank);
}

template <real S>
index kohya_cumulative_rank(const vector<S>& s, double share, index max_rank) {
    detail::expects(max_rank >= 0, "kohya_cumulative_rank: max_rank must not be negative");
    return detail::kohya_rank(s, rank_from_sum_share(s, share), max_rank);
}

template <real S>
index kohya_frobenius_rank(const vector<S>& s, double share, index max_rank) {
    detail::expects(max_rank >= 0, "kohya_frobenius_rank: max_rank must not be negative");
    return detail::kohya_rank(s, rank_from_frobenius_share(s, share), max_rank);
}

template <real S>
double effective_rank(const vector<S>& s) {
    detail::expects_spectrum("effective_rank", s);
    if (s.size() == 0 || !(s(0) > S(0))) {
        return 0.0;
    }
    const double total = detail::power_sum(s, 1);
    double entropy = 0.0;
    for (const S value : s) {
        const double p = static_cast<double>(value) / static_cast<double>(s(0)) / total;
        entropy -= p > 0.0 ? p * std::log(p) : 0.0;
    }
    return std::exp(entropy);
}

template <real S>
double stable_rank(const vector<S>& s) {
    detail::expects_spectrum("stable_rank", s);
    return detail::power_sum(s, 2);
}

template <real S>
double participation_ratio(const vector<S>& s) {
    detail::expects_spectrum("participation_ratio", s);
    if (s.size() == 0 || !(s(0) > S(0))) {
        return 0.0;
    }
    const double squares = detail::power_sum(s, 2);
    return squares * squares / detail::power_sum(s, 4);
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_RANK_RULES_OF(S)                                           \
    template void detail::expects_spectrum(const char*, const vector<S>&); \
    template index rank_from_energy(const vector<S>&, double);             \
    template index rank_from_frobenius_share(const vector<S>&, double);    \
    template index rank_from_sum_share(const vector<S>&, double);          \
    template index rank_from_relative_error(const vector<S>&, double);     \
    template index rank_above_threshold(const vector<S>&, double);         \
    template index rank_above_ratio(const vector<S>&, double);             \
    template index lycoris_quantile_rank(const vector<S>&, double);        \
    template index kohya_ratio_rank(const vector<S>&, double, index);      \
    template index kohya_cumulative_rank(const vector<S>&, double, index); \
    template index kohya_frobenius_rank(const vector<S>&, double, index);  \
    template double effective_rank(const vector<S>&);                      \
    template double stable_rank(const vector<S>&);                         \
    template double participation_ratio(const vector<S>&);
LOWRANK_RANK_RULES_OF(float)
LOWRANK_RANK_RULES_OF(double)
#undef LOWRANK_RANK_RULES_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_RANKS_RANK_RULES_IPP
