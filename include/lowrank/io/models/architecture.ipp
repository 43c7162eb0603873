// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_MODELS_ARCHITECTURE_IPP
#define LOWRANK_IO_MODELS_ARCHITECTURE_IPP

#include <lowrank/io/models/architecture.hpp>

#include <algorithm>
#include <utility>

#include <lowrank/io/containers/detail/text.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// The architecture whose `of` is `name`, or what is known.
LOWRANK_API [[nodiscard]] result<const architecture*> architecture_named(const char* key, std::string_view name,
                                                                         std::string architecture::*of,
                                                                         std::span<const architecture> among) {
    std::string known;
    for (const architecture& a : among) {
        if (a.*of == name) {
            return &a;
        }
        if (known.find(in_quotes(a.*of)) == std::string::npos) {
            known += (known.empty() ? "" : " or ") + in_quotes(a.*of);
        }
    }
    return status{errc::unsupported, std::string(key) + " is " + in_quotes(name) + ", not " +
                                         (known.empty() ? std::string("one of the list, which is empty") : known) +
                                         "; add an entry to the list of architectures to convert others"};
}

/// "model.layers.3.mlp.up_proj.weight" as layer "3", module "mlp.up_proj" and tail ".weight".
struct split_name {
    std::string_view layer = {};
    std::string_view module = {};
    std::string_view tail = {};
};
LOWRANK_API [[nodiscard]] split_name split_module_name(std::string_view name, std::string_view layers) {
    split_name out;
    for (const std::string_view tail : {std::string_view(".weight"), std::string_view(".bias")}) {
        if (name.ends_with(tail)) {
            out.tail = name.substr(name.size() - tail.size());
            name.remove_suffix(tail.size());
            break;  // "x.bias.weight" is no other name of "x.bias"
        }
    }
    out.module = name;
    if (name.starts_with(layers)) {
        name.remove_prefix(layers.size());
        const std::size_t digits = std::min(name.find_first_not_of("0123456789"), name.size());
        if (digits != 0 && digits != name.size() && name[digits] == '.') {
            out.layer = name.substr(0, digits);
            out.module = name.substr(digits + 1);
        }
    }
    return out;
}

LOWRANK_API [[nodiscard]] module_match match_of(const architecture& a, const architecture_module& m,
                                                const split_name& name, std::size_t part) {
    const auto full = [&](const std::string& layers, const std::string& own) {
        return (m.is_in_layer ? layers + std::string(name.layer) + "." : std::string()) + own + std::string(name.tail);
    };
    module_match out{.module = &m, .hf = full(a.hf_layers, m.name), .part = part};
    for (const gguf_part& p : m.parts) {
        out.gguf.push_back(full(a.gguf_layers, p.name));
    }
    return out;
}

}  // namespace detail

LOWRANK_BODY std::span<const architecture> known_architectures() {
    static const std::vector<architecture> known = [] {
        using enum head_count;
        architecture llama{
            .name = "llama",
            .hf_class = "LlamaForCausalLM",
            .gguf = "llama",
            .keys = {{"vocab_size", "vocab_size", &model_config::vocab_size},
                     {"max_position_embeddings", "context_length", &model_config::max_position_embeddings},
                     {"hidden_size", "embedding_length", &model_config::hidden_size, nullptr, true},
                     {"num_hidden_layers", "block_count", &model_config::num_hidden_layers, nullptr, true},
                     {"intermediate_size", "feed_forward_length", &model_config::intermediate_size, nullptr, true},
                     {"num_attention_heads", "attention.head_count", &model_config::num_attention_heads, nullptr, true},
                     {"num_key_value_heads", "attention.head_count_kv", &model_config::num_key_value_heads},
                     {"head_dim", "rope.dimension_count", &model_config::head_dim},
                     {"rms_norm_eps", "attention.layer_norm_rms_epsilon", nullptr, &model_config::rms_norm_eps},
                     {"rope_theta", "rope.freq_base", nullptr, &model_config::rope_theta}},
            .modules = {{"input_layernorm", {{"attn_norm"}}},
                        {"self_attn.q_proj", {{"attn_q", query, true}}},
                        {"self_attn.k_proj", {{"attn_k", key_value, true}}},
                        {"self_attn.v_proj", {{"attn_v"}}},
                        {"self_attn.o_proj", {{"attn_output"}}},
                        {"post_attention_layernorm", {{"ffn_norm"}}},
                        {"mlp.gate_proj", {{"ffn_gate"}}},
                        {"mlp.up_proj", {{"ffn_up"}}},
                        {"mlp.down_proj", {{"ffn_down"}}},
                        {"model.embed_tokens", {{"token_embd"}}, false, module_role::table},
                        {"model.norm", {{"output_norm"}}, false},
                        {"lm_head", {{"output"}}, false, module_role::output}}};
        architecture mistral = llama;
        mistral.name = "mistral";
        mistral.hf_class = "MistralForCausalLM";
        return std::vector<architecture>{std::move(llama), std::move(mistral)};
    }();
    return known;
}

