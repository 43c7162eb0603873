// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CHECKPOINTS_DETAIL_MERGE_PLAN_HPP
#define LOWRANK_IO_CHECKPOINTS_DETAIL_MERGE_PLAN_HPP

/// \file
/// What adapters do to the tensors of a checkpoint, in the layout the checkpoint stores.
///
///     auto plan = detail::plan_merge(base, adapters);
///     plan->changes.at("model.layers.0.mlp.up_proj.weight").form().left

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <lowrank/core/checksum.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/checkpoints/detail/stored_change.hpp>
#include <lowrank/io/checkpoints/merge_types.hpp>
#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/containers/dtype.hpp>
#include <lowrank/io/peft/peft_adapter.hpp>
#include <lowrank/io/peft/peft_config.hpp>
#include <lowrank/io/peft/peft_modules.hpp>
#include <lowrank/io/peft/peft_tensors.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// A new row of an embedding table, borrowed from its adapter.
struct token_row {
    dtype type = dtype::f32;
    std::span<const std::byte> bytes = {};
    double strength = 1;  ///< old + strength (new - old)
};

LOWRANK_INLINE [[nodiscard]] status no_such_tensor(const std::string& name) {
    return {errc::mismatch, "the checkpoint has no tensor " + in_quotes(name) +
                                ", which the adapter changes; it belongs to another model"};
}

/// Rows and columns of a tensor, dimensions beyond the second counted as columns.
LOWRANK_INLINE [[nodiscard]] module_shape stored_shape(const tensor_info& t) {
    std::uint64_t columns = 1;
    bool fits = true;
    for (std::size_t i = 1; i < t.shape.size(); ++i) {
        fits = fits && checked_multiply(columns, t.shape[i], columns);
    }
    fits = fits && columns <= static_cast<std::uint64_t>(std::numeric_limits<index>::max());  // else there are no rows
    return {t.shape.empty() ? 0 : static_cast<index>(t.shape[0]), fits ? static_cast<index>(columns) : 0};
}

/// `mismatch` unless a change of `rows` x `cols` is for the tensor.
LOWRANK_INLINE [[nodiscard]] status check_stored_shape(const tensor_info& t, index rows, index cols) {
    const module_shape has = stored_shape(t);
    if (t.shape.empty() || rows != has.out || cols != has.in) {
        return {errc::mismatch, "tensor " + in_quotes(t.name) + " has shape " + shape_in_words(t.shape) +
                                    ", the adapter is for [" + std::to_string(rows) + ", " + std::to_string(cols) +
                                    "]; it belongs to another model"};
    }
    return {};
}

/// The changes and replacements of adapters by tensor of the checkpoint, or what does not fit. Borrows the adapters.
struct merge_plan {
    std::map<std::string, planned_change> changes = {};
    std::map<std::string, const tensor_to_write*> replacements = {};
    std::map<std::string, std::map<std::int64_t, token_row>> token_rows = {};  ///< By tensor, then by token.

    /// Adds a change to what is known about a tensor; `formed` is what `form` gives.
    template <class Form>
    [[nodiscard]] status add(const checkpoint& base, const std::string& name, const stored_change& formed, Form form) {
        const tensor_info* t = base.find(name);
        if (t == nullptr) {
            return no_such_tensor(name);
        }
        const index rows = formed.left.rows();
        const index cols = formed.right.cols();
        if (status why = check_stored_shape(*t, rows, cols); !why) {
            return why;
        }
        if (!is_real(t->type)) {
            return not_real(*t);
        }
        planned_change& all = changes[name];
        const bool turned =
            formed.rows && all.acts_on_transpose.value_or(formed.acts_on_transpose) != formed.acts_on_transpose;
        if (!all.parts.empty() && (all.scales || formed.scales() || turned)) {
            return {errc::unsupported, "two adapters change " + in_quotes(name) +
                                           " and one of them scales or turns it; their order would matter, so "
                                           "merge them one after the other"};
        }
        all.scales = formed.scales();
        if (formed.rows) {
            all.acts_on_transpose = formed.acts_on_transpose;
        }
        all.parts.emplace_back(std::move(form));
        return {};
    }
};

