// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_SEARCH_GRADIENT_SEARCH_IPP
#define LOWRANK_LASER_SEARCH_GRADIENT_SEARCH_IPP

#include <lowrank/laser/search/gradient_search.hpp>

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <utility>
#include <variant>

#include <lowrank/core/check.hpp>
#include <lowrank/laser/evidence/evaluation.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

LOWRANK_BODY status probe(search_session& session, const gradient_options& gradient, std::vector<index>& order) {
    const auto probed = static_cast<std::size_t>(std::min<std::ptrdiff_t>(gradient.probed, std::ssize(order)));
    const sample_range validation = session.options().validation;
    const sample_range few{validation.begin, std::min(validation.end, validation.begin + gradient.probe_samples)};
    std::vector<search_candidate> tried;
    for (std::size_t i = 0; i < probed; ++i) {
        auto wanted = session.candidates(order[i]);
        session.extend(wanted.size());
        if (status why = session.prefetch_scores(wanted, few); !why) {
            return why;
        }
        for (auto c = wanted.begin(); c != wanted.end(); ++c) {
            if (status why = session.proceed(c->name); !why) {
                return why;
            }
            if (std::any_of(wanted.begin(), c,
                            [&](const auto& earlier) { return same_edits(earlier.edits, c->edits); })) {
                continue;
            }
            const auto scores = session.evaluate(*c, few);
            if (!scores) {
                return scores.error();
            }
            if (c->why) {
                c->validation = summarize(*scores);
                tried.push_back(*c);
            }
        }
    }
    std::vector<std::size_t> all(tried.size());
    std::iota(all.begin(), all.end(), std::size_t{0});
    std::vector<index> sorted;
    const auto add = [&](index w) {
        if (std::find(sorted.begin(), sorted.end(), w) == sorted.end()) {
            sorted.push_back(w);
        }
    };
    for (const std::size_t i : in_turn(tried, all)) {
        add(tried[i].newest().weight);
    }
    for (const index w : order) {  // weights without an edit that could be scored, and those not probed
        add(w);
    }
    order = std::move(sorted);
    return {};
}

LOWRANK_BODY search_result run_gradient(searched_model& model, const search_options& options,
                                        const gradient_options& gradient) {
    expects_halving(gradient.scan);
    expects(gradient.samples >= 1 && gradient.matrices >= 1,
            "gradient_search: samples and matrices must be at least 1");
    expects(gradient.probed >= 0 && gradient.probe_samples >= 1,
            "gradient_search: probed must not be negative, probe_samples at least 1");
    expects(model.has_gradients, "gradient_search: the model has no hook for gradients");
    search_session session("gradient_search", model, options);
    session.extend(1);
    return session.run([&](search_result& out) -> status {
        if (status why = session.proceed("gradients"); !why) {
            return why;
        }
        const index begin = options.validation.begin;
        const sample_range few{begin, std::min(options.validation.end, begin + gradient.samples)};
        index passes = 0;
        auto made = model.gradients(few, passes);
        session.count(passes * few.size(), 3 * model.layers);  // a forward pass, and a backward pass of twice its cost
        if (!made) {
            return {made.error().code, "gradient_search: " + made.error().message};
        }
        out.scores = *std::move(made);
        out.order = screen(out.scores, gradient.policy, options.fractions);
        if (gradient.probed > 0) {
            if (status why = probe(session, gradient, out.order); !why) {
                return why;
            }
        }
        std::vector<index> chosen(
            out.order.begin(), out.order.begin() + std::min<std::ptrdiff_t>(gradient.matrices, std::ssize(out.order)));
        std::sort(chosen.begin(), chosen.end());
        for (const index w : chosen) {
            for (auto& c : session.candidates(w)) {
                if (std::holds_alternative<kept_components>(c.newest().what.kept)) {
                    c.predicted = out.scores[static_cast<std::size_t>(w)].loss_change(c.newest().rank);
                }
                out.candidates.push_back(std::move(c));
            }
        }
        return race(session, gradient.scan, out);
    });
}

}  // namespace detail

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_SEARCH_GRADIENT_SEARCH_IPP
