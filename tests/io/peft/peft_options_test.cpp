// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/peft_options.hpp>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <lowrank/io/peft/peft_config.hpp>

using namespace lowrank;

namespace {

result<peft_lora_config> parsed(const std::string& text, std::vector<std::string>& warnings) {
    return parse_peft_config(std::as_bytes(std::span(text)), warnings);
}

}  // namespace

TEST_CASE("the fields of a type are read, written and have PEFT's defaults") {
    std::vector<std::string> warnings;
    auto c = parsed(R"({"peft_type":"OFT","oft_block_size":0,"r":4,"coft":true,"eps":0.5,"peft_version":"0.18.1"})",
                    warnings);
    REQUIRE(c);
    CHECK(c->options.get<std::int64_t>("oft_block_size") == 0);
    CHECK(c->options.get<std::int64_t>("r") == 4);
    CHECK(c->options.get<bool>("coft"));
    CHECK(c->options.get<double>("eps") == 0.5);
    CHECK(c->options.get<bool>("use_cayley_neumann"));
    CHECK(warnings.empty());
    REQUIRE(parsed(R"({"peft_type":"OFT","oft_block_size":8})", warnings));
    CHECK(warnings.size() == 1);  // no version: before 0.18

    c = parsed(R"({"peft_type":"MISS"})", warnings);
    REQUIRE(c);
    c->options.set("init_weights", std::string("mini"));
    c->options.set("mini_r", std::int64_t{4});
    auto out = nlohmann::json::parse(format_peft_config(*c));
    CHECK(out["init_weights"] == "mini");
    CHECK(out["mini_r"] == 4);

    peft_lora_config made{.peft_type = "ADALORA"};
    made.options.set("total_step", std::int64_t{30});
    made.options.set("rank_pattern", peft_flags{{"l0.lora_E", {true, false}}});
    const auto text = format_peft_config(made);
    out = nlohmann::json::parse(text);
    CHECK(out["total_step"] == 30);
    CHECK(out["tinit"] == 0);
    CHECK(out["rank_pattern"] == nlohmann::json{{"l0.lora_E", {true, false}}});
    const auto again = parsed(text, warnings);
    REQUIRE(again);
    CHECK(again->options.get<peft_flags>("rank_pattern").at("l0.lora_E") == std::vector<bool>{true, false});
}

TEST_CASE("fields of a type that make no sense are named") {
    const auto refused = [](const char* text) {
        std::vector<std::string> warnings;
        const auto c = parsed(text, warnings);
        return c ? std::string("read") : c.error().message;
    };
    CHECK(refused(R"({"peft_type":"OFT","r": 4})").find("before 0.14") != std::string::npos);
    CHECK(refused(R"({"peft_type":"OFT","oft_block_size": 8, "r": 4})").find("must be 0") != std::string::npos);
    CHECK(refused(R"({"peft_type":"OFT","oft_block_size": 8, "num_cayley_neumann_terms": 0})").find("between 1") !=
          std::string::npos);
    CHECK(refused(R"({"peft_type":"OFT","oft_block_size": 8, "coft": 1})").find("coft must be true or false") !=
          std::string::npos);
    CHECK(refused(R"({"peft_type":"BOFT","boft_block_size": 0})").find("boft_block_num") != std::string::npos);
    CHECK(refused(R"({"peft_type":"MISS","init_weights": "other"})").find("init_weights") != std::string::npos);
    CHECK(refused(R"({"peft_type":"BONE","init_weights": "mini"})").find("init_weights") != std::string::npos);
    CHECK(refused(R"({"peft_type":"ADALORA","rank_pattern": {"a": [1]}})").find("true and false") != std::string::npos);
    CHECK(refused(R"({"peft_type":"HRA","apply_GS": "yes"})").find("apply_GS") != std::string::npos);
    CHECK(detail::is_version_before("0.17.9", 0, 18));
    CHECK_FALSE(detail::is_version_before("0.20.1.dev0@UNKNOWN", 0, 18));
    CHECK_FALSE(detail::is_version_before("1.0", 0, 18));
}
