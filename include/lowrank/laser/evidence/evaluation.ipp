// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_EVIDENCE_EVALUATION_IPP
#define LOWRANK_LASER_EVIDENCE_EVALUATION_IPP

#include <lowrank/laser/evidence/evaluation.hpp>

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/finite.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_BODY void sample_scores::append(const sample_scores& more) {
    correct.insert(correct.end(), more.correct.begin(), more.correct.end());
    log_loss.insert(log_loss.end(), more.log_loss.begin(), more.log_loss.end());
}

LOWRANK_BODY bool better(const score& a, const score& b) {
    detail::expects(a.samples == b.samples, "better: both scores must be of the same samples");
    return a.correct > b.correct || (a.correct == b.correct && a.log_loss < b.log_loss);
}

LOWRANK_BODY score summarize(const sample_scores& s) {
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

LOWRANK_BODY result<sample_scores> evaluate_samples(const evaluator& evaluate, sample_range range,
                                                    const evaluation_options& options) {
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

#endif  // LOWRANK_LASER_EVIDENCE_EVALUATION_IPP
