// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CHECKPOINTS_DETAIL_MERGE_PLAN_HPP
#define LOWRANK_IO_CHECKPOINTS_DETAIL_MERGE_PLAN_HPP

/// \file
/// What adapters do to the tensors of a checkpoint, in the layout the checkpoint stores.
///
///     auto plan = detail::plan_merge(base, adapters);
///     plan->changes.at("model.layers.0.mlp.up_proj.weight").form().left

#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <variant>

#include <lowrank/core/checksum.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/checkpoints/detail/merge_experts.hpp>
#include <lowrank/io/checkpoints/detail/merge_targets.hpp>
#include <lowrank/io/checkpoints/detail/merge_whole.hpp>
#include <lowrank/io/checkpoints/detail/stored_change.hpp>
#include <lowrank/io/checkpoints/merge_types.hpp>
#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/models/base_facts.hpp>
#include <lowrank/io/peft/peft_adapter.hpp>
#include <lowrank/io/peft/peft_config.hpp>
#include <lowrank/io/peft/peft_modules.hpp>
#include <lowrank/io/peft/peft_tensors.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// How a module lies in the checkpoint.
struct module_layout {
    module_shape says = {};        ///< What the parameters say of the weight's shape, out x in.
    bool transposed = false;       ///< The checkpoint stores in x out.
    std::uint64_t parameters = 0;  ///< Their checksum, for changes that are `rows`.
};

/// Puts what one module does into the plan. `make` gives its `peft_change` whenever it is called.
template <class Make>
[[nodiscard]] status plan_module(const checkpoint& base, const std::string& module, const Make& make,
                                 const module_layout& layout, double strength, merge_plan& out) {
    const std::string weight = module + ".weight";
    const std::string bias = module + ".bias";
    const tensor_info* t = base.find(weight);
    if (t == nullptr) {
        return {errc::mismatch, "the base has no tensor " + in_quotes(weight) + ", which the adapter changes"};
    }
    const module_shape has = stored_shape(*t);
    const index rows = layout.transposed ? layout.says.in : layout.says.out;
    const index cols = layout.transposed ? layout.says.out : layout.says.in;
    if (status why = check_stored_shape(*t, rows != 0 ? rows : has.out, cols != 0 ? cols : has.in); !why) {
        return why;  // before anything of the size of the weight is formed
    }
    if (t->begin == t->end) {
        return {};  // no elements to change, whatever the extents
    }
    const auto stored_as = [has, layout, strength](const peft_change& c) {
        stored_change out_of = stored_change_of(c, has, layout.transposed, strength);
        out_of.rows_checksum = out_of.rows ? checksum(&strength, sizeof strength, layout.parameters) : 0;
        return out_of;
    };
    const peft_change change = make();
    const stored_change stored = stored_as(change);
    const auto fits = [](const vector<float>& scale, index size) { return scale.size() == 0 || scale.size() == size; };
    if (!fits(stored.row_scale, stored.left.rows()) || !fits(stored.column_scale, stored.right.cols()) ||
        !fits(stored.magnitude, stored.magnitude_of_columns ? stored.right.cols() : stored.left.rows())) {
        return {errc::mismatch,
                "the scales of module " + in_quotes(module) + " do not fit the weight in the checkpoint"};
    }
    if (status why = out.add(base, weight, stored, [make, stored_as] { return stored_as(make()); }); !why) {
        return why;
    }
    const auto add_to_bias = [&](stored_change of_bias) {
        return out.add(base, bias, of_bias, [of_bias] { return of_bias; });
    };
    if (change.bias.size() != 0) {
        const vector<float> add = static_cast<float>(strength) * change.bias;
        return add_to_bias({.left = add, .right = matrix<float>::Ones(1, 1)});
    }
    if (change.acts_on_bias && base.find(bias) != nullptr) {
        stored_change through =
            stored_change_of({.weight = change.weight}, {layout.transposed ? has.in : has.out, 1}, false, strength);
        through.rows_checksum = stored.rows_checksum;
        return add_to_bias(std::move(through));
    }
    return {};
}

/// Of all that a module's change is made of.
LOWRANK_INLINE [[nodiscard]] std::uint64_t checksum_of_parameters(const peft_module& module) {
    const peft_description& kind = module.kind();
    const std::string_view label = kind.label(module.data());
    const peft_facts facts = kind.facts(module.data());
    const double rest[] = {facts.alpha, static_cast<double>(facts.r),
                           kind.constant != nullptr ? kind.constant(module.data()) : 0};
    std::uint64_t sum = checksum(rest, sizeof rest, checksum(label.data(), label.size(), 0));
    peft_tensors tensors;
    kind.write(module.data(), tensors);
    for (const auto& part : tensors.parts) {
        sum = checksum(part.values.data(), static_cast<std::size_t>(part.values.size()) * sizeof(float), sum);
    }
    return sum;
}

/// Whether the weight of a module is stored in x out: what the architecture says, else the adapter's flag.
LOWRANK_INLINE [[nodiscard]] bool is_stored_in_by_out(const base_view& about, const std::string& module, bool flag,
                                                      module_shape says, std::set<std::string>& notes) {
    const tensor_info* t = about.base.find(module + ".weight");
    if (t == nullptr || t->shape.size() != 2) {
        return false;
    }
    if (const auto known = about.facts.stores_in_by_out(module)) {
        if (*known != flag) {
            notes.insert(std::string("the model stores its ") +
                         (*known ? "Conv1D layers in x out" : "linear layers out x in") +
                         ", whatever fan_in_fan_out of the adapter says");
        }
        return *known;
    }
    const module_shape has = stored_shape(*t);
    const bool fits = says.out == has.out && says.in == has.in;
    const bool fits_turned = says.out == has.in && says.in == has.out;
    if (flag && fits && !fits_turned) {
        notes.insert("some weights fit the adapter out x in only, against its fan_in_fan_out; they are taken so");
        return false;
    }
    return flag;
}

