// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/peft_kind.hpp>

#include <doctest/doctest.h>

#include <lowrank/io/peft/kinds/lora.hpp>
#include <lowrank/io/peft/kinds/rotations/hra.hpp>

using namespace lowrank;

TEST_CASE("a module is a value of its own type behind one") {
    peft_module a = hra_adapter<float>{.hra_u = matrix<float>::Ones(4, 2)};
    const peft_module b = a;
    REQUIRE(a.get<hra_adapter<float>>() != nullptr);
    CHECK(a.get<peft_lora>() == nullptr);
    a.get<hra_adapter<float>>()->hra_u.setZero();
    CHECK(b.get<hra_adapter<float>>()->hra_u == matrix<float>::Ones(4, 2));
    a = b;
    CHECK(a.get<hra_adapter<float>>()->hra_u == matrix<float>::Ones(4, 2));
    a = make_lora<float>(3, 2);
    CHECK(lora_of(a).rows() == 3);
    CHECK(a.kind().label(a.data()) == "LoRA");
    CHECK(lora_of(peft_module()).rank() == 0);
    CHECK(peft_change{}.is_unknown());
    CHECK_FALSE(peft_change{.weight = scaled_change<float>{.row_scale = vector<float>::Ones(3)}}.is_unknown());
}
