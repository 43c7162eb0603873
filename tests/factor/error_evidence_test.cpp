// SPDX-License-Identifier: MIT
#include <lowrank/factor/error_evidence.hpp>

#include <set>
#include <string>

#include <doctest/doctest.h>

using namespace lowrank;

TEST_CASE("every source of an error has a name of its own, and no error is an exact one") {
    std::set<std::string> names;
    for (const auto how :
         {error_source::exact, error_source::difference, error_source::residual, error_source::sampled}) {
        names.insert(to_string(how));
    }
    CHECK(names.size() == 4);
    CHECK(names.count("unknown") == 0);
    const error_evidence none;
    CHECK(none.how == error_source::exact);
    CHECK(none.frobenius == 0.0);
    CHECK(none.deviation == 0.0);
}
