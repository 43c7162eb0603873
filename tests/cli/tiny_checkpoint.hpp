// SPDX-License-Identifier: MIT
#ifndef LOWRANK_TESTS_CLI_TINY_CHECKPOINT_HPP
#define LOWRANK_TESTS_CLI_TINY_CHECKPOINT_HPP

/// \file
/// A complete Llama-type folder of a few kilobytes with random weights: config, weights, tokenizer.
///
///     write_tiny_checkpoint(folder / "model");

#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include <lowrank/core/philox.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/factored_algebra.hpp>
#include <lowrank/io/containers/safetensors.hpp>

#include "process.hpp"

namespace lowrank_tests {

inline constexpr lowrank::index tiny_hidden = 16;
inline constexpr lowrank::index tiny_inner = 24;
inline constexpr lowrank::index tiny_layers = 2;
inline constexpr lowrank::index tiny_vocab = 288;

inline const char* tiny_config() {
    return R"({
  "architectures": ["LlamaForCausalLM"],
  "model_type": "llama",
  "hidden_act": "silu",
  "hidden_size": 16,
  "intermediate_size": 24,
  "num_hidden_layers": 2,
  "num_attention_heads": 2,
  "num_key_value_heads": 1,
  "vocab_size": 288,
  "max_position_embeddings": 64,
  "rms_norm_eps": 1e-05,
  "rope_theta": 10000.0,
  "tie_word_embeddings": true,
  "bos_token_id": 1,
  "eos_token_id": 2,
  "torch_dtype": "float32"
})";
}

using tiny_weights = std::map<std::string, lowrank::row_matrix<float>>;

/// The weights by name, uniform and reproducible; norms are vectors of ones.
inline tiny_weights make_tiny_weights() {
    tiny_weights weights;
    std::uint64_t stream = 0;
    const auto add = [&](const std::string& name, lowrank::index rows, lowrank::index cols) {
        lowrank::row_matrix<float> w(rows, cols);
        const float limit = 1.5F / std::sqrt(static_cast<float>(cols));
        lowrank::fill_uniform(w, -limit, limit, lowrank::philox(11, stream++));
        weights[name] = std::move(w);
    };
    add("model.embed_tokens.weight", tiny_vocab, tiny_hidden);
    for (lowrank::index layer = 0; layer < tiny_layers; ++layer) {
        const std::string p = "model.layers." + std::to_string(layer) + ".";
        add(p + "self_attn.q_proj.weight", tiny_hidden, tiny_hidden);
        add(p + "self_attn.k_proj.weight", tiny_hidden / 2, tiny_hidden);
        add(p + "self_attn.v_proj.weight", tiny_hidden / 2, tiny_hidden);
        add(p + "self_attn.o_proj.weight", tiny_hidden, tiny_hidden);
        add(p + "mlp.gate_proj.weight", tiny_inner, tiny_hidden);
        add(p + "mlp.up_proj.weight", tiny_inner, tiny_hidden);
        add(p + "mlp.down_proj.weight", tiny_hidden, tiny_inner);
        weights[p + "input_layernorm.weight"] = lowrank::row_matrix<float>::Ones(tiny_hidden, 1);
        weights[p + "post_attention_layernorm.weight"] = lowrank::row_matrix<float>::Ones(tiny_hidden, 1);
    }
    weights["model.norm.weight"] = lowrank::row_matrix<float>::Ones(tiny_hidden, 1);
    return weights;
}

/// A llama2.c tokenizer with byte tokens 3..258 and a few letters.
inline std::string tiny_tokenizer() {
    std::string bytes;
    const auto put = [&](const auto& value) {
        const std::size_t at = bytes.size();
        bytes.resize(at + sizeof value);
        std::memcpy(bytes.data() + at, &value, sizeof value);
    };
    std::vector<std::string> tokens = {"<unk>", "\n<s>\n", "\n</s>\n"};
    for (int b = 0; b < 256; ++b) {
        char text[8];
        std::snprintf(text, sizeof text, "<0x%02X>", static_cast<unsigned>(b));
        tokens.emplace_back(text);
    }
    const std::string letters = " abcdefghijklmnopqrstuvwxyz,.";
    for (lowrank::index i = 259; i < tiny_vocab; ++i) {
        tokens.emplace_back(1, letters[static_cast<std::size_t>(i - 259)]);
    }
    put(std::int32_t{8});
    for (const auto& t : tokens) {
        put(-1.0F * static_cast<float>(bytes.size()));
        put(static_cast<std::int32_t>(t.size()));
        bytes += t;
    }
    return bytes;
}

/// Writes the folder. `change` may alter the weights first.
inline void write_tiny_checkpoint(const std::filesystem::path& folder,
                                  const std::function<void(tiny_weights&)>& change = {},
                                  const std::string& config = tiny_config()) {
    std::filesystem::create_directories(folder);
    tiny_weights weights = make_tiny_weights();
    if (change) {
        change(weights);
    }
    std::vector<lowrank::tensor_to_write> tensors;
    for (const auto& [name, w] : weights) {
        std::vector<std::uint64_t> shape = {static_cast<std::uint64_t>(w.rows())};
        if (w.cols() != 1) {
            shape.push_back(static_cast<std::uint64_t>(w.cols()));
        }
        tensors.push_back(
            {name, lowrank::dtype::f32, shape, std::as_bytes(std::span(w.data(), static_cast<std::size_t>(w.size())))});
    }
    lowrank::throw_if_failed(
        lowrank::write_safetensors(folder / "model.safetensors", std::move(tensors), {{"format", "pt"}}));
    write_text(folder / "config.json", config);
    write_text(folder / "tokenizer.bin", tiny_tokenizer());
}

}  // namespace lowrank_tests

#endif  // LOWRANK_TESTS_CLI_TINY_CHECKPOINT_HPP
