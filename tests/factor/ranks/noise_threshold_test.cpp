// SPDX-License-Identifier: MIT
#include <lowrank/factor/ranks/noise_threshold.hpp>
#include <lowrank/factor/ranks/shrink.hpp>

#include <cmath>
#include <numbers>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/factor/svd.hpp>

#include <support/matrices.hpp>

#include <doctest/doctest.h>

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE("the constants of Gavish and Donoho, and the Marchenko-Pastur median") {
    CHECK(gavish_donoho_lambda(1.0) == doctest::Approx(4.0 / std::sqrt(3.0)).epsilon(1e-14));
    CHECK(std::abs(gavish_donoho_omega(1.0) - 2.8584) < 5e-5);
    const double table[4][4] = {{1.0, 2.3094, 0.6528, 2.8584},
                                {0.372, 1.8732, 0.8745, 2.0031},
                                {0.286, 1.7939, 0.9038, 1.8870},
                                {0.25, 1.7580, 0.9160, 1.8369}};
    for (const auto& row : table) {
        CHECK(std::abs(gavish_donoho_lambda(row[0]) - row[1]) < 2e-4);
        CHECK(std::abs(marchenko_pastur_median(row[0]) - row[2]) < 2e-4);
        CHECK(std::abs(gavish_donoho_omega(row[0]) - row[3]) < 3e-4);
    }
    // As beta falls, the law shrinks to a point at 1.
    CHECK(marchenko_pastur_median(1e-6) == doctest::Approx(1.0).epsilon(1e-5));
    CHECK_THROWS_AS((void)gavish_donoho_lambda(0.0), contract_violation);
    CHECK_THROWS_AS((void)marchenko_pastur_median(1.5), contract_violation);
}

TEST_CASE("the median splits the law: numerical check by histogram of the density") {
    for (const double beta : {0.1, 0.5, 0.9}) {
        const double low = std::pow(1.0 - std::sqrt(beta), 2);
        const double high = std::pow(1.0 + std::sqrt(beta), 2);
        const double median = marchenko_pastur_median(beta);
        double below = 0.0;
        const int steps = 200000;
        for (int i = 0; i < steps; ++i) {
            const double x = low + (median - low) * (i + 0.5) / steps;
            below += std::sqrt((high - x) * (x - low)) / (2.0 * std::numbers::pi * beta * x) * (median - low) / steps;
        }
        CHECK(std::abs(below - 0.5) < 1e-5);
    }
}

TEST_CASE_TEMPLATE("rounding of a matrix of low rank is no signal", S, float, double) {
    const matrix<S> ones = matrix<S>::Ones(60, 40);
    const auto s = singular_values(ones).value();
    CHECK(marchenko_pastur_rank(s, 60, 40) == 1);
    CHECK(gavish_donoho_rank(s, 60, 40) == 1);
    CHECK((shrink_optimal(s, 60, 40).array() > 0).count() == 1);
    const auto f = svd(matrix<S>(gaussian<S>(50, 3, 77) * gaussian<S>(3, 30, 78)));
    CHECK(marchenko_pastur_rank(f, 50, 30) == 3);
}

TEST_CASE("pure noise keeps at most one value, planted spikes are all found") {
    std::uint64_t stream = 40;
    for (const auto& shape : {std::pair<idx, idx>{160, 160}, {430, 160}, {160, 560}, {640, 160}}) {
        const idx m = shape.first;
        const idx n = shape.second;
        CAPTURE(m);
        CAPTURE(n);
        const double sigma = 0.02;
        const matrix<double> noise = gaussian<double>(m, n, ++stream) * sigma;
        const auto s = singular_values(noise);
        REQUIRE(s);
        CHECK(noise_level_from_median(*s, m, n) == doctest::Approx(sigma).epsilon(0.02));
        CHECK(marchenko_pastur_rank(*s, m, n) <= 1);
        CHECK(marchenko_pastur_rank(*s, m, n, sigma) <= 1);
        CHECK(gavish_donoho_rank(*s, m, n) == 0);
        CHECK(gavish_donoho_rank(*s, m, n, sigma) == 0);

        // Twelve spikes well above the edge.
        const double edge = marchenko_pastur_edge(sigma, m, n);
        vector<double> spikes(12);
        for (idx i = 0; i < 12; ++i) {
            spikes(i) = edge * (1.6 + 0.2 * static_cast<double>(i));
        }
        const auto found = singular_values((noise + with_values<double>(m, n, spikes, ++stream)).eval());
        REQUIRE(found);
        CHECK(marchenko_pastur_rank(*found, m, n) == 12);
        CHECK(marchenko_pastur_rank(*found, m, n, sigma) == 12);
        CHECK(gavish_donoho_rank(*found, m, n) == 12);
        CHECK(gavish_donoho_threshold(*found, m, n) > edge);
    }
}

TEST_CASE_TEMPLATE("empty, zero and incomplete spectra", S, float, double) {
    CHECK(marchenko_pastur_rank(vector<S>(0), 0, 5) == 0);
    CHECK(gavish_donoho_rank(vector<S>(0), 0, 5) == 0);
    CHECK(marchenko_pastur_rank(vector<S>(vector<S>::Zero(4)), 4, 5) == 0);
    const vector<S> s = geometric(4, 1.0, 0.5).cast<S>();
    CHECK(noise_level_from_median(s, 4, 4) == doctest::Approx(0.375 / std::sqrt(4 * 0.6528)).epsilon(1e-3));
    CHECK_THROWS_AS((void)marchenko_pastur_rank(s, 6, 6), contract_violation);
    CHECK_THROWS_AS((void)marchenko_pastur_edge(-1.0, 2, 2), contract_violation);
}
