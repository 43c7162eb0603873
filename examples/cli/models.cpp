// SPDX-License-Identifier: MIT
#include "models.hpp"

#include <utility>

#include <lowrank/io/formats/original_base.hpp>
#include <lowrank/io/models/model_config.hpp>
#include <lowrank/io/models/module_names.hpp>
#include <lowrank/io/peft/to_any_adapters.hpp>

#include "llama/adapters.hpp"
#include "llama/load.hpp"

#include "checkpoint_edit.hpp"
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
    return adapter;
}

adapter_base open_adapter_base(const fs::path& named, const original_base_options& original) {
    adapter_base base{.is_original = original.base_is_original};
    if (!original.initial_adapter.empty()) {
        base.initial = load_adapter(original.initial_adapter, {.base_is_residual = true});
    }
    if (named.empty()) {
        return base;
    }
    const fs::path model = folder_of_model(named);
    base.weights = open_checkpoint(named);
    base.modules = lowrank::modules_of(*base.weights).all();
    std::error_code error;
    const fs::path config = (fs::is_directory(model, error) ? model : model.parent_path()) / "config.json";
    auto read = lowrank::read_model_config(config);
    read ? void(base.model = std::move(*read)) : void(base.why_no_model = read.error().message);
    return base;
}

lowrank::adapter_file load_any_adapter(const fs::path& path, const adapter_base& base,
                                       lowrank::adapter_read_options reading, bool skip_unsupported) {
    reading.modules = base.modules;
    reading.model = base.model ? &*base.model : nullptr;
    reading.peft.skip_unsupported = skip_unsupported;
    reading.peft.base_is_residual = reading.peft.base_is_residual || base.is_original || base.initial;
    auto source = take_named(path.string(), lowrank::read_adapter(path, reading));
    for (const auto& warning : source.adapter.warnings) {
        say("warning: " + path.string() + ": " + warning);
    }
    for (const auto& line : source.unmapped) {
        say("warning: " + path.string() + ": left out " + line);
    }
    if (!source.unmapped.empty() && !skip_unsupported) {
        fail(path.string() + ": " + std::to_string(source.unmapped.size()) +
                 " tensors would be left out, the first is " + source.unmapped.front() +
                 "; --skip-unsupported goes on without them",
             lowrank::errc::unsupported);
    }
    if (base.initial) {
        source.adapter = take_named(path.string(), lowrank::on_original_base(source.adapter, *base.initial));
    } else if (base.is_original) {
        source.adapter = take_named(path.string(), lowrank::on_original_base(source.adapter, *base.weights));
    }
    return source;
}

lowrank::peft_adapter load_applicable_adapter(const fs::path& folder, const lowrank::peft_read_options& reading) {
    auto adapter = load_adapter(folder, reading);
    if (const auto* t = lowrank::first_stored_tensor(adapter)) {
        fail(folder.string() + ": the adapter also replaces " + t->name +
                 ", which is not a LoRA module and is not applied by this tool",
             lowrank::errc::unsupported);
    }
    return adapter;
}

void attach_adapters(llama::model<float>& model, const std::vector<adapter_choice>& adapters) {
    for (const auto& choice : adapters) {
        const auto adapter = load_applicable_adapter(choice.folder, {.base_is_residual = choice.base_is_residual});
        auto layers =
            take_named(choice.folder.string(), lowrank::to_any_adapters(adapter, [&](const std::string& module) {
                           const auto* p = llama::find_projection(model, module);
                           using found = lowrank::result<lowrank::adapted_weight>;
                           return p == nullptr ? found(llama::no_such_layer(model, module))
                                               : found({p->rows(), p->cols(), p->bias.size() > 0});
                       }));
        const auto why = llama::attach(model, std::move(layers), static_cast<float>(choice.strength));
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
