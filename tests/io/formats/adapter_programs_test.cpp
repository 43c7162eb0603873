// SPDX-License-Identifier: MIT
#include <lowrank/io/formats/adapter_programs.hpp>

#include <string>

#include <lowrank/io/peft.hpp>
#include <lowrank/io/peft/kinds/ia3.hpp>

#include "io_support.hpp"

using namespace lowrank;

namespace {

lora_adapter<float> some_lora(Eigen::Index out, Eigen::Index in, Eigen::Index rank, double alpha) {
    auto a = make_lora<float>(out, in, {.r = rank, .lora_alpha = alpha, .seed = 3});
    a.lora_B.setOnes();
    return a;
}

program_support ask(std::string_view name, const peft_adapter& adapter, const adapter_write_options& opt = {}) {
    for (const adapter_program& program : adapter_programs()) {
        if (program.name == name) {
            return support_by(program, adapter, opt);
        }
    }
    FAIL("no program of that name");
    return {};
}

}  // namespace

TEST_CASE("each program says what it can hold of an adapter, and why not the rest") {
    const std::string q = "model.layers.0.self_attn.q_proj";
    peft_adapter adapter;
    adapter.modules[q] = some_lora(8, 8, 2, 4);
    adapter.config = peft_config_for(adapter.modules);
    const model_config model{.num_attention_heads = 2, .num_key_value_heads = 2};
    for (const adapter_program& program : adapter_programs()) {
        const auto support = support_by(program, adapter, {.model = &model});
        CHECK_MESSAGE(support.held == 1, program.name);
        CHECK(support.lost.empty());
    }
    CHECK(ask("llama.cpp", adapter).lost.at(0).second.message.find("config.json") != std::string::npos);

    adapter.modules["vision.blocks.0.proj"] = some_lora(8, 8, 2, 4);
    const auto gguf = ask("llama.cpp", adapter, {.model = &model});
    CHECK(gguf.held == 1);
    REQUIRE(gguf.lost.size() == 1);
    CHECK(gguf.lost[0].first == "vision.blocks.0.proj");
    CHECK(gguf.lost[0].second.message.find("no place in a GGUF of llama") != std::string::npos);
    CHECK(ask("PEFT", adapter).held == 2);

    adapter.modules["lm_head.weight"] =
        whole_tensor{tensor_of("lm_head.weight", row_matrix<float>(row_matrix<float>::Ones(20, 8)))};
    CHECK(ask("PEFT", adapter).held == 3);
    for (const char* name : {"llama.cpp", "vLLM", "kohya, ComfyUI", "MLX"}) {
        const auto support = ask(name, adapter, {.model = &model});
        REQUIRE_MESSAGE(!support.lost.empty(), name);
        CHECK(support.lost[0].first == "lm_head.weight");
    }
}

TEST_CASE("vLLM scales every module alike, has a largest rank and applies plain LoRA alone") {
    peft_adapter adapter;
    adapter.modules["a"] = some_lora(600, 600, 2, 4);
    adapter.modules["b"] = some_lora(600, 600, 2, 4);
    adapter.modules["c"] = some_lora(600, 600, 4, 4);
    adapter.modules["d"] = some_lora(600, 600, 4, 8);  // alpha / r as of a and b
    adapter.modules["e"] = some_lora(600, 600, 513, 1026);
    adapter.config = peft_config_for(adapter.modules, {});
    adapter.modules["f"] = peft_ia3{.scale = vector<float>::Ones(600)};
    const auto support = ask("vLLM", adapter);
    CHECK(support.held == 3);
    REQUIRE(support.lost.size() == 3);
    CHECK(support.lost[0].second.message.find("scaling 1;") != std::string::npos);
    CHECK(support.lost[1].second.message.find("rank 513") != std::string::npos);
    CHECK(support.lost[2].second.message.find("IA") != std::string::npos);

    adapter.config.alora_invocation_tokens = {1};
    CHECK(ask("vLLM", adapter).held == 0);
    CHECK(ask("kohya, ComfyUI", adapter).held == 0);
}
