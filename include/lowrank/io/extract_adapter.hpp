// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_EXTRACT_ADAPTER_HPP
#define LOWRANK_IO_EXTRACT_ADAPTER_HPP

/// \file
/// The adapter that leads from one checkpoint to another, and adapters at another rank.
///
///     auto found = lowrank::extract_adapter(*base, *tuned, {.lora = {.rank = lowrank::fixed_rank(16)}});
///     auto why = lowrank::write_peft("what-it-learned", found->adapter);
///     auto small = lowrank::resize_adapter(found->adapter, lowrank::fixed_rank(4));
///
/// Weight by weight, with one difference in memory; the mathematics is that of extract.hpp and resize.hpp.

#include <algorithm>
#include <array>
#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/progress.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/checkpoint.hpp>
#include <lowrank/io/detail/peft_names.hpp>
#include <lowrank/io/detail/text.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/lora/extract.hpp>
#include <lowrank/lora/resize.hpp>

namespace lowrank::inline LOWRANK_ABI {

struct extract_adapter_options {
    extraction_options lora = {};
    /// Save tensors that changed and are no matrices (norms, biases) whole, as PEFT's modules_to_save.
    bool keep_others = false;
    progress_callback on_progress = {};  ///< Tensors; false stops with `cancelled`.
};

/// What was found in one weight, or kept of one module.
struct adapter_weight_report {
    index rank = 0;
    double relative_error = 0;  ///< ||change - kept||_F / ||change||_F.
    double largest_change = 0;  ///< Of the weight; extraction only.
};

struct extracted_adapter {
    peft_adapter adapter = {};
    std::map<std::string, adapter_weight_report> weights = {};  ///< By tensor.
    std::vector<std::string> unchanged = {};                    ///< Tensors that did not move (enough).
    std::vector<std::string> left_out = {};  ///< Tensors that changed and are not in the adapter, and why.
};

namespace detail {

/// Tables of embeddings by the names models give them; PEFT adapts them transposed.
[[nodiscard]] inline bool is_table_name(std::string_view module) {
    constexpr std::array<std::string_view, 6> names{"embed_tokens", "word_embeddings", "position_embeddings", "wte",
                                                    "wpe",          "embed_positions"};
    const auto last = module.substr(module.rfind('.') + 1);
    return std::find(names.begin(), names.end(), last) != names.end();
}

}  // namespace detail

/// Extracts LoRA modules from the differences of all matrices named "<module>.weight" that changed.
///
/// \return `mismatch` if no tensor of one has a partner in the other, or nothing changed; `non_finite` naming the
/// tensor;
///         `cancelled`.
/// \cost   An SVD per changed weight (less with `lora.fast`).
[[nodiscard]] inline result<extracted_adapter> extract_adapter(const checkpoint& base, const checkpoint& tuned,
                                                               const extract_adapter_options& opt = {}) {
    extracted_adapter out;
    const auto total = static_cast<index>(tuned.tensors().size());
    std::size_t partners = 0;
    for (index i = 0; i < total; ++i) {
        const checkpoint::place& place = tuned.tensors()[static_cast<std::size_t>(i)];
        const tensor_info& t = *place.info;
        if (!report(opt.on_progress, {.done = i, .total = total, .what = t.name})) {
            return status{errc::cancelled, "the extraction was stopped"};
        }
        const tensor_info* before = base.find(t.name);
        if (before == nullptr || before->shape != t.shape || !is_real(t.type) || !is_real(before->type)) {
            out.left_out.push_back(t.name + ": the base has no such tensor of numbers of this shape");
            continue;
        }
        ++partners;
        const auto old_bytes = *base.bytes(t.name);
        const auto new_bytes = tuned.bytes(place);
        if (before->type == t.type &&
            std::equal(old_bytes.begin(), old_bytes.end(), new_bytes.begin(), new_bytes.end())) {
            out.unchanged.push_back(t.name);
            continue;
        }
        constexpr std::string_view suffix = ".weight";
        if (t.shape.size() != 2 || !t.name.ends_with(suffix)) {
            if (opt.keep_others) {
                auto copy = std::make_shared<std::vector<std::byte>>(new_bytes.begin(), new_bytes.end());
                out.adapter.extra.push_back({std::string(detail::peft_prefix) + t.name, t.type, t.shape, *copy, copy});
            } else {
                out.left_out.push_back(t.name + ": changed, but is no matrix");
            }
            continue;
        }
        const std::string module = t.name.substr(0, t.name.size() - suffix.size());
        const bool is_table = detail::is_table_name(module);
        const auto x = base.matrix<double>(t.name);
        const auto y = tuned.matrix<double>(t.name);
        if (!x || !y) {
            return x ? y.error() : x.error();
        }
        matrix<float> difference = (*y - *x).cast<float>();
        if (is_table || opt.lora.fan_in_fan_out) {
            difference.transposeInPlace();
        }
        auto found = extract_lora(difference, opt.lora);
        if (!found) {
            return detail::in_context("tensor " + detail::in_quotes(t.name), found.why);
        }
        if (!found.changed || found.adapter.rank() == 0) {
            out.unchanged.push_back(t.name);
            continue;
        }
        out.weights[t.name] = {found.adapter.rank(), found.relative, found.largest_change};
        (is_table ? out.adapter.embeddings : out.adapter.modules).emplace(module, std::move(found.adapter));
    }
    if (partners == 0) {
        return status{errc::mismatch,
                      "no tensor of the one checkpoint has a partner in the other; they are not of one model"};
    }
    if (out.weights.empty() && out.adapter.extra.empty()) {
        return status{errc::mismatch, "no weight changed (enough): there is nothing to extract"};
    }
    std::vector<std::string> saved;
    for (const tensor_to_write& e : out.adapter.extra) {
        std::string module = e.name.substr(detail::peft_prefix.size());
        module.resize(std::min(module.rfind('.'), module.size()));
        saved.push_back(module.substr(module.rfind('.') + 1));
    }
    std::sort(saved.begin(), saved.end());
    saved.erase(std::unique(saved.begin(), saved.end()), saved.end());
    out.adapter.config =
        peft_config_for(out.adapter, {.fan_in_fan_out = opt.lora.fan_in_fan_out, .modules_to_save = std::move(saved)});
    return out;
}

/// An adapter at another rank, and what each module kept.
struct resized_adapter {
    peft_adapter adapter = {};
    std::map<std::string, adapter_weight_report> modules = {};
};

/// Every LoRA module of an adapter at the rank the rule gives, at the scaling it had.
///
/// \return `unsupported`, naming a module, unless all are plain LoRA; `non_finite`.
/// \cost   6 r^2 (out + in) flops per module.
[[nodiscard]] inline result<resized_adapter> resize_adapter(const peft_adapter& adapter, const rank_choice& choice) {
    if (status why = check_plain_lora(adapter); !why) {
        return why;
    }
    resized_adapter out{.adapter = adapter};
    for (auto* group : {&out.adapter.modules, &out.adapter.embeddings}) {
        for (auto& [module, lora] : *group) {
            auto small = resize_lora(lora, choice);
            if (!small) {
                return detail::in_context("module " + detail::in_quotes(module), small.why);
            }
            out.modules[module] = {small.adapter.rank(), small.relative, 0};
            lora = std::move(small.adapter);
        }
    }
    out.adapter.config = peft_config_for(out.adapter, adapter.config);
    return out;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_EXTRACT_ADAPTER_HPP
