// SPDX-License-Identifier: MIT
#include <lowrank/prune/magnitude.hpp>

#include <limits>
#include <vector>

#include <doctest/doctest.h>

#include <lowrank/core/check.hpp>
#include <lowrank/core/philox.hpp>

using namespace lowrank;

TEST_CASE_TEMPLATE("a rate zeroes the place it names and everything below or equal", T, float, double, half, bfloat16) {
    row_matrix<T> w(2, 5);
    w << T(5), T(-1), T(2), T(-3), T(4), T(6), T(-7), T(8), T(2), T(10);
    row_matrix<T> want = w;
    CHECK(prune_to_rate(weight_view<T>(w), 2.0).value() == 3);  // sorted: 1 2 [2] 3 ..: the tie goes too
    want(0, 1) = want(0, 2) = want(1, 3) = T(0);
    CHECK((w.array() == want.array()).all());
    CHECK(prune_to_rate(weight_view<T>(w), 10.0).value() == 10);
    CHECK((w.array() == T(0)).all());
    row_matrix<T> none(0, 3);
    CHECK(prune_to_rate(weight_view<T>(none), 5.0).value() == 0);
    CHECK_THROWS_AS((void)prune_to_rate(weight_view<T>(w), 10.5), contract_violation);
    want(1, 1) = std::numeric_limits<T>::quiet_NaN();
    w = want;
    CHECK(prune_to_rate(weight_view<T>(w), 5.0).error().code == errc::non_finite);
    CHECK(w(0, 0) == want(0, 0));
}

TEST_CASE_TEMPLATE("keep_largest keeps exactly that many", S, float, double) {
    matrix<S> x(40, 5);
    fill_normal(x, S(1), philox(3));
    x.col(4) = x.col(3);  // ties
    for (const lowrank::index count : {0, 1, 77, 199, 200, 300}) {
        matrix<S> y = x;
        keep_largest<S>({y.data(), static_cast<std::size_t>(y.size())}, count);
        const auto kept = std::min<lowrank::index>(count, 200);
        CHECK((y.array() != S(0)).count() == kept);
        S smallest_kept = S(100);
        S largest_gone = S(0);
        for (lowrank::index i = 0; i < x.size(); ++i) {
            const S size = std::abs(x.data()[i]);
            if (y.data()[i] != S(0)) {
                CHECK(y.data()[i] == x.data()[i]);
                smallest_kept = std::min(smallest_kept, size);
            } else {
                largest_gone = std::max(largest_gone, size);
            }
        }
        CHECK(largest_gone <= smallest_kept);
    }
    std::vector<S> equal(6, S(1));
    keep_largest<S>(equal, 2);
    std::vector<S> broken{1, std::numeric_limits<S>::quiet_NaN(), 2};
    CHECK_THROWS_AS(keep_largest<S>(broken, 1), contract_violation);
    CHECK(equal == std::vector<S>{1, 1, 0, 0, 0, 0});
}
