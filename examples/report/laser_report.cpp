// SPDX-License-Identifier: MIT
#include "laser_report.hpp"

#include <algorithm>
#include <cmath>
#include <utility>
#include <variant>

#include "page.hpp"
#include "search_figures.hpp"
#include "text.hpp"

namespace report {
namespace {

using lowrank::index;
using json = nlohmann::ordered_json;

json laser_score_json(const lowrank::score& s, bool accuracy) {
    json out = {{"samples", s.samples}, {"nll", s.log_loss}};
    if (accuracy) {
        out["accuracy"] = s.accuracy();
    }
    return out;
}

std::string laser_score_text(const lowrank::score& s, bool accuracy) {
    return accuracy ? format("%.2f %% right, NLL %.5f", 100.0 * s.accuracy(), s.log_loss)
                    : format("NLL %.5f", s.log_loss);
}

/// An interval from a single sample is unbounded, which JSON cannot say.
json interval_json(const lowrank::paired_evidence& e) {
    return e.samples > 1 ? json{e.log_loss_interval.low, e.log_loss_interval.high} : json(nullptr);
}

bool gain_is_significant(const laser_results& r) {
    const auto& e = *r.found.evidence;
    return r.accuracy() ? e.gain_is_significant() : e.samples > 1 && e.log_loss_interval.low > 0;
}

/// p of the winner on the validation samples, times the number of candidates it was chosen from.
double p_after_selection(const laser_results& r) {
    return lowrank::corrected_p(r.accuracy() ? r.found.selection->mcnemar_p : r.found.selection->log_loss_p(),
                                static_cast<index>(r.candidates.size()));
}

/// How many held-out samples would show the gain that was seen to be significant; empty when it is, or is not a gain.
std::string warning(const laser_results& r) {
    if (!r.found.evidence || gain_is_significant(r)) {
        return "";
    }
    const auto needed = r.accuracy() ? lowrank::samples_for_accuracy_gain(*r.found.evidence)
                                     : lowrank::samples_for_log_loss_gain(*r.found.evidence);
    return needed ? format("%lld held-out samples cannot carry a claim about a gain this small; about %lld would",
                           static_cast<long long>(r.found.evidence->samples), static_cast<long long>(*needed))
                  : std::string("the held-out samples show no gain");
}

/// How many groups of rows an edit makes, and whether they are clusters.
std::pair<index, bool> row_groups(const lowrank::edit& e) {
    if (const auto* blocks = std::get_if<lowrank::kept_blocks>(&e.kept)) {
        return {blocks->blocks, false};
    }
    const auto* clusters = std::get_if<lowrank::kept_clusters>(&e.kept);
    return clusters != nullptr ? std::pair(clusters->clusters, true) : std::pair(index{1}, false);
}

}  // namespace

nlohmann::ordered_json laser_json(const laser_results& r) {
    const bool accuracy = r.accuracy();
    json candidates = json::array();
    for (const auto& c : r.candidates) {
        json one = {{"matrix", r.matrices[static_cast<std::size_t>(c.weight)]},
                    {"rho", c.fraction},
                    {"rank", c.rank},
                    {"relative_error", c.relative_error}};
        if (const auto [groups, clustered] = row_groups(c.what); groups > 1) {
            one["groups"] = groups;
            one["clustered"] = clustered;
            one["parameters"] = c.parameters;
        }
        if (std::holds_alternative<lowrank::kept_entries>(c.what.kept)) {
            one["density"] = c.fraction;
            one["parameters"] = c.parameters;
        }
        if (c.predicted) {
            one["predicted_nll_change"] = *c.predicted;
        }
        if (c.why) {
            one["validation"] = laser_score_json(c.validation, accuracy);
        } else {
            one["error"] = c.why.message;
        }
        candidates.push_back(std::move(one));
    }
    json winner = nullptr;
    if (r.found.winner) {
        const auto& c = r.candidates[static_cast<std::size_t>(*r.found.winner)];
        winner = {{"matrix", r.matrices[static_cast<std::size_t>(c.weight)]},
                  {"rho", c.fraction},
                  {"rank", c.rank},
                  {"relative_error", c.relative_error},
                  {"edit", lowrank::to_text(c.what)}};
    }
    json edits = json::array();
    for (const auto& step : r.steps) {
        edits.push_back({{"edit", lowrank::to_text(step.what)},
                         {"rho", step.fraction},
                         {"validation", laser_score_json(step.validation, accuracy)}});
    }
    json held_out = {{"before", laser_score_json(r.found.held_out_before, accuracy)},
                     {"after", laser_score_json(r.found.held_out_after, accuracy)}};
    if (r.found.evidence) {
        const auto& e = *r.found.evidence;
        held_out["nll_gain"] = e.log_loss_gain;
        held_out["nll_gain_interval"] = interval_json(e);
        held_out["confidence"] = e.confidence;
        if (accuracy) {
            held_out["accuracy_gain"] = e.accuracy_gain;
            held_out["accuracy_gain_interval"] = {e.accuracy_interval.low, e.accuracy_interval.high};
            held_out["mcnemar_p"] = e.mcnemar_p;
        }
        held_out["significant"] = gain_is_significant(r);
        if (const auto text = warning(r); !text.empty()) {
            held_out["warning"] = text;
        }
    }
    if (r.random_change) {
        held_out["random_change_of_equal_size"] = laser_score_json(*r.random_change, accuracy);
    }
    json validation = {{"before", laser_score_json(r.found.baseline, accuracy)},
                       {"after", laser_score_json(r.found.best, accuracy)}};
    if (r.found.selection) {
        validation["p_corrected_for_candidates"] = p_after_selection(r);
    }
    json out = {{"command", "laser"},
                {"model", r.model},
                {"method", r.method},
                {"metric", r.metric},
                {"seed", r.seed},
                {"validation", validation},
                {"winner", winner},
                {"edits", edits},
                {"held_out", held_out},
                {"evaluated_samples", r.found.evaluated_samples},
                {"evaluated_sample_layers", r.found.evaluated_sample_layers},
                {"held_out_sample_layers", r.found.held_out_sample_layers},
                {"factorizations", r.found.factorizations}};
    if (!r.found.warning.empty()) {
        out["warning"] = r.found.warning;
    }
    if (!r.found.scores.empty()) {
        json screen = json::array();
        for (const index w : r.found.order) {
            const auto& s = r.found.scores[static_cast<std::size_t>(w)];
            const index k = s.best_rank();
            screen.push_back({{"matrix", r.matrices[static_cast<std::size_t>(w)]},
                              {"best_rank", k},
                              {"predicted_nll_change", s.loss_change(k)},
                              {"standard_error", s.change_error(k)}});
        }
        out["screen"] = std::move(screen);
    }
    out["candidates"] = std::move(candidates);
    return out;
}

std::string laser_text(const laser_results& r, std::size_t top) {
    const bool accuracy = r.accuracy();
    std::vector<const laser_candidate*> order;
    for (const auto& c : r.candidates) {
        if (c.why) {
            order.push_back(&c);
        }
    }
    std::stable_sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
        return a->validation.samples != b->validation.samples ? a->validation.samples > b->validation.samples
                                                              : lowrank::better(a->validation, b->validation);
    });
    std::string out = format("%zu candidates, %lld of %lld samples for validation\nunedited model  %s\n\n",
                             r.candidates.size(), static_cast<long long>(r.found.baseline.samples),
                             static_cast<long long>(r.found.baseline.samples + r.found.held_out_before.samples),
                             laser_score_text(r.found.baseline, accuracy).c_str());
    const bool some_on_fewer = !order.empty() && order.back()->validation.samples < r.found.baseline.samples;
    if (!r.found.scores.empty()) {
        table screened({"matrix, by gradient", "best rank", "predicted change", "std. error"});
        for (std::size_t i = 0; i < std::min<std::size_t>(5, r.found.order.size()); ++i) {
            const auto& s = r.found.scores[static_cast<std::size_t>(r.found.order[i])];
            const index k = s.best_rank();
            screened.add({r.matrices[static_cast<std::size_t>(r.found.order[i])], std::to_string(k),
                          format("%+.5f", s.loss_change(k)), format("%.5f", s.change_error(k))});
        }
        out += screened.text() + "\n";
    }
    std::vector<std::string> head = {"matrix", "rho", "rank", "rel. error", "NLL", accuracy ? "right" : "change"};
    if (some_on_fewer) {
        head.emplace_back("samples");
    }
    table best(head);
    for (std::size_t i = 0; i < std::min(order.size(), top); ++i) {
        const auto& c = *order[i];
        std::string name = r.matrices[static_cast<std::size_t>(c.weight)];
        if (const auto [groups, clustered] = row_groups(c.what); groups > 1) {
            name += format(" by %lld %s", static_cast<long long>(groups), clustered ? "clusters" : "blocks");
        }
        name += std::holds_alternative<lowrank::kept_entries>(c.what.kept) ? " largest entries" : "";
        const bool on_all = c.validation.samples == r.found.baseline.samples;
        std::vector<std::string> row = {
            std::move(name),
            format("%g", c.fraction),
            std::to_string(c.rank),
            format("%.4f", c.relative_error),
            format("%.5f", c.validation.log_loss),
            accuracy
                ? format("%.2f %%", 100.0 * c.validation.accuracy())
                : (on_all ? format("%+.5f", c.validation.log_loss - r.found.baseline.log_loss) : std::string("-"))};
        if (some_on_fewer) {
            row.push_back(std::to_string(c.validation.samples));
        }
        best.add(row);
    }
    out += best.text();
    out += format("\nwork: %s sample-layers (%s held out) in %s evaluated samples, %lld factorizations\n",
                  grouped(static_cast<std::uint64_t>(r.found.evaluated_sample_layers)).c_str(),
                  grouped(static_cast<std::uint64_t>(r.found.held_out_sample_layers)).c_str(),
                  grouped(static_cast<std::uint64_t>(r.found.evaluated_samples)).c_str(),
                  static_cast<long long>(r.found.factorizations));
    if (!r.found.warning.empty()) {
        out += "warning: " + r.found.warning + "\n";
    }
    if (r.steps.empty()) {
        return out + "\nno candidate beats the unedited model\n";
    }
    out += "\n";
    for (const auto& step : r.steps) {
        out += "best: " + lowrank::to_text(step.what) + "\n";
    }
    if (r.found.selection) {
        out += format("on the validation samples, corrected for %zu candidates: p = %.2g\n", r.candidates.size(),
                      p_after_selection(r));
    }
    if (!r.found.evidence) {
        return out;
    }
    const auto& e = *r.found.evidence;
    out += "held-out samples  " + laser_score_text(r.found.held_out_before, accuracy) + " before, " +
           laser_score_text(r.found.held_out_after, accuracy) + " after\n";
    if (r.random_change) {
        out += "                  " + laser_score_text(*r.random_change, accuracy) +
               " with a random change of the same size instead\n";
    }
    if (e.samples > 1) {
        out += format("gain in NLL       %+.5f, %.0f %% interval [%+.5f, %+.5f]\n", e.log_loss_gain,
                      100.0 * e.confidence, e.log_loss_interval.low, e.log_loss_interval.high);
    }
    if (accuracy) {
        out += format("gain in accuracy  %+.2f points, %.0f %% interval [%+.2f, %+.2f], McNemar p = %.2g\n",
                      100.0 * e.accuracy_gain, 100.0 * e.confidence, 100.0 * e.accuracy_interval.low,
                      100.0 * e.accuracy_interval.high, e.mcnemar_p);
    }
    out += gain_is_significant(r) ? "the gain is real at this confidence\n"
                                  : "the held-out samples show no significant gain\n";
    if (const auto text = warning(r); !text.empty()) {
        out += text + "\n";
    }
    return out;
}

