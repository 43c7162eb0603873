// SPDX-License-Identifier: MIT
#include <lowrank/io/formats/image_names.hpp>

#include <algorithm>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include <lowrank/io/formats/adapter_files.hpp>
#include <lowrank/io/peft/kinds/loha.hpp>
#include <lowrank/io/peft/kinds/lora.hpp>

#include "io_support.hpp"
#include "support/matrices.hpp"

using namespace lowrank;
using namespace lowrank_tests;

namespace {

using modules = std::map<std::string, peft_module>;

const image_model& model(std::string_view name) { return *find_image_model(name).value(); }

lora_adapter<float> some(Eigen::Index out, Eigen::Index in, Eigen::Index rank, double alpha, unsigned seed) {
    return {
        .lora_A = gaussian<float>(rank, in, seed), .lora_B = gaussian<float>(out, rank, seed + 1), .lora_alpha = alpha};
}

bool same_bits(const matrix<float>& a, const matrix<float>& b) {
    return a.rows() == b.rows() && a.cols() == b.cols() &&
           std::memcmp(a.data(), b.data(), static_cast<std::size_t>(a.size()) * sizeof(float)) == 0;
}

void check_same(const modules& a, const modules& b) {
    REQUIRE(a.size() == b.size());
    for (const auto& entry : a) {
        CAPTURE(entry.first);
        REQUIRE(b.contains(entry.first));
        const auto &x = lora_of(entry.second), &y = lora_of(b.at(entry.first));
        CHECK(same_bits(x.lora_A, y.lora_A));
        CHECK(same_bits(x.lora_B, y.lora_B));
        CHECK(x.lora_alpha == y.lora_alpha);
    }
}

matrix<double> change(const peft_module& m) {
    const auto& lora = lora_of(m);
    return lora_scaling(lora.lora_alpha, lora.rank(), lora.use_rslora) * lora.lora_B.cast<double>() *
           lora.lora_A.cast<double>();
}

/// Flux at a width of 8, as kohya's tools train it.
modules kohya_flux() {
    modules out;
    unsigned seed = 1;
    for (const char* n : {"0", "18"}) {
        const std::string block = std::string("lora_unet_double_blocks_") + n + "_";
        for (const char* stream : {"img", "txt"}) {
            const std::string s = block + stream;
            out.emplace(s + "_attn_qkv", some(24, 8, 4, 2, seed += 2));
            out.emplace(s + "_attn_proj", some(8, 8, 4, 4, seed += 2));
            out.emplace(s + "_mlp_0", some(32, 8, 3, 1, seed += 2));
            out.emplace(s + "_mlp_2", some(8, 32, 4, 2, seed += 2));
            out.emplace(s + "_mod_lin", some(48, 8, 4, 2, seed += 2));
        }
    }
    out.emplace("lora_unet_single_blocks_37_linear1", some(56, 8, 5, 1, seed += 2));
    out.emplace("lora_unet_single_blocks_37_linear2", some(8, 40, 4, 2, seed += 2));
    out.emplace("lora_unet_single_blocks_37_modulation_lin", some(24, 8, 4, 2, seed += 2));
    out.emplace("lora_unet_final_layer_adaLN_modulation_1", some(16, 8, 4, 2, seed += 2));
    out.emplace("lora_te1_text_model_encoder_layers_0_mlp_fc1", some(12, 8, 4, 2, seed += 2));
    out.emplace("lora_te3_encoder_block_0_layer_1_DenseReluDense_wi_0", some(12, 8, 4, 2, seed += 2));
    return out;
}

/// The weights of a checkpoint after the merge, by name.
std::map<std::string, matrix<double>> changes(const modules& m) {
    std::map<std::string, matrix<double>> out;
    for (const auto& [name, module] : m) {
        out[name] = change(module);
    }
    return out;
}

}  // namespace

