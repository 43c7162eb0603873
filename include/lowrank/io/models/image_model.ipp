// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_MODELS_IMAGE_MODEL_IPP
#define LOWRANK_IO_MODELS_IMAGE_MODEL_IPP

#include <lowrank/io/models/image_model.hpp>

#include <algorithm>
#include <initializer_list>
#include <utility>

#include <lowrank/io/containers/detail/text.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

using image_modules = std::vector<image_module>;

/// Pairs of names that differ, both after a prefix of their own.
LOWRANK_API void add_pairs(image_modules& to, const std::string& original, const std::string& diffusers,
                           std::initializer_list<std::pair<const char*, const char*>> names) {
    for (const auto& [from, name] : names) {
        to.push_back({.original = original + from, .diffusers = {diffusers + name}});
    }
}

/// Names that both have, after a prefix of their own.
LOWRANK_API void add_same(image_modules& to, const std::string& original, const std::string& diffusers,
                          std::initializer_list<const char*> names) {
    for (const char* name : names) {
        to.push_back({.original = original + name, .diffusers = {diffusers + name}});
    }
}

/// The same under the suffixes of three projections that the original keeps in one.
LOWRANK_API void add_fused(image_modules& to, const std::string& original, const std::string& diffusers,
                           std::initializer_list<const char*> parts, image_rows rows = image_rows::equal_parts) {
    image_module m{.original = original, .rows = rows};
    for (const char* part : parts) {
        m.diffusers.push_back(diffusers + part);
    }
    to.push_back(std::move(m));
}

/// The UNet of latent diffusion: `depths` has the transformer blocks in each attention of a level, 0 for a level without.
LOWRANK_API [[nodiscard]] image_modules unet_modules(const std::vector<int>& depths) {
    constexpr int layers = 2;
    const int levels = static_cast<int>(depths.size());
    image_modules out;
    const auto number = [](int i) { return std::to_string(i); };
    const auto add_resnet = [&](const std::string& original, const std::string& diffusers) {
        add_pairs(out, original, diffusers,
                  {{".in_layers.0", ".norm1"},
                   {".in_layers.2", ".conv1"},
                   {".emb_layers.1", ".time_emb_proj"},
                   {".out_layers.0", ".norm2"},
                   {".out_layers.3", ".conv2"},
                   {".skip_connection", ".conv_shortcut"}});
    };
    const auto add_attention = [&](const std::string& original, const std::string& diffusers, int depth) {
        add_same(out, original, diffusers, {".norm", ".proj_in", ".proj_out"});
        for (int k = 0; k < depth; ++k) {
            const std::string block = ".transformer_blocks." + number(k);
            add_same(out, original + block, diffusers + block,
                     {".norm1", ".norm2", ".norm3", ".attn1.to_q", ".attn1.to_k", ".attn1.to_v", ".attn1.to_out.0",
                      ".attn2.to_q", ".attn2.to_k", ".attn2.to_v", ".attn2.to_out.0", ".ff.net.0.proj", ".ff.net.2"});
        }
    };
    add_pairs(out, "", "",
              {{"input_blocks.0.0", "conv_in"},
               {"time_embed.0", "time_embedding.linear_1"},
               {"time_embed.2", "time_embedding.linear_2"},
               {"label_emb.0.0", "add_embedding.linear_1"},
               {"label_emb.0.2", "add_embedding.linear_2"},
               {"out.0", "conv_norm_out"},
               {"out.2", "conv_out"}});
    for (int b = 0; b < levels; ++b) {
        const std::string down = "down_blocks." + number(b);
        const int depth = depths[static_cast<std::size_t>(b)];
        for (int j = 0; j < layers; ++j) {
            const std::string block = "input_blocks." + number(1 + b * (layers + 1) + j);
            add_resnet(block + ".0", down + ".resnets." + number(j));
            if (depth > 0) {
                add_attention(block + ".1", down + ".attentions." + number(j), depth);
            }
        }
        if (b + 1 < levels) {
            add_pairs(out, "input_blocks." + number(1 + b * (layers + 1) + layers), down,
                      {{".0.op", ".downsamplers.0.conv"}});
        }
    }
    add_resnet("middle_block.0", "mid_block.resnets.0");
    add_attention("middle_block.1", "mid_block.attentions.0", std::max(depths.back(), depths[depths.size() - 2]));
    add_resnet("middle_block.2", "mid_block.resnets.1");
    for (int b = 0; b < levels; ++b) {
        const std::string up = "up_blocks." + number(b);
        const int depth = depths[static_cast<std::size_t>(levels - 1 - b)];
        for (int j = 0; j <= layers; ++j) {
            const std::string block = "output_blocks." + number(b * (layers + 1) + j);
            add_resnet(block + ".0", up + ".resnets." + number(j));
            if (depth > 0) {
                add_attention(block + ".1", up + ".attentions." + number(j), depth);
            }
            if (j == layers && b + 1 < levels) {  // the upsampler comes last, after an attention if there is one
                add_pairs(out, block + (depth > 0 ? ".2" : ".1"), up, {{".conv", ".upsamplers.0.conv"}});
            }
        }
    }
    return out;
}

