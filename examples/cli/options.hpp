// SPDX-License-Identifier: MIT
#ifndef LOWRANK_EXAMPLES_CLI_OPTIONS_HPP
#define LOWRANK_EXAMPLES_CLI_OPTIONS_HPP

/// \file
/// Options that several subcommands share, with one name and one meaning everywhere.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

namespace tool {

/// `--json` and `--threads`.
struct common_options {
    bool json = false;
    int threads = 0;
};
void add_common(CLI::App& command, common_options& options);

/// Which tokens: `--ids` or `--text` with `--tokenizer`, `--range`, `--window`.
struct text_options {
    std::filesystem::path ids;
    std::filesystem::path text;
    std::filesystem::path tokenizer;
    std::string range;
    std::int64_t window = 0;  ///< 0: 256, or the model's positions if these are fewer.
};
void add_text(CLI::App& command, text_options& options);

/// `--adapter`, several times, and `--base-is-residual`.
struct adapter_options {
    std::vector<std::string> folders;  ///< `DIR` or `DIR:STRENGTH`.
    bool base_is_residual = false;
};
void add_adapters(CLI::App& command, adapter_options& options, bool required);
/// How an adapter whose initialization took a part of its base becomes plain LoRA of the base of before.
struct original_base_options {
    bool base_is_original = false;
    std::string initial_adapter = {};
};
/// `--base-is-original`, which needs the option that names the base, and `--initial-adapter`.
/// \return the former.
CLI::Option* add_original_base(CLI::App& command, original_base_options& options);

/// A PEFT folder and how strongly it applies.
struct adapter_choice {
    std::filesystem::path folder;
    double strength = 1;
    bool base_is_residual = false;  ///< The model holds the weights that the adapter's initialization left.
};
/// The adapters in their order; a usage error names one whose strength is no number.
[[nodiscard]] std::vector<adapter_choice> parse_adapters(const adapter_options& options);

/// `--output` and `--force`.
struct output_options {
    std::filesystem::path folder;
    bool force = false;
    bool resume = false;
};
void add_output(CLI::App& command, output_options& options, bool required, const char* what);
/// `--resume`, for commands that keep a journal of the files they have finished.
void add_resume(CLI::App& command, output_options& options);

/// "0.9,0.5,0.1" as numbers, each within [low, high]; a usage error names the option.
[[nodiscard]] std::vector<double> parse_numbers(const char* option, const std::string& text, double low, double high);

/// True if `name` matches `pattern`, where `*` stands for any characters and `?` for one.
[[nodiscard]] bool glob_match(std::string_view pattern, std::string_view name);

}  // namespace tool

#endif  // LOWRANK_EXAMPLES_CLI_OPTIONS_HPP
