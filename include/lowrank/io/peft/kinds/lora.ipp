// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_KINDS_LORA_IPP
#define LOWRANK_IO_PEFT_KINDS_LORA_IPP

#include <lowrank/io/peft/kinds/lora.hpp>

#include <algorithm>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/containers/safetensors.hpp>
#include <lowrank/io/peft/peft_tensors.hpp>
#include <lowrank/lora/kinds/dora.hpp>
#include <lowrank/lora/layers/conv.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

LOWRANK_BODY bool has_both_factors(peft_parts& p, std::string_view leaf_a, std::string_view leaf_b) {
    const tensor_info* a = p.find(leaf_a);
    const tensor_info* b = p.find(leaf_b);
    if (a != nullptr && b != nullptr) {
        return true;
    }
    p.fail(errc::invalid_format,
           a != nullptr   ? *a
           : b != nullptr ? *b
                          : p.first(),
           std::string("has no partner: the file lacks ") + (a == nullptr ? "lora_A" : "lora_B") + " of module " +
               in_quotes(p.module()));
    return false;
}

/// Rank and group structure of two factors, or what is wrong with their shapes.
LOWRANK_INLINE std::uint64_t groups_of_factors(peft_parts& p, const tensor_info& a, const tensor_info& b, index rank) {
    for (const tensor_info* t : {&a, &b}) {
        if (t->shape.size() < 2 || t->shape.size() > 5) {
            p.fail(errc::invalid_format, *t,
                   "has shape " + shape_in_words(t->shape) + ", expected a matrix or a kernel");
            return 1;
        }
        if (!is_real(t->type)) {
            p.why = p.why ? not_real(*t) : p.why;
            return 1;
        }
    }
    const auto shapes = [&] {
        return "has shape " + shape_in_words(b.shape) + ", its lora_A has " + shape_in_words(a.shape);
    };
    if (b.shape.size() != a.shape.size() ||
        std::any_of(b.shape.begin() + 2, b.shape.end(), [](auto n) { return n != 1; })) {
        p.fail(errc::mismatch, b, shapes() + "; a kernel belongs to lora_A alone");
        return 1;
    }
    const std::uint64_t r = extent(rank);
    const std::uint64_t lora_r = a.shape[0];
    const std::uint64_t groups =
        a.shape.size() > 2 && b.shape[1] != 0 && lora_r % b.shape[1] == 0 ? lora_r / b.shape[1] : 1;
    if (lora_r == r && b.shape[1] * groups == r && b.shape[0] % groups == 0) {
        return groups;
    }
    if (a.shape[1] == r && b.shape[0] == r) {
        p.fail(errc::mismatch, a,
               "has shape " + shape_in_words(a.shape) + " where [r, in] with r = " + std::to_string(r) +
                   " is expected; it looks transposed, as MLX stores it");
    } else if (lora_r != b.shape[1]) {
        p.fail(errc::mismatch, b, shapes() + "; [out, r] and [r, in] must have the same r");
    } else {
        p.fail(errc::mismatch, a,
               "has rank " + std::to_string(lora_r) + ", the configuration says " + std::to_string(r));
    }
    return 1;
}

}  // namespace detail

LOWRANK_BODY std::vector<peft_type> peft_kind<lora_adapter<float>>::types() {
    peft_type lora{.name = "LORA",
                   .r_key = "r",
                   .r = 8,
                   .alpha_key = "lora_alpha",
                   .alpha = 8,
                   .dropout_key = "lora_dropout",
                   .has_rank_pattern = true,
                   .has_alpha_pattern = true,
                   .has_bias = true,
                   .bias_only = "lora_only",
                   .has_fan_in_fan_out = true,
                   .has_target_parameters = true,
                   .leaves = {"lora_A.weight", "lora_B.weight", "lora_embedding_A", "lora_embedding_B",
                              magnitude_names::peft, "lora_B.bias"},
                   .may_end_in_weight = true};
    lora.keys = {{"use_rslora", false}, {magnitude_names::option, false}, {"lora_bias", false}};
    lora.known = {"corda_config",   "ensure_weight_tying", "eva_config",    "init_lora_weights", "loftq_config",
                  "lora_ga_config", "megatron_config",     "megatron_core", "runtime_config"};
    lora.refused = {{"arrow_config", "routing between adapters (Arrow)"},
                    {"velora_config", "compressed activations (VeLoRA)"},
                    {"monteclora_config", "sampled factors (MonteCLoRA)"}};
    lora.defaults = R"({"alora_invocation_tokens":null,"corda_config":null,"eva_config":null,"exclude_modules":null,
        "layer_replication":null,"layers_pattern":null,"layers_to_transform":null,"megatron_config":null,
        "target_parameters":null,"trainable_token_indices":null,"init_lora_weights":true,
        "loftq_config":{},"megatron_core":"megatron.core"})";
    return {std::move(lora)};
}
LOWRANK_BODY std::vector<peft_type> peft_kind<peft_lora>::types() { return peft_kind<lora_adapter<float>>::types(); }

