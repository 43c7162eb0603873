// SPDX-License-Identifier: MIT
#include <lowrank/io/containers/detail/json.hpp>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

using namespace lowrank;

namespace {

result<detail::json> read(std::string_view text) { return detail::read_json(std::as_bytes(std::span(text))); }

}  // namespace

TEST_CASE("a document is read") {
    const auto document = read(" {\"a\": [1, -2, 0.5, null, true, \"x\"]}\n");
    REQUIRE(document);
    CHECK(document->at("a").size() == 6);
    CHECK(read("[{\"a\":1},{\"a\":2}]"));  // the same key in two objects
}

TEST_CASE("the order of inner keys is known") {
    std::vector<std::pair<std::string, std::string>> keys;
    const std::string text = R"({"b":{"z":1,"a":{"deep":2}},"a":3,"c":[{"d":4}],"e":{"y":5}})";
    REQUIRE(detail::read_json(std::as_bytes(std::span(text)), &keys));
    CHECK(keys == std::vector<std::pair<std::string, std::string>>{{"b", "z"}, {"b", "a"}, {"e", "y"}});
}

TEST_CASE("hostile documents are refused with a sentence") {
    CHECK(read("").error().message.find("JSON") != std::string::npos);
    CHECK(read("{").error().code == errc::invalid_format);
    CHECK(read("{} x").error().code == errc::invalid_format);
    CHECK(read("{\"a\":NaN}").error().code == errc::invalid_format);
    CHECK(read("{\"a\":1,\"b\":{\"a\":2},\"a\":3}").error().message.find("\"a\" appears twice") != std::string::npos);
    CHECK(read(std::string("{}\0", 3)).error().message.find("NUL") != std::string::npos);
    CHECK(read("\xEF\xBB\xBF{}").error().message.find("byte order mark") != std::string::npos);
    CHECK(read("\"\xFF\"").error().message.find("UTF-8") != std::string::npos);
    CHECK(read("version https://git-lfs.github.com/spec/v1\n").error().message.find("git lfs pull") !=
          std::string::npos);
    CHECK(read(std::string(100000, '[')).error().message.find("64 levels") != std::string::npos);
    CHECK(read(std::string(64, '[') + std::string(64, ']')));
    CHECK_FALSE(read(std::string(65, '[') + std::string(65, ']')));
    CHECK(read(std::string((4U << 20) + 1, ' ')).error().message.find("4 MiB") != std::string::npos);
}