LOWRANK_API [[nodiscard]] image_modules flux_modules() {
    image_modules out;
    const std::string two = "double_blocks.{}.", one = "single_blocks.{}.";
    const std::string to_two = "transformer_blocks.{}.", to_one = "single_transformer_blocks.{}.";
    add_fused(out, two + "img_attn.qkv", to_two + "attn.", {"to_q", "to_k", "to_v"});
    add_fused(out, two + "txt_attn.qkv", to_two + "attn.", {"add_q_proj", "add_k_proj", "add_v_proj"});
    add_pairs(out, two, to_two,
              {{"img_attn.proj", "attn.to_out.0"},
               {"txt_attn.proj", "attn.to_add_out"},
               {"img_attn.norm.query_norm", "attn.norm_q"},
               {"img_attn.norm.key_norm", "attn.norm_k"},
               {"txt_attn.norm.query_norm", "attn.norm_added_q"},
               {"txt_attn.norm.key_norm", "attn.norm_added_k"},
               {"img_mlp.0", "ff.net.0.proj"},
               {"img_mlp.2", "ff.net.2"},
               {"txt_mlp.0", "ff_context.net.0.proj"},
               {"txt_mlp.2", "ff_context.net.2"},
               {"img_mod.lin", "norm1.linear"},
               {"txt_mod.lin", "norm1_context.linear"}});
    add_fused(out, one + "linear1", to_one, {"attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"},
              image_rows::rest_is_last);
    out.back().leading_parts = one + "qkv";  // XLabs
    out.back().leading_count = 3;
    add_pairs(out, one, to_one,
              {{"linear2", "proj_out"},
               {"modulation.lin", "norm.linear"},
               {"norm.query_norm", "attn.norm_q"},
               {"norm.key_norm", "attn.norm_k"}});
    add_pairs(out, "", "",
              {{"img_in", "x_embedder"},
               {"txt_in", "context_embedder"},
               {"time_in.in_layer", "time_text_embed.timestep_embedder.linear_1"},
               {"time_in.out_layer", "time_text_embed.timestep_embedder.linear_2"},
               {"vector_in.in_layer", "time_text_embed.text_embedder.linear_1"},
               {"vector_in.out_layer", "time_text_embed.text_embedder.linear_2"},
               {"guidance_in.in_layer", "time_text_embed.guidance_embedder.linear_1"},
               {"guidance_in.out_layer", "time_text_embed.guidance_embedder.linear_2"},
               {"final_layer.linear", "proj_out"}});
    out.push_back({.original = "final_layer.adaLN_modulation.1",
                   .diffusers = {"norm_out.linear"},
                   .rows = image_rows::swapped_halves});
    return out;
}

