// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_FORMATS_PLAIN_LORA_IPP
#define LOWRANK_IO_FORMATS_PLAIN_LORA_IPP

#include <lowrank/io/formats/plain_lora.hpp>

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <variant>

#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/io/checkpoints/detail/merge_experts.hpp>
#include <lowrank/io/checkpoints/detail/merge_plan.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/models/expert_names.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/io/peft/kinds/experts.hpp>
#include <lowrank/lora/convert/convert.hpp>
#include <lowrank/lora/merge/merge_change.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// Entries of a weight that no base has confirmed: the file of a LoKr may be the square root of that.
inline constexpr index most_unconfirmed_entries = index{1} << 28;

/// W' - W of a module that scales or turns its weight, out x in.
LOWRANK_API [[nodiscard]] result<matrix<float>> dense_change(const checkpoint* base, const std::string& path,
                                                             const std::string& module, const peft_change& change,
                                                             bool transposed) {
    if (base == nullptr) {
        return status{errc::unsupported,
                      "module " + in_quotes(path) +
                          " changes its weight as a whole: the base model is needed to make plain LoRA of it"};
    }
    const std::string name = module + ".weight";
    auto stored = base->matrix<float>(name);
    if (!stored) {
        return stored.error();
    }
    const matrix<double> w = transposed ? matrix<double>(stored->transpose().cast<double>()) : stored->cast<double>();
    if (!fits_weight(change.weight, w.rows(), w.cols())) {
        return status{errc::mismatch, "the change of module " + in_quotes(path) + " does not fit the shape of " +
                                          in_quotes(name) + "; it was trained on a model of other sizes"};
    }
    return matrix<float>((changed(change.weight, w) - w).cast<float>());
}

/// Whether a layer of the base has a bias that is not zero.
LOWRANK_INLINE [[nodiscard]] bool has_bias(const checkpoint* base, const std::string& module) {
    const std::string name = module + ".bias";
    if (base == nullptr || base->find(name) == nullptr) {
        return false;
    }
    const auto bias = base->matrix<float>(name);
    return !bias || !all_zero(*bias);
}

/// Puts LoRA of a fused stack among modules as layers of single experts, as hub files of most models name them.
LOWRANK_API [[nodiscard]] status put_experts(const peft_experts& from, const peft_lora_config& config,
                                             const std::string& model_type, std::map<std::string, peft_module>& to) {
    const parameter_place& place = from.place;
    const bool is_fused = place.parameter == fused_gate_up;
    if (!is_fused && place.parameter != fused_down) {
        return {errc::unsupported,
                "is LoRA of a parameter whose experts have no known names as layers; merge it into its base"};
    }
    if (is_before_layouts(config) && !stores_experts_in_by_out(model_type)) {
        return {errc::unsupported,
                "was saved by a release of PEFT before 0.19, whose factors do not say which of them "
                "belongs to the inputs; merge it into its base"};
    }
    if (is_fused && (interleaves_gate_and_up(model_type) || from.lora.rows() % 2 != 0)) {
        return {errc::unsupported, "has no halves for gate and up in its outputs; merge it into its base"};
    }
    const expert_names& names = known_expert_names.front();
    for (index e = 0; e < from.lora.experts; ++e) {
        const std::string owner = place.module + "." + std::to_string(e) + ".";
        const auto put = [&](std::string_view name, index part) {
            to.insert_or_assign(owner + std::string(name), lora_of_expert(from.lora, e, part, is_fused ? 2 : 1, false));
        };
        put(is_fused ? names.gate : names.down, 0);
        if (is_fused) {
            put(names.up, 1);
        }
    }
    return {};
}

}  // namespace detail

