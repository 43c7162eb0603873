// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_SEARCH_DETAIL_TRY_CANDIDATES_IPP
#define LOWRANK_LASER_SEARCH_DETAIL_TRY_CANDIDATES_IPP

#include <lowrank/laser/search/detail/try_candidates.hpp>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <utility>
#include <variant>

#include <lowrank/laser/edits/edit.hpp>
#include <lowrank/laser/evidence/evaluation.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

LOWRANK_BODY void golden_section(index n, const std::function<bool(index, index)>& better_at) {
    index low = 0, high = n - 1;  // the largest lies in [low, high]
    while (high - low > 2) {
        const auto step = std::max<index>(1, static_cast<index>(0.381966 * static_cast<double>(high - low) + 0.5));
        const index a = low + step, b = std::max(a + 1, high - step);
        if (better_at(b, a)) {
            low = a + 1;
        } else {
            high = b - 1;
        }
    }
    for (index i = low; i < high; ++i) {
        (void)better_at(i, i + 1);
    }
}

LOWRANK_BODY status try_candidates(search_session& session, const std::vector<search_candidate>& wanted, bool unimodal,
                                   search_result& out) {
    const auto from = out.candidates.size();
    const sample_range range = session.options().validation;
    status why = {};
    // The number in the result of candidate i of `wanted`, tried now or before; none after a failure.
    const auto tried = [&](std::size_t i) -> std::optional<std::size_t> {
        std::optional<std::size_t> same;
        for (std::size_t j = from; j < out.candidates.size(); ++j) {
            if (same_edits(out.candidates[j].edits, wanted[i].edits)) {
                same = j;
                if (out.candidates[j].newest().fraction == wanted[i].newest().fraction) {
                    return j;
                }
            }
        }
        if (why = session.proceed(wanted[i].name); !why) {
            return std::nullopt;
        }
        if (same) {
            search_candidate c = out.candidates[*same];
            c.edits = wanted[i].edits;
            for (std::size_t e = 0; e < c.edits.size(); ++e) {
                c.edits[e].size = out.candidates[*same].edits[e].size;
            }
            out.candidates.push_back(std::move(c));
        } else {
            search_candidate c = wanted[i];
            auto scores = session.evaluate(c, range);
            if (!scores) {
                why = scores.error();
                return std::nullopt;
            }
            c.validation = c.why ? summarize(*scores) : c.validation;
            out.candidates.push_back(std::move(c));
            if (out.candidates.back().why) {
                session.judge(out, out.candidates.size() - 1, *std::move(scores));
            }
        }
        return out.candidates.size() - 1;
    };
    const auto better_at = [&](std::size_t a, std::size_t b) {
        const auto i = tried(a), j = why ? tried(b) : std::nullopt;
        if (!i || !j) {
            return false;
        }
        const auto &x = out.candidates[*i], &y = out.candidates[*j];
        return x.why && (!y.why || better(x.validation, y.validation));
    };
    if (!unimodal) {
        if (status failed = session.prefetch_scores(wanted, range); !failed) {
            return failed;
        }
    }
    std::size_t run = 1;
    for (std::size_t begin = 0; begin < wanted.size() && why; begin += run) {
        const bool entries = std::holds_alternative<kept_entries>(wanted[begin].newest().what.kept);
        const auto all = entries ? session.options().densities.size() : session.options().fractions.size();
        run = unimodal ? std::min(all, wanted.size() - begin) : 1;
        if (run <= 2) {
            for (std::size_t i = begin; i < begin + run && why; ++i) {
                (void)tried(i);
            }
            continue;
        }
        // In the order of falling fractions, as the curve over them is unimodal.
        std::vector<std::size_t> order(run);
        for (std::size_t i = 0; i < run; ++i) {
            order[i] = begin + i;
        }
        std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
            return wanted[a].newest().fraction > wanted[b].newest().fraction;
        });
        golden_section(static_cast<index>(run), [&](index a, index b) {
            return why && better_at(order[static_cast<std::size_t>(a)], order[static_cast<std::size_t>(b)]);
        });
    }
    return why;
}

}  // namespace detail

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_SEARCH_DETAIL_TRY_CANDIDATES_IPP
