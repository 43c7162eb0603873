// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_KINDS_WHOLE_TENSOR_HPP
#define LOWRANK_IO_PEFT_KINDS_WHOLE_TENSOR_HPP

/// \file
/// Tensors of an adapter's file that take the place of ones of the base, whatever the adapter's type: saved modules
/// (modules_to_save), trained biases, new rows of an embedding table (trainable_token_indices). An adapter of peft_type
/// LN_TUNING (Zhao et al., arXiv 2312.11420) consists of them: trained weights and biases of layer norms.
///
///     const lowrank::whole_tensor head{lowrank::tensor_of("lm_head.weight", w)};
///     poet->modules.insert_or_assign("lm_head.weight", head);
///
/// The entry of an adapter's map has the path of the parameter, which is the tensor's name without "base_model.model.".

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/containers/safetensors_writer.hpp>
#include <lowrank/io/peft/peft_kind.hpp>
#include <lowrank/io/peft/peft_tensors.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A tensor that replaces one of the base, under the name it has in the file.
struct whole_tensor {
    tensor_to_write tensor = {};
};

/// New rows of an embedding table, one for each of the tokens. PEFT calls the tensor a delta; it holds the rows
/// themselves (huggingface/peft, trainable_tokens/layer.py, `merge`).
struct token_rows {
    static constexpr std::string_view tail = ".token_adapter.trainable_tokens_delta";

    tensor_to_write rows = {};
    std::vector<std::int64_t> tokens = {};  ///< The configuration's trainable_token_indices.
};

template <>
struct peft_kind<whole_tensor> {
    using module = whole_tensor;
    static constexpr const char* only_merges = "replaces a tensor of the base";
    LOWRANK_INLINE static std::vector<peft_type> types() {
        return {{.name = "LN_TUNING", .replaced_in = "ln_tuning_layers", .defaults = R"({"exclude_modules":null})"}};
    }
    static bool in_peft(const module&) { return false; }  // beside modules of every type
    static const char* label(const module&) { return "a tensor that replaces one of the base"; }
    static module_shape shape(const module&) { return {}; }
    static bool fit(module&, index, index) { return true; }
    static peft_facts facts(const module&) { return {}; }
    static peft_change change(const module&) { return {}; }
    /// Of nothing: its type has no leaves, and tensors with other names are whole ones.
    static module join(peft_parts&, const peft_context&) { return {}; }
    static void write(const module& m, peft_tensors& to) { to.whole = m.tensor; }
};

template <>
struct peft_kind<token_rows> {
    using module = token_rows;
    static constexpr const char* only_merges = "replaces rows of an embedding table";
    static constexpr bool is_second_form = true;
    static std::vector<peft_type> types() { return {}; }
    static const char* label(const module&) { return "new rows of an embedding table"; }
    static module_shape shape(const module&) { return {}; }
    static bool fit(module&, index, index) { return true; }
    static peft_facts facts(const module&) { return {}; }
    static peft_change change(const module&) { return {}; }
    static void write(const module& m, peft_tensors& to) { to.whole = m.rows; }
};

/// The tensor of a module that is one as it stands in the file; null for all others.
[[nodiscard]] inline const tensor_to_write* stored_tensor(const peft_module& module) {
    const auto* rows = module.get<token_rows>();
    const auto* whole = module.get<whole_tensor>();
    return rows != nullptr ? &rows->rows : whole != nullptr ? &whole->tensor : nullptr;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_KINDS_WHOLE_TENSOR_HPP
