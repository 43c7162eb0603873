// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CHECKPOINTS_DETAIL_MERGE_TARGETS_HPP
#define LOWRANK_IO_CHECKPOINTS_DETAIL_MERGE_TARGETS_HPP

/// \file
/// The tensors of a base that adapters change, replace or add, while a merge is planned.
///
///     const detail::base_view about(base);
///     const auto module = about.stored("model.layers.0.mlp.up_proj", plan.notes);      // its name in the base

#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/checkpoints/detail/stored_change.hpp>
#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/containers/dtype.hpp>
#include <lowrank/io/containers/safetensors_writer.hpp>
#include <lowrank/io/models/base_facts.hpp>
#include <lowrank/io/models/module_names.hpp>
#include <lowrank/io/peft/peft_modules.hpp>
#include <lowrank/io/quantized/quantized_weight.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// A new row of an embedding table, borrowed from its adapter.
struct token_row {
    dtype type = dtype::f32;
    std::span<const std::byte> bytes = {};
    double strength = 1;  ///< old + strength (new - old)
};

/// A base, what is known of how its weights are to be taken, and its modules by the names that adapters may have.
struct base_view {
    explicit base_view(const checkpoint& of) : base(of), facts(facts_of_base(of)) {}

    const checkpoint& base;
    base_facts facts;

    /// The module of the base that a path means.
    /// \return `mismatch` with the nearest name; `unsupported` for a weight that is quantized.
    [[nodiscard]] result<std::string> stored(const std::string& path, std::set<std::string>& notes) const {
        std::string module = path;
        if (base.find(path + ".weight") == nullptr) {
            if (modules_.empty()) {
                modules_ = modules_of(base);
            }
            auto found = modules_.find(path);
            if (!found) {
                const bool is_tied_head = facts.is_tied && is_head_name(path);
                return status{
                    errc::mismatch,
                    found.error().message + (is_tied_head ? std::string(": its head is tied to the table of words "
                                                                        "(tie_word_embeddings), and no change of it "
                                                                        "alone can be merged")
                                                          : std::string(", which the adapter changes"))};
            }
            module = std::move(*found);
            if (module != path) {
                notes.insert(wrapper_in_words(path, module));
            }
        }
        const tensor_info* codes = base.find(module + ".weight");
        if (const std::string how = quantization_of(base, module);
            !how.empty() && !(codes != nullptr && encodable_weight(base, *codes))) {
            return status{errc::unsupported,
                          "the weight of module " + in_quotes(module) + " is quantized (" + how +
                              "), and nothing can be merged into it; merge into the model it was made from, in a float "
                              "type, and quantize the result, or decode this one ('lowrank dequantize')"};
        }
        return module;
    }

    /// The tensor that is a parameter, under its own name or one with other wrappers; null if there is none.
    [[nodiscard]] const tensor_info* parameter(const std::string& path, std::set<std::string>& notes) const {
        if (const tensor_info* t = base.find(path)) {
            return t;
        }
        if (parameters_.empty()) {
            for (const checkpoint::place& p : base.tensors()) {
                parameters_.emplace(plain_path(p.info->name), p.info);
            }
        }
        const auto at = parameters_.find(plain_path(path));
        if (at == parameters_.end()) {
            return nullptr;
        }
        notes.insert(wrapper_in_words(path, at->second->name));
        return at->second;
    }

private:
    mutable module_names modules_ = {};
    mutable std::map<std::string, const tensor_info*> parameters_ = {};  ///< By the path without wrappers.
};

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

/// Why a tensor of another shape is there: the end of a sentence.
[[nodiscard]] inline const char* other_sizes_in_words(bool is_vocabulary) {
    return is_vocabulary ? "; their vocabularies differ: give the base the tokens that were added before the training "
                           "(resize_token_embeddings)"
                         : "; it was trained on a model of other sizes";
}

/// `mismatch` unless a change of `rows` x `cols` is for the tensor.
LOWRANK_INLINE [[nodiscard]] status check_stored_shape(const tensor_info& t, index rows, index cols) {
    const module_shape has = stored_shape(t);
    if (t.shape.empty() || rows != has.out || cols != has.in) {
        const std::string_view name = t.name;
        const std::string_view module = name.substr(0, name.rfind('.'));
        const bool is_vocabulary = is_word_table_name(module) || is_head_name(module);
        return {
            errc::mismatch,
            "tensor " + in_quotes(t.name) + " of the base has shape " + shape_in_words(t.shape) +
                ", the adapter is for [" + std::to_string(rows) + ", " + std::to_string(cols) + "]" +
                (rows == has.in && cols == has.out ? "; they fit the other way round: fan_in_fan_out of the adapter's "
                                                     "configuration says that weights are stored in x out"
                                                   : other_sizes_in_words(is_vocabulary))};
    }
    return {};
}

