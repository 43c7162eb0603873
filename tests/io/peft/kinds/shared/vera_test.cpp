// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/kinds/shared/vera.hpp>

#include "io/peft/kinds/one_kind.hpp"

using namespace lowrank;

TEST_CASE("the description of VeRA holds for a module of it") {
    lowrank_tests::check_kind(make_vera(make_vera_projections<float>(6, 5, 2, 1), 6, 4), 6, 4);
}
