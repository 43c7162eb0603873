// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_KINDS_EXPERTS_IPP
#define LOWRANK_IO_PEFT_KINDS_EXPERTS_IPP

#include <lowrank/io/peft/kinds/experts.hpp>

#include <cstdint>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/containers/safetensors.hpp>
#include <lowrank/io/peft/peft_tensors.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_BODY void peft_kind<peft_experts>::fit_options(peft_options& o, const std::vector<std::string>&,
                                                       std::span<const module* const> all) {
    detail::fit_rslora(o, all, [](const module& m) { return m.lora.use_rslora; });
}

LOWRANK_BODY result<any_adapter<float>> peft_kind<peft_experts>::adapter(const module& m, const adapted_weight&) {
    return status{errc::unsupported, "is LoRA of " + std::to_string(m.lora.experts) +
                                         " experts, each of which has an adapter of its own: "
                                         "to_any_adapters, or lora.expert(e)"};
}

namespace detail {

LOWRANK_BODY lora_adapter<float> lora_of_expert(const expert_lora<float>& stack, index e, index part, index parts,
                                                bool turned) {
    lora_adapter<float> one = stack.expert(e);
    if (turned) {
        std::swap(one.lora_A, one.lora_B);
        one.lora_A = matrix<float>(one.lora_A.transpose());
        one.lora_B = matrix<float>(one.lora_B.transpose());
    }
    const index rows = one.rows() / parts;
    one.lora_B = matrix<float>(one.lora_B.middleRows(part * rows, rows));
    return one;
}

LOWRANK_BODY peft_module join_experts(peft_parts& p, const peft_context& c, const parameter_place& place) {
    peft_experts out{.lora = {.lora_alpha = c.alpha, .use_rslora = c.options.get<bool>("use_rslora")}, .place = place};
    const tensor_info* a = p.find("lora_A.weight");
    const tensor_info* b = p.find("lora_B.weight");
    for (const std::string_view leaf : {std::string_view("lora_embedding_A"), std::string_view("lora_embedding_B"),
                                        magnitude_names::peft, std::string_view("lora_B.bias")}) {
        if (p.has(leaf)) {
            p.fail(errc::unsupported, *p.find(leaf), "belongs to a parameter (target_parameters), which is not known");
            return out;
        }
    }
    if (c.options.get<bool>(magnitude_names::option) || c.options.get<bool>("lora_bias")) {
        p.fail(errc::mismatch, std::string("is for a parameter (target_parameters), which can have no magnitude and no "
                                           "bias; the configuration says otherwise"));
        return out;
    }
    if (!has_both_factors(p, "lora_A.weight", "lora_B.weight")) {
        return out;
    }
    const std::uint64_t r = extent(c.r);
    if (a->shape.size() != 2 || b->shape.size() != 2) {
        const tensor_info& wrong = a->shape.size() != 2 ? *a : *b;
        p.fail(errc::invalid_format, wrong, "has shape " + shape_in_words(wrong.shape) + ", expected a matrix");
    } else if (a->shape[0] != b->shape[1]) {
        p.fail(errc::mismatch, *b,
               "has shape " + shape_in_words(b->shape) + ", its lora_A has " + shape_in_words(a->shape) +
                   "; [out, r experts] and [r experts, in] must have the same r and experts");
    } else if (r == 0 || a->shape[0] == 0 || a->shape[0] % r != 0) {
        p.fail(errc::mismatch, *a,
               "has " + std::to_string(a->shape[0]) + " rows, which is no multiple of the rank, " + std::to_string(r) +
                   " in the configuration");
    }
    if (!p.why) {
        return out;
    }
    if (a->shape[0] == r && place.parameter == "weight" && place.depth == 0) {  // a layer's, under another name
        return lora_adapter<float>{.lora_A = p.take("lora_A.weight"),
                                   .lora_B = p.take("lora_B.weight"),
                                   .lora_alpha = c.alpha,
                                   .use_rslora = out.lora.use_rslora};
    }
    out.lora.experts = static_cast<index>(a->shape[0] / r);
    out.lora.lora_A = p.take("lora_A.weight");
    out.lora.lora_B = p.take("lora_B.weight");
    return out;
}

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_KINDS_EXPERTS_IPP
