// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/detail/peft_types.hpp>

#include <algorithm>
#include <string_view>

#include <doctest/doctest.h>

using namespace lowrank;

TEST_CASE("adapter types have keys of their own for rank and alpha") {
    REQUIRE(detail::find_peft_type("LOHA") != nullptr);
    CHECK(std::string_view(detail::find_peft_type("LOHA")->alpha_key) == "alpha");
    CHECK(std::string_view(detail::find_peft_type("ADALORA")->r_key) == "init_r");
    CHECK(detail::find_peft_type("IA3")->r_key == nullptr);
    CHECK(detail::find_peft_type("PREFIX_TUNING") == nullptr);
    CHECK(detail::find_peft_type("lora") == nullptr);
    for (const auto& type : detail::peft_types) {
        CHECK(detail::peft_defaults(type.name)["peft_type"] == type.name);
        const auto defaults = detail::peft_defaults(type.name);
        for (const auto& entry : defaults.items()) {
            CHECK_MESSAGE(detail::is_known_peft_key(entry.key()), entry.key());
        }
    }
    CHECK_FALSE(detail::is_known_peft_key("Alpha"));
    CHECK(std::is_sorted(std::begin(detail::known_peft_keys), std::end(detail::known_peft_keys)));
}
