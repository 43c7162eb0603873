// SPDX-License-Identifier: MIT
/// \file
/// `lowrank diff`, `lowrank extract`, `lowrank resize`: what changed between two checkpoints, that change as an
/// adapter, an adapter at another rank.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <lowrank/io/checkpoints/diff_checkpoint.hpp>
#include <lowrank/io/checkpoints/extract_adapter.hpp>

#include "checkpoint_edit.hpp"
#include "commands.hpp"
#include "console.hpp"
#include "models.hpp"
#include "options.hpp"
#include "staging.hpp"

namespace tool {
namespace {

namespace fs = std::filesystem;

struct diff_command_options {
    common_options common;
    fs::path first;
    fs::path second;
    bool all = false;
};

void run_diff(const diff_command_options& options) {
    const auto first = open_checkpoint(options.first);
    const auto second = open_checkpoint(options.second);
    progress_bar bar("comparing");
    const auto diff = take(lowrank::diff_checkpoints(first, second, {.on_progress = bar.callback()}));
    using kind = lowrank::difference_kind;
    if (options.common.json) {
        json tensors = json::array();
        for (const auto& t : diff.tensors) {
            if (t.kind != kind::same || options.all) {
                tensors.push_back({{"tensor", t.name},
                                   {"difference", to_string(t.kind)},
                                   {"elements", t.elements},
                                   {"changed", t.changed},
                                   {"norm", t.norm},
                                   {"relative", std::isfinite(t.relative()) ? json(t.relative()) : json(nullptr)},
                                   {"largest", t.has_values ? json(t.largest) : json(nullptr)},
                                   {"not_finite", t.not_finite}});
            }
        }
        print_json({{"command", "diff"},
                    {"first", options.first.string()},
                    {"second", options.second.string()},
                    {"tensors", diff.tensors.size()},
                    {"differing", diff.differing},
                    {"differences", tensors}});
        return;
    }
    table rows({"tensor", "difference", "changed", "relative", "largest"});
    for (const auto& t : diff.tensors) {
        if (t.kind == kind::same && !options.all) {
            continue;
        }
        const bool compared = t.kind == kind::values || t.kind == kind::type;
        rows.add({in_quotes(t.name), to_string(t.kind),
                  compared ? grouped(t.changed) + " of " + grouped(t.elements) : "",
                  !compared || !t.has_values ? ""
                  : t.is_broken              ? "not finite"
                                             : format("%.3e", t.relative()),
                  compared && t.has_values ? format("%.3e", t.largest) : ""});
    }
    if (diff.differing != 0 || options.all) {
        print(rows.text() + "\n");
    }
    print(format("%llu of %zu tensors differ\n", static_cast<unsigned long long>(diff.differing), diff.tensors.size()));
}

/// --rule and its number.
struct rank_options {
    std::string rule = "fixed";
    double value = 16;
    lowrank::index max_rank = 0;
};

void add_rank(CLI::App& command, rank_options& options) {
    command
        .add_option("--rule", options.rule,
                    "What --value means: fixed (the rank), energy, frobenius_share, sum_share, relative_error, "
                    "threshold, ratio, quantile, sv_ratio, sv_cumulative, sv_fro")
        ->check(CLI::IsMember({"fixed", "energy", "frobenius_share", "sum_share", "relative_error", "threshold",
                               "ratio", "quantile", "sv_ratio", "sv_cumulative", "sv_fro"}))
        ->capture_default_str();
    command.add_option("--value", options.value, "The rank, or the parameter of the rule")->capture_default_str();
    command.add_option("--max-rank", options.max_rank, "The largest rank a rule may give; 0: no limit")
        ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 20));
}

lowrank::rank_choice choice_of(const rank_options& options) {
    lowrank::rank_choice out{
        .rule = *lowrank::rank_rule_from_name(options.rule), .value = options.value, .min_rank = 1};
    if (options.max_rank > 0) {
        out.max_rank = options.max_rank;
    }
    if (const auto why = lowrank::check(out); !why) {
        throw usage_error("--rule " + options.rule + ", --value: " + why.message);
    }
    return out;
}

json weights_as_json(const std::map<std::string, lowrank::adapter_weight_report>& weights) {
    json out = json::array();
    for (const auto& [name, w] : weights) {
        out.push_back({{"name", name}, {"rank", w.rank}, {"relative_error", w.relative_error}});
    }
    return out;
}

void print_weights(const char* what, const std::map<std::string, lowrank::adapter_weight_report>& weights) {
    table rows({what, "rank", "rel. error"});
    for (const auto& [name, w] : weights) {
        rows.add({name, std::to_string(w.rank), format("%.3e", w.relative_error)});
    }
    print(rows.text());
}

/// Tensors that an adapter keeps whole.
std::size_t kept_whole(const lowrank::peft_adapter& adapter) {
    return static_cast<std::size_t>(std::count_if(adapter.modules.begin(), adapter.modules.end(), [](const auto& m) {
        return lowrank::stored_tensor(m.second) != nullptr;
    }));
}

struct extract_command_options {
    common_options common;
    output_options output;
    rank_options rank;
    fs::path base;
    fs::path tuned;
    double min_difference = 0;
    bool keep_others = false;
    bool fan_in_fan_out = false;
    bool fast = false;
};

