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

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/laser/evidence/evaluation.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// log p of the target of each column, p = softmax(logits): vocabulary x n logits, n targets.
///
/// The log-probability of an answer of several tokens is the sum of theirs.
/// \pre  targets lie in [0, vocabulary)
/// \cost vocabulary exponentials a column. Sums are in double; NaN where the column has no largest logit.
template <real S>
[[nodiscard]] vector<double> token_log_probabilities(const_column_view<S> logits, std::span<const index> targets) {
    detail::expects(static_cast<index>(targets.size()) == logits.cols(),
                    "token_log_probabilities: each column needs one target");
    vector<double> out(logits.cols());
    for (index i = 0; i < logits.cols(); ++i) {
        const index target = targets[static_cast<std::size_t>(i)];
        detail::expects_in_range("token_log_probabilities", "a target", target, index{0}, logits.rows() - 1);
        const auto z = logits.col(i);
        const double top = static_cast<double>(z.maxCoeff());
        double sum = 0;
        for (index v = 0; v < z.size(); ++v) {
            sum += std::exp(static_cast<double>(z(v)) - top);
        }
        out(i) = static_cast<double>(z(target)) - top - std::log(sum);
    }
    return out;
}

/// Each column one sample: right if fewer than `k` logits are larger than the target's, ties going to the lower token;
/// the loss is -log p(target).
///
/// \pre  As `token_log_probabilities`; k >= 1.
/// \note A sample is a token, so `score::perplexity` of the summary is the text's.
template <real S>
[[nodiscard]] sample_scores score_tokens(const_column_view<S> logits, std::span<const index> targets, index k = 1) {
    detail::expects(k >= 1, "score_tokens: k must be at least 1");
    const vector<double> p = token_log_probabilities<S>(logits, targets);
    sample_scores out;
    for (index i = 0; i < logits.cols(); ++i) {
        const index target = targets[static_cast<std::size_t>(i)];
        const auto z = logits.col(i);
        index before = 0;
        for (index v = 0; v < z.size(); ++v) {
            before += z(v) > z(target) || (v < target && z(v) == z(target)) ? 1 : 0;
        }
        out.add(before < k && is_finite(p(i)), -p(i));
    }
    return out;
}

/// Each column one question: labels x n log-probabilities of the answers to choose from, and which one is right. The
/// answer given is the most probable label, the first one of equals; the loss is -log p of the right one.
///
/// \pre right answers lie in [0, labels)
[[nodiscard]] inline sample_scores score_labels(const matrix<double>& log_probabilities, std::span<const index> right) {
    detail::expects(static_cast<index>(right.size()) == log_probabilities.cols(),
                    "score_labels: each column needs one right label");
    sample_scores out;
    for (index i = 0; i < log_probabilities.cols(); ++i) {
        const index label = right[static_cast<std::size_t>(i)];
        detail::expects_in_range("score_labels", "a right label", label, index{0}, log_probabilities.rows() - 1);
        index best = 0;
        for (index l = 1; l < log_probabilities.rows(); ++l) {
            best = log_probabilities(l, i) > log_probabilities(best, i) ? l : best;
        }
        out.add(best == label, -log_probabilities(label, i));
    }
    return out;
}

/// Right by generation: the answer, without white space around it, occurs in the generated text. Letters A to Z count
/// as their small ones. An empty answer occurs in every text.
[[nodiscard]] inline bool answer_in_text(std::string_view generated, std::string_view answer) {
    constexpr std::string_view white = " \t\n\v\f\r";
    const auto first = answer.find_first_not_of(white);
    if (first == std::string_view::npos) {
        return true;
    }
    answer = answer.substr(first, answer.find_last_not_of(white) - first + 1);
    const auto lower = [](std::string_view text) {
        std::string out(text);
        std::transform(out.begin(), out.end(), out.begin(),
                       [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
        return out;
    };
    return lower(generated).find(lower(answer)) != std::string::npos;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_SCORES_METRICS_HPP
