// SPDX-License-Identifier: MIT
#include "models.hpp"

#include <atomic>
#include <mutex>

#include <lowrank/lora/merge.hpp>

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

lowrank::peft_adapter load_adapter(const fs::path& folder) {
    require_folder(folder, "adapter_config.json");
    auto adapter = take_named(folder.string(), lowrank::read_peft(folder));
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

lowrank::peft_adapter load_applicable_adapter(const fs::path& folder) {
    auto adapter = load_adapter(folder);
    if (!adapter.extra.empty()) {
        fail(folder.string() + ": the adapter also replaces " + adapter.extra.front().name +
                 ", which is not a LoRA module and is not applied by this tool",
             lowrank::errc::unsupported);
    }
    return adapter;
}

void attach_adapters(llama::model<float>& model, const std::vector<adapter_choice>& adapters) {
    for (const auto& choice : adapters) {
        const auto adapter = load_applicable_adapter(choice.folder);
        if (!adapter.embeddings.empty()) {
            fail(choice.folder.string() + ": the adapter changes the embedding table " +
                     adapter.embeddings.begin()->first + "; merge it with 'lowrank merge' and use the merged model",
                 lowrank::errc::unsupported);
        }
        if (const auto why = llama::attach(model, adapter.modules, static_cast<float>(choice.strength)); !why) {
            fail(choice.folder.string() + ": " + why.message, why.code);
        }
    }
}

void merge_attached(llama::model<float>& model) {
    llama::for_each_projection(model, [](llama::projection<float>& p) {
        if (p.adapters.empty()) {
            return;
        }
        // One product of all factors side by side, so that the weight is rounded once.
        lowrank::index rank = 0;
        for (const auto& active : p.adapters) {
            rank += active.adapter->rank();
        }
        lowrank::low_rank<float> sum{.left = lowrank::matrix<float>(p.rows(), rank),
                                     .right = lowrank::matrix<float>(rank, p.cols())};
        lowrank::index at = 0;
        for (const auto& active : p.adapters) {
            const auto delta = active.adapter->delta();
            sum.left.middleCols(at, delta.rank()) = active.strength * delta.left;
            sum.right.middleRows(at, delta.rank()) = delta.right;
            at += delta.rank();
        }
        (void)take(lowrank::merge(lowrank::weight_view<float>(p.weight), sum));
        p.adapters.clear();
    });
}

llama::scores evaluate(const llama::model<float>& model, const llama::batch& batch, thread_pool& pool,
                       const std::string& label) {
    const auto groups = llama::split(batch, 1024);
    std::vector<llama::scores> parts(groups.size());
    progress_bar bar(label);
    std::mutex drawing;
    lowrank::index done = 0;
    pool.run(static_cast<lowrank::index>(groups.size()), [&](lowrank::index g) {
        if (interrupted()) {
            return;
        }
        const auto at = static_cast<std::size_t>(g);
        parts[at] = take(llama::evaluate(model, groups[at]));
        const std::lock_guard lock(drawing);
        bar.update({.done = ++done, .total = static_cast<lowrank::index>(groups.size())});
    });
    stop_if_interrupted();
    llama::scores all;
    for (const auto& part : parts) {
        all.append(part);
    }
    return all;
}

}  // namespace tool
