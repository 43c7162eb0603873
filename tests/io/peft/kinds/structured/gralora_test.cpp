// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/kinds/structured/gralora.hpp>

#include <string>

#include <lowrank/core/check.hpp>
#include <lowrank/core/philox.hpp>

#include "io/peft/kinds/one_kind.hpp"
#include "io/peft/kinds/round_trip.hpp"

using namespace lowrank;
using namespace lowrank_tests;

namespace {

gralora_adapter<float> some_gralora(lowrank::index hybrid, lowrank::index k = 2) {
    auto a = make_gralora<float>(12, 8, {.r = 4, .k = k, .hybrid_r = hybrid, .alpha = 6});
    fill_normal(a.gralora_B, 0.3F, philox(4));
    fill_normal(a.gralora_B_general, 0.3F, philox(5));
    return a;
}

}  // namespace

TEST_CASE("the description of GraLoRA holds for a module of it") {
    check_kind(some_gralora(0), 12, 8);
    check_kind(some_gralora(3), 12, 8);
    using kind = peft_kind<gralora_adapter<float>>;
    const auto m = some_gralora(3);
    CHECK(kind::formed_rank(m) == 11);
    const matrix<double> w = matrix<double>::Zero(12, 8);
    CHECK((changed(kind::change(m).weight, w) - changed(kind::change_without_factors(m).weight, w)).norm() < 1e-6);
}

TEST_CASE("GraLoRA travels through a PEFT folder, with and without a hybrid rank") {
    const auto plain = round_trip({{"m.q", some_gralora(0)}}, "GRALORA", {{"m.q", {12, 8}}});
    CHECK(plain.config["gralora_k"] == 2);
    CHECK(plain.config["hybrid_r"] == 0);
    const auto file = round_trip({{"m.q", some_gralora(3)}, {"m.up", some_gralora(3)}}, "GRALORA",
                                 {{"m.q", {12, 8}}, {"m.up", {12, 8}}});
    CHECK(file.config["hybrid_r"] == 3);
    file.set("hybrid_r", 2);
    file.refuses("hybrid rank 3");
    file.set("hybrid_r", 0);
    file.refuses("hybrid rank 3");
    file.set("r", 8);
    file.refuses("rank 4");
    file.set("gralora_k", 4);
    file.refuses("2 blocks");
    file.set("gralora_k", 0);
    file.refuses("gralora_k must be positive");
    plain.set("hybrid_r", 1);
    plain.refuses("lacks gralora_A_general.weight");

    peft_adapter mixed;
    mixed.modules.emplace("a", some_gralora(0));
    mixed.modules.emplace("b", some_gralora(1));
    CHECK_THROWS_AS((void)peft_config_for(mixed), contract_violation);
    mixed.modules.erase("b");
    mixed.config = peft_config_for(mixed);
    mixed.modules.insert_or_assign("a", some_gralora(0, 4));
    CHECK(write_peft(file.path(), mixed).message.find("gralora_k") != std::string::npos);
    mixed.modules.insert_or_assign("a", some_gralora(1));
    CHECK(write_peft(file.path(), mixed).message.find("hybrid_r") != std::string::npos);
}