LOWRANK_BODY peft_change peft_kind<lora_adapter<float>>::change(const module& m) { return {.weight = m.delta()}; }

LOWRANK_BODY peft_module peft_kind<lora_adapter<float>>::join(peft_parts& p, const peft_context& c) {
    const bool is_table = p.has("lora_embedding_A") || p.has("lora_embedding_B");
    const std::string_view leaf_a = is_table ? "lora_embedding_A" : "lora_A.weight";
    const std::string_view leaf_b = is_table ? "lora_embedding_B" : "lora_B.weight";
    const tensor_info* a = p.find(leaf_a);
    const tensor_info* b = p.find(leaf_b);
    peft_lora out{
        .lora = {.lora_alpha = c.alpha, .use_rslora = c.options.get<bool>("use_rslora"), .lora_dropout = c.dropout},
        .is_table = is_table};
    if (is_table && (p.has("lora_A.weight") || p.has("lora_B.weight"))) {
        p.fail(errc::invalid_format, "has the factors of a layer beside those of an embedding table");
    }
    if (!detail::has_both_factors(p, leaf_a, leaf_b)) {
        return out;
    }
    const std::uint64_t groups = detail::groups_of_factors(p, *a, *b, c.r);
    if (!p.why) {
        return out;
    }
    out.kernel.assign(a->shape.begin() + 2, a->shape.end());
    out.groups = static_cast<index>(groups);
    const std::uint64_t stored = a->shape[0] * detail::flat_columns(a->shape) + b->shape[0] * b->shape[1];
    if (groups > 1 && !detail::may_unfold(b->shape[0], detail::extent(c.r), stored)) {
        p.fail(errc::unsupported,
               "has " + std::to_string(groups) +
                   " groups; its lora_B of all groups would be too large for what the file holds of it");
        return out;
    }
    out.lora.lora_B = p.take(leaf_b);
    out.lora.lora_A = p.take(leaf_a);
    if (groups > 1 && p.why) {
        out.lora.lora_B = expand_groups(out.lora.lora_B, out.groups);
    }
    const bool has_magnitude = p.has(magnitude_names::peft);
    const bool has_bias = p.has("lora_B.bias");
    if (has_magnitude != c.options.get<bool>(magnitude_names::option) ||
        (has_bias && !c.options.get<bool>("lora_bias"))) {
        p.fail(errc::mismatch, std::string("has ") + (has_magnitude ? "a" : "no") + " lora_magnitude_vector and " +
                                   (has_bias ? "a" : "no") + " lora_B.bias, the configuration says otherwise");
    }
    if (has_magnitude && p.why) {
        out.magnitude = p.take_vector(magnitude_names::peft, static_cast<index>(b->shape[0]));
    }
    if (has_bias && p.why) {
        out.bias = p.take_vector("lora_B.bias", static_cast<index>(b->shape[0]));
    }
    return out.is_plain() && !is_table ? peft_module(std::move(out.lora)) : peft_module(std::move(out));
}

LOWRANK_BODY void peft_kind<lora_adapter<float>>::write(const module& m, peft_tensors& to) {
    to.add("lora_A.weight", m.lora_A);
    to.add("lora_B.weight", m.lora_B);
}
LOWRANK_BODY void peft_kind<lora_adapter<float>>::fit_options(peft_options& o, const std::vector<std::string>&,
                                                              std::span<const module* const> all) {
    o.set(magnitude_names::option, false);
    o.set("lora_bias", false);
    detail::fit_rslora(o, all, [](const module& m) { return m.use_rslora; });
}
LOWRANK_BODY const char* peft_kind<lora_adapter<float>>::differs(const peft_options& o, const std::string&,
                                                                 const module& m) {
    return m.lora_B.cols() != m.lora_A.rows()          ? "rank of lora_B"
           : m.use_rslora != o.get<bool>("use_rslora") ? "use_rslora"
           : o.get<bool>(magnitude_names::option)      ? magnitude_names::option
                                                       : nullptr;
}