/// A module's name in the checkpoint: its path, or that without its first part, which some checkpoints leave out.
LOWRANK_INLINE [[nodiscard]] std::string stored_module(const checkpoint& base, const std::string& module) {
    const std::size_t dot = module.find('.');
    if (base.find(module + ".weight") == nullptr && dot != std::string::npos &&
        base.find(module.substr(dot + 1) + ".weight") != nullptr) {
        return module.substr(dot + 1);
    }
    return module;
}

/// How a module lies in the checkpoint.
struct module_layout {
    module_shape says = {};        ///< What the parameters say of the weight's shape, out x in.
    bool transposed = false;       ///< The checkpoint stores in x out.
    std::uint64_t parameters = 0;  ///< Their checksum, for changes that are `rows`.
};

/// Puts what one module does into the plan. `make` gives its `peft_change` whenever it is called.
template <class Make>
[[nodiscard]] status plan_module(const checkpoint& base, const std::string& path, const Make& make,
                                 const module_layout& layout, double strength, merge_plan& out) {
    const std::string module = stored_module(base, path);
    const std::string weight = module + ".weight";
    const std::string bias = module + ".bias";
    const tensor_info* t = base.find(weight);
    if (t == nullptr) {
        return no_such_tensor(weight);
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
    const auto* scaled = std::get_if<scaled_change<float>>(&change.weight);
    if (scaled != nullptr && scaled->row_scale.size() != 0 && base.find(bias) != nullptr) {
        const vector<float> by_out = scale_at_strength(scaled->row_scale, strength);
        return add_to_bias(
            {.left = matrix<float>(by_out.size(), 0), .right = matrix<float>(0, 1), .row_scale = by_out});
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

/// Adds the rows that an adapter has trained of an embedding table.
LOWRANK_INLINE [[nodiscard]] status plan_token_rows(const checkpoint& base, std::string path, const token_rows& trained,
                                                    double strength, merge_plan& out) {
    const tensor_to_write& e = trained.rows;
    const std::vector<std::int64_t>* tokens = &trained.tokens;
    path.resize(path.size() - std::min(path.size(), token_rows::tail.size()));
    const std::string module = std::move(path);
    const std::string name = stored_module(base, module) + ".weight";
    const tensor_info* t = base.find(name);
    if (t == nullptr || t->shape.size() != 2 || !is_real(t->type)) {
        return {errc::mismatch,
                "the checkpoint has no table " + in_quotes(name) + ", of which the adapter has trained tokens"};
    }
    if (e.shape.size() != 2 || e.shape[0] != tokens->size() || e.shape[1] != t->shape[1] || !is_real(e.type)) {
        return {errc::mismatch, "tensor " + in_quotes(e.name) + " has shape " + shape_in_words(e.shape) +
                                    ", expected [" + std::to_string(tokens->size()) + ", " +
                                    std::to_string(t->shape[1]) + "]: a row for each of trainable_token_indices"};
    }
    if (tokens->empty()) {
        return {};
    }
    const std::size_t length = e.bytes.size() / tokens->size();
    std::vector<double> values(static_cast<std::size_t>(t->shape[1]));
    auto& rows = out.token_rows[name];
    for (std::size_t i = 0; i < tokens->size(); ++i) {
        const std::int64_t token = (*tokens)[i];
        if (token < 0 || static_cast<std::uint64_t>(token) >= t->shape[0]) {
            return {errc::mismatch, "token " + std::to_string(token) + " of the adapter is not among the " +
                                        std::to_string(t->shape[0]) + " of " + in_quotes(name) +
                                        "; give the model the tokens that were added before the training"};
        }
        const token_row row{e.type, e.bytes.subspan(i * length, length), strength};
        convert_elements<double>(row.type, row.bytes, values);
        if (!all_finite(values.data(), static_cast<index>(values.size()))) {
            return {errc::non_finite, "tensor " + in_quotes(e.name) + " holds NaN or infinity"};
        }
        if (!rows.emplace(token, row).second) {
            return {errc::mismatch, "token " + std::to_string(token) + " of " + in_quotes(name) + " is trained twice"};
        }
    }
    return {};
}

/// Adds a tensor of an adapter that replaces one of the base.
LOWRANK_INLINE [[nodiscard]] status plan_whole_tensor(const checkpoint& base, std::string name,
                                                      const tensor_to_write& e, merge_plan& out) {
    constexpr std::string_view inner = ".base_layer.";
    if (const std::size_t at = name.rfind(inner); at != std::string::npos) {
        name.replace(at, inner.size(), ".");
    }
    const tensor_info* t = base.find(name);
    if (t == nullptr || t->type != e.type || t->shape != e.shape) {
        return {errc::mismatch,
                "tensor " + in_quotes(e.name) +
                    " of the adapter replaces one of the base, but the checkpoint has none of that name, "
                    "type and shape"};
    }
    if (!out.replacements.emplace(name, &e).second) {
        return {errc::mismatch, "two adapters replace tensor " + in_quotes(name)};
    }
    return {};
}

/// Adds what a module does to its weight. `transposed`: matrices are stored in x out.
LOWRANK_INLINE [[nodiscard]] status plan_adapted(const checkpoint& base, const std::string& path,
                                                 const peft_module& module, bool transposed, double strength,
                                                 merge_plan& out) {
    const tensor_info* t = base.find(stored_module(base, path) + ".weight");
    const bool is_table = is_table_module(module);
    const bool flipped = is_table || (transposed && t != nullptr && t->shape.size() == 2);
    peft_module fitted = module;
    std::optional<module_shape> weight;
    if (t != nullptr && !t->shape.empty() && t->shape[0] != 0) {
        const module_shape has = stored_shape(*t);
        weight = flipped ? module_shape{has.in, has.out} : has;
        if (status why = fit_module(fitted, weight->out, weight->in); !why) {
            return in_context("module " + in_quotes(path), why);
        }
    }
    const auto make = [from = &module, weight] {
        peft_module now = *from;
        if (weight) {
            (void)fit_module(now, weight->out, weight->in);  // it did fit
        }
        return change_without_factors(now);
    };
    const module_layout layout{shape_of(fitted), flipped, checksum_of_parameters(module)};
    return plan_module(base, path, make, layout, strength, out);
}

LOWRANK_INLINE [[nodiscard]] result<merge_plan> plan_merge(const checkpoint& base,
                                                           std::span<const adapter_to_merge> adapters) {
    merge_plan out;
    for (const auto& [adapter, strength] : adapters) {
        expects(adapter != nullptr, "merge_checkpoint: an adapter is null");
        if (strength == 0) {
            continue;
        }
        if (!adapter->config.alora_invocation_tokens.empty()) {
            return status{errc::unsupported,
                          "the adapter applies only from its invocation tokens on (aLoRA) and cannot be merged"};
        }
        if (!adapter->config.layer_replication.empty()) {
            return status{errc::unsupported,
                          "the adapter is for a model whose layers were repeated (layer_replication), each copy with "
                          "changes of its own; it cannot be merged into a checkpoint that has every layer once. Write "
                          "the checkpoint with the layers repeated, and remove layer_replication from the adapter"};
        }
        const bool transposed = adapter->config.fan_in_fan_out;
        for (const auto& [module, held] : adapter->modules) {
            const auto* rows = held.template get<token_rows>();
            const auto* whole = held.template get<whole_tensor>();
            const status why = rows != nullptr    ? plan_token_rows(base, module, *rows, strength, out)
                               : whole != nullptr ? plan_whole_tensor(base, module, whole->tensor, out)
                                                  : plan_adapted(base, module, held, transposed, strength, out);
            if (!why) {
                return why;
            }
        }
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
