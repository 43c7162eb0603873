// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/detail/peft_kinds.hpp>

#include <string>
#include <vector>

#include <doctest/doctest.h>

using namespace lowrank;

namespace {

status read_kind(const char* type, const char* text, peft_kind_options& o, std::vector<std::string>& warnings) {
    const auto document = detail::json::parse(text, nullptr, false);
    detail::config_reader in(document);
    detail::read_kind_options(in, type, o, warnings);
    return in.why;
}

}  // namespace

TEST_CASE("the fields of a type are read, written and have PEFT's defaults") {
    std::vector<std::string> warnings;
    peft_kind_options o;
    REQUIRE(read_kind("OFT", R"({"oft_block_size": 0, "r": 4, "coft": true, "eps": 0.5, "peft_version": "0.18.1"})", o,
                      warnings));
    CHECK(o.block_size == 0);
    CHECK(o.block_count == 4);
    CHECK(o.coft);
    CHECK(o.eps == 0.5);
    CHECK(o.use_cayley_neumann);
    CHECK(warnings.empty());
    REQUIRE(read_kind("OFT", R"({"oft_block_size": 8})", o = {}, warnings));
    CHECK(warnings.size() == 1);  // no version: before 0.18

    detail::json out = detail::json::object();
    const auto set = [&](const char* key, detail::json value, const detail::json& absent) {
        if (value != absent) {
            out[key] = std::move(value);
        }
    };
    o = {.form = "mini", .mini_r = 4};
    detail::write_kind_options("MISS", o, detail::json::object(), set);
    CHECK(out == detail::json{{"init_weights", "mini"}, {"mini_r", 4}});
    out = detail::json::object();
    o = {.triplets = {{"l0.lora_E", {true, false}}}};
    o.schedule.total_step = 30;
    detail::write_kind_options("ADALORA", o, detail::json::object(), set);
    CHECK(out == detail::json{{"total_step", 30}, {"rank_pattern", {{"l0.lora_E", {true, false}}}}});
    peft_kind_options again;
    REQUIRE(read_kind("ADALORA", out.dump().c_str(), again, warnings));
    CHECK(again.triplets == o.triplets);
    CHECK(again.schedule.total_step == 30);
}

TEST_CASE("fields of a type that make no sense are named") {
    const auto refused = [](const char* type, const char* text) {
        peft_kind_options o;
        std::vector<std::string> warnings;
        return read_kind(type, text, o, warnings).message;
    };
    CHECK(refused("OFT", R"({"r": 4})").find("before 0.14") != std::string::npos);
    CHECK(refused("OFT", R"({"oft_block_size": 8, "r": 4})").find("must be 0") != std::string::npos);
    CHECK(refused("OFT", R"({"oft_block_size": 8, "num_cayley_neumann_terms": 0})").find("between 1") !=
          std::string::npos);
    CHECK(refused("OFT", R"({"oft_block_size": 8, "coft": 1})").find("coft must be true or false") !=
          std::string::npos);
    CHECK(refused("BOFT", R"({"boft_block_size": 0})").find("boft_block_num") != std::string::npos);
    CHECK(refused("MISS", R"({"init_weights": "other"})").find("init_weights") != std::string::npos);
    CHECK(refused("BONE", R"({"init_weights": "mini"})").find("init_weights") != std::string::npos);
    CHECK(refused("ADALORA", R"({"rank_pattern": {"a": [1]}})").find("true and false") != std::string::npos);
    CHECK(refused("HRA", R"({"apply_GS": "yes"})").find("apply_GS") != std::string::npos);
    CHECK(detail::is_version_before("0.17.9", 0, 18));
    CHECK_FALSE(detail::is_version_before("0.20.1.dev0@UNKNOWN", 0, 18));
    CHECK_FALSE(detail::is_version_before("1.0", 0, 18));
}