/// The changes and replacements of adapters by tensor of the checkpoint, or what does not fit. Borrows the adapters.
struct merge_plan {
    std::map<std::string, planned_change> changes = {};
    std::map<std::string, std::span<const std::byte>> replacements = {};       ///< Written as they are.
    std::map<std::string, const tensor_to_write*> added = {};                  ///< Tensors that the base does not have.
    std::map<std::string, std::map<std::int64_t, token_row>> token_rows = {};  ///< By tensor, then by token.
    std::map<std::string, quantized_weight> quantized = {};   ///< By the tensor with the codes, of what is changed.
    std::map<std::string, std::string> codes_of_scales = {};  ///< By the tensor with their scales.
    std::set<std::string> notes = {};                         ///< Assumptions that the user may want to know.
    std::size_t adapter = 0;                                  ///< The one being planned.

    /// Adds a change to what is known about a tensor; `formed` is what `form` gives.
    template <class Form>
    [[nodiscard]] status add(const checkpoint& base, const std::string& name, const stored_change& formed, Form form) {
        const tensor_info* t = base.find(name);
        if (t == nullptr) {
            return {errc::mismatch, "the base has no tensor " + in_quotes(name) + ", which the adapter changes; give " +
                                        "the layer one, or train the adapter without"};
        }
        if (status why = check_stored_shape(*t, formed.left.rows(), formed.right.cols()); !why) {
            return why;
        }
        if (!is_real(t->type)) {
            auto codes = encodable_weight(base, *t);
            if (!codes) {
                return not_real(*t);
            }
            if (!codes->scales.empty()) {
                codes_of_scales.emplace(codes->scales, name);
            }
            quantized.emplace(name, std::move(*codes));
        }
        return add_fitting(*t, formed, std::move(form));
    }

    /// The same of a tensor of real numbers that the change fits.
    template <class Form>
    [[nodiscard]] status add_fitting(const tensor_info& t, const stored_change& formed, Form form) {
        planned_change& all = changes[t.name];
        const bool turned =
            formed.rows && all.acts_on_transpose.value_or(formed.acts_on_transpose) != formed.acts_on_transpose;
        if (!all.parts.empty() && (all.scales || formed.scales() || turned)) {
            return order_matters(t.name);
        }
        all.scales = formed.scales();
        all.scaled_by = adapter;
        if (formed.rows) {
            all.acts_on_transpose = formed.acts_on_transpose;
        }
        all.parts.emplace_back(std::move(form));
        return {};
    }

    /// Looks at tensors that are replaced once all adapters are planned: what is replaced and nothing else in its own
    /// type becomes a replacement. \return `unsupported` where the order of two changes would matter.
    [[nodiscard]] status settle(const checkpoint& base) {
        for (auto at = changes.begin(); at != changes.end();) {
            const planned_change& all = at->second;
            if (!all.replaced) {
                ++at;
                continue;
            }
            const replaced_tensor& by = *all.replaced;
            if (all.acts_on_transpose.value_or(false) ||
                (all.scales && (all.scaled_by != by.adapter || by.strength != 1))) {
                return order_matters(at->first);
            }
            if (all.parts.empty() && by.strength == 1 && by.type == base.find(at->first)->type) {
                replacements.emplace(at->first, by.bytes);
                at = changes.erase(at);
            } else {
                ++at;
            }
        }
        return {};
    }

    /// The tensors of the base that will have other bytes.
    [[nodiscard]] std::set<std::string> written_over() const {
        std::set<std::string> names;
        const auto add_keys = [&](const auto& of) {
            for (const auto& entry : of) {
                names.insert(entry.first);
            }
        };
        add_keys(changes);
        add_keys(replacements);
        add_keys(token_rows);
        return names;
    }

    /// Whether a tensor of the adapter, or rows of one, take the place of what the base has.
    [[nodiscard]] bool replaces(const std::string& name) const {
        const auto change = changes.find(name);
        return replacements.contains(name) || token_rows.contains(name) ||
               (change != changes.end() && change->second.replaced);
    }

    [[nodiscard]] static status order_matters(const std::string& name) {
        return {errc::unsupported, "two changes of " + in_quotes(name) +
                                       " meet, and one of them scales or turns it; their order "
                                       "would matter, so merge the adapters one after the other, at strength 1"};
    }
};

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_CHECKPOINTS_DETAIL_MERGE_TARGETS_HPP
