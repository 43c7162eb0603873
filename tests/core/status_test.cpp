// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/core/status.hpp>

#include <memory>
#include <string>
#include <utility>

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
    CHECK_THROWS_AS((void)result<int>(status{}), contract_violation);
    CHECK_THROWS_WITH_AS((void)*bad, "result: there is no value; disk full: free some space", contract_violation);
    CHECK_THROWS_AS((void)result<std::string>(bad.error())->size(), contract_violation);
}

TEST_CASE("throw_if_failed throws only failures") {
    CHECK_NOTHROW(throw_if_failed({}));
    CHECK_THROWS_AS(throw_if_failed({errc::cancelled, "stopped"}), failure);
    CHECK_NOTHROW(throw_if_failed(result<int>(7)));
    CHECK_THROWS_AS(throw_if_failed(result<int>(status{errc::cancelled, "stopped"})), failure);
}

TEST_CASE("a result moves what it holds and reaches into it") {
    result<std::unique_ptr<std::string>> held = std::make_unique<std::string>("value");
    REQUIRE(held);
    CHECK(**held == "value");
    CHECK((*held)->size() == 5);
    CHECK(held->get() == (*held).get());
    const std::unique_ptr<std::string> out = std::move(held).value();
    CHECK(*out == "value");

    const result<std::string> text = std::string("abc");
    CHECK(text->size() == 3);
    CHECK(text.value() == "abc");
    CHECK(*result<std::string>(std::string("moved")) == "moved");
}

TEST_CASE("a failure carries its status") {
    try {
        throw_if_failed({errc::mismatch, "the adapter belongs to another base"});
        FAIL("nothing was thrown");
    } catch (const failure& e) {
        CHECK(e.why().code == errc::mismatch);
        CHECK(std::string(e.what()) == "the adapter belongs to another base");
    }
}

TEST_CASE("every code has its own name") {
    const errc codes[] = {errc::ok,          errc::non_finite, errc::no_convergence, errc::invalid_format,
                          errc::unsupported, errc::mismatch,   errc::not_found,      errc::io_failure,
                          errc::cancelled};
    for (const errc a : codes) {
        CHECK(std::string(to_string(a)) != "unknown");
        for (const errc b : codes) {
            CHECK((std::string(to_string(a)) == to_string(b)) == (a == b));
        }
    }
}

TEST_CASE("a result with the base `fallible` is true unless it says why it failed") {
    struct count : fallible {
        int value = 0;
    };
    count good;
    good.value = 3;
    CHECK(good);
    const auto fail = []() -> count { return {{.why = {errc::not_found, "nothing to count"}}}; };
    CHECK_FALSE(fail());
    CHECK(fail().why.message == "nothing to count");
    CHECK_THROWS_AS(throw_if_failed(fail()), failure);
}
