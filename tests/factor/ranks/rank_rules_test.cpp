// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/factor/ranks/rank_choice.hpp>
#include <lowrank/factor/ranks/rank_rules.hpp>
#include <lowrank/factor/svd.hpp>

#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include <support/matrices.hpp>

#include <doctest/doctest.h>

using namespace lowrank;
using namespace lowrank_tests;

namespace {

/// The spectrum the published numbers of kohya, PEFT and LyCORIS are stated for: 8, 4, 2, .. 1/16.
template <class S>
vector<S> octaves() {
    return geometric(8, 8.0, 0.5).cast<S>();
}

}  // namespace

TEST_CASE("LASER's fraction and its reference code's rate") {
    const std::array<double, 10> rates{1, 2, 4, 6, 8, 9, 9.5, 9.9, 9.95, 10};
    const std::array<idx, 10> of_4096{3686, 3276, 2457, 1638, 819, 409, 204, 40, 20, 0};
    const std::array<idx, 10> of_768{691, 614, 460, 307, 153, 76, 38, 7, 3, 0};
    for (std::size_t i = 0; i < rates.size(); ++i) {
        CHECK(rank_from_laser_rate(rates[i], 16384, 4096) == of_4096[i]);
        CHECK(rank_from_laser_rate(rates[i], 768, 3072) == of_768[i]);
    }
    CHECK(rank_from_fraction(0.01, 4096, 4096) == 40);
    CHECK(rank_from_fraction(0.05, 4096, 11008) == 204);
    CHECK(rank_from_fraction(0.0, 10, 10) == 0);
    CHECK(rank_from_fraction(1.0, 7, 10) == 7);
    // The product is rounded in double, as in the reference code.
    CHECK(rank_from_fraction(0.29, 100, 100) == 28);
    CHECK(rank_from_fraction(0.57, 300, 100) == 56);
    CHECK(rank_from_fraction(0.3, 100, 100) == 30);
    CHECK_THROWS_WITH_AS((void)rank_from_fraction(1.5, 4, 4), "rank_from_fraction: rho must be in [0, 1], got 1.5",
                         contract_violation);
    CHECK_THROWS_AS((void)rank_from_fraction(std::numeric_limits<double>::quiet_NaN(), 4, 4), contract_violation);
    CHECK_THROWS_AS((void)rank_from_laser_rate(10.5, 4, 4), contract_violation);
}

TEST_CASE("parameter ratios and the break-even rank") {
    CHECK(break_even_rank(4096, 4096) == 2048);
    CHECK(break_even_rank(16384, 4096) == 3276);
    CHECK(break_even_rank(0, 5) == 0);
    CHECK(rank_from_parameter_ratio(1.0, 4096, 4096) == 2048);
    CHECK(rank_from_parameter_ratio(1.0, 16384, 4096) == 3276);
    CHECK(rank_from_parameter_ratio(0.5, 4096, 4096, 128) == 1024);
    CHECK(rank_from_parameter_ratio(0.3, 4096, 4096, 128) == 640);
    CHECK(rank_from_parameter_ratio(100.0, 6, 4) == 4);
    for (const auto& [m, n] : {std::pair<idx, idx>{30, 70}, {64, 64}, {1, 9}}) {
        for (double ratio = 0.0; ratio <= 1.0; ratio += 0.01) {
            const idx k = rank_from_parameter_ratio(ratio, m, n);
            const double budget = ratio * static_cast<double>(m * n) + 1e-9;
            CHECK(static_cast<double>(k * (m + n)) <= budget);
            CHECK((k == std::min(m, n) || static_cast<double>((k + 1) * (m + n)) > budget - 2e-9));
        }
    }
    CHECK(clamped_rank(8, 3, 5) == 3);
    CHECK(clamped_rank(2, 3, 5) == 2);
}

TEST_CASE_TEMPLATE("the conventions of PEFT, kohya and LyCORIS give their published ranks", S, float, double) {
    const auto s = octaves<S>();
    CHECK(rank_from_energy(s, 0.5) == 1);
    CHECK(rank_from_energy(s, 0.9) == 2);
    CHECK(rank_from_energy(s, 0.99) == 4);

    CHECK(kohya_ratio_rank(s, 2.0, 99) == 2);
    CHECK(kohya_ratio_rank(s, 5.0, 99) == 4);
    CHECK(kohya_ratio_rank(s, 10.0, 99) == 5);
    CHECK(kohya_ratio_rank(s, 100.0, 99) == 8);
    CHECK(kohya_frobenius_rank(s, 0.9, 99) == 3);
    CHECK(kohya_frobenius_rank(s, 0.95, 99) == 3);
    CHECK(kohya_frobenius_rank(s, 0.99, 99) == 4);
    CHECK(kohya_cumulative_rank(s, 0.5, 99) == 2);
    CHECK(kohya_cumulative_rank(s, 0.75, 99) == 3);
    CHECK(kohya_cumulative_rank(s, 0.9, 99) == 5);
    CHECK(kohya_cumulative_rank(s, 0.9, 4) == 4);
    CHECK(kohya_ratio_rank(vector<S>(s * S(1e-8)), 2.0, 99) == 1);
    CHECK(kohya_ratio_rank(vector<S>(vector<S>::Ones(1)), 2.0, 99) == 1);

    CHECK(rank_above_ratio(s, 0.1) == 4);
    CHECK(lycoris_quantile_rank(s, 0.9) == 3);
    CHECK(rank_above_threshold(s, 1.0) == 3);
}

