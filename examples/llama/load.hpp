// SPDX-License-Identifier: MIT
#ifndef LLAMA_LOAD_HPP
#define LLAMA_LOAD_HPP

/// \file
/// Models from and to Hugging Face folders: config.json with model.safetensors or its shards.
///
///     lowrank::result<llama::model<float>> m = llama::load("stories260K");
///     if (!m) return report(m.error().message);
///     llama::save(*m, "edited");
///
/// Every weight is checked before it is used: present, of the shape config.json implies, finite. A tensor this engine
/// would have to ignore is an error, because ignoring it would give plausible, wrong numbers.

#include <filesystem>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/containers/safetensors_writer.hpp>

#include "model.hpp"

namespace llama {

/// Reads and checks config.json in `folder`.
[[nodiscard]] inline result<config> load_config(const std::filesystem::path& folder) {
    auto file = lowrank::mapped_file::open(folder / "config.json");
    if (!file) {
        return file.error();
    }
    const auto bytes = file->bytes();
    return parse_config(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

/// Calls `visit(name, rows, cols)` for the tensors a checkpoint of this shape has, cols 0 for vectors, until it returns
/// false. Needs no memory, so that a file is compared with its config before anything is allocated.
template <class F>
bool for_each_tensor_shape(const config& c, F&& visit) {
    const index h = c.hidden_size;
    const auto projection = [&](const std::string& name, index out, index in, bool bias) {
        return visit(name + ".weight", out, in) && (!bias || visit(name + ".bias", out, 0));
    };
    bool more = visit("model.embed_tokens.weight", c.vocab_size, h) && visit("model.norm.weight", h, 0) &&
                (c.tie_word_embeddings || visit("lm_head.weight", c.vocab_size, h));
    for (index i = 0; more && i < c.num_hidden_layers; ++i) {
        const std::string at = "model.layers." + std::to_string(i) + ".";
        more = visit(at + "input_layernorm.weight", h, 0) && visit(at + "post_attention_layernorm.weight", h, 0) &&
               projection(at + "self_attn.q_proj", c.query_size(), h, c.attention_bias) &&
               projection(at + "self_attn.k_proj", c.key_size(), h, c.attention_bias) &&
               projection(at + "self_attn.v_proj", c.key_size(), h, c.attention_bias) &&
               projection(at + "self_attn.o_proj", h, c.query_size(), c.attention_bias) &&
               projection(at + "mlp.gate_proj", c.intermediate_size, h, c.mlp_bias) &&
               projection(at + "mlp.up_proj", c.intermediate_size, h, c.mlp_bias) &&
               projection(at + "mlp.down_proj", h, c.intermediate_size, c.mlp_bias);
    }
    return more;
}

/// Fails with one sentence unless the checkpoint has the tensors, of the shapes, that the config asks for, and no others.
[[nodiscard]] inline status check_tensors(const config& c, const lowrank::checkpoint& file) {
    status why = {};
    std::set<std::string, std::less<>> known;
    for_each_tensor_shape(c, [&](const std::string& name, index rows, index cols) {
        const auto* tensor = file.find(name);
        if (tensor == nullptr) {
            why = {errc::not_found, "the checkpoint has no tensor " + name + ", which config.json asks for"};
            return false;
        }
        std::vector<std::uint64_t> shape{static_cast<std::uint64_t>(rows)};
        if (cols > 0) {
            shape.push_back(static_cast<std::uint64_t>(cols));
        }
        if (tensor->shape != shape) {
            const auto in_words = [](const std::vector<std::uint64_t>& s) {
                std::string text;
                for (const auto n : s) {
                    text += (text.empty() ? "" : " x ") + std::to_string(n);
                }
                return text.empty() ? std::string("a scalar") : text;
            };
            why = {errc::mismatch,
                   "tensor " + name + " is " + in_words(tensor->shape) + ", config.json implies " + in_words(shape)};
            return false;
        }
        known.insert(name);
        return true;
    });
    if (!why) {
        return why;
    }
    for (const auto& place : file.tensors()) {
        // Old checkpoints store the rotation frequencies, and some a second copy of tied embeddings.
        const std::string& name = place.info->name;
        const bool harmless =
            name.ends_with("rotary_emb.inv_freq") || (c.tie_word_embeddings && name == "lm_head.weight");
        if (!harmless && !known.contains(name)) {
            if (c.is_quantized) {
                return {errc::unsupported,
                        "quantization_config of config.json is set, and this engine reads floats alone; 'lowrank "
                        "dequantize' writes them"};
            }
            return {errc::unsupported,
                    "tensor " + name + " is not part of the Llama architecture that config.json describes"};
        }
    }
    return {};
}

/// Reads a folder.
///
/// \return not_found for a missing file or tensor; invalid_format or mismatch for a config that makes no model or a
///         weight of another shape; unsupported for another architecture or a tensor this engine does not know;
///         non_finite for NaN or infinity in a weight.
template <real S = float>
[[nodiscard]] result<model<S>> load(const std::filesystem::path& folder) {
    auto read_config = load_config(folder);
    if (!read_config) {
        return read_config.error();
    }
    const config& c = *read_config;
    auto file = lowrank::checkpoint::open(folder);
    if (!file) {
        return file.error();
    }
    status why = check_tensors(c, *file);
    if (!why) {
        return why;
    }
    model<S> m = zero_model<S>(c);
    for_each_weight(m, [&](const std::string& name, weight_view<S> w) {
        if (!why) {
            return;
        }
        auto values = file->template matrix<S>(name);
        if (!values) {
            why = values.error();
        } else {
            w = *values;
        }
    });
    if (!why) {
        return why;
    }
    if (status finite = check(m); !finite) {
        return finite;
    }
    return m;
}

/// Writes config.json and model.safetensors in the model's scalar, each whole or not at all. Adapters and replaced
/// bases are not part of a checkpoint: merge them first.
/// \return mismatch while adapters or replaced bases are in place; io_failure from the system.
template <real S>
[[nodiscard]] status save(const model<S>& m, const std::filesystem::path& folder) {
    status why = {};
    for_each_projection(m, [&](const projection<S>& p) {
        if (why && (p.base || !p.adapters.empty())) {
            why = {errc::mismatch, p.name + " has an adapter or a replaced base; merge it before saving the model"};
        }
    });
    if (!why) {
        return why;
    }
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    if (error) {
        return {errc::io_failure, "cannot create the folder " + folder.string() + ": " + error.message()};
    }
    std::vector<lowrank::tensor_to_write> tensors;
    for_each_weight(m, [&](const std::string& name, lowrank::const_weight_view<S> w) {
        tensors.push_back(lowrank::borrowed_tensor<S>(name, w));
        if (name.ends_with("norm.weight") || name.ends_with(".bias")) {
            tensors.back().shape.resize(1);
        }
    });
    if (why = lowrank::write_safetensors(folder / "model.safetensors", std::move(tensors), {{"format", "pt"}}); !why) {
        return why;
    }
    return lowrank::write_file(folder / "config.json", to_json(m.shape));
}

}  // namespace llama

#endif  // LLAMA_LOAD_HPP
