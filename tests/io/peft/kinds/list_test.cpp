// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/kinds/list.hpp>

#include <set>
#include <string>

#include <doctest/doctest.h>

#include <lowrank/io/peft/detail/peft_types.hpp>
#include <lowrank/io/peft/peft_config.hpp>

using namespace lowrank;

TEST_CASE("every peft_type is read by one kind, leaves and keys of a type differ, and its defaults are its keys") {
    std::set<std::string_view> names;
    for (const auto& t : detail::types_of(peft_kinds())) {
        CAPTURE(t.type.name);
        CHECK(names.insert(t.type.name).second);
        const auto& leaves = t.type.leaves;
        CHECK((!leaves.empty() || !t.type.replaced_in.empty()));
        CHECK(std::set<std::string_view>(leaves.begin(), leaves.end()).size() == leaves.size());
        const auto config = format_peft_config({.peft_type = std::string(t.type.name), .r = 4});
        std::vector<std::string> warnings;
        const auto again = parse_peft_config(std::as_bytes(std::span(config)), warnings);
        REQUIRE_MESSAGE(again, (again ? std::string() : again.error().message));
        CHECK_MESSAGE(warnings.empty(), warnings.front());  // every key is known
        for (const auto& key : t.type.keys) {
            CHECK(again->options.value(key.name) == key.normal);
        }
    }
    CHECK(names.size() == 22);
    CHECK(peft_applications().size() == peft_kinds().size());
}