LOWRANK_API [[nodiscard]] image_modules sd3_modules() {
    image_modules out;
    const std::string x = "joint_blocks.{}.x_block.", context = "joint_blocks.{}.context_block.";
    const std::string to = "transformer_blocks.{}.";
    add_fused(out, x + "attn.qkv", to + "attn.", {"to_q", "to_k", "to_v"});
    add_fused(out, x + "attn2.qkv", to + "attn2.", {"to_q", "to_k", "to_v"});
    add_fused(out, context + "attn.qkv", to + "attn.", {"add_q_proj", "add_k_proj", "add_v_proj"});
    add_pairs(out, x, to,
              {{"attn.proj", "attn.to_out.0"},
               {"attn2.proj", "attn2.to_out.0"},
               {"mlp.fc1", "ff.net.0.proj"},
               {"mlp.fc2", "ff.net.2"},
               {"adaLN_modulation.1", "norm1.linear"}});
    add_pairs(out, context, to,
              {{"attn.proj", "attn.to_add_out"},
               {"mlp.fc1", "ff_context.net.0.proj"},
               {"mlp.fc2", "ff_context.net.2"},
               {"adaLN_modulation.1", "norm1_context.linear"}});
    add_pairs(out, "", "",
              {{"x_embedder.proj", "pos_embed.proj"},
               {"context_embedder", "context_embedder"},
               {"t_embedder.mlp.0", "time_text_embed.timestep_embedder.linear_1"},
               {"t_embedder.mlp.2", "time_text_embed.timestep_embedder.linear_2"},
               {"y_embedder.mlp.0", "time_text_embed.text_embedder.linear_1"},
               {"y_embedder.mlp.2", "time_text_embed.text_embedder.linear_2"},
               {"final_layer.linear", "proj_out"}});
    out.push_back({.original = "final_layer.adaLN_modulation.1",
                   .diffusers = {"norm_out.linear"},
                   .rows = image_rows::swapped_halves});
    return out;
}

LOWRANK_API [[nodiscard]] image_modules wan_modules() {
    image_modules out;
    const std::string block = "blocks.{}.";
    for (const auto& [from, to] : {std::pair("self_attn.", "attn1."), std::pair("cross_attn.", "attn2.")}) {
        add_pairs(out, block + from, block + to,
                  {{"q", "to_q"},
                   {"k", "to_k"},
                   {"v", "to_v"},
                   {"o", "to_out.0"},
                   {"norm_q", "norm_q"},
                   {"norm_k", "norm_k"}});
    }
    add_pairs(out, block, block,
              {{"cross_attn.k_img", "attn2.add_k_proj"},
               {"cross_attn.v_img", "attn2.add_v_proj"},
               {"cross_attn.norm_k_img", "attn2.norm_added_k"},
               {"ffn.0", "ffn.net.0.proj"},
               {"ffn.2", "ffn.net.2"},
               {"norm3", "norm2"}});
    add_pairs(out, "", "",
              {{"patch_embedding", "patch_embedding"},
               {"time_embedding.0", "condition_embedder.time_embedder.linear_1"},
               {"time_embedding.2", "condition_embedder.time_embedder.linear_2"},
               {"text_embedding.0", "condition_embedder.text_embedder.linear_1"},
               {"text_embedding.2", "condition_embedder.text_embedder.linear_2"},
               {"time_projection.1", "condition_embedder.time_proj"},
               {"head.head", "proj_out"}});
    return out;
}

