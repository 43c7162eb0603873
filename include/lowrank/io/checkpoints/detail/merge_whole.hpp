// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CHECKPOINTS_DETAIL_MERGE_WHOLE_HPP
#define LOWRANK_IO_CHECKPOINTS_DETAIL_MERGE_WHOLE_HPP

/// \file
/// What an adapter saves whole: tensors that take the place of the base's (modules_to_save, a base_layer beside LoRA),
/// new ones, and single rows of a table.
///
///     const auto head_is_copy = detail::check_tied_tables(about, adapter);
///     status why = detail::plan_saved(about, path, module, adapter.config, *head_is_copy, strength, plan);

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/checkpoints/detail/merge_targets.hpp>
#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/containers/detail/json.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/containers/dtype.hpp>
#include <lowrank/io/containers/safetensors_writer.hpp>
#include <lowrank/io/peft/detail/peft_reader.hpp>
#include <lowrank/io/peft/kinds/whole_tensor.hpp>
#include <lowrank/io/peft/peft_adapter.hpp>
#include <lowrank/io/peft/peft_config.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// A parameter's path without what PEFT puts before the model and between a module and its tensor.
[[nodiscard]] inline std::string own_name(std::string_view path) {
    std::string out(without_prefix(path));
    for (const std::string_view inner :
         {std::string_view(".base_layer."), std::string_view(".modules_to_save.default."),
          std::string_view(".modules_to_save."), std::string_view(".ln_tuning_layers.default."),
          std::string_view(".ln_tuning_layers.")}) {
        if (const std::size_t at = out.rfind(inner); at != std::string::npos) {
            out.replace(at, inner.size(), ".");
        }
    }
    return out;
}

/// Whether the configuration says that table and head are changed alike.
[[nodiscard]] inline bool ties_weights(const peft_lora_config& config) {
    const auto document = read_json(std::as_bytes(std::span(config.document)));
    return document && document->is_object() && document->value("ensure_weight_tying", json()) == json(true);
}

/// Whether a module is one of modules_to_save, which need not be in the base.
[[nodiscard]] inline bool is_saved_module(const peft_lora_config& config, std::string_view module) {
    return std::any_of(config.modules_to_save.begin(), config.modules_to_save.end(),
                       [&](const std::string& saved) { return module == saved || module.ends_with("." + saved); });
}

