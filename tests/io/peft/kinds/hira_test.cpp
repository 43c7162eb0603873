// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/kinds/hira.hpp>

#include "io/peft/kinds/one_kind.hpp"

using namespace lowrank;

TEST_CASE("the description of HiRA holds for a module of it") {
    lowrank_tests::check_kind(make_hira<float>(6, 4, {.r = 2}), 6, 4);
    auto other = make_hira<float>(6, 4, {.r = 2});
    CHECK_FALSE(peft_kind<hira_adapter<float>>::fit(other, 6, 5));
}

TEST_CASE("HiRA of a convolution and of a table say what they are, and only merge") {
    const auto hira = make_hira<float>(6, 8, {.r = 2});
    const peft_hira kernel{.hira = hira, .kernel = {2, 2}}, table{.hira = hira, .is_table = true};
    lowrank_tests::check_kind(kernel, 6, 8);
    lowrank_tests::check_kind(table, 6, 8);
    CHECK(is_table_module(table));
    CHECK_FALSE(is_table_module(kernel));
    CHECK_FALSE(is_table_module(hira));
    for (const peft_module& module : {peft_module(kernel), peft_module(table)}) {
        const auto served = to_any_adapter(module, {.out = 6, .in = 8});
        REQUIRE_FALSE(served);
        CHECK(served.error().code == errc::unsupported);
        CHECK(served.error().message.find("only by merging") != std::string::npos);
    }
}
