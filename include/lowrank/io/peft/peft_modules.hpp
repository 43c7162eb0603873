// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_PEFT_MODULES_HPP
#define LOWRANK_IO_PEFT_PEFT_MODULES_HPP

/// \file
/// What a PEFT adapter can hold for a module besides plain LoRA, and what each does to a weight.
///
///     for (const auto& [module, relative] : adapter.relatives) {
///         const lowrank::peft_change change = lowrank::change_of(relative);   // delta, magnitude, scales, bias
///     }
///
/// Names and shapes follow huggingface/peft.

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/io/formats/lycoris_oft.hpp>
#include <lowrank/lora/algebra/rotation.hpp>
#include <lowrank/lora/kinds/adalora.hpp>
#include <lowrank/lora/kinds/boft.hpp>
#include <lowrank/lora/kinds/hira.hpp>
#include <lowrank/lora/kinds/hra.hpp>
#include <lowrank/lora/kinds/loha.hpp>
#include <lowrank/lora/kinds/lokr.hpp>
#include <lowrank/lora/kinds/lora.hpp>
#include <lowrank/lora/kinds/miss.hpp>
#include <lowrank/lora/kinds/miss_bat.hpp>
#include <lowrank/lora/kinds/oft.hpp>
#include <lowrank/lora/kinds/randlora.hpp>
#include <lowrank/lora/kinds/vera.hpp>
#include <lowrank/lora/merge/merge_transformed.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// LoRA with what PEFT may add to it: DoRA's magnitude, a bias on lora_B, the kernel of a convolution.
struct peft_lora {
    /// Of a convolution: A is r x (in * taps), B is out x r, block-diagonal if there are groups.
    lora_adapter<float> lora = {};
    vector<float> magnitude = {};            ///< DoRA: lengths of the rows of W + delta; empty: no DoRA.
    bool magnitude_of_inputs = false;        ///< Lengths of the columns instead (LyCORIS's wd_on_output=False).
    vector<float> bias = {};                 ///< Of lora_B: the layer's bias changes by scaling * bias; empty: none.
    std::vector<std::uint64_t> kernel = {};  ///< Of a convolution: {kw}, {kh, kw} or {kd, kh, kw}; empty: linear.
    index groups = 1;                        ///< Of a convolution.
    bool is_table = false;                   ///< Of an embedding: A is r x tokens, B is dim x r.
};

/// (IA)^3: W' = diag(scale) W, or W diag(scale) for feed-forward modules.
struct peft_ia3 {
    vector<float> scale = {};
    bool is_feedforward = false;   ///< Scales inputs instead of outputs (and of the bias).
    index spatial_dimensions = 0;  ///< 2 for a 2-d convolution, 0 for a linear layer.
};

/// BOFT, of a linear layer or of a convolution, whose scale PEFT stores as a row.
struct peft_boft {
    boft_adapter<float> boft = {};
    bool is_convolution = false;
};

/// RandLoRA. PEFT repeats the shared bases in every module of its file; here they are one.
struct peft_randlora {
    randlora_adapter<float> randlora = {};
    bool repeats_bases = false;  ///< The file had a copy of the bases in this module, and gets one again.
};

/// What changes one module, in its own parameters. What a file does not say of the layer's shape is 0 in OFT with one
/// shared block, MiSS and RandLoRA (and VeRA: the width of the shared projection) until `fit_module` says it.
using peft_module =
    std::variant<peft_lora, adalora_adapter<float>, loha_adapter<float>, lokr_adapter<float>, vera_adapter<float>,
                 peft_ia3, oft_adapter<float>, peft_boft, hra_adapter<float>, miss_adapter<float>,
                 miss_bat_adapter<float>, peft_randlora, hira_adapter<float>, lycoris_oft>;

/// What a module does to its layer: W' = diag(output_scale) (W + delta) diag(input_scale), where DoRA's output_scale
/// is magnitude / the row lengths of W + delta, or W' = rows(W). Empty members change nothing.
struct peft_change {
    low_rank<float> delta = {};  ///< out x in; the weight of a convolution as out x (in * taps).
    vector<float> magnitude = {};
    bool magnitude_of_inputs = false;  ///< The same with the lengths of columns, as input_scale.
    vector<float> output_scale = {};
    vector<float> input_scale = {};  ///< One per input channel.
    vector<float> bias = {};         ///< Is added to the layer's bias.
    bool is_table = false;           ///< The weight is the transpose: tokens x dim.
    /// A `row_transform` that is all the module does: rotations, HiRA, the "bat" form of MiSS.
    std::optional<detail::any_row_transform> rows = {};
    bool acts_on_transpose = false;  ///< `rows` is of the transposed weight: LyCORIS turns the outputs.
    bool is_additive = false;        ///< `rows` adds to a row what does not depend on it.

    [[nodiscard]] bool has_delta() const noexcept { return delta.left.size() != 0 || delta.right.size() != 0; }
};

