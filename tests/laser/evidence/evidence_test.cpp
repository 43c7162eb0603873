// SPDX-License-Identifier: MIT
#include <lowrank/laser/evidence/evidence.hpp>

#include <cmath>
#include <cstdint>

#include <doctest/doctest.h>

#include <lowrank/core/check.hpp>
#include <lowrank/core/philox.hpp>

using namespace lowrank;

TEST_CASE("McNemar's exact p-value is the binomial tail") {
    CHECK(mcnemar_p(0, 0) == 1.0);
    CHECK(mcnemar_p(1, 1) == 1.0);
    CHECK(mcnemar_p(5, 0) == doctest::Approx(2.0 / 32).epsilon(1e-13));
    CHECK(mcnemar_p(0, 5) == mcnemar_p(5, 0));
    CHECK(mcnemar_p(8, 2) == doctest::Approx(2.0 * (1 + 10 + 45) / 1024).epsilon(1e-12));
    CHECK(mcnemar_p(100000, 100000) == 1.0);
    CHECK(mcnemar_p(6000, 5000) < 1e-20);
    CHECK(mcnemar_p(6000, 5000) > 0);
    CHECK_THROWS_AS((void)mcnemar_p(-1, 0), contract_violation);
}

TEST_CASE("paired comparison counts and averages") {
    sample_scores before, after;
    for (int i = 0; i < 100; ++i) {  // 30 gained, 5 lost, 40 right twice, 25 wrong twice; loss falls by 0.1 or 0.3
        before.add(i >= 30 && i < 75, 2.0);
        after.add(i < 30 || (i >= 35 && i < 75), i % 2 == 0 ? 1.9 : 1.7);
    }
    const auto e = compare_paired(before, after);
    CHECK(e.samples == 100);
    CHECK(e.gained == 30);
    CHECK(e.lost == 5);
    CHECK(e.accuracy_gain == doctest::Approx(0.25));
    // Bonett and Price by hand, with one sample added to each discordant cell: 31 up, 6 down, of 102.
    const double width = 1.959963984540054 * std::sqrt((37.0 * 102 - 25.0 * 25) / (102.0 * 102 * 102));
    CHECK(e.accuracy_interval.low == doctest::Approx(25.0 / 102 - width).epsilon(1e-12));
    CHECK(e.accuracy_interval.high == doctest::Approx(25.0 / 102 + width).epsilon(1e-12));
    CHECK(e.gain_is_significant());
    CHECK(e.mcnemar_p == mcnemar_p(30, 5));
    CHECK(e.log_loss_gain == doctest::Approx(0.2));
    const double half_width = 1.959963984540054 * 0.1 / std::sqrt(99.0);
    CHECK(e.log_loss_interval.low == doctest::Approx(0.2 - half_width).epsilon(1e-10));
    CHECK(e.log_loss_interval.high == doctest::Approx(0.2 + half_width).epsilon(1e-10));
    CHECK_THROWS_AS((void)compare_paired(before, {}), contract_violation);
    CHECK_THROWS_AS((void)compare_paired(before, after, 1.0), contract_violation);
    sample_scores no_losses = after;
    no_losses.log_loss.resize(20);
    CHECK_THROWS_AS((void)compare_paired(before, no_losses), contract_violation);
    CHECK_THROWS_AS((void)compare_paired(no_losses, after), contract_violation);
}

TEST_CASE("one sample and no change make no claim") {
    sample_scores one;
    one.add(true, 0.5);
    const auto e = compare_paired(one, one);
    CHECK(e.accuracy_gain == 0);
    CHECK(e.mcnemar_p == 1);
    CHECK(e.accuracy_interval.contains(0));
    CHECK_FALSE(e.gain_is_significant());
    CHECK(e.log_loss_interval.contains(1e6));
}

TEST_CASE("95 % intervals cover the truth about 95 times in 100") {
    // A sample is gained with probability 0.20 and lost with 0.08; its loss falls by a normal of mean 0.05.
    int covered = 0, loss_covered = 0;
    constexpr int trials = 2000;
    for (std::uint64_t t = 0; t < trials; ++t) {
        const philox rng(5, t);
        sample_scores before, after;
        for (std::uint64_t i = 0; i < 80; ++i) {
            const double u = rng.uniform<double>(i);
            before.add(u >= 0.20 && u < 0.28, 1.0);
            after.add(u < 0.20, 0.95 + 0.4 * rng.normal<double>(1000 + i));
        }
        const auto e = compare_paired(before, after);
        covered += e.accuracy_interval.contains(0.12);
        loss_covered += e.log_loss_interval.contains(0.05);
    }
    CHECK(covered > 0.93 * trials);
    CHECK(covered < 0.98 * trials);
    CHECK(loss_covered > 0.92 * trials);
    CHECK(loss_covered < 0.97 * trials);
}

TEST_CASE("p-values are corrected for the number of candidates, and the expected maximum is known") {
    CHECK(corrected_p(0.01, 5) == doctest::Approx(0.05));
    CHECK(corrected_p(0.4, 5) == 1);
    CHECK_THROWS_AS((void)corrected_p(0.1, 0), contract_violation);
    CHECK(expected_max_of_normals(1) == 0);
    CHECK(expected_max_of_normals(2) == doctest::Approx(0.5642).epsilon(0.05));    // 1/sqrt(pi)
    CHECK(expected_max_of_normals(100) == doctest::Approx(2.5076).epsilon(0.01));  // order statistics tables
}

TEST_CASE("the number of samples that would show a gain is the one that shows it") {
    // 6 % gained, 2 % lost: simulate at the suggested size and count how often the interval excludes zero.
    sample_scores before, after;
    for (int i = 0; i < 100; ++i) {
        before.add(i >= 6, 1.0);
        after.add(i < 98, 1.0 - 0.01 * (i % 5));
    }
    const auto e = compare_paired(before, after);
    CHECK(e.accuracy_gain == doctest::Approx(0.04));
    const auto needed = samples_for_accuracy_gain(e);
    REQUIRE(needed);
    CHECK(*needed == doctest::Approx(2.8016 * 2.8016 * (0.08 - 0.0016) / 0.0016).epsilon(0.01));
    int sure = 0;
    const philox rng(5);
    for (std::uint64_t trial = 0; trial < 200; ++trial) {
        sample_scores b, a;
        for (lowrank::index i = 0; i < *needed; ++i) {
            const double u = rng.uniform<double>(trial * 10000 + static_cast<std::uint64_t>(i));
            b.add(u >= 0.06, 1);
            a.add(u < 0.98, 1);
        }
        sure += compare_paired(b, a).gain_is_significant() ? 1 : 0;
    }
    CHECK(sure > 140);
    CHECK(sure < 180);

    CHECK(e.log_loss_p() < 1e-9);
    CHECK(samples_for_log_loss_gain(e).value() < 100);
    CHECK_FALSE(samples_for_accuracy_gain(compare_paired(after, before)));
    const auto same = compare_paired(before, before);
    CHECK(same.log_loss_p() == 1);
    CHECK_FALSE(samples_for_log_loss_gain(same));
}
