// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/laser/edits/random_change.hpp>

#include <limits>

#include <doctest/doctest.h>

#include "laser/planted_model.hpp"

using namespace lowrank;

TEST_CASE_TEMPLATE("a random change has the size asked for and comes off", T, float, double, bfloat16) {
    row_matrix<T> w(20, 13);
    for (lowrank::index i = 0; i < w.size(); ++i) {
        w.data()[i] = static_cast<T>(static_cast<float>(i % 7) - 3);
    }
    const row_matrix<T> original = w;
    const auto receipt = apply_random_change<T>(w, 2.5, 7).value();
    const double moved = (w.template cast<double>() - original.template cast<double>()).norm();
    CHECK(moved == doctest::Approx(2.5).epsilon(std::is_same_v<T, bfloat16> ? 3e-2 : 1e-6));
    CHECK(receipt.removed_norm == doctest::Approx(moved).epsilon(1e-12));
    CHECK(receipt.relative_error == doctest::Approx(moved / original.template cast<double>().norm()).epsilon(1e-6));
    const row_matrix<T> first = w;
    REQUIRE(undo_edit<T>(w, receipt));
    CHECK(lowrank_tests::same_bits(w, original));
    const auto again = apply_random_change<T>(w, 2.5, 7).value();
    CHECK(lowrank_tests::same_bits(w, first));
    REQUIRE(undo_edit<T>(w, again));
    const auto other = apply_random_change<T>(w, 2.5, 8).value();
    CHECK_FALSE(lowrank_tests::same_bits(w, first));
    REQUIRE(undo_edit<T>(w, other));
    const auto none = apply_random_change<T>(w, 0, 8).value();
    CHECK(lowrank_tests::same_bits(w, original));
    CHECK(none.relative_error == 0);
}

TEST_CASE("a broken weight and an overflow are refused, and nothing changes") {
    row_matrix<half> w(2, 2);
    w.setConstant(half(60000.0F));
    const row_matrix<half> original = w;
    CHECK(apply_random_change<half>(w, 1e6).error().code == errc::non_finite);
    CHECK(lowrank_tests::same_bits(w, original));
    w(0, 0) = std::numeric_limits<half>::quiet_NaN();
    CHECK(apply_random_change<half>(w, 1).error().code == errc::non_finite);
    CHECK_THROWS_AS((void)apply_random_change<half>(w, -1), contract_violation);
}
