// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/lora/kinds/structured/entry_positions.hpp>

#include <set>
#include <utility>

#include "support.hpp"

using namespace lowrank;

TEST_CASE(
    "positions are different entries of the matrix, the same ones for a seed, and the first ones of a longer list") {
    const auto some = torch_random_positions(7, 9, 20, 5);
    std::set<std::pair<int, int>> seen;
    for (lowrank::index k = 0; k < 20; ++k) {
        CHECK((some(0, k) >= 0 && some(0, k) < 7 && some(1, k) >= 0 && some(1, k) < 9));
        seen.emplace(some(0, k), some(1, k));
    }
    CHECK(seen.size() == 20);
    const auto all = torch_random_positions(7, 9, 63, 5);
    CHECK(all.leftCols(20) == some);
    for (lowrank::index k = 0; k < 63; ++k) {
        seen.emplace(all(0, k), all(1, k));
    }
    CHECK(seen.size() == 63);
    CHECK(torch_random_positions(7, 9, 20, 6) != some);
    CHECK(torch_random_positions(7, 9, 20, 5 + (std::uint64_t{1} << 32)) == some);  // 32 bits of it count
    CHECK(torch_random_positions(1, 1, 1, 0)(0, 0) == 0);
    CHECK(torch_random_positions(3, 3, 0, 0).cols() == 0);
}

TEST_CASE("more positions than entries, and matrices for which releases of PyTorch differ, are refused") {
    CHECK_THROWS_AS((void)torch_random_positions(3, 3, 10, 0), contract_violation);
    CHECK_THROWS_AS((void)torch_random_positions(0, 3, 0, 0), contract_violation);
    CHECK_THROWS_AS((void)torch_random_positions(1 << 20, 1 << 20, 1, 0), contract_violation);
    CHECK(torch_random_positions(14653, 14654, 2, 1).cols() == 2);
}
