// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>

#include <cstddef>
#include <limits>
#include <string>

#include <doctest/doctest.h>

using namespace lowrank;

TEST_CASE("a broken range names function, argument, value and what is allowed") {
    CHECK_NOTHROW(detail::expects_in_range("truncated_svd", "rank", 0, 0, 768));
    CHECK_NOTHROW(detail::expects_in_range("truncated_svd", "rank", 768, 0, 768));
    CHECK_THROWS_WITH_AS(detail::expects_in_range("truncated_svd", "rank", 900, 0, 768),
                         "truncated_svd: rank must be in [0, 768], got 900", contract_violation);
    CHECK_THROWS_WITH_AS(detail::expects_in_range("merge", "strength", -0.5, 0.0, 1.0),
                         "merge: strength must be in [0, 1], got -0.5", contract_violation);
    CHECK_THROWS_AS(detail::expects_in_range("merge", "strength", std::numeric_limits<double>::quiet_NaN(), 0.0, 1.0),
                    contract_violation);
}

TEST_CASE("large integers are printed with all their digits") {
    CHECK_THROWS_WITH_AS(detail::expects_in_range<std::ptrdiff_t>("f", "n", 12345678901, 0, 10),
                         "f: n must be in [0, 10], got 12345678901", contract_violation);
}

TEST_CASE("a broken shape names both shapes") {
    CHECK_NOTHROW(detail::expects_shape("apply", "x", 3, 4, 3, 4));
    CHECK_THROWS_WITH_AS(detail::expects_shape("apply", "x", 3, 5, 3, 4), "apply: x must be 3 x 4, got 3 x 5",
                         contract_violation);
    CHECK_THROWS_WITH_AS(detail::expects_shape("apply", "x", 2, 4, 3, 4), "apply: x must be 3 x 4, got 2 x 4",
                         contract_violation);
}

TEST_CASE("parts of a message may be text of any kind and numbers of any kind") {
    const std::string name = "w";
    CHECK_THROWS_WITH_AS(detail::fail_contract_with("f: ", name, " is ", 3, " x ", std::size_t{4}, " at ", 0.25F),
                         "f: w is 3 x 4 at 0.25", contract_violation);
    CHECK_NOTHROW(detail::expects(true, "never"));
    CHECK_THROWS_WITH_AS(detail::expects(false, "f: always"), "f: always", contract_violation);
}
