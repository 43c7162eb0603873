// SPDX-License-Identifier: MIT
#include "models.hpp"

#include <concepts>
#include <type_traits>
#include <utility>
#include <variant>

#include "llama/adapters.hpp"
#include "llama/load.hpp"

#include "console.hpp"

namespace tool {
namespace fs = std::filesystem;
namespace {

void require_folder(const fs::path& folder, const char* what) {
    std::error_code error;
    if (!fs::exists(folder, error)) {
        fail(folder.string() + ": no such folder", lowrank::errc::not_found);
    }
    if (!fs::is_directory(folder, error)) {
        fail(folder.string() + " is a file, name the folder that holds " + what, lowrank::errc::not_found);
    }
}

}  // namespace

llama::model<float> load_model(const fs::path& folder) {
    require_folder(folder, "config.json and the weights");
    auto model = take_named(folder.string(), llama::load<float>(folder));
    stop_if_interrupted();
    return model;
}

void require_model_folder(const fs::path& folder) { require_folder(folder, "config.json and the weights"); }

lowrank::peft_adapter load_adapter(const fs::path& folder, const lowrank::peft_read_options& reading) {
    require_folder(folder, "adapter_config.json");
    auto adapter = take_named(folder.string(), lowrank::read_peft(folder, reading));
    for (const auto& warning : adapter.warnings) {
        say("warning: " + folder.string() + ": " + warning);
    }
    for (const auto& [name, module] : adapter.modules) {
        if (!lowrank::all_finite(module.lora_A) || !lowrank::all_finite(module.lora_B)) {
            fail(folder.string() + ": the adapter of " + name + " contains NaN or infinity", lowrank::errc::non_finite);
        }
    }
    return adapter;
}

lowrank::peft_adapter load_applicable_adapter(const fs::path& folder, const lowrank::peft_read_options& reading) {
    auto adapter = load_adapter(folder, reading);
    if (!adapter.extra.empty()) {
        fail(folder.string() + ": the adapter also replaces " + adapter.extra.front().name +
                 ", which is not a LoRA module and is not applied by this tool",
             lowrank::errc::unsupported);
    }
    return adapter;
}

llama::adapter_operator<float> layer_adapters(const lowrank::peft_adapter& adapter, const llama::model<float>& model,
                                              const fs::path& folder) {
    llama::adapter_operator<float> all;
    const auto refuse = [&](const std::string& module, const std::string& why) {
        fail(folder.string() + ": module " + module + " " + why, lowrank::errc::unsupported);
    };
    for (const auto& [name, lora] : adapter.modules) {
        all.emplace(name, lora);
    }
    for (const auto& [name, stored] : adapter.relatives) {
        const auto* p = llama::find_projection(model, name);
        if (p == nullptr) {
            fail(folder.string() + ": the adapter changes " + name + ", which is not a linear layer of this model",
                 lowrank::errc::not_found);
        }
        auto relative = stored;
        if (const auto why = lowrank::fit_module(relative, p->rows(), p->cols()); !why) {
            fail(folder.string() + ": module " + name + ": " + why.message, why.code);
        }
        std::visit(
            [&, &module = name](const auto& m) {
                using M = std::decay_t<decltype(m)>;
                if constexpr (std::same_as<M, lowrank::peft_lora>) {
                    if (m.bias.size() > 0 || !m.kernel.empty() || m.is_table || m.magnitude_of_inputs) {
                        refuse(module, "is " + std::string(lowrank::kind_of(m)) + ", which this tool does not apply");
                    }
                    if (m.magnitude.size() == 0) {
                        all.emplace(module, m.lora);
                    } else {
                        if (m.magnitude.size() != p->rows()) {
                            refuse(module, "has a magnitude of another length than the layer's outputs");
                        }
                        all.emplace(module,
                                    lowrank::dora_adapter<float>{.lora = m.lora,
                                                                 .magnitude = m.magnitude,
                                                                 .base_norms2 = lowrank::squared_row_norms(p->weight)});
                    }
                } else if constexpr (std::same_as<M, lowrank::peft_ia3>) {
                    if (m.scale.size() != (m.is_feedforward ? p->cols() : p->rows()) || p->bias.size() > 0) {
                        refuse(module, "has a scale of another length, or scales a bias, which this tool does not do");
                    }
                    all.emplace(
                        module,
                        lowrank::ia3_adapter<float>{
                            .ia3_l = m.scale, .is_feedforward = m.is_feedforward, .out = p->rows(), .in = p->cols()});
                } else if constexpr (std::same_as<M, lowrank::peft_boft>) {
                    all.emplace(module, m.boft);
                } else if constexpr (std::same_as<M, lowrank::peft_randlora>) {
                    all.emplace(module, m.randlora);
                } else if constexpr (std::same_as<M, lowrank::miss_bat_adapter<float>>) {
                    refuse(module, "is MiSS of the form \"bat\", which this tool applies only when it merges");
                } else if constexpr (std::same_as<M, lowrank::lycoris_oft>) {
                    refuse(module, "is OFT of the outputs, which this tool applies only when it merges");
                } else {
                    all.emplace(module, m);
                }
            },
            relative);
    }
    return all;
}

void attach_adapters(llama::model<float>& model, const std::vector<adapter_choice>& adapters) {
    for (const auto& choice : adapters) {
        const auto adapter = load_applicable_adapter(choice.folder, {.base_is_residual = choice.base_is_residual});
        if (!adapter.embeddings.empty()) {
            fail(choice.folder.string() + ": the adapter changes the embedding table " +
                     adapter.embeddings.begin()->first + "; merge it with 'lowrank merge' and use the merged model",
                 lowrank::errc::unsupported);
        }
        const auto why =
            llama::attach(model, layer_adapters(adapter, model, choice.folder), static_cast<float>(choice.strength));
        if (!why) {
            fail(choice.folder.string() + ": " + why.message, why.code);
        }
    }
}

void merge_attached(llama::model<float>& model) {
    if (const auto why = llama::merge_adapters(model); !why) {
        fail(why.message, why.code);
    }
}

llama::scores evaluate(const llama::model<float>& model, const llama::batch& batch, thread_pool& pool,
                       const std::string& label) {
    progress_bar bar(label);
    auto scores = llama::evaluate(model, batch, pool.as_executor(), 1024, bar.callback());
    stop_if_interrupted();
    return take(std::move(scores));
}

}  // namespace tool
