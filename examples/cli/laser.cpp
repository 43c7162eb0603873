// SPDX-License-Identifier: MIT
/// \file
/// `lowrank laser`: which matrix, reduced to which rank, makes the model better on a text.

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <optional>

#include <lowrank/core/philox.hpp>
#include <lowrank/laser/search.hpp>

#include "checkpoint_edit.hpp"
#include "commands.hpp"
#include "console.hpp"
#include "inputs.hpp"
#include "matrices.hpp"
#include "models.hpp"
#include "options.hpp"
#include "staging.hpp"
#include "threads.hpp"

namespace tool {
namespace {

using lowrank::index;

struct laser_options {
    common_options common;
    text_options text;
    output_options output;
    std::filesystem::path model;
    std::filesystem::path edit_adapter;
    std::vector<std::string> matrices = {"*_proj"};
    std::string rho = "0.9,0.8,0.6,0.4,0.2,0.1,0.05,0.01";
    std::string metric = "nll";
    double validation = 0.2;
    std::uint64_t seed = 0;
    std::int64_t top = 10;
};

/// The sequences in a random order given by the seed: those that choose first, those that report after.
struct split_batch {
    llama::batch batch = {};
    index validation = 0;  ///< How many sequences choose.
};

split_batch split_by_seed(const llama::batch& all, double fraction, std::uint64_t seed) {
    const index n = all.sequences();
    if (n < 2) {
        fail(
            "the search needs at least two windows or documents, one to choose on and one to report on; "
            "bring more text or make --window smaller");
    }
    std::vector<index> order(static_cast<std::size_t>(n));
    std::iota(order.begin(), order.end(), index{0});
    const lowrank::philox rng(seed);
    for (std::size_t i = order.size(); i > 1; --i) {
        std::swap(order[i - 1], order[static_cast<std::size_t>(rng.below(i, i))]);
    }
    const auto wanted = static_cast<index>(std::lround(fraction * static_cast<double>(n)));
    return {llama::select(all, order), std::clamp<index>(wanted, 1, n - 1)};
}

/// Scores samples of `batch`. A sample is a sequence with its mean NLL, or with `per_token` one token, right or wrong.
class scorer {
public:
    scorer(const llama::model<float>& model, const llama::batch& batch, bool per_token, thread_pool& pool)
        : model_(model), batch_(batch), per_token_(per_token), pool_(pool) {
        first_token_.push_back(0);
        for (index s = 0; s < batch.sequences(); ++s) {
            first_token_.push_back(first_token_.back() + batch.length(s));
        }
    }

    /// Samples of the first `sequences` sequences.
    [[nodiscard]] index samples_in(index sequences) const {
        return per_token_ ? first_token_[static_cast<std::size_t>(sequences)] : sequences;
    }