/// "DoRA", "LoHa", ...: for messages.
[[nodiscard]] inline const char* kind_of(const peft_module& module) {
    constexpr const char* names[] = {
        "LoRA", "AdaLoRA", "LoHa", "LoKr",       "VeRA",     "(IA)^3", "OFT",
        "BOFT", "HRA",     "MiSS", "MiSS (bat)", "RandLoRA", "HiRA",   "OFT of the outputs (LyCORIS)"};
    if (const auto* lora = std::get_if<peft_lora>(&module)) {
        return lora->magnitude_of_inputs     ? "DoRA of the inputs (LyCORIS)"
               : lora->magnitude.size() != 0 ? "DoRA"
               : !lora->kernel.empty()       ? "LoRA of a convolution"
               : lora->bias.size() != 0      ? "LoRA with a bias"
                                             : "LoRA";
    }
    return names[module.index()];
}

/// The shape of the weight that a module is for, as far as its tensors say it; 0 where they do not.
struct module_shape {
    index out = 0;
    index in = 0;
};

template <class = on_use>
[[nodiscard]] module_shape shape_of(const peft_module& module) {
    return std::visit(
        [](const auto& m) -> module_shape {
            using M = std::decay_t<decltype(m)>;
            if constexpr (std::same_as<M, peft_lora>) {
                return {m.lora.rows(), m.lora.cols()};
            } else if constexpr (std::same_as<M, adalora_adapter<float>>) {
                return {m.lora_B.rows(), m.lora_A.cols()};
            } else if constexpr (std::same_as<M, vera_adapter<float>>) {
                return {m.lambda_b.size(), m.in};
            } else if constexpr (std::same_as<M, peft_ia3>) {
                return {};  // one side, which one the layer says
            } else if constexpr (std::same_as<M, oft_adapter<float>>) {
                return {0, m.in};
            } else if constexpr (std::same_as<M, peft_boft>) {
                return {m.boft.boft_s.size(), m.boft.in};
            } else if constexpr (std::same_as<M, hra_adapter<float>>) {
                return {0, m.hra_u.rows()};
            } else if constexpr (std::same_as<M, miss_adapter<float>>) {
                return {m.out, m.in};
            } else if constexpr (std::same_as<M, miss_bat_adapter<float>>) {
                return {m.out(), m.in};
            } else if constexpr (std::same_as<M, peft_randlora>) {
                return {m.randlora.out, m.randlora.in};
            } else if constexpr (std::same_as<M, hira_adapter<float>>) {
                return {m.hira_B.rows(), m.hira_A.cols()};
            } else if constexpr (std::same_as<M, lycoris_oft>) {
                return {m.out(), 0};
            } else {
                return {m.rows(), m.cols()};
            }
        },
        module);
}

/// Tells a module the shape of its weight (of a convolution: out x (in * taps)).
/// \return `mismatch`, with the module as it was, if it is for another shape. Types that know their shape from their
///         tensors are compared with the weight where they are used.
template <class = on_use>
[[nodiscard]] status fit_module(peft_module& module, index out, index in) {
    const auto fits = [&](bool yes) {
        return yes ? status{}
                   : status{errc::mismatch, std::string("this ") + kind_of(module) + " module is not for a " +
                                                std::to_string(out) + " x " + std::to_string(in) + " weight"};
    };
    if (auto* vera = std::get_if<vera_adapter<float>>(&module)) {
        const bool yes = in <= vera->shared->vera_A.cols() && vera->lambda_b.size() == out;
        vera->in = yes ? in : vera->in;
        return fits(yes);
    } else if (auto* oft = std::get_if<oft_adapter<float>>(&module)) {
        const bool yes = oft->in != 0 ? oft->in == in : in > 0 && in % oft->block_size() == 0;
        oft->in = yes ? in : oft->in;
        return fits(yes);
    } else if (const auto* boft = std::get_if<peft_boft>(&module)) {
        return fits(boft->boft.in == in && boft->boft.boft_s.size() == out);
    } else if (const auto* hra = std::get_if<hra_adapter<float>>(&module)) {
        return fits(hra->hra_u.rows() == in);
    } else if (auto* miss = std::get_if<miss_adapter<float>>(&module)) {
        const bool yes = (miss->out == 0 || miss->out == out) && out % miss->miss_block.cols() == 0;
        miss->out = yes ? out : miss->out;
        miss->in = yes ? in : miss->in;
        return fits(yes);
    } else if (auto* bat = std::get_if<miss_bat_adapter<float>>(&module)) {
        const bool yes = bat->out() == out && in % bat->rank() == 0;
        bat->in = yes ? in : bat->in;
        return fits(yes);
    } else if (auto* rand = std::get_if<peft_randlora>(&module)) {
        auto& r = rand->randlora;
        const bool yes = r.gamma.cols() == std::min(out, in) && std::max(out, in) <= r.shared->randlora_B.rows();
        r.out = yes ? out : r.out;
        r.in = yes ? in : r.in;
        return fits(yes);
    } else if (const auto* hira = std::get_if<hira_adapter<float>>(&module)) {
        return fits(hira->hira_B.rows() == out && hira->hira_A.cols() == in);
    } else if (const auto* turned = std::get_if<lycoris_oft>(&module)) {
        return fits(turned->out() == out);
    }
    return {};
}

