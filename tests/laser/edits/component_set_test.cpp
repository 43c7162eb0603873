// SPDX-License-Identifier: MIT
#include <lowrank/laser/edits/component_set.hpp>

#include <cstdint>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <lowrank/core/check.hpp>
#include <lowrank/core/philox.hpp>

using namespace lowrank;

TEST_CASE("a prefix, a band and a list of numbers are the same kind of set") {
    CHECK(component_set::first(3) == component_set::of({2, 0, 1, 1}));
    CHECK(component_set::band(2, 5) == component_set::of({4, 3, 2}));
    CHECK(component_set::first(0) == component_set());
    CHECK(component_set::band(7, 7).size() == 0);

    const auto s = component_set::of({9, 0, 1, 2, 5});
    CHECK(s.size() == 5);
    CHECK(s.bound() == 10);
    CHECK(s.contains(5));
    CHECK_FALSE(s.contains(3));
    CHECK(s.members() == std::vector<lowrank::index>{0, 1, 2, 5, 9});
    CHECK_THROWS_WITH_AS((void)component_set::of({-1}), "component_set::of: a component number must not be negative",
                         contract_violation);
    CHECK_THROWS_AS((void)component_set::band(3, 2), contract_violation);
    CHECK_THROWS_AS((void)s.complement(9), contract_violation);
}

TEST_CASE("text is canonical and reads back") {
    CHECK(component_set().text() == "none");
    CHECK(component_set::first(1).text() == "0");
    CHECK(component_set::of({0, 1, 2, 5, 8, 9}).text() == "0-2,5,8-9");
    for (const char* text : {"none", "0", "0-2,5,8-9", "3-100000"}) {
        const auto s = component_set::parse(text);
        REQUIRE(s);
        CHECK(s->text() == text);
    }
    CHECK(component_set::parse("0-1,2").value().text() == "0-2");
    for (const char* text : {"", "-", "1-", "-1", "1,", ",1", "2-1", "1,1", "0-3,2", "1 ", " 1", "+1", "0x1", "1.0",
                             "all", "None", "99999999999999999999", "9007199254740992"}) {
        CAPTURE(text);
        CHECK(component_set::parse(text).error().code == errc::invalid_format);
    }
}

TEST_CASE("a set and its complement partition the components") {
    const philox rng(11);
    for (std::uint64_t trial = 0; trial < 200; ++trial) {
        const lowrank::index count = static_cast<lowrank::index>(rng.below(40, 1000 + trial));
        std::vector<lowrank::index> members;
        for (lowrank::index i = 0; i < count; ++i) {
            if (rng.uniform<double>(trial * 64 + static_cast<std::uint64_t>(i)) < 0.5) {
                members.push_back(i);
            }
        }
        const auto s = component_set::of(members);
        const auto rest = s.complement(count);
        CHECK(s.members() == members);
        CHECK(s.size() + rest.size() == count);
        for (lowrank::index i = 0; i < count; ++i) {
            CHECK(s.contains(i) != rest.contains(i));
        }
        CHECK(rest.complement(count) == s);
        CHECK(component_set::parse(s.text()).value() == s);
    }
}
