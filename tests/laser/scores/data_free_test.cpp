// SPDX-License-Identifier: MIT
#include <lowrank/laser/scores/data_free.hpp>

#include <cmath>
#include <limits>

#include <doctest/doctest.h>

#include <lowrank/core/check.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/factor/svd.hpp>

using namespace lowrank;

namespace {

vector<double> noise_values(lowrank::index m, lowrank::index n, lowrank::index spikes) {
    matrix<double> w(m, n);
    fill_normal(w, 1.0, philox(1));
    for (lowrank::index i = 0; i < spikes; ++i) {
        w.row(i) *= 8.0;
    }
    return singular_values(w).value();
}

}  // namespace

TEST_CASE("quantiles are those of numpy") {
    vector<double> s(5);
    s << 10, 7, 4, 2, 1;
    CHECK(quantile_of_descending(s, 0) == 1);
    CHECK(quantile_of_descending(s, 1) == 10);
    CHECK(quantile_of_descending(s, 0.5) == 4);
    CHECK(quantile_of_descending(s, 0.75) == 7);
    CHECK(quantile_of_descending(s, 0.9) == doctest::Approx(8.8));
    CHECK(laser_rmt_threshold(s, 5, 20) == doctest::Approx((7 - 2) / 1.349 * 1.5));
    CHECK(laser_rmt_rank(s, 5, 20) == 2);
    CHECK(data_free_score(s, 5, 20, data_free_policy::laser_rmt) == doctest::Approx(17.0 / 7));
    CHECK(data_free_score(s, 5, 20, data_free_policy::spectrum) == doctest::Approx(1.7 / 7));
}

TEST_CASE("of pure noise laserRMT's threshold keeps a quarter to all, the Marchenko-Pastur edge next to nothing") {
    // Asymptotic shares: 23.7 % at 1 : 1, all at 1 : 4.
    const auto square = noise_values(200, 200, 0), wide = noise_values(100, 400, 0);
    CHECK(static_cast<double>(laser_rmt_rank(square, 200, 200)) / 200 == doctest::Approx(0.237).epsilon(0.15));
    CHECK(laser_rmt_rank(wide, 100, 400) == 100);
    CHECK(std::isinf(data_free_score(wide, 100, 400, data_free_policy::laser_rmt)));
    CHECK(data_free_score(square, 200, 200, data_free_policy::noise) > 0.95);
    CHECK(data_free_score(wide, 100, 400, data_free_policy::noise) > 0.95);
    const auto planted = noise_values(100, 400, 5);
    CHECK(data_free_score(planted, 100, 400, data_free_policy::noise) < 0.4);
}

TEST_CASE("a flat spectrum and a single value are the ends of the scales") {
    const vector<float> flat = vector<float>::Constant(8, 3.0F);
    vector<float> one = vector<float>::Zero(8);
    CHECK(data_free_score(one, 8, 9, data_free_policy::noise) == 0);
    one(0) = 3;
    CHECK(data_free_score(flat, 8, 9, data_free_policy::effective_rank) == doctest::Approx(1));
    CHECK(data_free_score(one, 8, 9, data_free_policy::effective_rank) == doctest::Approx(0.125));
    CHECK(data_free_score(flat, 8, 9, data_free_policy::spectral_share) == doctest::Approx(1 / std::sqrt(8.0)));
    CHECK(data_free_score(one, 8, 9, data_free_policy::spectral_share) == doctest::Approx(1));
    CHECK_THROWS_AS((void)data_free_score(one, 7, 9, data_free_policy::noise), contract_violation);
}
