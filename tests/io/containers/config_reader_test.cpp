// SPDX-License-Identifier: MIT
#include <lowrank/io/containers/detail/config_reader.hpp>

#include <cstdint>
#include <string>
#include <vector>

#include <doctest/doctest.h>

using namespace lowrank;

TEST_CASE("the first value that is wrong is the one that is named") {
    const auto document = detail::json::parse(
        R"({"a": true, "r": 4, "n": 0, "x": 0.5, "t": null, "names": ["p", "q"], "bad": -1, "worse": "w"})");
    detail::config_reader in(document);
    bool a = false;
    lowrank::index r = 0;
    std::int64_t n = 7;
    double x = 0;
    std::vector<std::string> names;
    in.boolean("a", a);
    in.rank("r", r);
    in.count("n", n);
    in.number("x", x);
    in.count("t", n);  // null is absent
    in.count("absent", n);
    in.names("names", names);
    REQUIRE(in.why);
    CHECK(a);
    CHECK(r == 4);
    CHECK(n == 0);
    CHECK(x == 0.5);
    CHECK(names == std::vector<std::string>{"p", "q"});
    in.count("bad", n);
    in.boolean("worse", a);
    CHECK(in.why.code == errc::invalid_format);
    CHECK(in.why.message == "bad must be an integer that is not negative, got -1");
    CHECK(n == 0);
}
