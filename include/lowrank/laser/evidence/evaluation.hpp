// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_EVIDENCE_EVALUATION_HPP
#define LOWRANK_LASER_EVIDENCE_EVALUATION_HPP

/// \file
/// How a search evaluates a model: scores of single samples.
///
///     lowrank::evaluator evaluate = [&](lowrank::sample_range r) -> lowrank::result<lowrank::sample_scores> {
///         lowrank::sample_scores s;
///         for (auto i = r.begin; i < r.end; ++i) s.add(predicts_right(i), log_loss(i));    // of your model
///         return s;
///     };
///
/// Scores are kept per sample, not as averages: whether an edit helps is a paired question (evidence.hpp).

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/parallel.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Samples begin, .., end - 1 of a data set whose order the evaluator fixes.
struct sample_range {
    index begin = 0;
    index end = 0;

    [[nodiscard]] index size() const noexcept { return end - begin; }
    friend bool operator==(const sample_range&, const sample_range&) = default;
};

/// For each sample of a range, in order: was the answer right, and -log p(right answer), in nats.
struct sample_scores {
    std::vector<std::uint8_t> correct = {};
    std::vector<double> log_loss = {};

    void add(bool right, double loss) {
        correct.push_back(right ? 1 : 0);
        log_loss.push_back(loss);
    }
    /// Those of further samples.
    void append(const sample_scores& more) {
        correct.insert(correct.end(), more.correct.begin(), more.correct.end());
        log_loss.insert(log_loss.end(), more.log_loss.begin(), more.log_loss.end());
    }
    [[nodiscard]] index size() const noexcept { return static_cast<index>(correct.size()); }
};

/// Scores the samples of a range with the model as it is now. A status ends the search. With an executor it
/// is called concurrently, on disjoint ranges, while the model is not written to.
using evaluator = std::function<result<sample_scores>(sample_range)>;

/// Scores of many samples in two numbers.
struct score {
    index samples = 0;
    index correct = 0;
    double log_loss = 0;  ///< Mean over the samples, in nats.

    [[nodiscard]] double accuracy() const noexcept {
        return samples > 0 ? static_cast<double>(correct) / static_cast<double>(samples) : 0.0;
    }
    /// exp of the mean log-loss: the perplexity of a text whose tokens are the samples.
    [[nodiscard]] double perplexity() const { return std::exp(log_loss); }
};

/// LASER's rule of selection, strict: more samples right, or as many right and a smaller mean log-loss.
/// \pre both are of the same samples
[[nodiscard]] inline bool better(const score& a, const score& b) {
    detail::expects(a.samples == b.samples, "better: both scores must be of the same samples");
    return a.correct > b.correct || (a.correct == b.correct && a.log_loss < b.log_loss);
}

/// Counts and averages. The mean is summed in order: the same scores give the same bits.
[[nodiscard]] inline score summarize(const sample_scores& s) {
    detail::expects(s.correct.size() == s.log_loss.size(), "summarize: correct and log_loss must have one length");
    score out{.samples = s.size()};
    for (std::size_t i = 0; i < s.correct.size(); ++i) {
        out.correct += s.correct[i] != 0 ? 1 : 0;
        out.log_loss += s.log_loss[i];
    }
    if (out.samples > 0) {
        out.log_loss /= static_cast<double>(out.samples);
    }
    return out;
}

/// How `evaluate_samples` cuts its range.
struct evaluation_options {
    index samples_per_call = 64;  ///< The evaluator gets at most so many samples at once.
    executor exec = {};           ///< Runs the calls; empty: one after the other.
};

/// Scores of all samples of a range, in order, whatever the executor.
///
/// \pre    0 <= range.begin <= range.end; samples_per_call >= 1; the evaluator returns one score for each sample.
/// \return the evaluator's own status if it gave one (that of the earliest call), `non_finite` if a log-loss is NaN or
///         infinite.
[[nodiscard]] inline result<sample_scores> evaluate_samples(const evaluator& evaluate, sample_range range,
                                                            const evaluation_options& options = {}) {
    detail::expects(static_cast<bool>(evaluate), "evaluate_samples: the evaluator must not be empty");
    detail::expects_in_range("evaluate_samples", "range.begin", range.begin, index{0}, range.end);
    detail::expects(options.samples_per_call >= 1, "evaluate_samples: samples_per_call must be at least 1");
    const index calls = (range.size() + options.samples_per_call - 1) / options.samples_per_call;
    std::vector<sample_scores> parts(static_cast<std::size_t>(calls));
    std::vector<status> failed(static_cast<std::size_t>(calls));
    parallel_for(options.exec, calls, [&](index c) {
        const index begin = range.begin + c * options.samples_per_call;
        auto part = evaluate({begin, std::min(range.end, begin + options.samples_per_call)});
        const auto at = static_cast<std::size_t>(c);
        if (part) {
            parts[at] = *std::move(part);
        } else {
            failed[at] = part.error();
        }
    });

    sample_scores all;
    for (index c = 0; c < calls; ++c) {
        const auto at = static_cast<std::size_t>(c);
        if (!failed[at]) {
            return failed[at];
        }
        const index begin = range.begin + c * options.samples_per_call;
        const index wanted = std::min(range.end, begin + options.samples_per_call) - begin;
        if (parts[at].size() != wanted || parts[at].log_loss.size() != parts[at].correct.size()) {
            detail::fail_contract_with("evaluate_samples: the evaluator must score each of the ", wanted,
                                       " samples asked for, got ", parts[at].size(), " answers and ",
                                       static_cast<index>(parts[at].log_loss.size()), " losses");
        }
        for (index i = 0; i < wanted; ++i) {
            const auto k = static_cast<std::size_t>(i);
            if (!is_finite(parts[at].log_loss[k])) {
                return status{errc::non_finite, "evaluate_samples: the log-loss of sample " +
                                                    std::to_string(begin + i) +
                                                    " is not finite; bound log p from below, or look for overflow"};
            }
            all.add(parts[at].correct[k] != 0, parts[at].log_loss[k]);
        }
    }
    return all;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_EVIDENCE_EVALUATION_HPP
