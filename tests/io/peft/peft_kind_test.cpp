// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/peft_kind.hpp>

#include <doctest/doctest.h>

#include <lowrank/io/peft/kinds/list.hpp>

using namespace lowrank;

TEST_CASE("every kind of the list is described completely") {
    std::size_t count = 0;
    find_peft_kind(peft_kinds(), [&]<class M>() {
        check_peft_kind<M>();
        ++count;
        return false;
    });
    CHECK(count == std::variant_size_v<peft_module>);
    CHECK(peft_change{}.is_unknown());
    CHECK_FALSE(peft_change{.weight = scaled_change<float>{.row_scale = vector<float>::Ones(3)}}.is_unknown());
}
