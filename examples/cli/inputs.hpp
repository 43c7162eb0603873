// SPDX-License-Identifier: MIT
#ifndef LOWRANK_EXAMPLES_CLI_INPUTS_HPP
#define LOWRANK_EXAMPLES_CLI_INPUTS_HPP

/// \file
/// What the user brings: token files, texts, tokenizers. Everything is checked here; a failure is one sentence.

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "llama/batch.hpp"
#include "llama/config.hpp"
#include "llama/tokenizer.hpp"
#include "options.hpp"

namespace tool {

/// The bytes of a file as text.
[[nodiscard]] std::string read_text(const std::filesystem::path& file);

/// The ids in a file: one list per document, or a single list for a stream of tokens.
struct token_lists {
    std::vector<std::vector<int>> lists = {};
    bool documents = false;  ///< The file held a list of lists.
};
[[nodiscard]] token_lists parse_ids(const std::string& text, const std::string& name);

/// The tokenizer to use with a model: `chosen`, or the one that lies in the model folder.
[[nodiscard]] llama::tokenizer load_tokenizer(const std::filesystem::path& chosen, const std::filesystem::path& model,
                                              const llama::config& config);

/// The bytes BEGIN:END of a text, moved to the start of a UTF-8 character.
[[nodiscard]] std::string cut_range(const std::string& text, const std::string& range);

/// The tokens a command works on, with next-token targets: documents one sequence each (cut at the model's positions),
/// a stream in windows. Every sequence starts with BOS.
[[nodiscard]] llama::batch load_batch(const text_options& options, const std::filesystem::path& model,
                                      const llama::config& config);

}  // namespace tool

#endif  // LOWRANK_EXAMPLES_CLI_INPUTS_HPP
