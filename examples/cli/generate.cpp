// SPDX-License-Identifier: MIT
/// \file
/// `lowrank generate`: greedy continuation of a prompt, with a key/value cache and any adapters.

#include <chrono>
#include <memory>

#include "llama/generate.hpp"

#include "commands.hpp"
#include "console.hpp"
#include "inputs.hpp"
#include "models.hpp"
#include "options.hpp"

namespace tool {
namespace {

struct generate_command {
    common_options common;
    std::filesystem::path model;
    std::filesystem::path tokenizer;
    adapter_options adapters;
    std::string prompt;
    bool prompt_given = false;
    std::string prompt_ids;
    std::int64_t tokens = 200;
};

void run_generate(const generate_command& options) {
    if (options.prompt_given != options.prompt_ids.empty()) {
        throw usage_error("give a prompt: either --prompt TEXT or --prompt-ids LIST");
    }
    const auto adapters = parse_adapters(options.adapters);
    auto model = load_model(options.model);
    attach_adapters(model, adapters);
    // Ids in, ids out needs no tokenizer.
    std::optional<llama::tokenizer> tokenizer;
    std::vector<int> ids;
    if (options.prompt_ids.empty()) {
        tokenizer = load_tokenizer(options.tokenizer, options.model, model.shape);
        ids = tokenizer->encode(options.prompt);
        ids.insert(ids.begin(), model.shape.bos_token_id);
    } else {
        ids = parse_ids(options.prompt_ids, "--prompt-ids").lists.front();
        if (!options.tokenizer.empty()) {
            tokenizer = load_tokenizer(options.tokenizer, options.model, model.shape);
        }
    }
    const std::size_t given = ids.size();
    const bool stream = !options.common.json && tokenizer.has_value();
    if (stream) {
        print(tokenizer->decode(ids));
    }
    int previous = ids.back();
    const auto start = std::chrono::steady_clock::now();
    const auto all = take(
        llama::generate(model, std::move(ids),
                        {.max_new_tokens = static_cast<lowrank::index>(options.tokens), .on_token = [&](int token) {
                             if (stream) {
                                 print(tokenizer->decode(previous, token));
                             }
                             previous = token;
                             return !interrupted();
                         }}));
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    const auto news = static_cast<double>(all.size() - given);
    if (options.common.json) {
        stop_if_interrupted();
        json out = {{"command", "generate"},
                    {"model", options.model.string()},
                    {"prompt_tokens", given},
                    {"new_tokens", all.size() - given},
                    {"ids", all},
                    {"seconds", seconds},
                    {"tokens_per_second", seconds > 0 ? news / seconds : 0.0}};
        if (tokenizer) {
            out["text"] = tokenizer->decode(all);
        }
        print_json(out);
        return;
    }
    if (!stream) {
        for (std::size_t i = 0; i < all.size(); ++i) {
            print((i == 0 ? "" : " ") + std::to_string(all[i]));
        }
    }
    print("\n");
    stop_if_interrupted();
    std::fprintf(stderr, "%zu tokens, %.0f per second\n", all.size() - given, seconds > 0 ? news / seconds : 0.0);
}

}  // namespace

void add_generate(CLI::App& app) {
    auto options = std::make_shared<generate_command>();
    auto* command = app.add_subcommand("generate", "Continue a prompt, always with the most probable token");
    command->add_option("model", options->model, "Model folder (config.json and safetensors)")
        ->type_name("MODEL")
        ->required();
    auto* prompt = command->add_option("--prompt", options->prompt, "Text to continue; may be empty");
    command->add_option("--prompt-ids", options->prompt_ids, "Token ids to continue, with commas or spaces between")
        ->type_name("LIST")
        ->excludes(prompt);
    command->add_option("--tokens", options->tokens, "Largest number of new tokens")
        ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 30))
        ->capture_default_str();
    add_adapters(*command, options->adapters, false);
    command->add_option("--tokenizer", options->tokenizer,
                        "A llama2.c tokenizer file; without it the one in the model folder");
    add_common(*command, options->common);
    command->footer(
        "Example:\n"
        "  lowrank generate models/stories260K --prompt \"Once upon a time\" --tokens 100\n"
        "  lowrank generate models/stories260K --adapter adapters/shakespeare --prompt \"ROMEO:\"");
    command->callback([options, prompt] {
        options->prompt_given = prompt->count() > 0;
        run_generate(*options);
    });
}

}  // namespace tool
