// SPDX-License-Identifier: MIT
/// \file
/// `lowrank combine`: several LoRA adapters become one, as PEFT's add_weighted_adapter does it or exactly.

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include <lowrank/io/checkpoints/combine_adapters.hpp>

#include "commands.hpp"
#include "console.hpp"
#include "models.hpp"
#include "options.hpp"
#include "staging.hpp"

namespace tool {
namespace {

using lowrank::index;

struct combine_command {
    common_options common;
    output_options output;
    std::vector<std::string> adapters;
    std::vector<double> weights;
    std::string method = "svd";
    std::string rank;  ///< "", "full" or a number.
    double density = 1;
    std::string sign = "total";
    std::uint64_t seed = 0;
    bool as_peft = false;
};

lowrank::weighted_options settings(const combine_command& options) {
    const auto type = lowrank::combination_type_from_name(options.method);
    if (!type) {
        throw usage_error("--method " + options.method + " is unknown");
    }
    lowrank::weighted_options how{
        .type = *type,
        .rule = options.as_peft ? lowrank::weighted_rule::peft_0_20 : lowrank::weighted_rule::fixed,
        .density = options.density,
        .election = options.sign == "frequency" ? lowrank::sign_election::frequency : lowrank::sign_election::total,
        .seed = options.seed};
    if (options.rank == "full") {
        how.svd_rank = index{1} << 30;  // no weight has more
    } else if (!options.rank.empty()) {
        how.svd_rank = static_cast<index>(std::stoll(options.rank));
    }
    return how;
}

void run_combine(const combine_command& options) {
    const auto how = settings(options);
    auto weights = options.weights;
    if (weights.empty()) {
        weights.assign(options.adapters.size(), 1.0 / static_cast<double>(options.adapters.size()));
    }
    if (weights.size() != options.adapters.size()) {
        throw usage_error("--weights needs one number for each of the " + std::to_string(options.adapters.size()) +
                          " adapters, got " + std::to_string(weights.size()));
    }
    std::vector<std::filesystem::path> inputs(options.adapters.begin(), options.adapters.end());
    staged_folder out(options.output.folder, options.output.force, inputs);
    std::vector<lowrank::peft_adapter> adapters;
    std::vector<lowrank::adapter_to_combine> parts;
    for (const auto& folder : inputs) {
        adapters.push_back(load_adapter(folder));
        stop_if_interrupted();
    }
    for (std::size_t i = 0; i < adapters.size(); ++i) {
        parts.push_back({&adapters[i], weights[i]});
    }
    const auto made = take(lowrank::combine_adapters(parts, how));
    stop_if_interrupted();
    lowrank::throw_if_failed(lowrank::write_peft(out.path(), made.adapter));
    out.commit();

    double farthest = 0;
    index largest = 0;
    for (const auto& [module, m] : made.modules) {
        farthest = std::max(farthest, m.distance);
        largest = std::max(largest, m.rank);
    }
    if (options.common.json) {
        const auto number = [](double x) { return std::isfinite(x) ? json(x) : json(nullptr); };
        json modules = json::array();
        for (const auto& [module, m] : made.modules) {
            modules.push_back({{"module", module},
                               {"adapters", m.parts},
                               {"r", m.rank},
                               {"delta_norm", m.norm},
                               {"distance_from_sum", number(m.distance)}});
        }
        print_json({{"command", "combine"},
                    {"adapters", options.adapters},
                    {"weights", weights},
                    {"method", options.method},
                    {"as_peft", options.as_peft},
                    {"output", options.output.folder.string()},
                    {"largest_distance_from_sum", number(farthest)},
                    {"modules", modules}});
        return;
    }
    table rows({"module", "adapters", "r", "delta norm", "off the sum"});
    for (const auto& [module, m] : made.modules) {
        rows.add({module, std::to_string(m.parts), std::to_string(m.rank), format("%.4g", m.norm),
                  format("%.2e", m.distance)});
    }
    print(rows.text() + format("\n%zu adapters combined by %s: %zu modules of rank up to %lld\n", adapters.size(),
                               options.method.c_str(), made.modules.size(), static_cast<long long>(largest)));
    print("written to " + options.output.folder.string() + "\n");
}

}  // namespace

void add_combine(CLI::App& app) {
    auto options = std::make_shared<combine_command>();
    auto* command = app.add_subcommand("combine", "Combine several LoRA adapters into one");
    command->add_option("adapters", options->adapters, "Adapter folders")->type_name("DIR")->required();
    command->add_option("--weights", options->weights, "A factor for each adapter; 1 / their number by default")
        ->type_name("NUMBER");
    command
        ->add_option("--method", options->method,
                     "PEFT's combination_type: linear, cat, ties, dare_linear, dare_ties, magnitude_prune, svd, or one "
                     "of the last four with _svd behind it")
        ->type_name("NAME")
        ->capture_default_str();
    command
        ->add_option("--rank", options->rank,
                     "Rank of the svd methods: a number, or 'full'; by default the largest of the adapters")
        ->type_name("RANK")
        ->check(CLI::IsMember({"full"}) | CLI::Range(std::int64_t{1}, std::int64_t{1} << 30));
    command->add_option("--density", options->density, "Share of entries that ties, dare and magnitude_prune keep")
        ->check(CLI::Range(1e-6, 1.0))
        ->capture_default_str();
    command->add_option("--sign", options->sign, "How ties elects a sign: total or frequency")
        ->check(CLI::IsMember({"total", "frequency"}))
        ->capture_default_str();
    command->add_option("--seed", options->seed, "Of the entries that dare drops")->capture_default_str();
    command->add_flag("--as-peft", options->as_peft,
                      "The numbers of PEFT 0.20, whose svd methods scale twice and whose rsLoRA is off by sqrt(r)");
    add_output(*command, options->output, true, "The new adapter folder");
    add_common(*command, options->common);
    command->footer(
        "A module that only some adapters have is made of those. 'off the sum' is the distance of a module's change\n"
        "from the weighted sum of the changes; cat, and svd of a high enough rank, are that sum.\n"
        "Example:\n"
        "  lowrank combine adapters/poet adapters/coder --weights 0.7 0.3 --method cat --output adapters/both");
    command->callback([options] { run_combine(*options); });
}

}  // namespace tool