std::string laser_page(const laser_results& r) {
    const bool accuracy = r.accuracy();
    const auto figure = [&](const lowrank::score& s) {
        return accuracy ? format("%.1f %%", 100 * s.accuracy()) : format("%.4f", s.log_loss);
    };
    page out("Rank reduction of " + r.model,
             format("lowrank laser, method %s, metric %s, seed %llu, %.0f seconds.", r.method.c_str(), r.metric.c_str(),
                    static_cast<unsigned long long>(r.seed), r.seconds));
    const std::string what = accuracy ? "right" : "NLL";
    out.numbers({{figure(r.found.held_out_before), what + " on held-out samples, unedited"},
                 {figure(r.found.held_out_after), what + (r.steps.empty() ? ": no edit helps" : " after the edit")},
                 {std::to_string(r.candidates.size()), "candidates"},
                 {grouped(static_cast<std::uint64_t>(r.found.evaluated_sample_layers)), "sample-layers evaluated"}});
    std::string outcome;
    for (const auto& step : r.steps) {
        outcome += "<p><code>" + html_escaped(lowrank::to_text(step.what)) + "</code></p>\n";
    }
    if (r.steps.empty()) {
        outcome = paragraph("No candidate beats the unedited model on the validation samples.");
    }
    if (r.found.evidence) {
        const auto& e = *r.found.evidence;
        std::vector<std::vector<std::string>> rows = {
            {"validation samples", std::to_string(r.found.baseline.samples)},
            {"held-out samples", std::to_string(e.samples)},
            {"gain in NLL", format("%+.5f, %.0f %% interval [%+.5f, %+.5f]", e.log_loss_gain, 100 * e.confidence,
                                   e.log_loss_interval.low, e.log_loss_interval.high)}};
        if (accuracy) {
            rows.push_back({"gain in right answers",
                            format("%+.2f points, interval [%+.2f, %+.2f], McNemar p = %.2g", 100 * e.accuracy_gain,
                                   100 * e.accuracy_interval.low, 100 * e.accuracy_interval.high, e.mcnemar_p)});
        }
        if (r.found.selection) {
            rows.push_back(
                {"p on the validation samples, corrected for the candidates", format("%.2g", p_after_selection(r))});
        }
        if (r.random_change) {
            rows.push_back({"with a random change of the same size instead", figure(*r.random_change)});
        }
        rows.push_back({"verdict", gain_is_significant(r) ? "the gain is real at this confidence"
                                                          : "no significant gain: " + warning(r)});
        outcome += html_table({"", ""}, rows);
    }
    out.section("Outcome", outcome);
    search_map map{.matrices = r.matrices, .fractions = r.fractions, .diverging = true, .shown_times = 1000};
    for (std::size_t i = 0; i < r.candidates.size(); ++i) {
        const auto& c = r.candidates[i];
        if (c.why && std::holds_alternative<lowrank::kept_components>(c.what.kept)) {
            map.add(c.weight, c.fraction,
                    accuracy ? c.validation.accuracy() - r.found.baseline.accuracy()
                             : r.found.baseline.log_loss - c.validation.log_loss,
                    r.found.winner && static_cast<std::size_t>(*r.found.winner) == i);
        }
    }
    out.section(
        "What was tried",
        paragraph(accuracy ? "Change of the share of right answers on the validation samples, in thousandths, by "
                             "matrix and by the share of the rank that is kept."
                           : "Fall of the NLL on the validation samples, in thousandths of a nat, by "
                             "matrix and by the share of the rank that is kept; a rise has a minus sign.") +
            svg(map));

    // The path: the best so far after each candidate that was scored on all samples.
    std::vector<double> path;
    lowrank::score so_far = r.found.baseline;
    for (const auto& c : r.candidates) {
        if (c.why && c.validation.samples == so_far.samples) {
            so_far = lowrank::better(c.validation, so_far) ? c.validation : so_far;
            path.push_back(accuracy ? 100 * so_far.accuracy() : so_far.log_loss);
        }
    }
    if (path.size() > 1) {
        out.section("The search's path",
                    paragraph("The best so far, after each candidate that was judged on all validation samples.") +
                        svg(line_chart{.x_label = "candidate",
                                       .y_label = accuracy ? "right answers in percent" : "NLL",
                                       .lines = {{.name = "best so far", .y = path, .first_x = 1}},
                                       .points = path.size() < 100,
                                       .from_zero = false}));
    }
    std::vector<std::vector<std::string>> predicted;
    for (const auto& c : r.candidates) {
        if (c.why && c.predicted && c.validation.samples == r.found.baseline.samples) {
            predicted.push_back({short_name(r.matrices[static_cast<std::size_t>(c.weight)]), format("%g", c.fraction),
                                 format("%+.5f", *c.predicted),
                                 format("%+.5f", c.validation.log_loss - r.found.baseline.log_loss)});
        }
    }
    if (!predicted.empty()) {
        out.section("Predicted and actual change",
                    paragraph("To first order the gradient predicts the change of the NLL for every rank. It ranks "
                              "matrices; far from the full rank it is no forecast.") +
                        html_table({"matrix", "rho", "predicted change of NLL", "actual change"}, predicted));
    }
    for (const auto& s : r.spectra) {
        out.section(
            "Singular values of " + short_name(s.matrix),
            paragraph(format("The edit keeps %lld. Noise of the level that the median suggests explains all but %lld "
                             "(Marchenko-Pastur); the optimal hard threshold keeps %lld (Gavish-Donoho).",
                             static_cast<long long>(s.kept), static_cast<long long>(s.marchenko_pastur),
                             static_cast<long long>(s.gavish_donoho))) +
                spectrum_chart("singular value", {{.name = "s", .y = s.values, .first_x = 1}}, s.kept));
    }
    return out.text();
}

}  // namespace report