TEST_CASE("Flux: kohya to diffusers to kohya, bit for bit") {
    const modules before = kohya_flux();
    const auto there = rename_image_modules(before, model("flux"), image_naming::diffusers);
    REQUIRE(there);
    CHECK(there->unmapped.empty());
    for (const char* name :
         {"transformer.transformer_blocks.18.attn.to_q", "transformer.transformer_blocks.0.attn.add_v_proj",
          "transformer.single_transformer_blocks.37.proj_mlp", "transformer.norm_out.linear",
          "text_encoder.text_model.encoder.layers.0.mlp.fc1",
          "text_encoder_2.encoder.block.0.layer.1.DenseReluDense.wi_0"}) {
        CHECK_MESSAGE(there->modules.contains(name), name);
    }
    const auto back = rename_image_modules(there->modules, model("flux"), image_naming::kohya);
    REQUIRE(back);
    check_same(back->modules, before);

    // The parts change their rows as the whole does; the halves of the last modulation are swapped.
    const auto whole = change(before.at("lora_unet_double_blocks_0_img_attn_qkv"));
    const auto parts = changes(there->modules);
    CHECK((whole.middleRows(8, 8) - parts.at("transformer.transformer_blocks.0.attn.to_k")).norm() <
          1e-6 * whole.norm());
    const auto linear1 = change(before.at("lora_unet_single_blocks_37_linear1"));
    CHECK((linear1.bottomRows(32) - parts.at("transformer.single_transformer_blocks.37.proj_mlp")).norm() <
          1e-6 * linear1.norm());
    const auto last = change(before.at("lora_unet_final_layer_adaLN_modulation_1"));
    CHECK((last.topRows(8) - parts.at("transformer.norm_out.linear").bottomRows(8)).norm() < 1e-6 * last.norm());
}

TEST_CASE("diffusers to kohya to diffusers: separate factors become blocks and come back") {
    modules before;
    const std::string attn = "transformer.transformer_blocks.4.attn.";
    before.emplace(attn + "to_q", some(8, 8, 2, 6, 1));
    before.emplace(attn + "to_v", some(8, 8, 4, 12, 3));  // the same scaling, another rank; no k
    before.emplace(attn + "to_out.0", some(8, 8, 2, 6, 5));
    const std::string single = "transformer.single_transformer_blocks.1.";
    before.emplace(single + "attn.to_q", some(8, 8, 2, 2, 7));
    before.emplace(single + "attn.to_k", some(8, 8, 2, 2, 9));
    before.emplace(single + "attn.to_v", some(8, 8, 2, 2, 11));
    const auto there = rename_image_modules(before, model("flux"), image_naming::kohya);
    REQUIRE(there);
    const auto& qkv = lora_of(there->modules.at("lora_unet_double_blocks_4_img_attn_qkv"));
    CHECK(qkv.rank() == 6);
    CHECK(qkv.lora_alpha == 18);
    CHECK(qkv.lora_B.middleRows(8, 8).isZero(0));
    CHECK(lora_of(there->modules.at("lora_unet_single_blocks_1_linear1")).rows() ==
          56);  // an MLP is four times as wide
    const auto back = rename_image_modules(there->modules, model("flux"), image_naming::diffusers);
    REQUIRE(back);
    check_same(back->modules, before);
}

TEST_CASE("parts with scalings of their own keep them in B") {
    modules before;
    const std::string attn = "transformer.transformer_blocks.4.attn.";
    before.emplace(attn + "to_q", some(8, 8, 2, 6, 1));
    before.emplace(attn + "to_k", some(8, 8, 2, 1, 3));
    before.emplace(attn + "to_v", some(8, 8, 3, 5, 5));
    const auto there = rename_image_modules(before, model("flux"), image_naming::original);
    REQUIRE(there);
    const auto whole = change(there->modules.at("diffusion_model.double_blocks.4.img_attn.qkv"));
    Eigen::Index row = 0;
    for (const char* part : {"to_q", "to_k", "to_v"}) {
        const auto want = change(before.at(attn + part));
        CHECK((whole.middleRows(row, 8) - want).norm() < 1e-6 * want.norm());
        row += 8;
    }
}

TEST_CASE("an untrained adapter comes back with its own factors") {
    modules before;
    for (const char* part : {"to_q", "to_k", "to_v"}) {
        before.emplace(std::string("transformer.transformer_blocks.0.attn.") + part,
                       make_lora<float>(8, 8, {.r = 2, .lora_alpha = 2, .seed = static_cast<std::uint64_t>(part[3])}));
    }
    const auto there = rename_image_modules(before, model("flux"), image_naming::kohya);
    REQUIRE(there);
    const auto back = rename_image_modules(there->modules, model("flux"), image_naming::diffusers);
    REQUIRE(back);
    check_same(back->modules, before);
}

