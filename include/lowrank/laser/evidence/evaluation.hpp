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

#include <cmath>
#include <cstdint>
#include <functional>
#include <vector>

#include <lowrank/core/config.hpp>
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
    LOWRANK_API void append(const sample_scores& more);
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
LOWRANK_API [[nodiscard]] bool better(const score& a, const score& b);

/// Counts and averages. The mean is summed in order: the same scores give the same bits.
LOWRANK_API [[nodiscard]] score summarize(const sample_scores& s);

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
LOWRANK_API [[nodiscard]] result<sample_scores> evaluate_samples(const evaluator& evaluate, sample_range range,
                                                                 const evaluation_options& options = {});

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/laser/evidence/evaluation.ipp>
#endif

#endif  // LOWRANK_LASER_EVIDENCE_EVALUATION_HPP
