// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/detail/peft_rules.hpp>

#include <string>
#include <string_view>
#include <vector>

#include <doctest/doctest.h>

using namespace lowrank;
using detail::peft_rules;

TEST_CASE("rules give each module its rank and alpha") {
    const peft_lora_config c{.r = 4, .lora_alpha = 8, .rank_pattern = {{"q", 2}}, .alpha_pattern = {{"k|v", 1.5}}};
    const std::vector<std::string_view> modules = {"l.0.q", "l.0.k", "l.0.o"};
    const auto rules = peft_rules::compile(c, modules);
    REQUIRE_MESSAGE(rules, (rules ? std::string() : rules.error().message));
    CHECK(rules->r_for("l.0.q") == 2);
    CHECK(rules->r_for("l.0.k") == 4);
    CHECK(rules->alpha_for("l.0.k") == 1.5);
    CHECK(rules->alpha_for("l.0.o") == 8);
}

TEST_CASE("a key that matches nothing is an error") {
    const std::vector<std::string_view> modules = {"l.0.q"};
    const auto rank = peft_rules::compile({.rank_pattern = {{"q", 2}, {"o", 3}}}, modules);
    REQUIRE_FALSE(rank);
    CHECK(rank.error().code == errc::mismatch);
    CHECK(rank.error().message.find("\"o\" of rank_pattern") != std::string::npos);
    const auto alpha = peft_rules::compile({.alpha_pattern = {{"o", 3}}}, modules);
    REQUIRE_FALSE(alpha);
    CHECK(alpha.error().message.find("\"o\" of alpha_pattern") != std::string::npos);
}

TEST_CASE("patterns whose matching would take too long are refused") {
    const std::string path(200000, 'a');
    const std::vector<std::string_view> modules(1000, path);
    const auto rules = peft_rules::compile({.rank_pattern = {{"(a|b){100}(c|d)", 2}}}, modules);
    REQUIRE_FALSE(rules);
    CHECK(rules.error().code == errc::unsupported);
}
