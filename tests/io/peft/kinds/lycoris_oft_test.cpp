// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/kinds/lycoris_oft.hpp>

#include "io/peft/kinds/one_kind.hpp"

using namespace lowrank;

TEST_CASE("the description of LyCORIS's OFT holds for a module of it") {
    lowrank_tests::check_kind(lycoris_oft{.oft_blocks = matrix<float>::Zero(6, 2), .block_count = 3}, 6, 4);
}
