// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_EVIDENCE_EVIDENCE_IPP
#define LOWRANK_LASER_EVIDENCE_EVIDENCE_IPP

#include <lowrank/laser/evidence/evidence.hpp>

#include <algorithm>
#include <cstddef>

#include <lowrank/core/check.hpp>
#include <lowrank/core/normal_quantile.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_BODY double mcnemar_p(index gained, index lost) {
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

LOWRANK_BODY paired_evidence compare_paired(const sample_scores& before, const sample_scores& after,
                                            double confidence) {
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

LOWRANK_BODY double corrected_p(double p, index candidates) {
    detail::expects_in_range("corrected_p", "p", p, 0.0, 1.0);
    detail::expects(candidates >= 1, "corrected_p: there must be at least one candidate");
    return std::min(1.0, p * static_cast<double>(candidates));
}

LOWRANK_BODY double expected_max_of_normals(index candidates) {
    detail::expects(candidates >= 1, "expected_max_of_normals: there must be at least one candidate");
    const double n = static_cast<double>(candidates);
    return candidates == 1 ? 0.0 : normal_quantile((n - 0.375) / (n + 0.25));
}

namespace detail {

LOWRANK_BODY std::optional<index> samples_for(double gain, double variance, double confidence, double power) {
    expects(power > 0.5 && power < 1, "samples_for_gain: power must lie strictly between 1/2 and 1");
    if (!(gain > 0)) {
        return std::nullopt;
    }
    const double z = (normal_quantile(0.5 + 0.5 * confidence) + normal_quantile(power)) / gain;
    return static_cast<index>(std::ceil(std::max(1.0, std::min(z * z * variance, 1e15))));
}

}  // namespace detail

LOWRANK_BODY std::optional<index> samples_for_accuracy_gain(const paired_evidence& e, double power) {
    const double n = static_cast<double>(e.samples);
    const double discordant = static_cast<double>(e.gained + e.lost) / n;
    return detail::samples_for(e.accuracy_gain, discordant - e.accuracy_gain * e.accuracy_gain, e.confidence, power);
}

LOWRANK_BODY std::optional<index> samples_for_log_loss_gain(const paired_evidence& e, double power) {
    const double n = static_cast<double>(e.samples);
    return detail::samples_for(e.log_loss_gain, e.samples > 1 ? e.log_loss_error * e.log_loss_error * n : HUGE_VAL,
                               e.confidence, power);
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_EVIDENCE_EVIDENCE_IPP
