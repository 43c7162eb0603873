// SPDX-License-Identifier: MIT
#include <lowrank/io/detail/peft_reader.hpp>

#include <filesystem>
#include <string>

#include <lowrank/io/peft.hpp>

#include "io_support.hpp"
#include "support/shared.hpp"

using namespace lowrank;
using lowrank_tests::temporary_folder;
using lowrank_tests::text_of;

TEST_CASE("adapters of every type that PEFT saved are read, and written to the same bytes") {
    LOWRANK_NEEDS_SHARED(shared);
    temporary_folder folder;
    int same = 0;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(lowrank_tests::golden_folder())) {
        if (entry.path().filename() != "adapter_config.json") {
            continue;
        }
        const auto from = entry.path().parent_path();
        const auto adapter = read_peft(from, {.base_is_residual = true});
        if (!adapter) {
            CHECK_MESSAGE(adapter.error().message.find("peft_type") != std::string::npos,
                          from.string() << ": " << adapter.error().message);
            continue;
        }
        const auto to = folder / "copy";
        const status why = write_peft(to, *adapter);
        REQUIRE_MESSAGE(why, from.string() << ": " << why.message);
        if (from.string().find("effective") != std::string::npos) {  // its core is folded into a factor
            CHECK(read_peft(to));
            continue;
        }
        CHECK_MESSAGE(text_of(to / "adapter_model.safetensors") == text_of(from / "adapter_model.safetensors"),
                      from.string());
        CHECK_MESSAGE(
            nlohmann::json::parse(text_of(to / "adapter_config.json")) == nlohmann::json::parse(text_of(entry.path())),
            from.string());
        ++same;
    }
    CHECK(same >= 20);
}

TEST_CASE("a made adapter of each type gets a configuration that reads it back") {
    temporary_folder folder;
    const auto vera = make_vera_projections<float>(6, 5, 2, 1);
    const matrix<float> m = make_lora<float>(1, 4, {.r = 2}).lora_A.transpose();
    const peft_module kinds[] = {
        peft_lora{.lora = make_lora<float>(6, 5, {.r = 2}), .magnitude = vector<float>::Ones(6)},
        peft_lora{.lora = make_lora<float>(6, 5, {.r = 2}), .bias = vector<float>::Ones(6)},
        peft_lora{.lora = make_lora<float>(6, 8, {.r = 2}), .kernel = {4}},
        adalora_adapter<float>{.lora_A = m.transpose(), .lora_B = m, .lora_E = vector<float>::Ones(2), .ranknum = 3},
        loha_adapter<float>{.w1_a = m, .w1_b = m.transpose(), .w2_a = m, .w2_b = m.transpose(), .alpha = 3},
        lokr_adapter<float>{.w1 = {.left = m}, .w2 = {.left = m, .right = m.transpose()}, .alpha = 3, .r = 2},
        make_vera(vera, 6, 5),
        peft_ia3{.scale = vector<float>::Constant(6, 2)},
        peft_ia3{.scale = vector<float>::Constant(5, 2), .is_feedforward = true},
    };
    for (const peft_module& kind : kinds) {
        peft_adapter made;
        made.relatives["model.x.q_proj"] = kind;
        made.config = peft_config_for(made, {.task_type = "CAUSAL_LM"});
        const status why = write_peft(folder / "a", made);
        REQUIRE_MESSAGE(why, why.message);
        const auto read = read_peft(folder / "a");
        REQUIRE_MESSAGE(read, (read ? std::string() : read.error().message));
        CHECK_MESSAGE(read->warnings.empty(), kind_of(kind));
        REQUIRE(read->relatives.size() == 1);
        const peft_module& again = read->relatives.at("model.x.q_proj");
        CHECK(again.index() == kind.index());
        const auto before = change_of(kind);
        const auto after = change_of(again);
        CHECK(before.delta.dense() == after.delta.dense());
        CHECK(before.magnitude == after.magnitude);
        CHECK(before.bias == after.bias);
        CHECK(before.output_scale == after.output_scale);
        CHECK(before.input_scale == after.input_scale);
    }
    peft_adapter mixed;
    mixed.modules["a"] = make_lora<float>(6, 5, {.r = 2});
    mixed.relatives["b"] = kinds[0];
    mixed.config = peft_config_for(mixed);
    CHECK(write_peft(folder / "mixed", mixed).code == errc::mismatch);  // PEFT has one use_dora for all
    mixed.relatives["b"] = kinds[1];
    mixed.config = peft_config_for(mixed);
    CHECK(write_peft(folder / "mixed", mixed));
}

TEST_CASE("VeRA without its projections is refused by name") {
    temporary_folder folder;
    REQUIRE(write_file(folder / "adapter_config.json", R"({"peft_type":"VERA","r":2})"));
    REQUIRE(write_safetensors(folder / "adapter_model.safetensors",
                              {tensor_of("base_model.model.l.vera_lambda_b", vector<float>(vector<float>::Ones(3))),
                               tensor_of("base_model.model.l.vera_lambda_d", vector<float>(vector<float>::Ones(2)))}));
    const auto adapter = read_peft(folder.path());
    REQUIRE_FALSE(adapter);
    CHECK(adapter.error().code == errc::unsupported);
    CHECK(adapter.error().message.find("save_projection=True") != std::string::npos);
}
