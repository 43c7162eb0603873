// SPDX-License-Identifier: MIT
#include <lowrank/io/models/image_model.hpp>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <doctest/doctest.h>

using namespace lowrank;

namespace {

const image_model& model(std::string_view name) { return *find_image_model(name).value(); }

/// The names of all modules, with as many blocks as the model has.
std::vector<std::string> names_of(const image_model& m, bool original, const std::map<std::string, int>& blocks) {
    std::vector<std::string> out;
    for (const image_module& module : m.modules) {
        const std::vector<std::string> patterns =
            original ? std::vector<std::string>{module.original} : module.diffusers;
        int count = 1;
        for (const auto& [prefix, n] : blocks) {
            count = patterns.front().starts_with(prefix + ".{}") ? n : count;
        }
        for (const std::string& pattern : patterns) {
            for (int i = 0; i < count; ++i) {
                const std::vector<std::string> number = {std::to_string(i)};
                out.push_back(numbered(pattern, number));
            }
        }
    }
    return out;
}

std::size_t count_if_has(const std::vector<std::string>& names, const std::vector<std::string>& parts) {
    return static_cast<std::size_t>(std::count_if(names.begin(), names.end(), [&](const std::string& name) {
        return std::any_of(parts.begin(), parts.end(),
                           [&](const std::string& part) { return name.find(part) != std::string::npos; });
    }));
}

}  // namespace

TEST_CASE("image models have as many linear layers as kohya's tools find in them") {
    const std::vector<std::string> unet = {".to_", ".ff.", ".proj_in", ".proj_out"};
    CHECK(count_if_has(names_of(model("sdxl"), true, {}), unet) == 722);
    CHECK(count_if_has(names_of(model("sd15"), false, {}), unet) == 192);
    const auto flux = names_of(model("flux"), true, {{"double_blocks", 19}, {"single_blocks", 38}});
    CHECK(count_if_has(flux, {"attn.qkv", "attn.proj", "_mlp.", "_mod.", ".linear1", ".linear2", ".modulation."}) ==
          304);
}

TEST_CASE("names of published checkpoints and their diffusers names") {
    struct pair {
        const char* model;
        const char* original;
        const char* diffusers;
    };
    for (const pair& p : std::vector<pair>{
             {"sdxl", "input_blocks.4.1.transformer_blocks.1.attn2.to_k",
              "down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_k"},
             {"sdxl", "input_blocks.8.1.proj_in", "down_blocks.2.attentions.1.proj_in"},
             {"sdxl", "middle_block.1.transformer_blocks.9.ff.net.0.proj",
              "mid_block.attentions.0.transformer_blocks.9.ff.net.0.proj"},
             {"sdxl", "output_blocks.2.1.transformer_blocks.0.attn1.to_out.0",
              "up_blocks.0.attentions.2.transformer_blocks.0.attn1.to_out.0"},
             {"sdxl", "output_blocks.2.2.conv", "up_blocks.0.upsamplers.0.conv"},
             {"sdxl", "output_blocks.5.0.skip_connection", "up_blocks.1.resnets.2.conv_shortcut"},
             {"sdxl", "input_blocks.3.0.op", "down_blocks.0.downsamplers.0.conv"},
             {"sdxl", "label_emb.0.2", "add_embedding.linear_2"},
             {"sd15", "output_blocks.2.1.conv", "up_blocks.0.upsamplers.0.conv"},
             {"sd15", "output_blocks.5.2.conv", "up_blocks.1.upsamplers.0.conv"},
             {"sd15", "output_blocks.11.1.proj_out", "up_blocks.3.attentions.2.proj_out"},
             {"sd15", "input_blocks.1.1.norm", "down_blocks.0.attentions.0.norm"},
             {"flux", "single_blocks.37.modulation.lin", "single_transformer_blocks.37.norm.linear"},
             {"flux", "guidance_in.out_layer", "time_text_embed.guidance_embedder.linear_2"},
             {"flux", "double_blocks.18.txt_mlp.2", "transformer_blocks.18.ff_context.net.2"},
             {"sd3", "joint_blocks.3.context_block.adaLN_modulation.1", "transformer_blocks.3.norm1_context.linear"},
             {"sd3", "y_embedder.mlp.0", "time_text_embed.text_embedder.linear_1"},
             {"wan", "blocks.39.cross_attn.v_img", "blocks.39.attn2.add_v_proj"},
             {"wan", "time_projection.1", "condition_embedder.time_proj"},
             {"qwen_image", "transformer_blocks.59.img_mod.1", "transformer_blocks.59.img_mod.1"}}) {
        CAPTURE(p.original);
        const auto from = find_image_module(model(p.model), p.original);
        const auto to = find_image_module(model(p.model), std::string("transformer.") + p.diffusers);
        REQUIRE(from);
        REQUIRE(to);
        CHECK(from->module == to->module);
        CHECK(from->numbers == to->numbers);
        CHECK(numbered(from->module->diffusers.front(), from->numbers) == p.diffusers);
        CHECK(numbered(from->module->original, from->numbers) == p.original);
    }
}