LOWRANK_BODY result<const architecture*> find_architecture(std::string_view model_type,
                                                           std::span<const architecture> among) {
    return detail::architecture_named("model_type", model_type, &architecture::name, among);
}
LOWRANK_BODY result<const architecture*> find_gguf_architecture(std::string_view name,
                                                                std::span<const architecture> among) {
    return detail::architecture_named("general.architecture", name, &architecture::gguf, among);
}

LOWRANK_BODY std::optional<module_match> find_module(const architecture& a, std::string_view hf_name) {
    const auto name = detail::split_module_name(hf_name, a.hf_layers);
    for (const architecture_module& m : a.modules) {
        if (m.is_in_layer == !name.layer.empty() && m.name == name.module) {
            return detail::match_of(a, m, name, 0);
        }
    }
    return std::nullopt;
}
LOWRANK_BODY std::optional<module_match> find_gguf_module(const architecture& a, std::string_view gguf) {
    const auto name = detail::split_module_name(gguf, a.gguf_layers);
    for (const architecture_module& m : a.modules) {
        for (std::size_t part = 0; part < m.parts.size(); ++part) {
            if (m.is_in_layer == !name.layer.empty() && m.parts[part].name == name.module) {
                return detail::match_of(a, m, name, part);
            }
        }
    }
    return std::nullopt;
}

LOWRANK_BODY status check_activation(const model_config& config, const architecture& a) {
    const bool is_same = config.hidden_act == a.hidden_act || (config.hidden_act == "swish" && a.hidden_act == "silu");
    if (!is_same) {
        return {errc::unsupported, "hidden_act is " + detail::in_quotes(config.hidden_act) + ", engines of " + a.gguf +
                                       " compute " + detail::in_quotes(a.hidden_act)};
    }
    if (config.partial_rotary_factor != 1) {
        return {errc::unsupported, "partial_rotary_factor is set: engines of " + a.gguf + " rotate whole heads"};
    }
    return {};
}

LOWRANK_BODY index heads_of(const gguf_part& part, const model_config& config) {
    switch (part.heads) {
        case head_count::query: return config.num_attention_heads;
        case head_count::key_value: return config.num_key_value_heads;
        case head_count::one: break;
    }
    return 1;
}

LOWRANK_BODY result<std::vector<index>> rows_of_parts(const architecture_module& module, const model_config& config,
                                                      index rows) {
    index shares = 0;
    for (const gguf_part& part : module.parts) {
        shares += heads_of(part, config);
    }
    std::vector<index> out;
    for (const gguf_part& part : module.parts) {
        const index heads = heads_of(part, config);
        out.push_back(module.parts.size() == 1 ? rows : rows / std::max<index>(shares, 1) * heads);
        const bool is_divided = module.parts.size() == 1 || (shares > 0 && rows % shares == 0);
        if (!is_divided || heads < 1 || (part.is_rotary && out.back() % (2 * heads) != 0)) {
            return status{errc::mismatch, "has " + std::to_string(rows) + " rows, which do not divide into " +
                                              (is_divided ? "pairs of its " + std::to_string(heads) : "its") +
                                              (is_divided ? " heads" : " parts")};
        }
    }
    return out;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_MODELS_ARCHITECTURE_IPP
