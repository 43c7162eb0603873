// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/kinds/list.hpp>

#include <set>
#include <string>

#include <doctest/doctest.h>

#include <lowrank/io/peft/detail/peft_join.hpp>
#include <lowrank/io/peft/detail/peft_types.hpp>

using namespace lowrank;

TEST_CASE("every peft_type of the configurations is read by one kind, and leaves of a type differ") {
    for (const auto& type : detail::peft_types) {
        CAPTURE(type.name);
        int readers = 0;
        find_peft_kind(peft_kinds(), [&]<class M>() {
            readers += detail::reads_type<peft_kind<M>>(type.name) ? 1 : 0;
            return false;
        });
        CHECK(readers == (type.name == "LORA" ? 0 : 1));  // LORA's names are understood apart
        const auto leaves = detail::leaves_of(type.name);
        CHECK(std::set<std::string_view>(leaves.begin(), leaves.end()).size() == leaves.size());
        CHECK(leaves.empty() == (type.name == "LORA"));
    }
    CHECK(detail::leaves_of("BONE").front() == "bone_block");
    CHECK(detail::tail_of_type(".miss_block", "BONE") == ".bone_block");
    CHECK(detail::tail_of_type(".miss_block", "MISS") == ".miss_block");
    CHECK(detail::shares_tensors("VERA"));
    CHECK_FALSE(detail::shares_tensors("HIRA"));
}