/// Adds the rows that an adapter has trained of an embedding table.
LOWRANK_INLINE [[nodiscard]] status plan_token_rows(const base_view& about, std::string_view path,
                                                    const token_rows& trained, double strength, merge_plan& out) {
    const tensor_to_write& e = trained.rows;
    const std::vector<std::int64_t>& tokens = trained.tokens;
    const std::string module = own_name(path.substr(0, path.size() - std::min(path.size(), token_rows::tail.size())));
    const auto stored = about.stored(module, out.notes);
    if (!stored) {
        return stored.error();
    }
    const std::string name = *stored + ".weight";
    const tensor_info* t = about.base.find(name);
    if (t == nullptr || t->shape.size() != 2 || !is_real(t->type)) {
        return {errc::mismatch, "tensor " + in_quotes(name) +
                                    " of the base is no table, of which the adapter has trained "
                                    "tokens"};
    }
    if (e.shape.size() != 2 || e.shape[0] != tokens.size() || e.shape[1] != t->shape[1] || !is_real(e.type)) {
        return {errc::mismatch, "tensor " + in_quotes(e.name) + " has shape " + shape_in_words(e.shape) +
                                    ", expected [" + std::to_string(tokens.size()) + ", " +
                                    std::to_string(t->shape[1]) + "]: a row for each of trainable_token_indices"};
    }
    if (tokens.empty()) {
        return {};
    }
    const std::size_t length = e.bytes.size() / tokens.size();
    std::vector<double> values(static_cast<std::size_t>(t->shape[1]));
    auto& rows = out.token_rows[name];
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        const std::int64_t token = tokens[i];
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

/// Of the whole tables among what an adapter saves: `unsupported` where a model that ties table and head is given one of
/// them or two that differ. \return whether the head is a copy of the table, which the base has no tensor for.
LOWRANK_INLINE [[nodiscard]] result<bool> check_tied_tables(const base_view& about, const peft_adapter& adapter) {
    if (!about.facts.is_tied) {
        return false;
    }
    const tensor_to_write* table = nullptr;
    const tensor_to_write* head = nullptr;
    for (const auto& [path, held] : adapter.modules) {
        const std::string name = own_name(path);
        const std::string_view module = std::string_view(name).substr(0, name.rfind('.'));
        const auto* whole = held.template get<whole_tensor>();
        if (whole != nullptr && name.ends_with(".weight") && (is_head_name(module) || is_word_table_name(module))) {
            (is_head_name(module) ? head : table) = &whole->tensor;
        }
    }
    const bool is_copy = table != nullptr && head != nullptr && table->type == head->type &&
                         table->shape == head->shape &&
                         std::equal(table->bytes.begin(), table->bytes.end(), head->bytes.begin(), head->bytes.end());
    if ((table == nullptr && head == nullptr) || is_copy || (head == nullptr && ties_weights(adapter.config))) {
        return is_copy;
    }
    return status{
        errc::unsupported,
        "tensor " + in_quotes((head != nullptr ? head : table)->name) + " of the adapter is " +
            (table != nullptr && head != nullptr ? "another one than its table, and the model has one for both"
                                                 : "one of the two uses of a table that the model ties") +
            " (tie_word_embeddings). Save the model with both tensors and tie_word_embeddings false, and merge "
            "into that"};
}

/// What an adapter saves whole of one tensor.
LOWRANK_INLINE [[nodiscard]] status plan_whole_tensor(const base_view& about, std::string name,
                                                      const tensor_to_write& e, const peft_lora_config& config,
                                                      double strength, merge_plan& out) {
    const std::size_t dot = std::min(name.rfind('.'), name.size());
    const std::string path = name.substr(0, dot);
    const tensor_info* t = about.base.find(name);
    if (t == nullptr) {
        std::set<std::string> notes;
        const auto module = about.stored(path, notes);
        t = module ? about.base.find(*module + name.substr(dot)) : nullptr;
        if (t != nullptr) {
            out.notes.merge(notes);
        } else if (!module && module.error().code == errc::unsupported) {
            return module.error();
        }
    }
    if (t == nullptr && is_saved_module(config, path)) {
        if (!out.added.emplace(name, &e).second) {
            return {errc::mismatch, "two adapters add tensor " + in_quotes(name)};
        }
        out.notes.insert("tensor " + in_quotes(name) + " is new: the base has no module of that name");
        return {};
    }
    if (t == nullptr) {
        std::vector<std::string_view> names;
        for (const checkpoint::place& p : about.base.tensors()) {
            names.emplace_back(p.info->name);
        }
        return {errc::mismatch, "tensor " + in_quotes(e.name) +
                                    " of the adapter replaces one of the base, which has none of that name" +
                                    nearest_in_words(name, names) +
                                    ". If it is a new one, name its module in modules_to_save of adapter_config.json"};
    }
    name = t->name;
    if (t->shape != e.shape) {
        return {errc::mismatch, "tensor " + in_quotes(e.name) + " of the adapter has shape " + shape_in_words(e.shape) +
                                    ", the one of the base that it replaces has " + shape_in_words(t->shape) +
                                    other_sizes_in_words(is_table_name(path) || is_head_name(path))};
    }
    const bool are_real = is_real(t->type) && is_real(e.type);
    if (!are_real && (t->type != e.type || strength != 1)) {
        const std::string how = quantization_of(about.base, path);
        return {errc::mismatch, "tensor " + in_quotes(e.name) + " of the adapter has type " +
                                    std::string(name_of(e.type)) + ", the one of the base that it replaces has " +
                                    std::string(name_of(t->type)) +
                                    (how.empty() ? "" : ": it is quantized (" + how + ")") +
                                    "; only floats can be converted or taken in part"};
    }
    if (out.replacements.contains(name) || (out.changes.contains(name) && out.changes.at(name).replaced)) {
        return {errc::mismatch, "two adapters replace tensor " + in_quotes(name) + "; merge one of them"};
    }
    if (!are_real) {
        out.replacements.emplace(name, e.bytes);
        return {};
    }
    if (t->type != e.type) {
        out.notes.insert("what the adapter saves whole as " + std::string(name_of(e.type)) + " is rounded to the " +
                         std::string(name_of(t->type)) + " of the base");
    }
    const module_shape has = stored_shape(*t);
    out.changes[name].replaced = replaced_tensor{e.type, e.bytes, has.out, has.in, strength, out.adapter};
    return {};
}

/// Plans what an adapter saves whole. \pre `held` is a `whole_tensor` or `token_rows`.
LOWRANK_INLINE [[nodiscard]] status plan_saved(const base_view& about, const std::string& path, const peft_module& held,
                                               const peft_lora_config& config, bool head_is_copy, double strength,
                                               merge_plan& out) {
    const std::string name = own_name(path);
    const bool is_head = is_head_name(std::string_view(name).substr(0, name.rfind('.')));
    if (head_is_copy && is_head && about.base.find(name) == nullptr) {
        return {};  // the table, which the base has, says the same
    }
    if (name.find(".original_module.") != std::string::npos) {
        return {};  // the base's own, as a state dict holds it beside what was trained
    }
    const auto* rows = held.template get<token_rows>();
    return rows != nullptr
               ? plan_token_rows(about, path, *rows, strength, out)
               : plan_whole_tensor(about, name, held.template get<whole_tensor>()->tensor, config, strength, out);
}

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_CHECKPOINTS_DETAIL_MERGE_WHOLE_HPP