TEST_CASE("a magnitude goes with its rows") {
    peft_lora qkv{.lora = some(24, 8, 4, 2, 1)};
    qkv.magnitude = gaussian<float>(24, 1, 3).col(0);
    const modules before = {{"lora_unet_double_blocks_0_img_attn_qkv", qkv}};
    const auto there = rename_image_modules(before, model("flux"), image_naming::diffusers);
    REQUIRE(there);
    const auto* v = there->modules.at("transformer.transformer_blocks.0.attn.to_v").get<peft_lora>();
    REQUIRE(v != nullptr);
    CHECK(v->magnitude == qkv.magnitude.tail(8));
    auto parts = there->modules;
    const auto back = rename_image_modules(parts, model("flux"), image_naming::kohya);
    REQUIRE(back);
    CHECK(back->modules.begin()->second.get<peft_lora>()->magnitude == qkv.magnitude);
    parts.erase("transformer.transformer_blocks.0.attn.to_k");
    CHECK(rename_image_modules(parts, model("flux"), image_naming::kohya).error().message.find("some of its rows") !=
          std::string::npos);
}

TEST_CASE("what cannot be split or fused is refused, what is no module of the model is said") {
    const auto failure = [](modules m, image_naming to) {
        const auto out = rename_image_modules(std::move(m), model("flux"), to);
        return out ? status{} : out.error();
    };
    const modules odd = {{"lora_unet_double_blocks_0_img_attn_qkv", some(25, 8, 2, 1, 1)}};
    CHECK(failure(odd, image_naming::diffusers).code == errc::mismatch);
    const modules narrow = {{"lora_unet_single_blocks_0_linear1", some(24, 8, 2, 1, 1)}};
    CHECK(failure(narrow, image_naming::diffusers).message.find("24 rows and 8 inputs") != std::string::npos);
    loha_adapter<float> hada;
    hada.w1_a = gaussian<float>(24, 2, 1);
    hada.w1_b = gaussian<float>(2, 8, 2);
    hada.w2_a = gaussian<float>(24, 2, 3);
    hada.w2_b = gaussian<float>(2, 8, 4);
    const modules other = {{"lora_unet_double_blocks_0_img_attn_qkv", peft_module(hada)}};
    CHECK(failure(other, image_naming::diffusers).message.find("plain LoRA first") != std::string::npos);
    CHECK_FALSE(failure(other, image_naming::original).message.size());  // a new name is all it takes
    const modules twice = {{"transformer.transformer_blocks.0.attn.to_q", some(8, 8, 2, 1, 1)},
                           {"lora_unet_transformer_blocks_0_attn_to_q", some(8, 8, 2, 1, 1)}};
    CHECK(failure(twice, image_naming::diffusers).code == errc::invalid_format);
    CHECK(failure(twice, image_naming::kohya).code == errc::invalid_format);
    const modules unequal = {{"transformer.transformer_blocks.0.attn.to_q", some(8, 8, 2, 1, 1)},
                             {"transformer.transformer_blocks.0.attn.to_k", some(8, 9, 2, 1, 1)}};
    CHECK(failure(unequal, image_naming::kohya).code == errc::mismatch);
    const modules strange = {{"lora_unet_double_blocks_0_img_attn_qkv", some(24, 8, 2, 1, 1)},
                             {"lora_unet_control_0", some(8, 8, 2, 1, 1)}};
    const auto moved = rename_image_modules(strange, model("flux"), image_naming::diffusers);
    REQUIRE(moved);
    CHECK(moved->unmapped == std::vector<std::string>{"lora_unet_control_0"});
    CHECK(moved->modules.contains("lora_unet_control_0"));
}

TEST_CASE("the names say the model") {
    const auto of = [](std::vector<std::string> names) {
        std::string out;
        for (const auto* m : image_models_of(names)) {
            out += std::string(m->name) + " ";
        }
        return out;
    };
    CHECK(of({"lora_unet_double_blocks_0_img_attn_qkv"}) == "flux ");
    CHECK(of({"unet.down_blocks.2.attentions.0.transformer_blocks.9.attn1.to_q"}) == "sdxl ");
    CHECK(of({"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"}) == "sd15 ");
    CHECK(of({"unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"}) == "sdxl sd15 ");
    CHECK(of({"transformer.transformer_blocks.0.attn.to_q", "transformer.transformer_blocks.0.img_mod.1"}) ==
          "qwen_image ");
    CHECK(of({"model.layers.0.self_attn.q_proj", "model.layers.0.mlp.up_proj"}).empty());

    const auto named = [](const std::string& module, const char* format, const image_model* m) {
        adapter_file file;
        file.adapter.modules.emplace(module, some(8, 8, 2, 1, 1));
        const auto out = with_image_names(file, **find_adapter_format(format), m);
        return out ? out->adapter.modules.begin()->first : out.error().message;
    };
    const std::string both = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q";
    CHECK(named(both, "kohya", nullptr).find("--image-model sdxl or sd15") != std::string::npos);
    CHECK(named(both, "kohya", &model("sdxl")) == "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q");
    CHECK(named(both, "kohya", &model("sd15")) ==
          "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q");
    CHECK(named(both, "diffusers_peft", nullptr) == both);
    CHECK(named(both, "peft", nullptr) == both);
    CHECK(named("model.layers.0.self_attn.q_proj", "kohya", nullptr) == "model.layers.0.self_attn.q_proj");
}