TEST_CASE_TEMPLATE("shares are met, and by no smaller rank", S, float, double) {
    const vector<S> s = power_law(50, 0.8).cast<S>();
    const vector<double> x = s.template cast<double>();
    for (double share = 0.0; share <= 1.0; share += 0.05) {
        const idx energy = rank_from_energy(s, share);
        CHECK(x.head(energy).squaredNorm() >= share * x.squaredNorm() * (1 - 1e-12));
        CHECK((energy == 0 || x.head(energy - 1).squaredNorm() < share * x.squaredNorm() * (1 + 1e-12)));
        const idx sum = rank_from_sum_share(s, share);
        CHECK(x.head(sum).sum() >= share * x.sum() * (1 - 1e-12));
        CHECK((sum == 0 || x.head(sum - 1).sum() < share * x.sum() * (1 + 1e-12)));
        CHECK(rank_from_frobenius_share(s, std::sqrt(share)) >= energy - 1);
        CHECK(rank_from_frobenius_share(s, std::sqrt(share)) <= energy + 1);
        CHECK(rank_from_frobenius_share(s, share) <= energy);
        const idx error = rank_from_relative_error(s, share);
        CHECK(x.tail(50 - error).norm() <= share * x.norm() * (1 + 1e-12));
        CHECK((error == 0 || x.tail(50 - error + 1).norm() > share * x.norm() * (1 - 1e-12)));
    }
    CHECK(rank_from_energy(s, 1.0) == 50);
    CHECK(rank_from_relative_error(s, 0.0) == 50);
    // Tails far below rounding of the total still count.
    const vector<S> steep = geometric(6, 1.0, 1e-5).cast<S>();
    CHECK(rank_from_relative_error(steep, 1e-17) == 4);
}

TEST_CASE_TEMPLATE("single numbers: between one and the rank, exact for flat spectra", S, float, double) {
    const vector<S> flat = vector<S>::Constant(7, S(3));
    CHECK(effective_rank(flat) == doctest::Approx(7.0));
    CHECK(stable_rank(flat) == doctest::Approx(7.0));
    CHECK(participation_ratio(flat) == doctest::Approx(7.0));
    vector<S> two = vector<S>::Zero(5);
    two(0) = S(2);
    CHECK(effective_rank(two) == doctest::Approx(1.0));
    CHECK(stable_rank(two) == doctest::Approx(1.0));
    CHECK(participation_ratio(two) == doctest::Approx(1.0));
    two(1) = S(1);
    const double h = -(2.0 / 3 * std::log(2.0 / 3) + 1.0 / 3 * std::log(1.0 / 3));
    CHECK(effective_rank(two) == doctest::Approx(std::exp(h)));
    CHECK(stable_rank(two) == doctest::Approx(1.25));
    CHECK(participation_ratio(two) == doctest::Approx(25.0 / 17.0));
    for (const S scale : {S(1e-30), S(1e30)}) {
        CHECK(effective_rank(vector<S>(two * scale)) == doctest::Approx(std::exp(h)).epsilon(1e-6));
        CHECK(stable_rank(vector<S>(two * scale)) == doctest::Approx(1.25).epsilon(1e-6));
        CHECK(participation_ratio(vector<S>(two * scale)) == doctest::Approx(25.0 / 17.0).epsilon(1e-6));
        CHECK(rank_from_energy(vector<S>(two * scale), 0.9) == 2);
    }
}

TEST_CASE_TEMPLATE("empty and zero spectra; values that are none", S, float, double) {
    for (const vector<S>& s : {vector<S>(0), vector<S>(vector<S>::Zero(4))}) {
        CHECK(rank_from_energy(s, 0.9) == 0);
        CHECK(rank_from_sum_share(s, 0.9) == 0);
        CHECK(rank_from_relative_error(s, 0.1) == 0);
        CHECK(rank_above_ratio(s, 0.1) == 0);
        CHECK(effective_rank(s) == 0.0);
        CHECK(stable_rank(s) == 0.0);
        CHECK(participation_ratio(s) == 0.0);
        CHECK(kohya_ratio_rank(s, 2.0, 9) == std::min<idx>(s.size(), 1));
        CHECK(lycoris_quantile_rank(s, 0.9) == std::min<idx>(s.size(), 1));
    }
    vector<S> s(3);
    s << S(1), S(2), S(0);
    CHECK_THROWS_AS((void)rank_from_energy(s, 0.9), contract_violation);
    s << S(1), std::numeric_limits<S>::quiet_NaN(), S(0);
    CHECK_THROWS_AS((void)effective_rank(s), contract_violation);
    s << S(1), S(0), S(-1);
    CHECK_THROWS_AS((void)stable_rank(s), contract_violation);
    CHECK_THROWS_AS((void)rank_from_energy(octaves<S>(), 1.1), contract_violation);
}

TEST_CASE_TEMPLATE("rules read expressions, and complete decompositions", S, float, double) {
    vector<S> s(6);
    s << S(4), S(2), S(1), S(0.5), S(0.25), S(0.125);
    CHECK(rank_from_energy(s.head(4), 0.9) == 2);
    CHECK(rank_from_energy(s * S(3), 0.9) == rank_from_energy(s, 0.9));
    CHECK(effective_rank(s.head(1)) == doctest::Approx(1.0));
    matrix<S> w = matrix<S>::Zero(6, 6);
    w.diagonal() = s;
    const auto f = svd(w);
    CHECK(rank_from_energy(f, 0.9) == rank_from_energy(s, 0.9));
    CHECK_THROWS_AS((void)rank_from_energy(f.leading(3), 0.9), contract_violation);
    CHECK(rank_within(f.leading(3), {.rule = rank_rule::energy, .value = 0.9}).value() == 2);
    CHECK(rank_within(f.leading(3), {.rule = rank_rule::sum_share, .value = 0.5}).error().code == errc::unsupported);
    CHECK(stored_numbers(2, 6, 6) == 24);
    CHECK(stored_numbers(5, 6, 6) == 36);
}
