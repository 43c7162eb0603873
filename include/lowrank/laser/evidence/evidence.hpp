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

#include <cmath>
#include <numbers>
#include <optional>

#include <lowrank/core/config.hpp>
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
LOWRANK_API [[nodiscard]] double mcnemar_p(index gained, index lost);

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
LOWRANK_API [[nodiscard]] paired_evidence compare_paired(const sample_scores& before, const sample_scores& after,
                                                         double confidence = 0.95);

/// A p-value of the best of several candidates, corrected for the choice: min(1, candidates * p) (Bonferroni). It holds
/// whatever the candidates have to do with each other.
/// \pre 0 <= p <= 1, candidates >= 1
LOWRANK_API [[nodiscard]] double corrected_p(double p, index candidates);

/// By how many standard errors the best of `candidates` equal ones looks better than it is: the mean of the largest of
/// so many independent standard normal numbers, by Blom's approximation. 2.1 for 35 candidates. \pre candidates >= 1
LOWRANK_API [[nodiscard]] double expected_max_of_normals(index candidates);

namespace detail {

/// n with gain >= (z_confidence + z_power) sqrt(variance / n). None unless the gain is positive.
LOWRANK_API [[nodiscard]] std::optional<index> samples_for(double gain, double variance, double confidence,
                                                           double power);

}  // namespace detail

/// How many samples would show an accuracy gain of the size seen, with this share of discordant samples, at the
/// evidence's confidence with probability `power`. None if no gain was seen.
LOWRANK_API [[nodiscard]] std::optional<index> samples_for_accuracy_gain(const paired_evidence& e, double power = 0.8);

/// The same for the mean fall of the log-loss.
LOWRANK_API [[nodiscard]] std::optional<index> samples_for_log_loss_gain(const paired_evidence& e, double power = 0.8);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/laser/evidence/evidence.ipp>
#endif

#endif  // LOWRANK_LASER_EVIDENCE_EVIDENCE_HPP