TEST_CASE("every name is found again, with dots and without, and no two are one") {
    for (const image_model& m : image_models()) {
        CAPTURE(m.name);
        std::map<std::string, const image_module*> flat;
        for (const image_module& module : m.modules) {
            std::vector<std::string> patterns = module.diffusers;
            patterns.push_back(module.original);
            for (const std::string& pattern : patterns) {
                CAPTURE(pattern);
                const std::vector<std::string> numbers = {"7"};
                std::string name = numbered(pattern, numbers);
                const auto dotted = find_image_module(m, name);
                REQUIRE(dotted);
                CHECK(dotted->module == &module);
                std::replace(name.begin(), name.end(), '.', '_');
                const auto found = find_image_module(m, "lora_unet_" + name);
                REQUIRE(found);
                CHECK(found->module == &module);
                const auto [at, is_new] = flat.emplace(name, &module);
                CHECK(at->second == &module);
            }
        }
    }
}

TEST_CASE("prefixes say the component, and parts are counted") {
    const auto place = [](const char* name) { return find_image_module(model("flux"), name); };
    const char* layer = "text_model_encoder_layers_11_mlp_fc1";
    CHECK(place((std::string("lora_te1_") + layer).c_str())->component == image_component::text_encoder);
    CHECK(place((std::string("lora_te2_") + layer).c_str())->component == image_component::text_encoder_2);
    CHECK(place("text_encoder_2.encoder.block.3.layer.0.SelfAttention.q")->component ==
          image_component::text_encoder_2);
    CHECK(place("lora_te3_encoder_block_3_layer_0_SelfAttention_q")->component == image_component::text_encoder_2);
    CHECK_FALSE(place(layer));  // nothing says that it is of a text encoder
    const auto qkv = place("lora_unet_double_blocks_2_img_attn_qkv");
    REQUIRE(qkv);
    CHECK(qkv->is_original);
    CHECK(qkv->count == 3);
    const auto v = place("transformer.single_transformer_blocks.12.attn.to_v");
    REQUIRE(v);
    CHECK_FALSE(v->is_original);
    CHECK(v->first == 2);
    CHECK(v->count == 1);
    CHECK(v->numbers == std::vector<std::string>{"12"});
    CHECK(place("single_blocks.0.qkv")->count == 3);            // XLabs: without the MLP
    CHECK_FALSE(place("blocks.double_blocks.2.img_attn.qkv"));  // never by its end
    CHECK_FALSE(place("double_blocks.x.img_attn.qkv"));
    CHECK_FALSE(place("double_blocks.2.img_attn.qkv2"));
    CHECK(find_image_model("sdxs").error().message.find("known: sdxl, sd15") != std::string::npos);
}
