// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_KINDS_LORA_HPP
#define LOWRANK_IO_PEFT_KINDS_LORA_HPP

/// \file
/// LoRA in an adapter of PEFT: plain, or with what PEFT may add to it, a magnitude (DoRA), a bias, the kernel of a
/// convolution, an embedding table in the place of a layer.
///
///     const lowrank::peft_module module = lowrank::peft_lora{.lora = adapter, .is_table = true};
///     const lowrank::lora_adapter<float>& lora = lowrank::lora_of(module);
///
/// Names and shapes follow huggingface/peft.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/peft/peft_kind.hpp>
#include <lowrank/lora/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// LoRA with what PEFT may add to it.
struct peft_lora {
    /// Of a convolution: A is r x (in * taps), B is out x r, block-diagonal if there are groups.
    lora_adapter<float> lora = {};
    vector<float> magnitude = {};            ///< DoRA: lengths of the rows of W + delta; empty: no DoRA.
    bool magnitude_of_inputs = false;        ///< Lengths of the columns instead (LyCORIS's wd_on_output=False).
    vector<float> bias = {};                 ///< Of lora_B: the layer's bias changes by scaling * bias; empty: none.
    std::vector<std::uint64_t> kernel = {};  ///< Of a convolution: {kw}, {kh, kw} or {kd, kh, kw}; empty: linear.
    index groups = 1;                        ///< Of a convolution.
    bool is_table = false;                   ///< Of an embedding: A is r x tokens, B is dim x r.

    /// Two factors and nothing more, of a layer or a table.
    [[nodiscard]] bool is_plain() const { return magnitude.size() == 0 && bias.size() == 0 && kernel.empty(); }
};

/// What tools call LoRA with a magnitude, and where they keep it.
struct magnitude_names {
    static constexpr const char* label = "DoRA";
    static constexpr const char* option = "use_dora";                  ///< Of adapter_config.json.
    static constexpr std::string_view peft = "lora_magnitude_vector";  ///< The last part of the tensor's name.
    static constexpr std::string_view lycoris = "dora_scale";
    static constexpr std::string_view mlx = "m";
    static constexpr const char* mlx_type = "dora";  ///< fine_tune_type
};

/// Plain LoRA of a linear layer.
template <>
struct peft_kind<lora_adapter<float>> {
    using module = lora_adapter<float>;
    LOWRANK_API static std::vector<peft_type> types();
    static const char* label(const module&) { return "LoRA"; }
    static module_shape shape(const module& m) { return {m.lora_B.rows(), m.lora_A.cols()}; }
    static bool fit(module&, index, index) { return true; }
    static peft_facts facts(const module& m) { return {m.lora_A.rows(), m.lora_alpha, m.lora_dropout}; }
    LOWRANK_API static peft_change change(const module& m);
    /// Plain or not: the tensors tell.
    LOWRANK_API static peft_module join(peft_parts& p, const peft_context& c);
    LOWRANK_API static void write(const module& m, peft_tensors& to);
    LOWRANK_API static void fit_options(peft_options& o, const std::vector<std::string>&,
                                        std::span<const module* const> all);
    LOWRANK_API static const char* differs(const peft_options& o, const std::string& name, const module& m);
};

template <>
struct peft_kind<peft_lora> {
    using module = peft_lora;
    static constexpr bool is_second_form = true;
    LOWRANK_API static std::vector<peft_type> types();
    LOWRANK_API static const char* label(const module& m);
    static bool in_peft(const module& m) { return !m.magnitude_of_inputs; }
    static module_shape shape(const module& m) {
        return {.out = m.lora.lora_B.rows(), .in = m.lora.lora_A.cols(), .is_table = m.is_table};
    }
    static bool fit(module&, index, index) { return true; }
    static peft_facts facts(const module& m) { return {m.lora.lora_A.rows(), m.lora.lora_alpha, m.lora.lora_dropout}; }
    LOWRANK_API static peft_change change(const module& m);
    LOWRANK_API static void write(const module& m, peft_tensors& to);
    LOWRANK_API static void fit_options(peft_options& o, const std::vector<std::string>&,
                                        std::span<const module* const> all);
    LOWRANK_API static const char* differs(const peft_options& o, const std::string& name, const module& m);
    LOWRANK_API static result<any_adapter<float>> adapter(const module& m, const adapted_weight& w);
    LOWRANK_API static std::optional<module> from(const any_adapter<float>& a);
};

namespace detail {

/// Sets use_rslora as `says(module)` has it. \pre the modules agree.
template <class Modules, class Says>
void fit_rslora(peft_options& o, const Modules& all, const Says& says) {
    for (const auto* m : all) {
        expects(says(*m) == says(*all.front()), "peft_config_for: the modules must agree on use_rslora");
        o.set("use_rslora", says(*m));
    }
}

/// Whether both factors are there; else the parts fail with the one that is not.
LOWRANK_API [[nodiscard]] bool has_both_factors(peft_parts& p, std::string_view leaf_a, std::string_view leaf_b);

}  // namespace detail

/// The LoRA in a module, plain or with more; null in modules of other kinds.
[[nodiscard]] inline const lora_adapter<float>* find_lora(const peft_module& module) {
    const auto* more = module.get<peft_lora>();
    return more != nullptr ? &more->lora : module.get<lora_adapter<float>>();
}
/// The same. \pre there is one.
LOWRANK_API [[nodiscard]] const lora_adapter<float>& lora_of(const peft_module& module);
LOWRANK_API [[nodiscard]] lora_adapter<float>& lora_of(peft_module& module);

/// Whether a module is two factors of an embedding table and nothing more.
[[nodiscard]] inline bool is_plain_table(const peft_module& module) {
    const auto* m = module.get<peft_lora>();
    return m != nullptr && m->is_table && m->is_plain();
}

/// Whether a module is two factors of a layer or a table and nothing more.
[[nodiscard]] inline bool is_plain_lora(const peft_module& module) {
    const auto* m = module.get<peft_lora>();
    return m != nullptr ? m->is_plain() : module.get<lora_adapter<float>>() != nullptr;
}

/// A module of two factors and nothing more.
LOWRANK_API [[nodiscard]] peft_module plain_module(lora_adapter<float> lora, bool is_table);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/io/peft/kinds/lora.ipp>
#endif

#endif  // LOWRANK_IO_PEFT_KINDS_LORA_HPP
