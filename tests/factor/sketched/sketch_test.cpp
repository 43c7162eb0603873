// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/factor/sketched/sketch.hpp>

#include <cmath>
#include <cstdint>
#include <numbers>

#include <support/matrices.hpp>

#include <doctest/doctest.h>

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE_TEMPLATE("signs are the bits of the generator and grow by columns", S, float, double) {
    const philox rng(5, 3);
    const auto omega = sign_sketch<S>(70, 9, rng);
    for (idx j = 0; j < 9; ++j) {
        for (idx i = 0; i < 70; ++i) {
            const bool minus = ((rng.bits(static_cast<std::uint64_t>(3 * j + i / 32)) >> (i % 32)) & 1U) != 0;
            CHECK(omega(i, j) == (minus ? S(-1) : S(1)));
        }
    }
    CHECK(sign_sketch<S>(70, 4, rng) == omega.leftCols(4));
    CHECK(sign_sketch<double>(70, 9, rng).template cast<S>() == omega);
    CHECK(sign_sketch<S>(70, 9, philox(6, 3)) != omega);
    CHECK(sign_sketch<S>(0, 4, rng).cols() == 4);
    CHECK_THROWS_AS((void)sign_sketch<S>(-1, 4, rng), contract_violation);
}

TEST_CASE("known bits, so that every machine has the same sketch") {
    // Random123's known answer for counter 0 and key 0 starts 6627e8d5 e169c58d.
    const auto omega = sign_sketch<float>(64, 1, philox(0, 0));
    std::uint32_t words[2] = {0, 0};
    for (idx i = 0; i < 64; ++i) {
        words[i / 32] |= (omega(i, 0) < 0 ? 1U : 0U) << (i % 32);
    }
    CHECK(words[0] == 0x6627e8d5U);
    CHECK(words[1] == 0xe169c58dU);
}

TEST_CASE_TEMPLATE("sketches of every kind nearly preserve lengths on average", S, float, double) {
    const idx n = 400;
    const idx k = 300;
    const vector<double> x = gaussian<double>(n, 1, 1);
    for (const auto& omega : {sign_sketch<S>(n, k, philox(1)), gaussian_sketch<S>(n, k, philox(2))}) {
        const double ratio = (omega.template cast<double>().transpose() * x).squaredNorm() / (k * x.squaredNorm());
        CHECK(ratio == doctest::Approx(1.0).epsilon(0.3));
        CHECK(std::abs(omega.template cast<double>().mean()) < 5.0 / std::sqrt(static_cast<double>(n * k)));
    }
    for (const idx nonzeros : {idx{1}, idx{4}, idx{8}, idx{300}}) {
        const auto omega = sparse_sign_sketch<S>(n, k, nonzeros, philox(3));
        const double ratio = (omega.template cast<double>().transpose() * x).squaredNorm() / x.squaredNorm();
        CHECK(ratio == doctest::Approx(1.0).epsilon(0.3));
    }
}

TEST_CASE_TEMPLATE("a sparse row has exactly the nonzeros asked for, in places spread evenly", S, float, double) {
    const idx n = 3000;
    const idx k = 12;
    const auto omega = sparse_sign_sketch<S>(n, k, 4, philox(4));
    vector<double> hits = vector<double>::Zero(k);
    idx minus = 0;
    for (idx i = 0; i < n; ++i) {
        idx count = 0;
        for (idx j = 0; j < k; ++j) {
            if (omega(i, j) != S(0)) {
                CHECK(std::abs(omega(i, j)) == S(0.5));
                ++count;
                hits(j) += 1.0;
                minus += omega(i, j) < S(0) ? 1 : 0;
            }
        }
        CHECK(count == 4);
    }
    // Each place is hit with probability 1/3: 1000 +- 26 per column.
    CHECK(hits.minCoeff() > 1000.0 - 5 * 26.0);
    CHECK(hits.maxCoeff() < 1000.0 + 5 * 26.0);
    CHECK(std::abs(static_cast<double>(minus) - 6000.0) < 5 * 55.0);
    CHECK_THROWS_AS((void)sparse_sign_sketch<S>(5, 3, 4, philox(1)), contract_violation);
    CHECK(sparse_sign_sketch<S>(0, 3, 4, philox(1)).rows() == 0);
}

TEST_CASE_TEMPLATE("the trigonometric sketch has orthogonal columns, and keeps lengths on average", S, float, double) {
    const idx n = 257;
    const idx k = 40;
    const auto omega = trigonometric_sketch<S>(n, k, philox(5));
    const matrix<double> wide = omega.template cast<double>();
    const double scale = static_cast<double>(n) / static_cast<double>(k);
    CHECK((wide.transpose() * wide - scale * matrix<double>::Identity(k, k)).cwiseAbs().maxCoeff() <
          50 * eps<S> * scale);
    // Whatever is sketched, the mean over sketches is its length: here a vector that is one cosine, the worst case
    // without the signs, and a single entry.
    vector<double> cosine(n);
    for (idx i = 0; i < n; ++i) {
        cosine(i) = std::cos(std::numbers::pi * (static_cast<double>(i) + 0.5) * 9.0 / static_cast<double>(n));
    }
    for (const vector<double>& x : {cosine, vector<double>(vector<double>::Unit(n, 3))}) {
        double sum = 0.0;
        for (std::uint64_t seed = 0; seed < 20; ++seed) {
            const auto sketch = trigonometric_sketch<S>(n, k, philox(seed));
            sum += (sketch.template cast<double>().transpose() * x).squaredNorm() / x.squaredNorm();
        }
        CHECK(sum / 20.0 == doctest::Approx(1.0).epsilon(0.2));
    }
    // All columns: an orthogonal matrix, so nothing is lost at all.
    const auto all = trigonometric_sketch<double>(64, 64, philox(6));
    CHECK(orthogonality_defect(all) < 1e-13);
    CHECK(trigonometric_sketch<S>(n, k, philox(5)) == omega);
    CHECK(trigonometric_sketch<S>(n, k, philox(6)) != omega);
    CHECK(trigonometric_sketch<S>(0, 0, philox(5)).size() == 0);
    CHECK_THROWS_AS((void)trigonometric_sketch<S>(5, 6, philox(5)), contract_violation);
}
