// SPDX-License-Identifier: MIT
#include <lowrank/core/packets.hpp>

#include <doctest/doctest.h>

using namespace lowrank;

TEST_CASE_TEMPLATE("a packet loads, adds and stores as many scalars as it has lanes", S, float, double) {
    using P = detail::packet_of<S>;
    constexpr auto n = static_cast<std::size_t>(detail::lanes<S>);
    static_assert(n >= 1 && sizeof(P) == n * sizeof(S));
    S x[n], y[n];
    for (std::size_t i = 0; i < n; ++i) {
        x[i] = static_cast<S>(i + 1);
    }
    const P p = Eigen::internal::ploadu<P>(x);
    Eigen::internal::pstoreu(y, Eigen::internal::pmadd(p, p, Eigen::internal::pset1<P>(S(1))));
    for (std::size_t i = 0; i < n; ++i) {
        CHECK(y[i] == x[i] * x[i] + S(1));
    }
}

TEST_CASE("unroll calls with each constant in order") {
    int sum = 0, calls = 0;
    detail::unroll<5>([&](auto i) {
        static_assert(i < 5);
        CHECK(i == calls);
        sum += i;
        ++calls;
    });
    CHECK(sum == 10);
}
