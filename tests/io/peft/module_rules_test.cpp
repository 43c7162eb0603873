// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/detail/module_rules.hpp>

#include <regex>
#include <string>
#include <vector>

#include <doctest/doctest.h>

using namespace lowrank;
using detail::module_key;
using detail::module_rules;

TEST_CASE("keys match as PEFT matches them, plain or not") {
    const std::vector<std::string> keys = {
        "q_proj", "l.q_proj", "^q_proj", "^l\\.q_proj", "layers\\.0\\.q", "",     "(q|k)_proj",  "l.+", "[a-z]_proj",
        ".*",     "q",        "^",       "a-b",         "l\\.0",          "\\_x", "l\\.\\d+\\.q"};
    const std::vector<std::string> modules = {
        "q_proj", "l.q_proj", "lxq_proj", "m.l.q_proj", "mq_proj", "k_proj", "layers.0.q", "layersx0.q", "x.layers.0.q",
        "",       "a-b",      "z.a-b",    "l.0",        "l_0",     "_x",     "l.12.q",     "q_projx",    "."};
    for (const std::string& key : keys) {
        const auto compiled = module_key::compile(key);
        REQUIRE_MESSAGE(compiled, key);
        const std::regex theirs("(.*\\.)?(" + (key == "\\_x" ? "_x" : key) + ")");
        for (const std::string& module : modules) {
            CHECK_MESSAGE(compiled->matches(module) == std::regex_match(module, theirs), key, " on ", module);
        }
    }
}

TEST_CASE("the first key that matches wins") {
    const auto rules = module_rules<int>::compile({{"b.q", 1}, {"q", 2}, {"a.*", 3}});
    REQUIRE(rules);
    CHECK(*rules->find("x.b.q") == 1);
    CHECK(*rules->find("x.c.q") == 2);
    CHECK(*rules->find("a.k") == 3);
    CHECK(rules->find("k") == nullptr);
}

TEST_CASE("broken and oversized sets of keys are refused") {
    CHECK_FALSE(module_rules<int>::compile({{"(", 1}}));
    CHECK_FALSE(module_rules<int>::compile({{"a)|(b", 1}}));
    std::vector<std::pair<std::string, int>> many;
    for (int i = 0; i < 1000; ++i) {
        many.emplace_back("(a|b){200}" + std::to_string(i), i);
    }
    const auto rules = module_rules<int>::compile(many);
    REQUIRE_FALSE(rules);
    CHECK(rules.error().code == errc::unsupported);
    for (auto& [key, value] : many) {
        key = "^model\\.layers\\." + std::to_string(value) + "\\.mlp";
    }
    CHECK(module_rules<int>::compile(many));  // plain keys cost little
}
