// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/kinds/rotations/hra.hpp>

#include "io/peft/kinds/one_kind.hpp"

using namespace lowrank;

TEST_CASE("the description of HRA holds for a module of it") {
    lowrank_tests::check_kind(make_hra<float>(6, 4, {.r = 2}), 6, 4);
    auto other = make_hra<float>(6, 4, {.r = 2});
    CHECK_FALSE(peft_kind<hra_adapter<float>>::fit(other, 6, 5));
}
