// SPDX-License-Identifier: MIT
#include "demo_report.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>

#include <lowrank/core/normal_quantile.hpp>

#include "page.hpp"
#include "search_figures.hpp"
#include "text.hpp"

namespace report {
namespace {

using json = nlohmann::ordered_json;

std::string percent(double x) { return format("%.1f %%", 100 * x); }

std::string points(const lowrank::paired_evidence& e) {
    return format("%+.1f points, %.0f %% interval [%+.1f, %+.1f]", 100 * e.accuracy_gain, 100 * e.confidence,
                  100 * e.accuracy_interval.low, 100 * e.accuracy_interval.high);
}

std::string p_value(double p) { return p < 1e-300 ? "p < 1e-300" : format("p = %.2g", p); }

/// Wilson's interval of a proportion at 95 %.
lowrank::interval proportion_interval(const lowrank::score& s) {
    const double n = static_cast<double>(s.samples), p = s.accuracy(), z = lowrank::normal_quantile(0.975);
    const double middle = (p + z * z / (2 * n)) / (1 + z * z / n);
    const double half = z / (1 + z * z / n) * std::sqrt(p * (1 - p) / n + z * z / (4 * n * n));
    return {middle - half, middle + half};
}

/// The winner's matrix with nothing of it kept: what remains when it is removed altogether.
const lowrank::search_candidate* removed_altogether(const demo_results& r) {
    const auto* won = r.search.winning();
    for (const auto& c : r.search.candidates) {
        if (won != nullptr && c.newest().weight == won->newest().weight && c.newest().rank == 0 && c.why) {
            return &c;
        }
    }
    return nullptr;
}

/// Means over a sliding window of `width`.
std::vector<double> smoothed(const std::vector<double>& y, std::size_t width) {
    std::vector<double> out;
    double sum = 0;
    for (std::size_t i = 0; i < y.size(); ++i) {
        sum += y[i] - (i >= width ? y[i - width] : 0.0);
        out.push_back(sum / static_cast<double>(std::min(i + 1, width)));
    }
    return out;
}

std::string loss_chart(const std::vector<double>& loss) {
    const std::size_t width = std::max<std::size_t>(5, loss.size() / 50);
    return svg(
        line_chart{.x_label = "step",
                   .y_label = "loss (nats per answer)",
                   .lines = {{.name = "step", .y = loss, .first_x = 1, .faint = true},
                             {.name = format("mean of %zu steps", width), .y = smoothed(loss, width), .first_x = 1}}});
}

bar_chart::bar bar_of(std::string label, const lowrank::score& s, bool second) {
    const auto around = proportion_interval(s);
    return {std::move(label), s.accuracy(), around.low, around.high, second};
}

bool same_edit(const demo_results& r, const quick_search& q) {
    return r.search.winner && q.edit == lowrank::to_text(r.search.edits().front());
}

/// What the exhaustive search evaluated: without the held-out samples, which cost every search the same.
lowrank::index search_work(const demo_results& r) {
    return r.search.evaluated_sample_layers - r.search.held_out_sample_layers;
}

/// The search's outcome in one sentence of plain text.
std::string edit_sentence(const demo_results& r) {
    const auto& won = r.search.winning()->newest();
    return short_name(won.what.weight) + format(" reduced to rank %td of %td", won.rank, won.what.of());
}

}  // namespace

std::string demo_text(const demo_results& r) {
    std::string out = format("a transformer with %s weights, trained %zu steps on noisy recall in %.0f s\n",
                             grouped(r.parameters).c_str(), r.training_loss.size(), r.training_seconds);
    out += format("\nrank reduction (%zu candidates, %td validation and %td held-out questions, %.0f s)\n",
                  r.search.candidates.size(), r.search.baseline.samples, r.search.held_out_before.samples,
                  r.search_seconds);
    if (r.search.winner) {
        const auto& e = *r.search.evidence;
        out += "  best edit         " + lowrank::to_text(r.search.edits().front()) + "\n";
        out += "  right answers     " + percent(r.search.held_out_before.accuracy()) + " before, " +
               percent(r.search.held_out_after.accuracy()) + " after: " + points(e) + "\n";
        out += format("  McNemar's test    %td questions gained, %td lost, ", e.gained, e.lost) + p_value(e.mcnemar_p) +
               "\n";
        out += "  the noise word    " + percent(r.noise_before) + " of the answers before, " + percent(r.noise_after) +
               " after\n";
        if (const auto* none = removed_altogether(r)) {
            out += "  no matrix at all  " + percent(none->validation.accuracy()) +
                   " right on the validation questions, with the edit " + percent(r.search.best.accuracy()) + "\n";
        }
        out += format("  exhaustive        %s sample-layers, %.1f s\n",
                      grouped(static_cast<std::uint64_t>(search_work(r))).c_str(), r.exhaustive_seconds);
        for (const auto& q : r.quick) {
            out += format("  %-8s          %s sample-layers, %.1f s, %s edit\n", q.method.c_str(),
                          grouped(static_cast<std::uint64_t>(q.sample_layers)).c_str(), q.seconds,
                          same_edit(r, q) ? "the same" : "ANOTHER");
        }
        out += format("  composed          %zu edits: NLL %.4f to %.4f on held-out questions, ",
                      r.composed.edits().size(), r.search.held_out_after.log_loss, r.composed.held_out_after.log_loss) +
               percent(r.composed.held_out_after.accuracy()) + " right\n";
        out +=
            format("  LoRA on top       NLL %.4f to %.4f, ", r.recovered_before.log_loss, r.recovered_after.log_loss) +
            percent(r.recovered_after.accuracy()) + " right\n";
    } else {
        out += "  no candidate beats the unedited model\n";
    }
    out += format("\nLoRA on a shifted task (rank 4, %s weights, %zu steps, %.0f s)\n",
                  grouped(r.adapter_parameters).c_str(), r.adapter_loss.size(), r.adapter_seconds);
    out += "  right answers     " + percent(r.adapter_before.accuracy()) + " before, " +
           percent(r.adapter_after.accuracy()) + " after: " + points(r.adapter_evidence) + "\n";
    out += "\nstored, read back, merged, taken apart again\n";
    out += format("  model reloaded    %s\n", r.reloaded_same_bits ? "the same bits" : "DIFFERENT BITS");
    out += format("  adapter reloaded  logits differ by at most %.3g\n", r.reload_difference);
    out += format("  merged            logits differ by at most %.3g (the adapter moves them by up to %.3g)\n",
                  r.merge_difference, r.adapter_effect);
    out += format("  unmerged          weights: %s, logits: %s; the receipt took %.3f bits per weight\n",
                  r.unmerged_same_bits ? "the same bits" : "DIFFERENT BITS",
                  r.unmerged_same_logits ? "the same bits" : "DIFFERENT BITS",
                  r.merged_bytes > 0 ? 8 * r.receipt_bytes / (r.merged_bytes / sizeof(float)) : 0.0);
    out += format("\n%.0f s in all. Report, model and adapter: ", r.seconds) + r.output + "/report.html, " + r.output +
           "/model, " + r.output + "/adapter\n";
    return out;
}

nlohmann::ordered_json demo_json(const demo_results& r) {
    const auto score_of = [](const lowrank::score& s) {
        return json{{"samples", s.samples}, {"accuracy", s.accuracy()}, {"nll", s.log_loss}};
    };
    const auto evidence_of = [](const lowrank::paired_evidence& e) {
        return json{{"samples", e.samples},
                    {"gained", e.gained},
                    {"lost", e.lost},
                    {"accuracy_gain", e.accuracy_gain},
                    {"accuracy_gain_interval", {e.accuracy_interval.low, e.accuracy_interval.high}},
                    {"mcnemar_p", e.mcnemar_p},
                    {"nll_gain", e.log_loss_gain},
                    {"nll_gain_interval", {e.log_loss_interval.low, e.log_loss_interval.high}},
                    {"confidence", e.confidence}};
    };
    json candidates = json::array();
    for (const auto& c : r.search.candidates) {
        candidates.push_back({{"matrix", r.matrices[static_cast<std::size_t>(c.newest().weight)]},
                              {"rho", c.newest().fraction},
                              {"rank", c.newest().rank},
                              {"validation", c.why ? score_of(c.validation) : json(nullptr)}});
    }
    json quick = json::array(), composed = json::array();
    for (const auto& q : r.quick) {
        quick.push_back({{"method", q.method}, {"edit", q.edit}, {"search_sample_layers", q.sample_layers}});
    }
    for (const auto& e : r.composed.edits()) {
        composed.push_back(lowrank::to_text(e));
    }
    const auto* none = removed_altogether(r);
    return {{"command", "demo"},
            {"seed", r.seed},
            {"output", r.output},
            {"parameters", r.parameters},
            {"training", {{"steps", r.training_loss.size()}, {"last_loss", smoothed(r.training_loss, 25).back()}}},
            {"laser",
             {{"edit", r.search.winner ? json(lowrank::to_text(r.search.edits().front())) : json(nullptr)},
              {"validation_before", score_of(r.search.baseline)},
              {"validation_after", score_of(r.search.best)},
              {"validation_matrix_removed", none != nullptr ? score_of(none->validation) : json(nullptr)},
              {"held_out_before", score_of(r.search.held_out_before)},
              {"held_out_after", score_of(r.search.held_out_after)},
              {"evidence", r.search.evidence ? evidence_of(*r.search.evidence) : json(nullptr)},
              {"noise_answers_before", r.noise_before},
              {"noise_answers_after", r.noise_after},
              {"search_sample_layers", search_work(r)},
              {"quick", quick},
              {"composed",
               {{"edits", composed},
                {"validation_after", score_of(r.composed.best)},
                {"held_out_after", score_of(r.composed.held_out_after)}}},
              {"lora_on_top",
               {{"held_out_before", score_of(r.recovered_before)},
                {"held_out_after", score_of(r.recovered_after)},
                {"evidence", evidence_of(r.recovered_evidence)}}},
              {"candidates", candidates}}},
            {"lora",
             {{"parameters", r.adapter_parameters},
              {"steps", r.adapter_loss.size()},
              {"held_out_before", score_of(r.adapter_before)},
              {"held_out_after", score_of(r.adapter_after)},
              {"evidence", evidence_of(r.adapter_evidence)}}},
            {"merge",
             {{"reloaded_same_bits", r.reloaded_same_bits},
              {"reload_logit_difference", r.reload_difference},
              {"adapter_logit_effect", r.adapter_effect},
              {"merged_logit_difference", r.merge_difference},
              {"unmerged_same_bits", r.unmerged_same_bits},
              {"unmerged_same_logits", r.unmerged_same_logits},
              {"receipt_bytes", r.receipt_bytes},
              {"merged_bytes", r.merged_bytes}}},
            {"seconds",
             {{"training", r.training_seconds},
              {"search", r.search_seconds},
              {"adapter", r.adapter_seconds},
              {"all", r.seconds}}}};
}

std::string demo_page(const demo_results& r) {
    const auto& s = r.search;
    const auto as_list = [](const lowrank::vector<float>& x) { return std::vector<double>(x.begin(), x.end()); };
    page out("Better by less: a truncated transformer",
             format("lowrank demo, seed %llu. %s weights, trained, searched, adapted and merged in %.0f "
                    "seconds on data made from the seed.",
                    static_cast<unsigned long long>(r.seed), grouped(r.parameters).c_str(), r.seconds));
    out.numbers({{percent(s.held_out_before.accuracy()), "right answers on held-out questions, model as trained"},
                 {percent(s.held_out_after.accuracy()),
                  s.winner ? "after " + edit_sentence(r) : std::string("no truncation helps")},
                 {percent(r.adapter_after.accuracy()),
                  "on a shifted task with LoRA, from " + percent(r.adapter_before.accuracy())},
                 {r.unmerged_same_bits ? "0 bits" : "DIFFERENT",
                  "of the weights differ after the adapter was merged and unmerged"}});

    out.section(
        "The task",
        paragraph(format("Words follow each other at random. In each sequence, each of two trigger words gets an "
                         "answer of its own. After a trigger comes that answer, or, in %.0f %% of the cases, one and "
                         "the same noise word. A model can learn two things from this: to look back for the answer, "
                         "and to say the noise word after every trigger. The second is the safer guess, so it covers "
                         "up the first.",
                         100 * r.noise_share)) +
            paragraph("A question is a sequence that ends with a trigger whose answer has been seen. Only the answer "
                      "counts as right. Rank reduction helps here because attention learns to look back, while a "
                      "late feed-forward layer learns the noise word "
                      "(Chen, Bruna, Bietti, arXiv 2406.03068)."));
    out.section("Training",
                paragraph("The loss cannot reach zero: whether noise comes next, and what a trigger's first answer is, "
                          "nobody can know. The fall after the first plateau is the moment the model begins to look "
                          "back.") +
                    loss_chart(r.training_loss));

    search_map map{.matrices = r.matrices, .fractions = r.fractions};
    for (const auto& c : s.candidates) {
        if (c.why) {
            map.add(c.newest().weight, c.newest().fraction, c.validation.accuracy(), &c == s.winning());
        }
    }
    out.section("The search", paragraph(format("Right answers in percent on %td questions, by matrix and by the "
                                               "share of the rank that is kept. As trained, the model gets %s. Each "
                                               "matrix was factorized once.",
                                               s.baseline.samples, percent(s.baseline.accuracy()).c_str())) +
                                  svg(map));
    if (s.winner) {
        const auto& e = *s.evidence;
        std::string body =
            paragraph("Best: " + edit_sentence(r) + "." + format(" On %td held-out questions:", e.samples));
        body += svg(bar_chart{{bar_of("as trained", s.held_out_before, true),
                               bar_of("truncated", s.held_out_after, false),
                               {"noise word, as trained", r.noise_before, {}, {}, true},
                               {"noise word, truncated", r.noise_after, {}, {}, false}}});
        body += paragraph("Gain in right answers: " + points(e) +
                          format("; %td questions gained, %td lost; McNemar's exact test: ", e.gained, e.lost) +
                          p_value(e.mcnemar_p) + "." + " Whiskers are 95 % intervals of each share.");
        if (const auto* none = removed_altogether(r)) {
            body += paragraph("Less is not always better: with this matrix removed altogether the model gets " +
                              percent(none->validation.accuracy()) + " of the validation questions, with the edit " +
                              percent(s.best.accuracy()) + ".");
        }
        out.section("The gain", body);
        std::vector<std::vector<std::string>> rows = {{"exhaustive", lowrank::to_text(s.edits().front()),
                                                       grouped(static_cast<std::uint64_t>(search_work(r))),
                                                       format("%.1f", r.exhaustive_seconds)}};
        for (const auto& q : r.quick) {
            rows.push_back(
                {q.method, q.edit, grouped(static_cast<std::uint64_t>(q.sample_layers)), format("%.1f", q.seconds)});
        }
        out.section(
            "The same with fewer evaluations",
            paragraph("Successive halving tries all edits on a few questions and the better ones on more; the "
                      "gradient search asks one backward pass which matrices are worth a look. Counted is what each "
                      "evaluated on validation questions.") +
                html_table({"search", "edit", "sample-layers", "seconds"}, rows));
        std::vector<std::vector<std::string>> steps;
        for (std::size_t i = 0; i < r.composed.edits().size(); ++i) {
            const auto& step = r.composed.winning()->edits[i];
            steps.push_back({lowrank::to_text(step.what), percent(step.validation.accuracy()),
                             format("%.4f", step.validation.log_loss)});
        }
        out.section("More than one edit",
                    paragraph(format(
                        "The best edit first, then every other matrix from the last layer down; an edit stays only "
                        "if the model becomes strictly better on the validation questions. On held-out questions: "
                        "%s right and NLL %.4f with the best single edit, %s and %.4f with all %zu.",
                        percent(s.held_out_after.accuracy()).c_str(), s.held_out_after.log_loss,
                        percent(r.composed.held_out_after.accuracy()).c_str(), r.composed.held_out_after.log_loss,
                        r.composed.edits().size())) +
                        html_table({"edit", "right", "NLL"}, steps));
        out.section("LoRA on the truncated model",
                    paragraph(format(
                        "A short fine-tuning of the truncated model on lessons without noise takes it further on the "
                        "held-out questions: %s right and NLL %.4f before, %s and %.4f after.",
                        percent(r.recovered_before.accuracy()).c_str(), r.recovered_before.log_loss,
                        percent(r.recovered_after.accuracy()).c_str(), r.recovered_after.log_loss)));
        out.section("What is kept",
                    paragraph("Training leaves a few large singular values; the rest is still close "
                              "to the random numbers the matrix began with.") +
                        spectrum_chart("singular value of " + short_name(s.edits().front().weight),
                                       {{.name = "trained", .y = as_list(r.best_spectrum), .first_x = 1},
                                        {.name = "before training", .y = as_list(r.first_spectrum), .first_x = 1}},
                                       s.edits().front().keep().size()));
    }

    out.section(
        "LoRA on a shifted task",
        paragraph(format("Two other words become the triggers, and there is no noise. An adapter of rank 4 on "
                         "every projection (%s weights) learns it in %zu steps, with the truncated model "
                         "frozen.",
                         grouped(r.adapter_parameters).c_str(), r.adapter_loss.size())) +
            loss_chart(r.adapter_loss) +
            svg(bar_chart{{bar_of("before", r.adapter_before, true), bar_of("with LoRA", r.adapter_after, false)}}) +
            paragraph("Gain in right answers: " + points(r.adapter_evidence) + "."));

    const auto verdict = [](bool same) { return std::string(same ? "the same bits" : "DIFFERENT BITS"); };
    out.section("Stored, read back, merged, taken apart again",
                html_table({"step", "outcome"},
                           {{"model written as safetensors and read back", verdict(r.reloaded_same_bits)},
                            {"adapter written as a PEFT folder and read back",
                             format("logits differ by at most %.3g", r.reload_difference)},
                            {"adapter merged into the weights",
                             format("logits differ by at most %.3g; the adapter moves them by up to %.3g",
                                    r.merge_difference, r.adapter_effect)},
                            {"adapter unmerged", "weights: " + verdict(r.unmerged_same_bits) +
                                                     "; logits: " + verdict(r.unmerged_same_logits)},
                            {"what undoing needs in addition to the adapter",
                             format("%.0f bytes for %.0f bytes of weights", r.receipt_bytes, r.merged_bytes)}}));
    return out.text();
}

}  // namespace report
