// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_SCORES_METRICS_IPP
#define LOWRANK_LASER_SCORES_METRICS_IPP

#include <lowrank/laser/scores/metrics.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>

#include <lowrank/core/check.hpp>
#include <lowrank/core/finite.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
vector<double> token_log_probabilities(const_column_view<S> logits, std::span<const index> targets) {
    detail::expects(static_cast<index>(targets.size()) == logits.cols(),
                    "token_log_probabilities: each column needs one target");
    vector<double> out(logits.cols());
    for (index i = 0; i < logits.cols(); ++i) {
        const index target = targets[static_cast<std::size_t>(i)];
        detail::expects_in_range("token_log_probabilities", "a target", target, index{0}, logits.rows() - 1);
        double top = static_cast<double>(logits(0, i)), sum = 0;
        for (index v = 1; v < logits.rows(); ++v) {
            top = std::max(top, static_cast<double>(logits(v, i)));
        }
        for (index v = 0; v < logits.rows(); ++v) {
            sum += std::exp(static_cast<double>(logits(v, i)) - top);
        }
        out(i) = static_cast<double>(logits(target, i)) - top - std::log(sum);
    }
    return out;
}

template <real S>
sample_scores score_tokens(const_column_view<S> logits, std::span<const index> targets, index k) {
    detail::expects(k >= 1, "score_tokens: k must be at least 1");
    const vector<double> p = token_log_probabilities<S>(logits, targets);
    sample_scores out;
    for (index i = 0; i < logits.cols(); ++i) {
        const index target = targets[static_cast<std::size_t>(i)];
        const S* z = logits.data() + i * logits.outerStride();
        index before = 0;
        for (index v = 0; v < logits.rows(); ++v) {
            before += z[v] > z[target] || (v < target && z[v] == z[target]) ? 1 : 0;
        }
        out.add(before < k && is_finite(p(i)), -p(i));
    }
    return out;
}

LOWRANK_BODY sample_scores score_labels(const matrix<double>& log_probabilities, std::span<const index> right) {
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

LOWRANK_BODY bool answer_in_text(std::string_view generated, std::string_view answer) {
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

#ifdef LOWRANK_COMPILED
template vector<double> token_log_probabilities(const_column_view<float>, std::span<const index>);
template sample_scores score_tokens(const_column_view<float>, std::span<const index>, index);
template vector<double> token_log_probabilities(const_column_view<double>, std::span<const index>);
template sample_scores score_tokens(const_column_view<double>, std::span<const index>, index);
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_SCORES_METRICS_IPP