void run_extract(const extract_command_options& options) {
    const auto choice = choice_of(options.rank);
    if (options.fast && choice.rule != lowrank::rank_rule::fixed) {
        throw usage_error("--fast: only a fixed rank can be found by random projections");
    }
    staged_folder out(options.output.folder, options.output.force, {options.base, options.tuned},
                      options.output.resume);
    const auto base = open_checkpoint(options.base);
    const auto tuned = open_checkpoint(options.tuned);
    progress_bar bar("extracting");
    interruptible_calls calls;
    auto found = take(lowrank::extract_adapter(base, tuned,
                                               {.lora = {.rank = choice,
                                                         .min_difference = options.min_difference,
                                                         .fan_in_fan_out = options.fan_in_fan_out,
                                                         .fast = options.fast},
                                                .keep_others = options.keep_others,
                                                .parts = out.path(),
                                                .on_progress = bar.callback(),
                                                .write = {.calls = &calls}}));
    found.adapter.config.base_model_name_or_path = options.base.string();
    found.adapter.config.task_type = "CAUSAL_LM";
    lowrank::throw_if_failed(lowrank::write_peft(out.path(), found.adapter));
    lowrank::forget_parts(out.path());
    out.commit();
    if (options.common.json) {
        print_json({{"command", "extract"},
                    {"output", options.output.folder.string()},
                    {"weights", weights_as_json(found.weights)},
                    {"kept_whole", kept_whole(found.adapter)},
                    {"unchanged", found.unchanged.size()},
                    {"resumed_weights", found.kept_parts},
                    {"left_out", found.left_out}});
        return;
    }
    print_weights("tensor", found.weights);
    for (const auto& line : found.left_out) {
        print("left out: " + line + "\n");
    }
    if (found.kept_parts > 0) {
        print(format("%lld weights were decomposed by an earlier run\n", static_cast<long long>(found.kept_parts)));
    }
    print(format("\n%zu weights in the adapter, %zu tensors kept whole, %zu unchanged, %zu left out\nwritten to %s\n",
                 found.weights.size(), kept_whole(found.adapter), found.unchanged.size(), found.left_out.size(),
                 options.output.folder.string().c_str()));
}

struct resize_command_options {
    common_options common;
    output_options output;
    rank_options rank;
    fs::path adapter;
};

void run_resize(const resize_command_options& options) {
    const auto choice = choice_of(options.rank);
    staged_folder out(options.output.folder, options.output.force, {options.adapter});
    const auto small =
        take_named(options.adapter.string(), lowrank::resize_adapter(load_adapter(options.adapter), choice));
    lowrank::throw_if_failed(lowrank::write_peft(out.path(), small.adapter));
    out.commit();
    if (options.common.json) {
        print_json({{"command", "resize"},
                    {"output", options.output.folder.string()},
                    {"modules", weights_as_json(small.modules)}});
        return;
    }
    print_weights("module", small.modules);
    print("\nwritten to " + options.output.folder.string() + "\n");
}

}  // namespace

void add_diff(CLI::App& app) {
    auto options = std::make_shared<diff_command_options>();
    auto* command = app.add_subcommand("diff", "Compare two checkpoints, tensor by tensor");
    command->add_option("first", options->first, "Model folder, index or safetensors file")
        ->type_name("MODEL")
        ->required();
    command->add_option("second", options->second, "Another one")->type_name("MODEL")->required();
    command->add_flag("--all", options->all, "List tensors that are the same, too");
    add_common(*command, options->common);
    command->footer(
        "Memory for a few thousand elements, whatever the size.\n"
        "Example:\n"
        "  lowrank diff models/base models/tuned");
    command->callback([options] { run_diff(*options); });
}

void add_extract(CLI::App& app) {
    auto options = std::make_shared<extract_command_options>();
    auto* command = app.add_subcommand("extract", "Write the difference of two checkpoints as a LoRA adapter");
    command->add_option("base", options->base, "The checkpoint before")->type_name("MODEL")->required();
    command->add_option("tuned", options->tuned, "The checkpoint after")->type_name("MODEL")->required();
    add_output(*command, options->output, true, "The new adapter folder");
    add_resume(*command, options->output);
    add_rank(*command, options->rank);
    command->add_option("--min-difference", options->min_difference, "Leave out weights no entry of which moved as far")
        ->check(CLI::NonNegativeNumber);
    command->add_flag("--keep-others", options->keep_others,
                      "Save changed tensors that are no matrices whole (modules_to_save)");
    command->add_flag("--fan-in-fan-out", options->fan_in_fan_out, "Weights are stored in x out (GPT-2)");
    command->add_flag("--fast", options->fast, "Find a fixed rank by random projections: much faster, nearly optimal");
    add_common(*command, options->common);
    command->footer(
        "One weight in memory at a time.\n"
        "Example:\n"
        "  lowrank extract models/base models/tuned --rule energy --value 0.95 --max-rank 64 --output adapters/tuned");
    command->callback([options] { run_extract(*options); });
}

void add_resize(CLI::App& app) {
    auto options = std::make_shared<resize_command_options>();
    auto* command = app.add_subcommand("resize", "Write a LoRA adapter at a smaller rank");
    command->add_option("adapter", options->adapter, "A PEFT adapter folder")->type_name("DIR")->required();
    add_output(*command, options->output, true, "The new adapter folder");
    add_rank(*command, options->rank);
    add_common(*command, options->common);
    command->footer(
        "Exact: the best approximation of each module's change, at the scaling it had.\n"
        "Example:\n"
        "  lowrank resize adapters/shakespeare --value 2 --output adapters/smaller");
    command->callback([options] { run_resize(*options); });
}

}  // namespace tool