    /// \pre the range starts and ends where sequences do.
    [[nodiscard]] lowrank::result<lowrank::sample_scores> operator()(lowrank::sample_range range) const {
        std::vector<index> chosen;
        for (index s = 0; s < batch_.sequences(); ++s) {
            if (samples_in(s) >= range.begin && samples_in(s + 1) <= range.end) {
                chosen.push_back(s);
            }
        }
        const auto scored = llama::evaluate(model_, llama::select(batch_, chosen), pool_.as_executor());
        if (!scored) {
            return scored.error();
        }
        lowrank::sample_scores out;
        if (per_token_) {
            for (std::size_t i = 0; i < scored->log_probability.size(); ++i) {
                out.add(scored->top1[i], -scored->log_probability[i]);
            }
        } else {
            for (std::size_t s = 0; s < scored->sequence_nll.size(); ++s) {
                out.add(false, scored->sequence_nll[s] / static_cast<double>(scored->sequence_targets[s]));
            }
        }
        return out;
    }

private:
    const llama::model<float>& model_;
    const llama::batch& batch_;
    bool per_token_;
    thread_pool& pool_;
    std::vector<index> first_token_;
};

json score_json(const lowrank::score& s, bool accuracy) {
    json out = {{"samples", s.samples}, {"nll", s.log_loss}};
    if (accuracy) {
        out["accuracy"] = s.accuracy();
    }
    return out;
}

std::string score_text(const lowrank::score& s, bool accuracy) {
    return accuracy ? format("%.2f %% right, NLL %.5f", 100.0 * s.accuracy(), s.log_loss)
                    : format("NLL %.5f", s.log_loss);
}

using named_weights = std::vector<lowrank::named_weight<float>>;

json report_json(const laser_options& options, const lowrank::search_result<float>& found, const named_weights& weights,
                 bool accuracy) {
    json candidates = json::array();
    for (const auto& c : found.candidates) {
        json one = {{"matrix", weights[static_cast<std::size_t>(c.weight)].name},
                    {"rho", c.fraction},
                    {"rank", c.rank},
                    {"relative_error", c.relative_error}};
        if (c.why) {
            one["validation"] = score_json(c.validation, accuracy);
        } else {
            one["error"] = c.why.message;
        }
        candidates.push_back(std::move(one));
    }
    json winner = nullptr;
    if (found.winner) {
        const auto& c = found.candidates[static_cast<std::size_t>(*found.winner)];
        winner = {{"matrix", weights[static_cast<std::size_t>(c.weight)].name},
                  {"rho", c.fraction},
                  {"rank", c.rank},
                  {"relative_error", c.relative_error},
                  {"edit", lowrank::to_text(found.best_edit)}};
    }
    json held_out = {{"before", score_json(found.held_out_before, accuracy)},
                     {"after", score_json(found.held_out_after, accuracy)}};
    if (found.evidence) {
        const auto& e = *found.evidence;
        held_out["nll_gain"] = e.log_loss_gain;
        // An interval from a single sample is unbounded, which JSON cannot say.
        held_out["nll_gain_interval"] =
            e.samples > 1 ? json{e.log_loss_interval.low, e.log_loss_interval.high} : json(nullptr);
        held_out["confidence"] = e.confidence;
        if (accuracy) {
            held_out["accuracy_gain"] = e.accuracy_gain;
            held_out["accuracy_gain_interval"] = {e.accuracy_interval.low, e.accuracy_interval.high};
            held_out["mcnemar_p"] = e.mcnemar_p;
        }
    }
    return {
        {"command", "laser"},
        {"model", options.model.string()},
        {"metric", options.metric},
        {"seed", options.seed},
        {"validation", {{"before", score_json(found.baseline, accuracy)}, {"after", score_json(found.best, accuracy)}}},
        {"winner", winner},
        {"held_out", held_out},
        {"evaluated_samples", found.evaluated_samples},
        {"candidates", candidates}};
}

std::string report_text(const laser_options& options, const lowrank::search_result<float>& found,
                        const named_weights& weights, bool accuracy) {
    std::vector<const lowrank::search_candidate*> order;
    for (const auto& c : found.candidates) {
        if (c.why) {
            order.push_back(&c);
        }
    }
    std::stable_sort(order.begin(), order.end(),
                     [](const auto* a, const auto* b) { return lowrank::better(a->validation, b->validation); });
    std::string out = format("%zu candidates, %lld of %lld samples to choose on\nunedited model  %s\n\n",
                             found.candidates.size(), static_cast<long long>(found.baseline.samples),
                             static_cast<long long>(found.baseline.samples + found.held_out_before.samples),
                             score_text(found.baseline, accuracy).c_str());
    table best({"matrix", "rho", "rank", "rel. error", "NLL", "change", accuracy ? "right" : ""});
    for (std::size_t i = 0; i < std::min(order.size(), static_cast<std::size_t>(options.top)); ++i) {
        const auto& c = *order[i];
        best.add({weights[static_cast<std::size_t>(c.weight)].name, format("%g", c.fraction), std::to_string(c.rank),
                  format("%.4f", c.relative_error), format("%.5f", c.validation.log_loss),
                  format("%+.5f", c.validation.log_loss - found.baseline.log_loss),
                  accuracy ? format("%.2f %%", 100.0 * c.validation.accuracy()) : ""});
    }
    out += best.text();
    if (!found.winner) {
        return out + "\nno candidate beats the unedited model\n";
    }
    out += "\nbest: " + lowrank::to_text(found.best_edit) + "\n";
    const auto& e = *found.evidence;
    out += "held-out samples  " + score_text(found.held_out_before, accuracy) + " before, " +
           score_text(found.held_out_after, accuracy) + " after\n";
    if (e.samples > 1) {
        out += format("gain in NLL       %+.5f, %.0f %% interval [%+.5f, %+.5f]\n", e.log_loss_gain,
                      100.0 * e.confidence, e.log_loss_interval.low, e.log_loss_interval.high);
    }
    if (accuracy) {
        out += format("gain in accuracy  %+.2f points, %.0f %% interval [%+.2f, %+.2f], McNemar p = %.2g\n",
                      100.0 * e.accuracy_gain, 100.0 * e.confidence, 100.0 * e.accuracy_interval.low,
                      100.0 * e.accuracy_interval.high, e.mcnemar_p);
    }
    const bool sure = accuracy ? e.gain_is_sure() : e.samples > 1 && e.log_loss_interval.low > 0;
    return out + (sure ? "the gain is real at this confidence\n" : "the held-out samples do not show a sure gain\n");
}

void run_laser(const laser_options& options) {
    const auto fractions = parse_numbers("--rho", options.rho, 0.0, 1.0);
    for (const auto* target : {&options.output.folder, &options.edit_adapter}) {
        if (!target->empty()) {
            require_writable_target(*target, options.output.force, {options.model});
        }
    }
    thread_pool pool(options.common.threads);
    auto model = load_model(options.model);
    const bool accuracy = options.metric == "accuracy";
    const auto [batch, validation] =
        split_by_seed(load_batch(options.text, options.model, model.shape), options.validation, options.seed);

    named_weights weights;
    const matrix_choice chosen(options.matrices);
    llama::for_each_projection(model, [&](llama::projection<float>& p) {
        if (chosen.contains(p.name + ".weight")) {
            weights.push_back({p.name + ".weight", lowrank::weight_view<float>(p.weight)});
        }
    });
    chosen.require_all_used();

    const scorer ask(model, batch, accuracy, pool);
    progress_bar bar("searching");
    lowrank::search_options how{.validation = {0, ask.samples_in(validation)},
                                .held_out = {ask.samples_in(validation), ask.samples_in(batch.sequences())},
                                .fractions = fractions,
                                .on_progress = bar.callback()};
    how.samples_per_call = ask.samples_in(batch.sequences());  // the scorer itself works in parallel
    const auto found = lowrank::exhaustive_search<float>(weights, std::cref(ask), how);
    stop_if_interrupted();
    lowrank::throw_if_failed(found.why);

    const bool write = !options.output.folder.empty() || !options.edit_adapter.empty();
    if (found.winner && write) {
        const auto& c = found.candidates[static_cast<std::size_t>(*found.winner)];
        std::optional<staged_folder> edited;
        std::optional<staged_folder> adapter;
        if (!options.output.folder.empty()) {
            edited.emplace(options.output.folder, options.output.force, std::vector{options.model});
            write_truncated_checkpoint(options.model, {{weights[static_cast<std::size_t>(c.weight)].name, c.rank}},
                                       edited->path());
        }
        if (!options.edit_adapter.empty()) {
            adapter.emplace(options.edit_adapter, options.output.force, std::vector{options.model});
            write_edit_adapter(found.best_edit, *found.best_spectrum, options.model, adapter->path());
        }
        for (auto* out : {&edited, &adapter}) {
            if (*out) {
                (*out)->commit();
            }
        }
    }
    if (options.common.json) {
        print_json(report_json(options, found, weights, accuracy));
    } else {
        print(report_text(options, found, weights, accuracy));
    }
    if (write && !found.winner) {
        fail("no candidate beats the unedited model, nothing was written", lowrank::errc::not_found);
    }
}

}  // namespace

void add_laser(CLI::App& app) {
    auto options = std::make_shared<laser_options>();
    auto* command =
        app.add_subcommand("laser", "Search the matrix and rank whose truncation helps the model on a text (LASER)");
    command->add_option("model", options->model, "Model folder (config.json and safetensors)")
        ->type_name("MODEL")
        ->required();
    add_text(*command, options->text);
    command
        ->add_option("--matrix", options->matrices,
                     "Matrices to try: names, ends of names or patterns with * and ?; may be given several times")
        ->type_name("PATTERN")
        ->take_all()
        ->allow_extra_args(false)
        ->capture_default_str();
    command->add_option("--rho", options->rho, "Fractions of the full rank to keep, with commas between")
        ->type_name("LIST")
        ->capture_default_str();
    command
        ->add_option("--metric", options->metric,
                     "nll: mean NLL of a window decides; accuracy: more tokens predicted right, then NLL")
        ->check(CLI::IsMember({"nll", "accuracy"}))
        ->capture_default_str();
    command
        ->add_option("--validation", options->validation,
                     "Share of the windows (or documents) that choose; the others only report")
        ->check(CLI::Range(0.001, 0.999))
        ->capture_default_str();
    command->add_option("--seed", options->seed, "Which windows choose and which report")->capture_default_str();
    command->add_option("--top", options->top, "Rows of the table")
        ->check(CLI::Range(std::int64_t{1}, std::int64_t{100000}))
        ->capture_default_str();
    add_output(*command, options->output, false, "Write the model with the best edit here");
    command
        ->add_option("--edit-adapter", options->edit_adapter,
                     "Write the best edit here as a PEFT adapter: the model plus this adapter is the edited model")
        ->type_name("DIR");
    add_common(*command, options->common);
    command->footer(
        "Example:\n"
        "  lowrank laser models/stories260K --text play.txt --matrix mlp.up_proj --matrix mlp.down_proj \\\n"
        "      --rho 0.8,0.4,0.1 --output edited");
    command->callback([options] { run_laser(*options); });
}

}  // namespace tool
