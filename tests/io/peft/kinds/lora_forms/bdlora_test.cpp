// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/kinds/lora_forms/bdlora.hpp>

#include <string>

#include <lowrank/core/check.hpp>
#include <lowrank/core/philox.hpp>

#include "io/peft/kinds/one_kind.hpp"
#include "io/peft/kinds/round_trip.hpp"

using namespace lowrank;
using namespace lowrank_tests;

namespace {

bdlora_adapter<float> some_bdlora(lowrank::index blocks_a, lowrank::index blocks_b) {
    auto a = make_bdlora<float>(12, 8, {.r = 4, .lora_alpha = 6, .blocks_A = blocks_a, .blocks_B = blocks_b});
    fill_normal(a.lora_B, 0.3F, philox(4));
    return a;
}

}  // namespace

TEST_CASE("the description of BD-LoRA holds for a module of it") {
    check_kind(some_bdlora(2, 1), 12, 8);
    check_kind(some_bdlora(1, 2), 12, 8);
    CHECK_FALSE(peft_kind<bdlora_adapter<float>>::in_peft(some_bdlora(2, 2)));
}

TEST_CASE("BD-LoRA beside LoRA travels through a PEFT folder, told apart by its names") {
    auto plain = make_lora<float>(12, 8, {.r = 4, .lora_alpha = 6});
    fill_normal(plain.lora_B, 0.3F, philox(4));
    const auto file = round_trip({{"m.down", some_bdlora(2, 1)}, {"m.up", some_bdlora(1, 2)}, {"m.q", plain}}, "LORA",
                                 {{"m.down", {12, 8}}, {"m.up", {12, 8}}, {"m.q", {12, 8}}});
    CHECK(file.config["use_bdlora"] == nlohmann::json{{"match_strict", false},
                                                      {"nblocks", 2},
                                                      {"target_modules_bd_a", {"m.down"}},
                                                      {"target_modules_bd_b", {"m.up"}}});
    const auto with = [&](const char* field, nlohmann::json value) {
        auto fields = file.config["use_bdlora"];
        fields[field] = std::move(value);
        file.set("use_bdlora", fields);
    };
    with("target_modules_bd_b", {"m."});
    file.refuses("matches both");
    with("target_modules_bd_b", nullptr);
    file.refuses("up.lora_B.weight");
    with("target_modules_bd_b", 3);
    file.refuses("target_modules_bd_b");
    with("nblocks", 4);
    file.refuses("shapes do not fit");
    with("nblocks", 0);
    file.refuses("nblocks");
    with("order", 1);
    file.refuses("\"order\"");
    with("order", {1, 2});
    file.refuses("order");
    file.set("use_bdlora", true);
    file.refuses("an object");
    file.set("use_dora", true);
    file.refuses("exclude each other");
    // A part of the name is enough, and null and false are none.
    with("target_modules_bd_a", {"do"});
    CHECK(read_peft(file.path()));
    file.set("use_bdlora", false);
    file.refuses("up.lora_B.weight");

    peft_adapter mixed;
    mixed.modules.emplace("a", some_bdlora(2, 1));
    mixed.modules.emplace("b", make_bdlora<float>(12, 8, {.r = 4, .lora_alpha = 6, .blocks_A = 4}));
    CHECK_THROWS_AS((void)peft_config_for(mixed), contract_violation);
    // A configuration that says nothing of blocks does not describe them, nor the other way round.
    peft_adapter one;
    one.modules.emplace("m.up", plain);
    one.config = peft_config_for(one);
    one.modules.insert_or_assign("m.up", some_bdlora(1, 2));
    CHECK(write_peft(file.path(), one).message.find("form") != std::string::npos);
    one.config = peft_config_for(one);
    one.modules.insert_or_assign("m.up", plain);
    CHECK(write_peft(file.path(), one).message.find("form") != std::string::npos);
    one.config = peft_config_for(one, one.config);
    CHECK(write_peft(file.path(), one));
}
