// SPDX-License-Identifier: MIT
/// \file
/// `lowrank merge`: adapters become part of the weights, with an audit of what rounding lost.

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <lowrank/io/checkpoints/merge_checkpoint.hpp>
#include <lowrank/io/formats/adapter_files.hpp>

#include "checkpoint_edit.hpp"
#include "commands.hpp"
#include "console.hpp"
#include "models.hpp"
#include "options.hpp"
#include "staging.hpp"
#include "threads.hpp"

namespace tool {
namespace {

struct merge_options {
    common_options common;
    output_options output;
    std::filesystem::path model;
    adapter_options adapters;
    std::optional<double> alpha;
    bool skip_unsupported = false;
    bool check = false;
    original_base_options original = {};
};

void print_report(const merge_options& options, const lowrank::merge_checkpoint_report& report) {
    std::uint64_t entries = 0;
    std::uint64_t touched = 0;
    std::uint64_t unchanged = 0;
    double worst = 0;
    for (const auto& [name, m] : report.weights) {
        entries += m.entries;
        touched += m.touched;
        unchanged += m.unchanged;
        worst = std::max(worst, m.relative_error);
    }
    const double lost = touched > 0 ? static_cast<double>(unchanged) / static_cast<double>(touched) : 0.0;
    if (options.common.json) {
        json matrices = json::array();
        for (const auto& [name, m] : report.weights) {
            matrices.push_back(
                {{"matrix", name},
                 {"dtype", lowrank::name_of(m.type)},
                 {"rank", m.rank},
                 {"change_norm", m.change_norm},
                 {"entries", m.entries},
                 {"unchanged_fraction", m.unchanged_fraction()},
                 {"relative_error", m.relative_error},
                 {"worst_error", m.worst_error},
                 {"receipt_bits_per_weight", options.check ? json(m.receipt_bits_per_weight) : json(nullptr)}});
        }
        print_json({{"command", "merge"},
                    {"model", options.model.string()},
                    {"output", options.output.folder.string()},
                    {"weights", entries},
                    {"unchanged_fraction", lost},
                    {"worst_relative_error", worst},
                    {"unmerge_restores_bits", options.check ? json(true) : json(nullptr)},
                    {"replaced", report.replaced},
                    {"added", report.added},
                    {"notes", report.notes},
                    {"resumed_files", report.kept_files},
                    {"matrices", matrices}});
        return;
    }
    table rows({"matrix", "dtype", "rank", "change norm", "rel. error", "unchanged"});
    for (const auto& [name, m] : report.weights) {
        rows.add({name, std::string(lowrank::name_of(m.type)), std::to_string(m.rank), format("%.4g", m.change_norm),
                  format("%.2e", m.relative_error), format("%.2f %%", 100.0 * m.unchanged_fraction())});
    }
    print(rows.text() + format("\n%zu matrices merged, %s weights; rounding lost the change of %.2f %% of them\n",
                               report.weights.size(), grouped(entries).c_str(), 100.0 * lost));
    for (const auto& name : report.replaced) {
        print("replaced by the adapter's own: " + name + "\n");
    }
    for (const auto& name : report.added) {
        print("added by the adapter: " + name + "\n");
    }
    if (report.kept_files > 0) {
        print(format("%lld files were finished by an earlier run\n", static_cast<long long>(report.kept_files)));
    }
    if (options.check) {
        print("verified: unmerging restores the same bits\n");
    }
    print("written to " + options.output.folder.string() + "\n");
}

void run_merge(const merge_options& options) {
    std::vector<std::filesystem::path> inputs = {options.model};
    std::vector<lowrank::adapter_to_merge> sum;
    const auto choices = parse_adapters(options.adapters);
    for (const auto& choice : choices) {
        inputs.push_back(choice.folder);
        sum.push_back({.strength = choice.strength});
    }
    auto base = open_adapter_base(options.model, options.original);
    std::vector<lowrank::peft_adapter> adapters;
    for (const auto& choice : choices) {
        adapters.push_back(std::move(
            load_any_adapter(choice.folder, base,
                             {.lora_alpha = options.alpha, .peft = {.base_is_residual = choice.base_is_residual}},
                             options.skip_unsupported)
                .adapter));
    }
    for (std::size_t i = 0; i < sum.size(); ++i) {
        sum[i].adapter = &adapters[i];
    }
    staged_folder out(options.output.folder, options.output.force, inputs, options.output.resume);
    thread_pool pool(options.common.threads);
    progress_bar bar("merging");
    interruptible_calls calls;
    const auto report = take_named(options.model.string(), lowrank::merge_checkpoint(*base.weights, sum, out.path(),
                                                                                     {.check = options.check,
                                                                                      .resume = true,
                                                                                      .exec = pool.as_executor(),
                                                                                      .on_progress = bar.callback(),
                                                                                      .write = {.calls = &calls}}));
    for (const auto& note : report.notes) {
        say("note: " + note);
    }
    copy_companions(folder_of_model(options.model), out.path());
    out.commit();
    print_report(options, report);
}

}  // namespace

void add_merge(CLI::App& app) {
    auto options = std::make_shared<merge_options>();
    auto* command = app.add_subcommand("merge", "Merge adapters into a model's weights and write a new checkpoint");
    command->add_option("model", options->model, "Model folder or shards, of any architecture with such weight names")
        ->type_name("MODEL")
        ->required();
    add_adapters(*command, options->adapters, true);
    add_original_base(*command, options->original)->excludes("--base-is-residual");
    add_output(*command, options->output, true, "The new checkpoint folder");
    add_resume(*command, options->output);
    command->add_option("--alpha", options->alpha, "lora_alpha of adapter files whose tensors do not say it");
    command->add_flag("--skip-unsupported", options->skip_unsupported,
                      "Go on without modules of an adapter that cannot be read");
    command->add_flag("--check", options->check, "Verify for every matrix that unmerging restores the same bits");
    add_common(*command, options->common);
    command->footer(
        "Weights keep their dtype; the changes of several adapters are summed and rounded once. Reads LoRA and "
        "the\n"
        "other PEFT types that 'lowrank inspect' lists, and the files of kohya, LyCORIS and others that 'lowrank "
        "convert'\n"
        "reads. Needs memory for the adapters and one tile of one weight.\n"
        "Example:\n"
        "  lowrank merge models/stories260K --adapter adapters/shakespeare:0.5 --output merged --check");
    command->callback([options] { run_merge(*options); });
}

}  // namespace tool
