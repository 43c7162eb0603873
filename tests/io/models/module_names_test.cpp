// SPDX-License-Identifier: MIT
#include <lowrank/io/models/module_names.hpp>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/io/containers/checkpoint.hpp>

#include "io_support.hpp"

using namespace lowrank;

TEST_CASE("a path means the module it is, with known wrappers taken off both") {
    const module_names text({"model.layers.0.self_attn.q_proj", "lm_head"});
    for (const char* name :
         {"model.layers.0.self_attn.q_proj", "layers.0.self_attn.q_proj",
          "base_model.model.model.layers.0.self_attn.q_proj", "_orig_mod.model.layers.0.self_attn.q_proj",
          "module.model.layers.0.self_attn.q_proj", "model.layers.0._orig_mod.self_attn.q_proj",
          "transformer.model.layers.0.self_attn.q_proj", "model.language_model.layers.0.self_attn.q_proj",
          "language_model.model.layers.0.self_attn.q_proj"}) {
        CHECK_MESSAGE(text.find(name).value() == "model.layers.0.self_attn.q_proj", name);
    }
    CHECK(text.find("model.lm_head").value() == "lm_head");
    const module_names with_towers({"model.language_model.layers.0.mlp.up_proj", "model.visual.layers.0.mlp.up_proj"});
    CHECK(with_towers.find("model.layers.0.mlp.up_proj").value() == "model.language_model.layers.0.mlp.up_proj");
    CHECK(with_towers.find("visual.layers.0.mlp.up_proj").value() == "model.visual.layers.0.mlp.up_proj");
    const module_names compiled({"_orig_mod.model.layers.0._orig_mod.mlp.up_proj"});
    CHECK(compiled.find("model.layers.0.mlp.up_proj").value() == "_orig_mod.model.layers.0._orig_mod.mlp.up_proj");
}

TEST_CASE("no other part of a path is left out, and two meanings are refused") {
    const module_names base({"to_k", "a.to_k", "text_encoder.b", "unet.b"});
    for (const char* name : {"mid_block.to_k", "x.a.to_k", "a.to", "to_k.a"}) {
        const auto none = base.find(name);
        REQUIRE_MESSAGE(!none, name);
        CHECK(none.error().code == errc::not_found);
        CHECK_MESSAGE(none.error().message.find("to_k\"") != std::string::npos, none.error().message);
    }
    CHECK(base.find("unet.b").value() == "unet.b");
    const auto two = base.find("transformer.b");
    REQUIRE_FALSE(two);
    CHECK(two.error().code == errc::mismatch);
    CHECK(two.error().message.find("may mean \"text_encoder.b\" and \"unet.b\"") != std::string::npos);
}

TEST_CASE("flattened names are whole names behind a known prefix") {
    const module_names base({"net.a_b.c", "net.a.b_c", "blocks.1.attn", "blocks.11.attn", "a.to_k", "b.a.to_k", "to_k",
                             "blocks.0.self_attn.q_proj"});
    const std::pair<const char*, const char*> right[] = {{"lora_unet_blocks_11_attn", "blocks.11.attn"},
                                                         {"lora_unet_blocks_1_attn", "blocks.1.attn"},
                                                         {"lora_unet__blocks_1_attn", "blocks.1.attn"},
                                                         {"lora_unet_b_a_to_k", "b.a.to_k"},
                                                         {"lora_te1_a_to_k", "a.to_k"},
                                                         {"lycoris_to_k", "to_k"},
                                                         {"blocks_1_attn", "blocks.1.attn"},
                                                         {"lora_transformer_a_to_k", "a.to_k"}};
    for (const auto& name : right) {
        CHECK_MESSAGE(base.find_flat(name.first).value() == name.second, name.first);
    }
    for (const char* flat : {"lora_unet_mid_block_a_to_k", "lora_te_zzz_to_k", "lora_other_to_k",
                             "lora_unet_llm_adapter_blocks_0_self_attn_q_proj"}) {
        CHECK_MESSAGE(base.find_flat(flat).error().code == errc::not_found, flat);
    }
    CHECK(base.find_flat("lora_unet_net_a_b_c").error().code == errc::mismatch);
    const module_names wrapped({"model.diffusion_model.blocks.0.attn"});  // ComfyUI's checkpoints
    CHECK(wrapped.find_flat("lora_unet_blocks_0_attn").value() == "model.diffusion_model.blocks.0.attn");
    const module_names bare({"encoder.layers.0.mlp.fc1"});
    CHECK(bare.find_flat("lora_te_text_model_encoder_layers_0_mlp_fc1").value() == "encoder.layers.0.mlp.fc1");
}

TEST_CASE("what stands between two names is said") {
    CHECK(wrapper_in_words("model.layers.0.q", "model.language_model.layers.0.q") ==
          "names of the adapter have \"model\" where those of the model have \"model.language_model\"");
    CHECK(wrapper_in_words("transformer.h.0.c", "h.0.c") ==
          "names of the adapter have \"transformer\" where those of the model have nothing");
}

TEST_CASE("modules of a checkpoint are named by what holds their weight") {
    lowrank_tests::temporary_folder folder;
    REQUIRE(write_safetensors(
        folder / "m", {lowrank_tests::tensor_of_ones("a.weight", {2, 2}), lowrank_tests::tensor_of_ones("a.bias", {2}),
                       lowrank_tests::tensor_of_ones("b.qweight", {2, 2}), lowrank_tests::tensor_of_ones("c", {1})}));
    CHECK(modules_of(*checkpoint::open(folder / "m")).all() == std::vector<std::string>{"a", "b"});
}

TEST_CASE("names that may be missing are looked up as the others, without a message") {
    const module_names names({"model.layers.0.up", "unet.mid.to_k", "a.x", "module.a.x"});
    for (const char* path : {"model.layers.0.up", "layers.0.up", "layers.1.up", "to_k"}) {
        CAPTURE(path);
        const auto found = names.find(path);
        CHECK(names.find_if_there(path) == (found ? std::optional(*found) : std::nullopt));
    }
    for (const char* name : {"lora_unet_mid_to_k", "lora_unet__mid_to_k", "lora_unet_to_k"}) {
        CAPTURE(name);
        const auto found = names.find_flat(name);
        CHECK(names.find_flat_if_there(name) == (found ? std::optional(*found) : std::nullopt));
    }
    CHECK(names.find("base_model.model.a.x").error().code == errc::mismatch);  // either of two
    CHECK_FALSE(names.find_if_there("base_model.model.a.x"));
    const module_names flat({"net.a_b", "net.a.b"});
    CHECK(flat.find_flat("lora_unet_net_a_b").error().code == errc::mismatch);
    CHECK_FALSE(flat.find_flat_if_there("lora_unet_net_a_b"));
}
