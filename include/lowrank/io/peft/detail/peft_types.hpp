// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_DETAIL_PEFT_TYPES_HPP
#define LOWRANK_IO_PEFT_DETAIL_PEFT_TYPES_HPP

/// \file
/// The adapter types of PEFT that are understood: which keys of adapter_config.json hold rank and alpha, which keys are
/// known, what a new file says.
///
///     detail::find_peft_type("LOHA")->alpha_key   // "alpha"

#include <algorithm>
#include <array>
#include <iterator>
#include <string_view>

#include <lowrank/core/config.hpp>
#include <lowrank/io/containers/detail/json.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// One value of peft_type. An absent key is null.
struct peft_type {
    std::string_view name;
    const char* r_key;
    double r;
    const char* alpha_key;
    double alpha;
    const char* dropout_key;
    bool ranks;   ///< Has a rank_pattern (AdaLoRA's, of another meaning, is in peft_kinds.hpp).
    bool alphas;  ///< Has an alpha_pattern.
};

inline constexpr std::array<peft_type, 13> peft_types{{
    {"LORA", "r", 8, "lora_alpha", 8, "lora_dropout", true, true},
    {"ADALORA", "init_r", 12, "lora_alpha", 8, "lora_dropout", false, false},
    {"LOHA", "r", 8, "alpha", 8, nullptr, true, true},
    {"LOKR", "r", 8, "alpha", 8, nullptr, true, true},
    {"VERA", "r", 256, nullptr, 0, "vera_dropout", false, false},
    {"IA3", nullptr, 0, nullptr, 0, nullptr, false, false},
    {"OFT", nullptr, 0, nullptr, 0, "module_dropout", false, false},
    {"BOFT", nullptr, 0, nullptr, 0, "boft_dropout", false, false},
    {"HRA", "r", 8, nullptr, 0, nullptr, false, false},
    {"MISS", "r", 64, nullptr, 0, "miss_dropout", false, false},
    {"BONE", "r", 64, nullptr, 0, nullptr, false, false},  // MiSS under its older name
    {"RANDLORA", "r", 32, "randlora_alpha", 640, "randlora_dropout", false, false},
    {"HIRA", "r", 32, nullptr, 0, "hira_dropout", true, false},
}};

[[nodiscard]] inline const peft_type* find_peft_type(std::string_view name) noexcept {
    const auto at =
        std::find_if(peft_types.begin(), peft_types.end(), [&](const peft_type& t) { return t.name == name; });
    return at != peft_types.end() ? &*at : nullptr;
}

/// The keys of the configurations of those types, in any release read so far.
inline constexpr std::string_view known_peft_keys[] = {
    "alora_invocation_tokens",
    "alpha",
    "alpha_pattern",
    "apply_GS",
    "arrow_config",
    "auto_mapping",
    "base_model_name_or_path",
    "beta1",
    "beta2",
    "bias",
    "block_share",
    "boft_block_num",
    "boft_block_size",
    "boft_dropout",
    "boft_n_butterfly_factor",
    "coft",
    "corda_config",
    "d_initial",
    "decompose_both",
    "decompose_factor",
    "deltaT",
    "ensure_weight_tying",
    "eps",
    "eva_config",
    "exclude_modules",
    "fan_in_fan_out",
    "feedforward_modules",
    "hira_dropout",
    "inference_mode",
    "init_ia3_weights",
    "init_lora_weights",
    "init_r",
    "init_weights",
    "kasa_config",
    "layer_replication",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_alpha",
    "lora_bias",
    "lora_dropout",
    "lora_ga_config",
    "megatron_config",
    "megatron_core",
    "mini_r",
    "miss_dropout",
    "module_dropout",
    "modules_to_save",
    "monteclora_config",
    "num_cayley_neumann_terms",
    "oft_block_size",
    "orth_reg_weight",
    "peft_type",
    "peft_version",
    "projection_prng_key",
    "qalora_group_size",
    "r",
    "randlora_alpha",
    "randlora_dropout",
    "rank_dropout",
    "rank_dropout_scale",
    "rank_pattern",
    "revision",
    "runtime_config",
    "save_projection",
    "sparse",
    "target_modules",
    "target_parameters",
    "target_r",
    "task_type",
    "tfinal",
    "tinit",
    "total_step",
    "trainable_token_indices",
    "use_bdlora",
    "use_cayley_neumann",
    "use_dora",
    "use_effective_conv2d",
    "use_qalora",
    "use_rslora",
    "velora_config",
    "vera_dropout",
    "very_sparse",
};

[[nodiscard]] inline bool is_known_peft_key(std::string_view key) {
    return std::find(std::begin(known_peft_keys), std::end(known_peft_keys), key) != std::end(known_peft_keys);
}

/// What a new adapter's file says besides the values of its config.
[[nodiscard]] inline json peft_defaults(std::string_view type) {
    json d = json::object();
    d["peft_type"] = type;
    d["inference_mode"] = true;
    for (const char* absent : {"auto_mapping", "revision"}) {
        d[absent] = nullptr;
    }
    if (type == "VERA" || type == "RANDLORA") {
        d["save_projection"] = true;
        d["projection_prng_key"] = 0;
    }
    constexpr std::string_view newer[] = {"OFT", "BOFT", "HRA", "MISS", "BONE", "RANDLORA", "HIRA"};
    if (std::find(std::begin(newer), std::end(newer), type) != std::end(newer)) {
        for (const char* absent : {"exclude_modules", "layers_pattern", "layers_to_transform"}) {
            d[absent] = nullptr;
        }
        d["init_weights"] = true;
        if (type != "HIRA") {
            d["bias"] = "none";
        }
        if (type == "OFT") {
            d["peft_version"] = "0.18.0";  // the first with the series that use_cayley_neumann stands for here
        }
        if (type == "RANDLORA") {
            d["sparse"] = false;
            d["very_sparse"] = false;
        }
    }
    if (type != "LORA") {
        return d;
    }
    for (const char* absent :
         {"alora_invocation_tokens", "corda_config", "eva_config", "exclude_modules", "layer_replication",
          "layers_pattern", "layers_to_transform", "megatron_config", "target_parameters", "trainable_token_indices"}) {
        d[absent] = nullptr;
    }
    d["use_qalora"] = false;
    d["init_lora_weights"] = true;
    d["loftq_config"] = json::object();
    d["megatron_core"] = "megatron.core";
    return d;
}

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_DETAIL_PEFT_TYPES_HPP