LOWRANK_API [[nodiscard]] image_modules qwen_image_modules() {
    image_modules out;
    add_same(
        out, "transformer_blocks.{}.", "transformer_blocks.{}.",
        {"attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "attn.add_q_proj", "attn.add_k_proj",
         "attn.add_v_proj", "attn.to_add_out", "attn.norm_q", "attn.norm_k", "attn.norm_added_q", "attn.norm_added_k",
         "img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.0.proj", "txt_mlp.net.2", "img_mod.1", "txt_mod.1"});
    add_same(out, "", "",
             {"img_in", "txt_in", "txt_norm", "proj_out", "norm_out.linear",
              "time_text_embed.timestep_embedder.linear_1", "time_text_embed.timestep_embedder.linear_2"});
    return out;
}

/// CLIP's text models, as transformers names them.
LOWRANK_API [[nodiscard]] image_modules clip_modules() {
    image_modules out;
    const std::string layer = "text_model.encoder.layers.{}.";
    add_same(out, layer, layer,
             {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2",
              "layer_norm1", "layer_norm2"});
    add_same(out, "", "",
             {"text_model.embeddings.token_embedding", "text_model.embeddings.position_embedding",
              "text_model.final_layer_norm", "text_projection"});
    return out;
}

LOWRANK_API [[nodiscard]] image_modules t5_modules() {
    image_modules out;
    const std::string block = "encoder.block.{}.";
    add_same(out, block, block,
             {"layer.0.SelfAttention.q", "layer.0.SelfAttention.k", "layer.0.SelfAttention.v",
              "layer.0.SelfAttention.o", "layer.0.layer_norm", "layer.1.DenseReluDense.wi_0",
              "layer.1.DenseReluDense.wi_1", "layer.1.DenseReluDense.wo", "layer.1.layer_norm"});
    add_same(out, "", "", {"shared", "encoder.final_layer_norm"});
    return out;
}

/// What stands before a name, and the component that it says. The longest that fits is taken off.
struct image_prefix {
    std::string_view text;
    image_component component;
};
inline constexpr image_prefix image_prefixes[] = {
    {"base_model.model.", image_component::backbone},
    {"unet.base_model.model.", image_component::backbone},
    {"transformer.base_model.model.", image_component::backbone},
    {"model.diffusion_model.", image_component::backbone},
    {"diffusion_model.", image_component::backbone},
    {"transformer.", image_component::backbone},
    {"unet.", image_component::backbone},
    {"lora_unet__", image_component::backbone},
    {"lora_unet_", image_component::backbone},
    {"lora_transformer_", image_component::backbone},
    {"lycoris_", image_component::backbone},
    {"text_encoder.", image_component::text_encoder},
    {"text_encoder_2.", image_component::text_encoder_2},
    {"text_encoder_3.", image_component::text_encoder_3},
    {"text_encoders.clip_l.transformer.", image_component::text_encoder},
    {"text_encoders.clip_g.transformer.", image_component::text_encoder_2},
    {"text_encoders.t5xxl.transformer.", image_component::text_encoder_3},
    {"lora_te_", image_component::text_encoder},
    {"lora_te1_", image_component::text_encoder},
    {"lora_te2_", image_component::text_encoder_2},
    {"lora_te3_", image_component::text_encoder_3},
};

/// The numbers of a name that has a pattern, dots being `dot`; nothing if it has another.
LOWRANK_API [[nodiscard]] std::optional<std::vector<std::string>> match_pattern(std::string_view pattern,
                                                                                std::string_view name, char dot) {
    std::vector<std::string> numbers;
    std::size_t at = 0;
    for (std::size_t i = 0; i < pattern.size(); ++i) {
        if (pattern[i] == '{') {
            const std::size_t begin = at;
            while (at < name.size() && name[at] >= '0' && name[at] <= '9') {
                ++at;
            }
            if (at == begin) {
                return std::nullopt;
            }
            numbers.emplace_back(name.substr(begin, at - begin));
            ++i;
        } else if (at == name.size() || name[at++] != (pattern[i] == '.' ? dot : pattern[i])) {
            return std::nullopt;
        }
    }
    return at == name.size() ? std::optional(std::move(numbers)) : std::nullopt;
}

