// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_EVIDENCE_HPP
#define LOWRANK_LASER_EVIDENCE_HPP

/// \file
/// How sure a before/after comparison on the same samples is: paired intervals and McNemar's exact test.
///
///     auto e = lowrank::compare_paired(before, after);       // two sample_scores of the same samples
///     e.accuracy_gain; e.accuracy_interval.low; e.mcnemar_p; // +0.21, +0.15, 3e-9
///
/// Valid for samples that the choice of the edit has not seen. On the samples it was chosen on, the best of many
/// candidates looks better than it is.
///
/// Interval of the accuracy difference: Bonett, Price: Adjusted Wald confidence interval for a difference of binomial
/// proportions based on paired data, J. Educ. Behav. Stat. 37 (2012). Test: McNemar, Psychometrika 12 (1947), exact.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numbers>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/laser/evaluation.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A confidence interval.
struct interval {
    double low = 0;
    double high = 0;

    [[nodiscard]] bool contains(double x) const noexcept { return low <= x && x <= high; }
};

/// z with P(Z <= z) = p for a standard normal Z, to about 1e-14. \pre 0 < p < 1
[[nodiscard]] inline double normal_quantile(double p) {
    detail::expects(p > 0 && p < 1, "normal_quantile: p must lie strictly between 0 and 1");
    if (p > 0.5) {
        return -normal_quantile(1 - p);
    }
    double low = -40, high = 0;  // P(Z <= -40) is below the smallest double
    for (int i = 0; i < 64; ++i) {
        const double mid = 0.5 * (low + high);
        (0.5 * std::erfc(-mid / std::numbers::sqrt2) < p ? low : high) = mid;
    }
    return 0.5 * (low + high);
}

/// McNemar's exact two-sided p-value: the probability, if the edit changed nothing, of a split of the discordant
/// samples at least as uneven as `gained` to `lost`. 1 when there are none.
/// \pre both >= 0
/// \cost O(gained + lost)
[[nodiscard]] inline double mcnemar_p(index gained, index lost) {
    detail::expects(gained >= 0 && lost >= 0, "mcnemar_p: counts must not be negative");
    const double n = static_cast<double>(gained + lost);
    const double k = static_cast<double>(std::min(gained, lost));
    // P(X <= k), X ~ Binomial(n, 1/2), summed downwards from its largest term.
    double term = std::exp(std::lgamma(n + 1) - std::lgamma(k + 1) - std::lgamma(n - k + 1) - n * std::numbers::ln2);
    double sum = 0;
    for (double i = k; i >= 0 && term > 0; i -= 1) {
        sum += term;
        term *= i / (n - i + 1);
    }
    return std::min(1.0, 2 * sum);
}

/// Before and after on the same samples.
struct paired_evidence {
    index samples = 0;
    index gained = 0;                 ///< Wrong before, right after.
    index lost = 0;                   ///< Right before, wrong after.
    double accuracy_gain = 0;         ///< (gained - lost) / samples.
    interval accuracy_interval = {};  ///< Of the true accuracy gain.
    double mcnemar_p = 1;             ///< Of a gain or loss this large if the truth were none.
    double log_loss_gain = 0;         ///< Mean of loss before - loss after: positive is better.
    interval log_loss_interval = {};  ///< Of the true mean; normal approximation, fair from about 30 samples on.
    double confidence = 0;            ///< Of both intervals.

    /// True if the accuracy interval lies above zero.
    [[nodiscard]] bool gain_is_sure() const noexcept { return accuracy_interval.low > 0; }
};

/// Compares two scorings of the same samples, pair by pair.
/// \pre  both of one length >= 1; 0 < confidence < 1
/// \cost O(samples)
[[nodiscard]] inline paired_evidence compare_paired(const sample_scores& before, const sample_scores& after,
                                                    double confidence = 0.95) {
    detail::expects(before.size() == after.size() && before.size() >= 1,
                    "compare_paired: both scorings must be of the same samples, at least one");
    detail::expects(confidence > 0 && confidence < 1, "compare_paired: confidence must lie strictly between 0 and 1");
    paired_evidence e{.samples = before.size(), .confidence = confidence};
    const double n = static_cast<double>(e.samples);
    double sum = 0;
    for (std::size_t i = 0; i < before.correct.size(); ++i) {
        const bool was = before.correct[i] != 0, is = after.correct[i] != 0;
        e.gained += !was && is ? 1 : 0;
        e.lost += was && !is ? 1 : 0;
        sum += before.log_loss[i] - after.log_loss[i];
    }
    const double z = normal_quantile(0.5 + 0.5 * confidence);

    e.accuracy_gain = static_cast<double>(e.gained - e.lost) / n;
    const double up = static_cast<double>(e.gained + 1) / (n + 2), down = static_cast<double>(e.lost + 1) / (n + 2);
    const double half_width = z * std::sqrt((up + down - (up - down) * (up - down)) / (n + 2));
    e.accuracy_interval = {std::max(-1.0, up - down - half_width), std::min(1.0, up - down + half_width)};
    e.mcnemar_p = lowrank::mcnemar_p(e.gained, e.lost);

    e.log_loss_gain = sum / n;
    double squares = 0;
    for (std::size_t i = 0; i < before.log_loss.size(); ++i) {
        const double d = before.log_loss[i] - after.log_loss[i] - e.log_loss_gain;
        squares += d * d;
    }
    const double error = e.samples > 1 ? z * std::sqrt(squares / (n - 1) / n) : HUGE_VAL;
    e.log_loss_interval = {e.log_loss_gain - error, e.log_loss_gain + error};
    return e;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_EVIDENCE_HPP
