// SPDX-License-Identifier: MIT
/// \file
/// `lowrank eval`: how well a model, with or without adapters, predicts a text.

#include <chrono>
#include <cmath>
#include <memory>

#include "commands.hpp"
#include "console.hpp"
#include "inputs.hpp"
#include "models.hpp"
#include "options.hpp"
#include "threads.hpp"

namespace tool {
namespace {

struct eval_options {
    common_options common;
    text_options text;
    std::filesystem::path model;
    adapter_options adapters;
    bool merged = false;
};

void run_eval(const eval_options& options) {
    const auto adapters = parse_adapters(options.adapters);
    if (options.text.ids.empty() && options.text.text.empty()) {
        throw usage_error("say what to read: --ids FILE or --text FILE");
    }
    thread_pool pool(options.common.threads);
    auto model = load_model(options.model);
    attach_adapters(model, adapters);
    if (options.merged) {
        merge_attached(model);
    }
    const auto batch = load_batch(options.text, options.model, model.shape);
    const auto start = std::chrono::steady_clock::now();
    const auto scores = evaluate(model, batch, pool, "evaluating");
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    const double nll = scores.mean_nll();

    if (options.common.json) {
        json adapter_list = json::array();
        for (const auto& a : adapters) {
            adapter_list.push_back({{"path", a.folder.string()}, {"strength", a.strength}});
        }
        print_json({{"command", "eval"},
                    {"model", options.model.string()},
                    {"adapters", adapter_list},
                    {"merged", options.merged},
                    {"sequences", batch.sequences()},
                    {"tokens", scores.targets()},
                    {"mean_nll", nll},
                    {"perplexity", std::exp(nll)},
                    {"top1_accuracy", scores.accuracy()},
                    {"seconds", seconds}});
        return;
    }
    print(format(
        "mean NLL    %.5f nats per token\n"
        "perplexity  %.3f\n"
        "top-1       %.2f %%\n"
        "tokens      %s in %s sequences, %.1f s\n",
        nll, std::exp(nll), 100.0 * scores.accuracy(), grouped(static_cast<std::uint64_t>(scores.targets())).c_str(),
        grouped(static_cast<std::uint64_t>(batch.sequences())).c_str(), seconds));
}

}  // namespace

void add_eval(CLI::App& app) {
    auto options = std::make_shared<eval_options>();
    auto* command = app.add_subcommand("eval", "Measure how well a model predicts a text: mean NLL and perplexity");
    command->add_option("model", options->model, "Model folder (config.json and safetensors)")
        ->type_name("MODEL")
        ->required();
    add_adapters(*command, options->adapters, false);
    command->add_flag("--merged", options->merged, "Merge the adapters into the weights before measuring");
    add_text(*command, options->text);
    add_common(*command, options->common);
    command->footer(
        "Example:\n"
        "  lowrank eval models/stories260K --adapter adapters/shakespeare:0.5 --text play.txt --range 1000000:");
    command->callback([options] { run_eval(*options); });
}

}  // namespace tool
