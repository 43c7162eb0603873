// SPDX-License-Identifier: MIT
#ifndef LOWRANK_EXAMPLES_CLI_MODELS_HPP
#define LOWRANK_EXAMPLES_CLI_MODELS_HPP

/// \file
/// A model from its folder, adapters put in place, scores with progress.
///
///     auto model = tool::load_model(folder);
///     tool::attach_adapters(model, {{"poet", 0.5}});
///     auto scores = tool::evaluate(model, batch, pool, "evaluating");

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/formats/adapter_files.hpp>
#include <lowrank/io/peft.hpp>

#include "llama/adapters.hpp"
#include "llama/batch.hpp"
#include "llama/forward.hpp"
#include "llama/model.hpp"
#include "options.hpp"
#include "threads.hpp"

namespace tool {

/// The model in `folder`, in float, every weight finite.
[[nodiscard]] llama::model<float> load_model(const std::filesystem::path& folder);

/// Fails with a sentence unless there is a folder of that name.
void require_model_folder(const std::filesystem::path& folder);

/// The adapter in `folder`; its warnings go to stderr. Every factor is finite.
[[nodiscard]] lowrank::peft_adapter load_adapter(const std::filesystem::path& folder,
                                                 const lowrank::peft_read_options& reading = {});

/// The same for applying it: fails with a sentence if it holds more than LoRA modules (saved layers, biases), because
/// leaving that out would give plausible, wrong numbers.
[[nodiscard]] lowrank::peft_adapter load_applicable_adapter(const std::filesystem::path& folder,
                                                            const lowrank::peft_read_options& reading = {});

/// The base model that an adapter is for, as far as reading and writing other tools' files need it.
struct adapter_base {
    std::optional<lowrank::checkpoint> weights = {};
    std::vector<std::string> modules = {};
    std::optional<lowrank::model_config> model = {};
    std::string why_no_model = {};  ///< What is wrong with its config.json.
    bool is_original = false;       ///< Adapters that took a part of it away (PiSSA, OLoRA) are to become plain LoRA.
    std::optional<lowrank::peft_adapter> initial = {};  ///< The same, with the adapter as it was before training.
};
/// That of a folder or file; nothing is known for an empty path.
[[nodiscard]] adapter_base open_adapter_base(const std::filesystem::path& model,
                                             const original_base_options& original = {});

/// An adapter folder or file of any tool; what it says of itself goes to stderr. Fails if a tensor would be left out,
/// unless `skip_unsupported`. For an original base it is made plain LoRA of it.
[[nodiscard]] lowrank::adapter_file load_any_adapter(const std::filesystem::path& path, const adapter_base& base,
                                                     lowrank::adapter_read_options reading, bool skip_unsupported);

/// Puts adapters in place, each module of them at the projection of that name.
/// Fails with a sentence if a module is not in the model, has another shape, or the adapter needs what an engine of
/// linear layers does not apply.
void attach_adapters(llama::model<float>& model, const std::vector<adapter_choice>& adapters);

/// Merges all adapters of every projection into its weight and removes them: what a merged checkpoint computes.
void merge_attached(llama::model<float>& model);

/// `llama::evaluate` with progress.
[[nodiscard]] llama::scores evaluate(const llama::model<float>& model, const llama::batch& batch, thread_pool& pool,
                                     const std::string& label);

}  // namespace tool

#endif  // LOWRANK_EXAMPLES_CLI_MODELS_HPP
