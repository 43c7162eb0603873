// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_SCORES_METRICS_HPP
#define LOWRANK_LASER_SCORES_METRICS_HPP

/// \file
/// What counts as right, and what it cost: the metrics of LASER from logits, for an evaluator.
///
///     auto s = lowrank::score_tokens<float>(logits, targets);            // next token right, log-loss per token
///     auto top10 = lowrank::score_tokens<float>(logits, targets, 10);    // right: among the ten most probable
///     bool right = lowrank::answer_in_text(generated, "Paris");          // right by generation
///
/// Sharma, Ash, Misra, arXiv 2312.13558, section 5: generation accuracy, classification by the log-probabilities of
/// labels, log-loss of the answer; the code adds top-k and perplexity (`score::perplexity`).

#include <span>
#include <string_view>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/laser/evidence/evaluation.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// log p of the target of each column, p = softmax(logits): vocabulary x n logits, n targets.
///
/// The log-probability of an answer of several tokens is the sum of theirs.
/// \pre  targets lie in [0, vocabulary)
/// \cost vocabulary exponentials a column. Sums are in double; NaN where the column has no largest logit.
template <real S>
[[nodiscard]] vector<double> token_log_probabilities(const_column_view<S> logits, std::span<const index> targets);

/// Each column one sample: right if fewer than `k` logits are larger than the target's, ties going to the lower token;
/// the loss is -log p(target).
///
/// \pre  As `token_log_probabilities`; k >= 1.
/// \note A sample is a token, so `score::perplexity` of the summary is the text's.
template <real S>
[[nodiscard]] sample_scores score_tokens(const_column_view<S> logits, std::span<const index> targets, index k = 1);

/// Each column one question: labels x n log-probabilities of the answers to choose from, and which one is right. The
/// answer given is the most probable label, the first one of equals; the loss is -log p of the right one.
///
/// \pre right answers lie in [0, labels)
LOWRANK_API [[nodiscard]] sample_scores score_labels(const matrix<double>& log_probabilities,
                                                     std::span<const index> right);

/// Right by generation: the answer, without white space around it, occurs in the generated text. Letters A to Z count
/// as their small ones. An empty answer occurs in every text.
LOWRANK_API [[nodiscard]] bool answer_in_text(std::string_view generated, std::string_view answer);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/laser/scores/metrics.ipp>
#endif

#endif  // LOWRANK_LASER_SCORES_METRICS_HPP
