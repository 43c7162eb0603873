// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/kinds/hira.hpp>
#include <lowrank/io/peft/to_any_adapters.hpp>

#include <string>

#include <doctest/doctest.h>

#include <lowrank/lora/kinds/dora.hpp>
#include <lowrank/lora/kinds/hira.hpp>

using namespace lowrank;

TEST_CASE("all modules of an adapter serve, or the one that cannot is named") {
    peft_adapter adapter;
    adapter.modules["a.q"] = make_lora<float>(6, 4, {.r = 2});
    adapter.modules["a.v"] = make_hira<float>(3, 4, {.r = 2});
    const auto weights = [](const std::string& module) -> result<adapted_weight> {
        if (module != "a.q" && module != "a.v") {
            return status{errc::not_found, "there is no " + module};
        }
        return adapted_weight{.out = module == "a.q" ? 6 : 3, .in = 4};
    };
    auto made = to_any_adapters(adapter, weights);
    REQUIRE(made.has_value());
    CHECK(made->size() == 2);
    CHECK(made->at("a.q").kind() == "lora");
    CHECK(made->at("a.v").kind() == "hira");

    peft_adapter back;
    for (const auto& [module, a] : *made) {
        REQUIRE(put_module(back, module, a));
    }
    CHECK(lora_of(back.modules.at("a.q")).lora_A == lora_of(adapter.modules.at("a.q")).lora_A);
    CHECK(back.modules.count("a.v") == 1);

    auto unknown = adapter;
    unknown.modules["b"] = make_lora<float>(6, 4, {.r = 2});
    CHECK(to_any_adapters(unknown, weights).error().message == "there is no b");
    auto wrong = adapter;
    wrong.modules["a.q"] = make_lora<float>(5, 4, {.r = 2});
    CHECK(to_any_adapters(wrong, weights).error().message.find("\"a.q\"") != std::string::npos);
    auto table = adapter;
    table.modules["a.e"] = peft_lora{.lora = make_lora<float>(6, 4, {.r = 2}), .is_table = true};
    CHECK(to_any_adapters(table, weights).error().code == errc::unsupported);
    auto replacing = adapter;
    replacing.modules["lm_head.weight"] = whole_tensor{{.name = "lm_head.weight"}};
    CHECK(to_any_adapters(replacing, weights).error().message.find("lm_head.weight") != std::string::npos);
}
