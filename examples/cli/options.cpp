// SPDX-License-Identifier: MIT
#include "options.hpp"

#include <cmath>
#include <cstdlib>
#include <system_error>

#include "console.hpp"

namespace tool {
namespace {

/// The whole of `text` as a finite number.
bool parse_number(const std::string& text, double& value) {
    char* end = nullptr;
    value = std::strtod(text.c_str(), &end);
    return !text.empty() && end == text.c_str() + text.size() && std::isfinite(value);
}

}  // namespace

void add_common(CLI::App& command, common_options& options) {
    command.add_flag("--json", options.json, "Print one JSON object on stdout, for machines");
    command.add_option("--threads", options.threads, "Number of threads; 0: one per processor")
        ->check(CLI::Range(0, 4096))
        ->capture_default_str();
}

void add_text(CLI::App& command, text_options& options) {
    auto* ids = command.add_option("--ids", options.ids,
                                   "Token ids: a JSON list of numbers, a JSON list of lists (one per document), or a "
                                   "text file of numbers");
    auto* text = command.add_option("--text", options.text, "A UTF-8 text file; needs a tokenizer");
    ids->excludes(text);
    command
        .add_option("--tokenizer", options.tokenizer,
                    "A llama2.c tokenizer file; without it the one in the model folder (tokenizer.bin or tok*.bin)")
        ->excludes(ids);
    command.add_option("--range", options.range, "Use only the bytes BEGIN:END of the text (either side may be empty)")
        ->excludes(ids);
    command
        .add_option("--window", options.window,
                    "Tokens per window when a stream is cut into windows, each preceded by the BOS token; 256, or the "
                    "model's positions if these are fewer")
        ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 30));
}

std::vector<adapter_choice> parse_adapters(const adapter_options& options) {
    std::vector<adapter_choice> choices;
    for (const auto& text : options.folders) {
        choices.push_back({.folder = text, .base_is_residual = options.base_is_residual});
        std::error_code ignored;
        const auto colon = text.rfind(':');
        if (colon == std::string::npos || std::filesystem::exists(text, ignored)) {
            continue;
        }
        choices.back().folder = text.substr(0, colon);
        if (!parse_number(text.substr(colon + 1), choices.back().strength)) {
            throw usage_error("--adapter " + text + ": the strength after the colon is not a number");
        }
    }
    return choices;
}

void add_adapters(CLI::App& command, adapter_options& options, bool required) {
    auto* option = command.add_option("--adapter", options.folders,
                                      "A PEFT adapter folder, DIR or DIR:STRENGTH; may be given several times");
    option->type_name("DIR[:STRENGTH]")->take_all()->allow_extra_args(false)->required(required);
    command
        .add_flag("--base-is-residual", options.base_is_residual,
                  "The model holds the residual weights of adapters whose initialization changed the base (PiSSA, "
                  "OLoRA, CorDA, LoftQ, LoRA-GA)")
        ->needs(option);
}

CLI::Option* add_original_base(CLI::App& command, original_base_options& options) {
    auto* flag =
        command.add_flag("--base-is-original", options.base_is_original,
                         "The model holds the weights of before such an initialization: what PiSSA or OLoRA took from "
                         "them is found anew, and the adapter becomes plain LoRA of twice the rank");
    command
        .add_option("--initial-adapter", options.initial_adapter,
                    "The adapter as it was before training: the same for any initialization (CorDA, LoRA-GA, "
                    "PiSSA by a fast SVD)")
        ->type_name("DIR")
        ->excludes(flag);
    return flag;
}

void add_output(CLI::App& command, output_options& options, bool required, const char* what) {
    command.add_option("--output", options.folder, what)->type_name("DIR")->required(required);
    command.add_flag("--force", options.force, "Replace the output folder if it holds a checkpoint or an adapter");
}

void add_resume(CLI::App& command, output_options& options) {
    command.add_flag(
        "--resume", options.resume,
        "Continue where an interrupted run of the same command stopped, and keep finished files if this one "
        "is interrupted");
}

std::vector<double> parse_numbers(const char* option, const std::string& text, double low, double high) {
    std::vector<double> values;
    for (std::size_t begin = 0; begin <= text.size();) {
        const auto end = std::min(text.find(',', begin), text.size());
        double value = 0;
        const std::string piece = text.substr(begin, end - begin);
        if (!parse_number(piece, value) || value < low || value > high) {
            throw usage_error(format("%s: expected numbers from %g to %g with commas between, got %s", option, low,
                                     high, in_quotes(piece).c_str()));
        }
        values.push_back(value);
        begin = end + 1;
    }
    return values;
}

bool glob_match(std::string_view pattern, std::string_view name) {
    std::size_t p = 0;
    std::size_t n = 0;
    std::size_t star = std::string_view::npos;
    std::size_t retry = 0;
    while (n < name.size()) {
        if (p < pattern.size() && pattern[p] == '*') {
            star = p++;
            retry = n;
        } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n])) {
            ++p;
            ++n;
        } else if (star != std::string_view::npos) {
            p = star + 1;
            n = ++retry;
        } else {
            return false;
        }
    }
    while (p < pattern.size() && pattern[p] == '*') {
        ++p;
    }
    return p == pattern.size();
}

}  // namespace tool