/// The module of a list that has a name.
LOWRANK_API [[nodiscard]] std::optional<image_place> place_among(std::span<const image_module> modules,
                                                                 std::string_view name) {
    const char dot = name.find('.') == std::string_view::npos ? '_' : '.';
    for (const image_module& m : modules) {
        image_place place{.module = &m};
        const auto is = [&](std::string_view pattern, std::size_t first, std::size_t count) {
            auto numbers = match_pattern(pattern, name, dot);
            place.numbers = numbers ? std::move(*numbers) : place.numbers;
            place.first = first;
            place.count = count;
            return numbers.has_value();
        };
        for (std::size_t i = 0; i < m.diffusers.size(); ++i) {
            if (is(m.diffusers[i], i, 1)) {
                return place;
            }
        }
        place.is_original = true;
        if (is(m.original, 0, m.diffusers.size()) ||
            (m.leading_count != 0 && is(m.leading_parts, 0, m.leading_count))) {
            return place;
        }
    }
    return std::nullopt;
}

}  // namespace detail

LOWRANK_BODY std::span<const image_model> image_models() {
    using detail::image_modules;
    static const image_modules sdxl = detail::unet_modules({0, 2, 10}), sd15 = detail::unet_modules({1, 1, 1, 0}),
                               flux = detail::flux_modules(), sd3 = detail::sd3_modules(), wan = detail::wan_modules(),
                               qwen = detail::qwen_image_modules();
    static const image_model all[] = {
        {.name = "sdxl", .title = "SDXL", .backbone = "unet", .modules = sdxl},
        {.name = "sd15",
         .title = "Stable Diffusion 1 and 2",
         .backbone = "unet",
         .is_trained_on_original = false,
         .kohya_text_encoder = "lora_te_",
         .modules = sd15},
        {.name = "flux", .title = "FLUX.1", .t5 = image_component::text_encoder_2, .modules = flux},
        {.name = "sd3", .title = "Stable Diffusion 3", .modules = sd3},
        {.name = "wan", .title = "Wan", .t5 = image_component::text_encoder, .modules = wan},
        {.name = "qwen_image", .title = "Qwen-Image", .modules = qwen},
    };
    return all;
}

LOWRANK_BODY result<const image_model*> find_image_model(std::string_view name) {
    std::string known;
    for (const image_model& m : image_models()) {
        if (m.name == name) {
            return &m;
        }
        known += (known.empty() ? "" : ", ") + std::string(m.name);
    }
    return status{errc::unsupported, "there is no image model " + detail::in_quotes(name) + "; known: " + known};
}

LOWRANK_BODY std::string numbered(std::string_view pattern, std::span<const std::string> numbers) {
    std::string out;
    std::size_t n = 0;
    for (std::size_t i = 0; i < pattern.size(); ++i) {
        if (pattern[i] != '{') {
            out += pattern[i];
        } else {
            out += n < numbers.size() ? numbers[n++] : std::string();
            ++i;
        }
    }
    return out;
}

LOWRANK_BODY std::optional<image_place> find_image_module(const image_model& model, std::string_view name) {
    static const detail::image_modules clip = detail::clip_modules(), t5 = detail::t5_modules();
    auto component = image_component::backbone;
    std::size_t cut = 0;
    for (const detail::image_prefix& p : detail::image_prefixes) {
        if (p.text.size() > cut && name.starts_with(p.text)) {
            component = p.component;
            cut = p.text.size();
        }
    }
    name.remove_prefix(cut);
    if (component == image_component::backbone) {
        return detail::place_among(model.modules, name);
    }
    auto place = detail::place_among(clip, name);
    if (place) {
        place->component = component;
        return place;
    }
    place = detail::place_among(t5, name);
    if (place) {
        place->component = model.t5;
        place->is_t5 = true;
    }
    return place;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_MODELS_IMAGE_MODEL_IPP