namespace detail {

/// The row transform of an adapter that rotates the inputs. Without a scale it is for any number of outputs.
template <rotating_adapter A>
[[nodiscard]] any_row_transform rotation_rows(const A& a) {
    auto rotation = a.rotation();
    auto scale = a.output_scale();
    const index in = rotation.cols();
    const index out = scale.size();
    const low_rank<float> shape{.left = matrix<float>(out, 0), .right = matrix<float>(0, in)};
    any_row_transform rows = as_any_row_transform(row_rotation(rotated_linear<decltype(rotation)>{
        .base = shape, .rotation = std::move(rotation), .output_scale = std::move(scale)}));
    if (out == 0) {
        rows.fits_with = [in](index, index columns) { return columns == in; };
    }
    return rows;
}

}  // namespace detail

/// What a module does to a weight of the shape that `fit_module` has told it. Of a type that still lacks its shape
/// nothing is said: no delta, no rows.
/// \cost copies the factors; LoHa, LoKr and RandLoRA form theirs, rotations b^3 a block.
template <class = on_use>
[[nodiscard]] peft_change change_of(const peft_module& module) {
    return std::visit(
        [](const auto& m) {
            using M = std::decay_t<decltype(m)>;
            peft_change out;
            if constexpr (std::same_as<M, peft_lora>) {
                out = {.delta = m.lora.delta(),
                       .magnitude = m.magnitude,
                       .magnitude_of_inputs = m.magnitude_of_inputs,
                       .is_table = m.is_table};
                if (m.bias.size() != 0) {
                    out.bias = m.lora.scaling() * m.bias;
                }
            } else if constexpr (std::same_as<M, peft_ia3>) {
                (m.is_feedforward ? out.input_scale : out.output_scale) = m.scale;
            } else if constexpr (std::same_as<M, peft_boft>) {
                out.rows = detail::rotation_rows(m.boft);
            } else if constexpr (std::same_as<M, oft_adapter<float>>) {
                if (m.in != 0) {
                    out.rows = detail::rotation_rows(m);
                }
            } else if constexpr (std::same_as<M, hra_adapter<float>>) {
                out.rows = detail::rotation_rows(m);
            } else if constexpr (std::same_as<M, hira_adapter<float>>) {
                out.rows = detail::as_any_row_transform(hira_rows(m));
            } else if constexpr (std::same_as<M, lycoris_oft>) {
                out.rows = detail::rotate_outputs(m);
                out.acts_on_transpose = true;
            } else if constexpr (std::same_as<M, miss_bat_adapter<float>>) {
                if (m.in != 0) {
                    out.rows = detail::as_any_row_transform(miss_bat_rows(m));
                }
            } else if constexpr (std::same_as<M, peft_randlora>) {
                if (m.randlora.out != 0) {
                    out.delta = m.randlora.delta();
                }
            } else if constexpr (std::same_as<M, miss_adapter<float>>) {
                if (m.out != 0 && m.in != 0) {
                    out.delta = m.delta();
                }
            } else {
                out.delta = m.delta();
            }
            return out;
        },
        module);
}

/// Columns of the factors that `change_of` forms of a LoHa or LoKr; 0 of other types, whose factors are their own.
[[nodiscard]] inline index formed_rank(const peft_module& module) {
    if (const auto* loha = std::get_if<loha_adapter<float>>(&module)) {
        return loha->w1_b.rows() * loha->w2_b.rows();
    }
    const auto* lokr = std::get_if<lokr_adapter<float>>(&module);
    return lokr != nullptr ? lokr->w1.left.cols() * lokr->w2.left.cols() : 0;
}

/// The same without large factors: a LoHa or LoKr whose factors would be of a rank above an eighth of the weight's
/// shorter side adds rows that are formed when they are needed. \cost copies the parameters.
template <class = on_use>
[[nodiscard]] peft_change change_without_factors(const peft_module& module) {
    const auto adding = [](const auto& m) {
        return peft_change{.rows = detail::as_any_row_transform(added_rows(m)), .is_additive = true};
    };
    const module_shape shape = shape_of(module);
    if (formed_rank(module) <= std::min(shape.out, shape.in) / 8) {
        return change_of(module);
    }
    const auto* loha = std::get_if<loha_adapter<float>>(&module);
    return loha != nullptr ? adding(*loha) : adding(std::get<lokr_adapter<float>>(module));
}

/// The functions of this header that are worth compiling once, for io/instantiate.hpp.
#define LOWRANK_IO_PEFT_MODULES(way)                                    \
    way template module_shape shape_of<on_use>(const peft_module&);     \
    way template status fit_module<on_use>(peft_module&, index, index); \
    way template peft_change change_of<on_use>(const peft_module&);     \
    way template peft_change change_without_factors<on_use>(const peft_module&);
#ifdef LOWRANK_EXTERN_IO
LOWRANK_IO_PEFT_MODULES(extern)
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_PEFT_MODULES_HPP
