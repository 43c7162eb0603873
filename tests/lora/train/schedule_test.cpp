// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/lora/train/schedule.hpp>

#include <vector>

#include <doctest/doctest.h>

using namespace lowrank;

namespace {

std::vector<double> shares(const learning_rate_schedule& s) {
    std::vector<double> all;
    for (lowrank::index step = 0; step < s.steps + 2; ++step) {
        all.push_back(learning_rate_share(s, step));
    }
    return all;
}

void check_shares(const learning_rate_schedule& s, const std::vector<double>& want) {
    const auto got = shares(s);
    REQUIRE(got.size() == want.size());
    for (std::size_t i = 0; i < want.size(); ++i) {
        CAPTURE(i);
        CHECK(got[i] == doctest::Approx(want[i]).epsilon(1e-12));
    }
}

}  // namespace

TEST_CASE("warmup rises to the peak, and each way down ends at its last share") {
    check_shares({.kind = decay::constant, .steps = 4, .warmup_steps = 2}, {1.0 / 3, 2.0 / 3, 1, 1, 1, 1});
    check_shares({.kind = decay::linear, .steps = 5, .final_share = 0.2}, {1, 0.8, 0.6, 0.4, 0.2, 0.2, 0.2});
    check_shares({.kind = decay::cosine, .steps = 5, .warmup_steps = 1, .final_share = 0.5},
                 {0.5, 1, 0.875, 0.625, 0.5, 0.5, 0.5});
    check_shares({.kind = decay::polynomial, .steps = 5}, {1, 0.5625, 0.25, 0.0625, 0, 0, 0});
    check_shares({.kind = decay::polynomial, .steps = 3, .power = 1}, {1, 0.5, 0, 0, 0});
    check_shares({}, {1, 1, 1});
}

TEST_CASE("a step or a share that cannot be is a contract violation") {
    CHECK_THROWS_AS((void)learning_rate_share({}, -1), contract_violation);
    CHECK_THROWS_AS((void)learning_rate_share({.steps = 0}, 0), contract_violation);
    CHECK_THROWS_AS((void)learning_rate_share({.final_share = 2}, 0), contract_violation);
}
