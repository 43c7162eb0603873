// SPDX-License-Identifier: MIT
#include <lowrank/core/status.hpp>

#include <string>

#include <doctest/doctest.h>

using namespace lowrank;

TEST_CASE("a status is true when all is well") {
    CHECK(static_cast<bool>(status{}));
    CHECK_FALSE(static_cast<bool>(status{errc::not_found, "no such file"}));
    CHECK(std::string(to_string(errc::non_finite)) == "non_finite");
}

TEST_CASE("a result holds a value or the reason there is none") {
    result<int> good = 7;
    REQUIRE(good);
    CHECK(*good == 7);
    CHECK(good.value() == 7);
    CHECK_THROWS_AS((void)good.error(), contract_violation);

    const result<int> bad = status{errc::io_failure, "disk full: free some space"};
    REQUIRE_FALSE(bad);
    CHECK(bad.error().code == errc::io_failure);
    CHECK_THROWS_WITH_AS((void)bad.value(), "disk full: free some space", failure);
    CHECK_THROWS_AS(result<int>(status{}), contract_violation);
}

TEST_CASE("throw_if_failed throws only failures") {
    CHECK_NOTHROW(throw_if_failed({}));
    CHECK_THROWS_AS(throw_if_failed({errc::cancelled, "stopped"}), failure);
}
