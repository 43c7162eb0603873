// SPDX-License-Identifier: MIT
/// \file
/// `lowrank check`: what an adapter would do to a model, and what other programs can hold of it.

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <lowrank/io/checkpoints/check_adapter.hpp>
#include <lowrank/io/formats/adapter_programs.hpp>

#include "commands.hpp"
#include "console.hpp"
#include "models.hpp"
#include "options.hpp"
#include "threads.hpp"

namespace tool {
namespace {

struct check_command_options {
    common_options common;
    std::filesystem::path model;
    std::filesystem::path adapter;
    std::optional<double> alpha;
    bool base_is_residual = false;
};

/// The base and the adapter, and all that is found out about them.
struct checked {
    lowrank::adapter_file file;
    lowrank::adapter_check check = {};
    std::size_t mapped = 0;
    std::vector<lowrank::program_support> programs = {};

    [[nodiscard]] bool maps() const { return check.maps() && file.unmapped.empty(); }
};

checked check(const check_command_options& options) {
    const auto base = open_adapter_base(options.model);
    checked out{.file = take_named(
                    options.adapter.string(),
                    lowrank::read_adapter(options.adapter, {.modules = base.modules,
                                                            .model = base.model ? &*base.model : nullptr,
                                                            .lora_alpha = options.alpha,
                                                            .peft = {.base_is_residual = options.base_is_residual,
                                                                     .skip_unsupported = true}}))};
    thread_pool pool(options.common.threads);
    progress_bar bar("checking");
    out.check = take_named(options.adapter.string(),
                           lowrank::check_adapter(*base.weights, out.file.adapter,
                                                  {.exec = pool.as_executor(), .on_progress = bar.callback()}));
    for (const auto& module : out.check.modules) {
        out.mapped += module.why ? 1 : 0;
    }
    for (const auto& program : lowrank::adapter_programs()) {
        out.programs.push_back(
            lowrank::support_by(program, out.file.adapter, {.model = base.model ? &*base.model : nullptr}));
    }
    return out;
}

json to_json(const lowrank::status& why) { return why ? json(nullptr) : json(why.message); }

void print_as_json(const check_command_options& options, const checked& found) {
    json modules = json::array();
    for (const auto& m : found.check.modules) {
        json tensors = json::array();
        for (const auto& t : m.tensors) {
            tensors.push_back(
                {{"tensor", t.name},
                 {"dtype", lowrank::name_of(t.type)},
                 {"norm", t.norm},
                 {"change_norm", t.change_norm},
                 {"relative_change", t.norm > 0 || t.change_norm == 0 ? json(t.relative()) : json(nullptr)},
                 {"unchanged_fraction", t.unchanged_fraction}});
        }
        modules.push_back({{"module", m.path},
                           {"kind", m.kind},
                           {"problem", to_json(m.why)},
                           {"rank", m.rank},
                           {"rank_used", m.rank_used},
                           {"changes_nothing", m.changes_nothing()},
                           {"is_new", m.is_new},
                           {"tensors", tensors}});
    }
    json programs = json::array();
    for (std::size_t i = 0; i < found.programs.size(); ++i) {
        json lost = json::array();
        for (const auto& [path, why] : found.programs[i].lost) {
            lost.push_back({{"module", path}, {"why", why.message}});
        }
        programs.push_back(
            {{"program", lowrank::adapter_programs()[i].name}, {"held", found.programs[i].held}, {"lost", lost}});
    }
    print_json({{"command", "check"},
                {"model", options.model.string()},
                {"adapter", options.adapter.string()},
                {"format", found.file.format},
                {"maps", found.maps()},
                {"mapped", found.mapped},
                {"merges", to_json(found.check.merges)},
                {"notes", found.check.notes},
                {"unmapped_tensors", found.file.unmapped},
                {"modules", modules},
                {"programs", programs}});
}

/// The first lines; JSON has them all.
void print_some(const char* label, const std::vector<std::string>& lines) {
    constexpr std::size_t most = 10;
    for (std::size_t i = 0; i < std::min(most, lines.size()); ++i) {
        print(std::string(label) + ": " + lines[i] + "\n");
    }
    if (lines.size() > most) {
        print(std::string(label) + format(": and %zu more; --json lists them\n", lines.size() - most));
    }
}

void print_as_text(const checked& found) {
    table rows({"module", "kind", "rank", "used", "tensor", "dtype", "change / weight", "lost by rounding"});
    for (const auto& m : found.check.modules) {
        const std::string rank = m.rank > 0 ? std::to_string(m.rank) : "-";
        const std::string used = m.rank > 0 ? std::to_string(m.rank_used) : "-";
        if (m.tensors.empty()) {
            rows.add({m.path, m.kind, rank, used, m.is_new ? "new" : "none", "-", "-", "-"});
        }
        for (const auto& t : m.tensors) {
            rows.add({m.path, m.kind, rank, used, t.name, std::string(lowrank::name_of(t.type)),
                      t.change_norm == 0 ? "none" : format("%.3g", t.relative()),
                      format("%.1f %%", 100.0 * t.unchanged_fraction)});
        }
    }
    print(rows.text());
    std::vector<std::string> nowhere;
    std::vector<std::string> idle_modules;
    for (const auto& m : found.check.modules) {
        if (!m.why) {
            nowhere.push_back(m.path + ": " + m.why.message);
        } else if (m.changes_nothing()) {
            idle_modules.push_back(m.path + (m.rank > 0 && m.rank_used == 0 ? " (a factor is zero)"
                                                                            : " (the change is lost by rounding)"));
        }
    }
    print_some("no place", nowhere);
    print_some("changes nothing", idle_modules);
    print_some("not understood", found.file.unmapped);
    print_some("note", found.check.notes);
    print(format("\n%zu of %zu modules have a place in the model", found.mapped, found.check.modules.size()) +
          (idle_modules.empty() ? std::string() : format(", %zu of them change nothing", idle_modules.size())) + "\n");
    print(found.check.merges ? "the adapter can be merged\n"
                             : "the adapter cannot be merged: " + found.check.merges.message + "\n");
    for (std::size_t i = 0; i < found.programs.size(); ++i) {
        const auto& support = found.programs[i];
        const std::size_t all = support.held + support.lost.size();
        print(std::string(lowrank::adapter_programs()[i].name) + format(": %zu of %zu modules", support.held, all) +
              (support.lost.empty() ? std::string() : "; " + support.lost.front().second.message) +
              (support.lost.size() > 1 ? format(" (and %zu more)", support.lost.size() - 1) : std::string()) + "\n");
    }
}

void run_check(const check_command_options& options) {
    const auto found = check(options);
    options.common.json ? print_as_json(options, found) : print_as_text(found);
    if (!found.maps()) {
        const std::size_t nowhere = found.check.modules.size() - found.mapped;
        fail(format("%s: %zu modules have no place in the model, %zu tensors were not understood",
                    options.adapter.string().c_str(), nowhere, found.file.unmapped.size()),
             lowrank::errc::mismatch);
    }
}

}  // namespace

void add_check(CLI::App& app) {
    auto options = std::make_shared<check_command_options>();
    auto* command = app.add_subcommand("check", "See what an adapter would do to a model, without writing anything");
    command->add_option("model", options->model, "Model folder, index or safetensors file")
        ->type_name("MODEL")
        ->required();
    command->add_option("adapter", options->adapter, "An adapter folder or file of any tool")
        ->type_name("PATH")
        ->required();
    command->add_option("--alpha", options->alpha, "lora_alpha of an adapter file whose tensors do not say it");
    command->add_flag("--base-is-residual", options->base_is_residual,
                      "The model holds the residual weights of an adapter whose initialization changed the base");
    add_common(*command, options->common);
    command->footer(
        "Lists the modules with their place in the model, the size of each change against its weight, the rank that "
        "is\n"
        "used, what is assumed, and what PEFT, llama.cpp, vLLM, kohya and MLX can hold of the adapter, with the "
        "reason\n"
        "where they cannot. Exit code 0 if every module and tensor of the adapter has a place, else 1.\n"
        "Example:\n"
        "  lowrank check models/stories260K adapters/shakespeare");
    command->callback([options] { run_check(*options); });
}

}  // namespace tool