/// `unsupported` for a change of a table or head that the model has one tensor for (tie_word_embeddings), unless the
/// adapter says that it is for both (ensure_weight_tying).
LOWRANK_INLINE [[nodiscard]] status check_ties(const base_view& about, const std::string& module,
                                               const peft_lora_config& config) {
    if (!about.facts.is_tied || !(is_head_name(module) || is_word_table_name(module)) || ties_weights(config)) {
        return {};
    }
    return {errc::unsupported,
            "module " + in_quotes(module) +
                " is one of the two uses of a table that the model ties (tie_word_embeddings); merged, "
                "the change would reach the other use too. Save the model with both tensors and "
                "tie_word_embeddings false, and merge into that"};
}

/// Plans one module of an adapter that changes a weight.
LOWRANK_INLINE [[nodiscard]] status plan_change(const base_view& about, const std::string& path,
                                                const peft_module& held, const peft_lora_config& config,
                                                double strength, merge_plan& out) {
    const checkpoint& base = about.base;
    if (held.template get<peft_experts>() != nullptr) {
        return plan_experts(about, path, held, config, checksum_of_parameters(held), strength, out);
    }
    if (base.find(path + ".weight") == nullptr) {
        const auto make = [from = &held] { return change_of(*from); };
        if (auto of_expert = plan_expert_of_stack(about, path, make, checksum_of_parameters(held), strength, out)) {
            return *of_expert;
        }
    }
    const auto module = about.stored(path, out.notes);
    if (!module) {
        return module.error();
    }
    if (status why = check_ties(about, *module, config); !why) {
        return why;
    }
    const tensor_info* t = base.find(*module + ".weight");
    const bool flipped =
        is_table_module(held) || is_stored_in_by_out(about, *module, config.fan_in_fan_out, shape_of(held), out.notes);
    peft_module fitted = held;
    std::optional<module_shape> weight;
    if (t != nullptr && !t->shape.empty() && t->shape[0] != 0) {
        const module_shape has = stored_shape(*t);
        weight = flipped ? module_shape{has.in, has.out} : has;
        if (status why = fit_module(fitted, weight->out, weight->in); !why) {
            return in_context("module " + in_quotes(path), why);
        }
    }
    const auto make = [from = &held, weight] {
        peft_module now = *from;
        if (weight) {
            (void)fit_module(now, weight->out, weight->in);  // it did fit
        }
        return change_without_factors(now);
    };
    const module_layout layout{shape_of(fitted), flipped, checksum_of_parameters(held)};
    return plan_module(base, *module, make, layout, strength, out);
}

/// Plans one entry of an adapter: a module that changes a weight, or what it saves whole.
LOWRANK_INLINE [[nodiscard]] status plan_entry(const base_view& about, const std::string& path, const peft_module& held,
                                               const peft_lora_config& config, bool head_is_copy, double strength,
                                               merge_plan& out) {
    return stored_tensor(held) != nullptr ? plan_saved(about, path, held, config, head_is_copy, strength, out)
                                          : plan_change(about, path, held, config, strength, out);
}

/// `unsupported` for an adapter that no checkpoint can hold merged.
LOWRANK_INLINE [[nodiscard]] status check_mergeable(const peft_lora_config& config) {
    if (!config.alora_invocation_tokens.empty()) {
        return {errc::unsupported,
                "the adapter applies only from its invocation tokens on (aLoRA) and cannot be merged"};
    }
    if (!config.layer_replication.empty()) {
        return {errc::unsupported,
                "the adapter is for a model whose layers were repeated (layer_replication), each copy with "
                "changes of its own; it cannot be merged into a checkpoint that has every layer once. Write "
                "the checkpoint with the layers repeated, and remove layer_replication from the adapter"};
    }
    return {};
}

LOWRANK_INLINE [[nodiscard]] result<merge_plan> plan_merge(const checkpoint& base,
                                                           std::span<const adapter_to_merge> adapters) {
    merge_plan out;
    const base_view about(base);
    for (std::size_t i = 0; i < adapters.size(); ++i) {
        const auto& [adapter, strength] = adapters[i];
        expects(adapter != nullptr, "merge_checkpoint: an adapter is null");
        if (strength == 0) {
            continue;
        }
        out.adapter = i;
        if (adapter->modules.empty()) {
            return status{errc::mismatch, "the adapter holds no module, so there is nothing to merge"};
        }
        if (status why = check_mergeable(adapter->config); !why) {
            return why;
        }
        const auto head_is_copy = check_tied_tables(about, *adapter);
        if (!head_is_copy) {
            return head_is_copy.error();
        }
        for (const auto& [path, held] : adapter->modules) {
            if (status why = plan_entry(about, path, held, adapter->config, *head_is_copy, strength, out); !why) {
                return why;
            }
        }
    }
    if (status why = out.settle(base); !why) {
        return why;
    }
    for (const auto& entry : out.token_rows) {
        if (out.changes.count(entry.first) != 0 || out.replacements.count(entry.first) != 0) {
            return status{errc::unsupported,
                          "tensor " + in_quotes(entry.first) +
                              " has single tokens replaced and is changed besides; their order would "
                              "matter, so merge them one after the other"};
        }
    }
    return out;
}

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_CHECKPOINTS_DETAIL_MERGE_PLAN_HPP