LOWRANK_BODY const char* peft_kind<peft_lora>::label(const module& m) {
    return m.magnitude_of_inputs     ? "DoRA of the inputs (LyCORIS)"
           : m.magnitude.size() != 0 ? magnitude_names::label
           : !m.kernel.empty()       ? "LoRA of a convolution"
           : m.bias.size() != 0      ? "LoRA with a bias"
                                     : "LoRA";
}
LOWRANK_BODY peft_change peft_kind<peft_lora>::change(const module& m) {
    peft_change out{.is_table = m.is_table};
    if (m.magnitude.size() != 0) {
        out.weight = magnitude_change<float>{
            .delta = m.lora.delta(), .magnitude = m.magnitude, .of_columns = m.magnitude_of_inputs};
    } else {
        out.weight = m.lora.delta();
    }
    if (m.bias.size() != 0) {
        out.bias = m.lora.scaling() * m.bias;
    }
    return out;
}
LOWRANK_BODY void peft_kind<peft_lora>::write(const module& m, peft_tensors& to) {
    const matrix<float> b = m.groups == 1 ? m.lora.lora_B : collect_groups(m.lora.lora_B, m.groups);
    const std::vector<std::uint64_t> shape_a = detail::kernel_shape(m.lora.lora_A, m.kernel);
    std::vector<std::uint64_t> shape_b{detail::extent(b.rows()), detail::extent(b.cols())};
    shape_b.resize(shape_a.size(), 1);
    to.add(m.is_table ? "lora_embedding_A" : "lora_A.weight", shape_a, m.lora.lora_A);
    to.add(m.is_table ? "lora_embedding_B" : "lora_B.weight", shape_b, b);
    if (m.magnitude.size() != 0) {
        std::vector<std::uint64_t> shape{detail::extent(m.magnitude.size())};
        if (!m.kernel.empty()) {
            shape.insert(shape.begin(), 1);
            shape.resize(2 + m.kernel.size(), 1);
        }
        to.add(magnitude_names::peft, shape, m.magnitude);
    }
    if (m.bias.size() != 0) {
        to.add("lora_B.bias", {detail::extent(m.bias.size())}, m.bias);
    }
}
LOWRANK_BODY void peft_kind<peft_lora>::fit_options(peft_options& o, const std::vector<std::string>&,
                                                    std::span<const module* const> all) {
    for (const module* m : all) {
        o.set(magnitude_names::option, o.get<bool>(magnitude_names::option) || m->magnitude.size() != 0);
        o.set("lora_bias", o.get<bool>("lora_bias") || m->bias.size() != 0);
    }
    detail::fit_rslora(o, all, [](const module& m) { return m.lora.use_rslora; });
}
LOWRANK_BODY const char* peft_kind<peft_lora>::differs(const peft_options& o, const std::string&, const module& m) {
    return m.lora.lora_B.cols() != m.lora.lora_A.rows()                        ? "rank of lora_B"
           : m.lora.use_rslora != o.get<bool>("use_rslora")                    ? "use_rslora"
           : (m.magnitude.size() != 0) != o.get<bool>(magnitude_names::option) ? magnitude_names::option
           : m.bias.size() != 0 && !o.get<bool>("lora_bias")                   ? "lora_bias"
                                                                               : nullptr;
}
LOWRANK_BODY result<any_adapter<float>> peft_kind<peft_lora>::adapter(const module& m, const adapted_weight& w) {
    if (m.bias.size() > 0 || !m.kernel.empty() || m.is_table || m.magnitude_of_inputs) {
        return status{errc::unsupported, std::string("is ") + (m.is_table ? "for an embedding table" : label(m)) +
                                             ", which is more than a linear layer's"};
    }
    if (m.magnitude.size() == 0) {
        return any_adapter<float>(m.lora);
    }
    if (m.magnitude.size() != w.out) {
        return status{errc::mismatch, "has a magnitude of another length than the layer's outputs"};
    }
    return any_adapter<float>(dora_adapter<float>{.lora = m.lora, .magnitude = m.magnitude});
}
LOWRANK_BODY std::optional<peft_lora> peft_kind<peft_lora>::from(const any_adapter<float>& a) {
    const auto* dora = a.get<dora_adapter<float>>();
    return dora == nullptr ? std::nullopt : std::optional<module>({.lora = dora->lora, .magnitude = dora->magnitude});
}

LOWRANK_BODY peft_module plain_module(lora_adapter<float> lora, bool is_table) {
    return is_table ? peft_module(peft_lora{.lora = std::move(lora), .is_table = true}) : peft_module(std::move(lora));
}
LOWRANK_BODY const lora_adapter<float>& lora_of(const peft_module& module) {
    const lora_adapter<float>* lora = find_lora(module);
    detail::expects(lora != nullptr, "lora_of: the module is no LoRA");
    return *lora;
}
LOWRANK_BODY lora_adapter<float>& lora_of(peft_module& module) {
    auto* more = module.get<peft_lora>();
    auto* lora = more != nullptr ? &more->lora : module.get<lora_adapter<float>>();
    detail::expects(lora != nullptr, "lora_of: the module is no LoRA");
    return *lora;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_KINDS_LORA_IPP
