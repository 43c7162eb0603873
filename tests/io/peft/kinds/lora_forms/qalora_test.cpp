// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/kinds/lora_forms/qalora.hpp>

#include <string>

#include <lowrank/core/check.hpp>
#include <lowrank/core/philox.hpp>

#include "io/peft/kinds/one_kind.hpp"
#include "io/peft/kinds/round_trip.hpp"

using namespace lowrank;
using namespace lowrank_tests;

namespace {

qalora_adapter<float> some_qalora(lowrank::index group, lowrank::index r = 3) {
    auto a = make_qalora<float>(12, 8, group, {.r = r, .lora_alpha = 6, .use_rslora = true});
    fill_normal(a.lora.lora_B, 0.3F, philox(4));
    return a;
}

}  // namespace

TEST_CASE("the description of QA-LoRA holds for a module of it") { check_kind(some_qalora(4), 12, 8); }

TEST_CASE("QA-LoRA travels through a PEFT folder") {
    const auto file = round_trip({{"m.down", some_qalora(4)}, {"m.up", some_qalora(4, 2)}}, "LORA",
                                 {{"m.down", {12, 8}}, {"m.up", {12, 8}}});
    CHECK(file.config["use_qalora"] == true);
    CHECK(file.config["qalora_group_size"] == 4);
    file.set("qalora_group_size", 0);
    file.refuses("qalora_group_size must be positive");
    file.set("qalora_group_size", 1 << 20);
    file.refuses("more than can be meant");
    file.set("use_dora", true);
    file.refuses("exclude each other");
    file.set("r", 5);
    file.refuses("rank 2");
    file.set("use_qalora", false);  // then the same tensors are LoRA of 2 inputs
    CHECK(kind_of(read_peft(file.path())->modules.at("m.up")) == "LoRA");

    matrix<float> a(3, 2);
    a.setOnes();
    matrix<float> b(12, 3);
    b.setOnes();
    const std::string name = "base_model.model.m.down.lora_";
    file.set("rank_pattern", nlohmann::json::object());
    file.set_tensors({tensor_of(name + "A.weight", a), tensor_of(name + "B.weight", b),
                      tensor_of(name + "magnitude_vector", vector<float>(vector<float>::Ones(12)))});
    file.refuses("has no place");
    file.set_tensors({tensor_of(name + "A.weight", a)});
    file.refuses("lacks lora_B.weight");

    peft_adapter mixed;
    mixed.modules.emplace("a", some_qalora(4));
    mixed.modules.emplace("b", some_qalora(2));
    CHECK_THROWS_AS((void)peft_config_for(mixed), contract_violation);
    mixed.modules.erase("b");
    mixed.config = peft_config_for(mixed);
    mixed.modules.insert_or_assign("a", some_qalora(2));
    CHECK(write_peft(file.path(), mixed).message.find("qalora_group_size") != std::string::npos);
}