TEST_CASE("an adapter of Flux fits a base of either layout") {
    const modules kohya = {{"lora_unet_double_blocks_0_img_attn_qkv", some(24, 8, 4, 2, 1)},
                           {"lora_unet_single_blocks_0_linear1", some(56, 8, 4, 2, 3)}};
    const std::string to = "transformer_blocks.0.attn.", one = "single_transformer_blocks.0.";
    const module_names diffusers({to + "to_q", to + "to_k", to + "to_v", one + "attn.to_q", one + "attn.to_k",
                                  one + "attn.to_v", one + "proj_mlp"});
    const module_names original(
        {"model.diffusion_model.double_blocks.0.img_attn.qkv", "model.diffusion_model.single_blocks.0.linear1"});
    const auto split = fit_image_modules(kohya, diffusers);
    REQUIRE(split);
    CHECK(split->modules.size() == 7);
    CHECK(split->unmapped.empty());
    const auto fused = fit_image_modules(split->modules, original);
    REQUIRE(fused);
    CHECK(fused->modules.size() == 2);
    CHECK(same_bits(lora_of(fused->modules.at("model.diffusion_model.single_blocks.0.linear1")).lora_B,
                    lora_of(kohya.at("lora_unet_single_blocks_0_linear1")).lora_B));
    const auto as_is = fit_image_modules(kohya, original);  // kohya's names are found without help
    REQUIRE(as_is);
    CHECK(as_is->renamed.empty());
    check_same(as_is->modules, kohya);
}

TEST_CASE("files: kohya to diffusers and back, XLabs, and the oldest names of text encoders") {
    const temporary_folder folder;
    const modules before = kohya_flux();
    REQUIRE(write_lora_file(folder / "kohya", before, {.format = "kohya"}));
    auto file = read_adapter(folder / "kohya");
    REQUIRE(file);
    for (const char* step : {"diffusers_peft", "kohya"}) {
        auto moved = with_image_names(std::move(*file), **find_adapter_format(step));
        REQUIRE(moved);
        REQUIRE(write_adapter(folder / step, moved->adapter, step));
        file = read_adapter(folder / step);
        REQUIRE(file);
        CHECK(file->unmapped.empty());
    }
    check_same(file->adapter.modules, before);

    const auto a = gaussian<float>(2, 8, 1), b = gaussian<float>(24, 2, 2), q = gaussian<float>(8, 2, 3);
    REQUIRE(write_safetensors(
        folder / "xlabs", {tensor_of("double_blocks.0.processor.qkv_lora1.down.weight", a),
                           tensor_of("double_blocks.0.processor.qkv_lora1.up.weight", b),
                           tensor_of("single_blocks.3.processor.qkv_lora.down.weight", a),
                           tensor_of("single_blocks.3.processor.qkv_lora.up.weight", b),
                           tensor_of("text_encoder.text_model.encoder.layers.0.self_attn.to_out_lora.down.weight", a),
                           tensor_of("text_encoder.text_model.encoder.layers.0.self_attn.to_out_lora.up.weight", q)}));
    const auto xlabs = read_adapter(folder / "xlabs");
    REQUIRE(xlabs);
    CHECK(xlabs->adapter.modules.contains("double_blocks.0.img_attn.qkv"));
    CHECK(xlabs->adapter.modules.contains("text_encoder.text_model.encoder.layers.0.self_attn.out_proj"));
    const auto moved = rename_image_modules(xlabs->adapter.modules, model("flux"), image_naming::original);
    REQUIRE(moved);
    const auto linear1 = change(moved->modules.at("diffusion_model.single_blocks.3.linear1"));
    CHECK(linear1.rows() == 56);
    CHECK((linear1.topRows(24) - b.cast<double>() * a.cast<double>()).norm() < 1e-6);
    CHECK(linear1.bottomRows(32).isZero(0));
}