LOWRANK_BODY result<plain_lora_adapter> to_plain_lora(const peft_adapter& adapter, const checkpoint* base,
                                                      const plain_lora_options& opt) {
    plain_lora_adapter out{.adapter = adapter};
    bool is_changed = false;
    std::optional<detail::base_view> about;
    if (base != nullptr) {
        about.emplace(*base);
    }
    std::set<std::string> notes;
    for (const auto& entry : adapter.modules) {
        const std::string& module = entry.first;
        const peft_module& from = entry.second;
        if (is_plain_lora(from) || stored_tensor(from) != nullptr) {
            continue;
        }
        std::erase_if(out.adapter.types, [&](const auto& type) { return type.first.starts_with(module + "."); });
        is_changed = true;
        if (const auto* experts = from.get<peft_experts>()) {
            out.adapter.modules.erase(module);
            const std::string model = about ? about->facts.model_type : std::string();
            if (status why = detail::put_experts(*experts, adapter.config, model, out.adapter.modules); !why) {
                return detail::in_context("module " + detail::in_quotes(module), why);
            }
            continue;
        }
        const auto* lora = from.get<peft_lora>();
        const bool has_taps = lora != nullptr && std::any_of(lora->kernel.begin(), lora->kernel.end(),
                                                             [](std::uint64_t n) { return n != 1; });
        if (lora != nullptr && (lora->bias.size() != 0 || has_taps)) {
            return status{errc::unsupported, "module " + detail::in_quotes(module) + " is adapted by " + kind_of(from) +
                                                 ", which is no plain LoRA"};
        }
        const bool is_table = is_table_module(from);
        std::string stored = module;
        if (about) {
            auto placed = about->stored(module, notes);
            if (!placed && placed.error().code == errc::unsupported) {
                return placed.error();
            }
            stored = placed ? std::move(*placed) : stored;
        }
        const bool transposed =
            is_table ||
            (about ? detail::is_stored_in_by_out(*about, stored, adapter.config.fan_in_fan_out, shape_of(from), notes)
                   : adapter.config.fan_in_fan_out);
        const tensor_info* t = base != nullptr ? base->find(stored + ".weight") : nullptr;
        peft_module fitted = from;
        if (t != nullptr && t->shape.size() == 2) {
            const status why = fit_module(fitted, static_cast<index>(t->shape[transposed ? 1 : 0]),
                                          static_cast<index>(t->shape[transposed ? 0 : 1]));
            if (!why) {
                return detail::in_context("module " + detail::in_quotes(module), why);
            }
        }
        const module_shape says = shape_of(fitted);
        if (t != nullptr && t->shape.size() == 2) {
            const module_shape has = detail::stored_shape(*t);
            const index rows = transposed ? says.in : says.out;
            const index cols = transposed ? says.out : says.in;
            if (status why = detail::check_stored_shape(*t, rows != 0 ? rows : has.out, cols != 0 ? cols : has.in);
                !why) {
                return why;
            }
        }
        const index entries = std::max<index>(says.in, 1) * says.out;  // at most those of two factors of the file
        if (t == nullptr && entries > detail::most_unconfirmed_entries) {
            return status{errc::unsupported, "module " + detail::in_quotes(module) + " is " + kind_of(from) +
                                                 " for a weight of " + std::to_string(says.out) + " x " +
                                                 std::to_string(says.in) + ": give the base, which confirms that"};
        }
        const bool is_full = formed_rank(fitted) != 0 && formed_rank(fitted) >= std::min(says.out, says.in);
        const auto change = is_full ? change_without_factors(fitted) : change_of(fitted);
        const auto put = [&](lora_adapter<float> plain) {
            out.adapter.modules.insert_or_assign(module, plain_module(std::move(plain), is_table));
        };
        if (change.is_unknown()) {
            return status{errc::unsupported, "module " + detail::in_quotes(module) + " is " + kind_of(from) +
                                                 ", whose shape the base model must say: give the base"};
        }
        if (change.acts_on_bias && detail::has_bias(base, stored)) {
            return status{errc::unsupported, "module " + detail::in_quotes(module) + " is " + kind_of(from) +
                                                 ", which changes the bias of its layer, too, and plain LoRA cannot; "
                                                 "merge the adapter instead"};
        }
        if (const auto* delta = std::get_if<low_rank<float>>(&change.weight)) {
            put(as_lora(*delta));
            continue;
        }
        const bool adds = is_sum(change.weight);  // needs no base
        const auto dense =
            adds ? result<matrix<float>>(matrix<float>(
                       changed(change.weight, matrix<double>(matrix<double>::Zero(says.out, says.in))).cast<float>()))
                 : detail::dense_change(base, module, stored, change, transposed);
        if (!dense) {
            return dense.error();
        }
        auto cut = to_lora(*dense, opt.rank);
        if (!cut) {
            return detail::in_context("module " + detail::in_quotes(module), cut.why);
        }
        put(std::move(cut.adapter));
        out.relative_errors[module] = cut.relative;
    }
    out.adapter.warnings.insert(out.adapter.warnings.end(), notes.begin(), notes.end());
    if (is_changed) {
        out.adapter.config =
            peft_config_for(out.adapter, {.fan_in_fan_out = adapter.config.fan_in_fan_out,
                                          .base_model_name_or_path = adapter.config.base_model_name_or_path,
                                          .task_type = adapter.config.task_type});
    }
    return out;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_FORMATS_PLAIN_LORA_IPP
