// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_EVIDENCE_EVIDENCE_HPP
#define LOWRANK_LASER_EVIDENCE_EVIDENCE_HPP

/// \file
/// Uncertainty of a before/after comparison on the same samples: paired intervals and McNemar's exact test.
///
///     auto e = lowrank::compare_paired(before, after);         // two sample_scores of the same samples
///     log(e.accuracy_gain, e.accuracy_interval.low, e.mcnemar_p);     // +0.21, +0.15, 3e-9
///
/// Valid on held-out samples. On the validation samples the best of many candidates looks better than it is.
///
/// Interval of the accuracy difference: Bonett, Price: Adjusted Wald confidence interval for a difference of binomial
/// proportions based on paired data, J. Educ. Behav. Stat. 37 (2012). Test: McNemar, Psychometrika 12 (1947), exact.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numbers>
#include <optional>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/normal_quantile.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/laser/evidence/evaluation.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A confidence interval.
struct interval {
    double low = 0;
    double high = 0;

    [[nodiscard]] bool contains(double x) const noexcept { return low <= x && x <= high; }
};

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
    double log_loss_error = 0;        ///< Standard error of log_loss_gain; infinite for a single sample.

    /// True if the accuracy interval lies above zero.
    [[nodiscard]] bool gain_is_significant() const noexcept { return accuracy_interval.low > 0; }

    /// Two-sided p-value of the log-loss gain by the normal approximation; 1 if there is no spread and no gain.
    [[nodiscard]] double log_loss_p() const {
        if (!(log_loss_error > 0)) {
            return log_loss_gain == 0 ? 1.0 : 0.0;
        }
        return std::erfc(std::abs(log_loss_gain) / log_loss_error / std::numbers::sqrt2);
    }
};

/// Compares two scorings of the same samples, pair by pair.
/// \pre  both of one length >= 1; 0 < confidence < 1
/// \cost O(samples)
[[nodiscard]] inline paired_evidence compare_paired(const sample_scores& before, const sample_scores& after,
                                                    double confidence = 0.95) {
    detail::expects(before.size() == after.size() && before.size() >= 1,
                    "compare_paired: both scorings must be of the same samples, at least one");
    detail::expects(before.log_loss.size() == before.correct.size() && after.log_loss.size() == after.correct.size(),
                    "compare_paired: a scoring must have one log_loss for each sample");
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
    e.log_loss_error = error / z;
    return e;
}

/// A p-value of the best of several candidates, corrected for the choice: min(1, candidates * p) (Bonferroni). It holds
/// whatever the candidates have to do with each other.
/// \pre 0 <= p <= 1, candidates >= 1
[[nodiscard]] inline double corrected_p(double p, index candidates) {
    detail::expects_in_range("corrected_p", "p", p, 0.0, 1.0);
    detail::expects(candidates >= 1, "corrected_p: there must be at least one candidate");
    return std::min(1.0, p * static_cast<double>(candidates));
}

/// By how many standard errors the best of `candidates` equal ones looks better than it is: the mean of the largest of
/// so many independent standard normal numbers, by Blom's approximation. 2.1 for 35 candidates. \pre candidates >= 1
[[nodiscard]] inline double expected_max_of_normals(index candidates) {
    detail::expects(candidates >= 1, "expected_max_of_normals: there must be at least one candidate");
    const double n = static_cast<double>(candidates);
    return candidates == 1 ? 0.0 : normal_quantile((n - 0.375) / (n + 0.25));
}

namespace detail {

/// n with gain >= (z_confidence + z_power) sqrt(variance / n). None unless the gain is positive.
[[nodiscard]] inline std::optional<index> samples_for(double gain, double variance, double confidence, double power) {
    expects(power > 0.5 && power < 1, "samples_for_gain: power must lie strictly between 1/2 and 1");
    if (!(gain > 0)) {
        return std::nullopt;
    }
    const double z = (normal_quantile(0.5 + 0.5 * confidence) + normal_quantile(power)) / gain;
    return static_cast<index>(std::ceil(std::max(1.0, std::min(z * z * variance, 1e15))));
}

}  // namespace detail

/// How many samples would show an accuracy gain of the size seen, with this share of discordant samples, at the
/// evidence's confidence with probability `power`. None if no gain was seen.
[[nodiscard]] inline std::optional<index> samples_for_accuracy_gain(const paired_evidence& e, double power = 0.8) {
    const double n = static_cast<double>(e.samples);
    const double discordant = static_cast<double>(e.gained + e.lost) / n;
    return detail::samples_for(e.accuracy_gain, discordant - e.accuracy_gain * e.accuracy_gain, e.confidence, power);
}

/// The same for the mean fall of the log-loss.
[[nodiscard]] inline std::optional<index> samples_for_log_loss_gain(const paired_evidence& e, double power = 0.8) {
    const double n = static_cast<double>(e.samples);
    return detail::samples_for(e.log_loss_gain, e.samples > 1 ? e.log_loss_error * e.log_loss_error * n : HUGE_VAL,
                               e.confidence, power);
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_EVIDENCE_EVIDENCE_HPP
