// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/lora/train/dropout.hpp>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

namespace {

matrix<double> mask_of(const dropout_key& key, lowrank::index rows, lowrank::index cols) {
    const matrix<double> ones = matrix<double>::Ones(rows, cols);
    matrix<double> y(rows, cols);
    apply_dropout<double>(key, 0, ones, y);
    return y;
}

}  // namespace

TEST_CASE_TEMPLATE("survivors are scaled, the rest is zero, in the promised proportion", S, float, double) {
    for (const double p : {0.1, 0.5, 0.9}) {
        const dropout_key key{.probability = p, .seed = 3, .layer = 1, .step = 7};
        const auto x = random_matrix<S>(250, 400, 1);
        matrix<S> y(250, 400);
        apply_dropout<S>(key, 0, x, y);
        lowrank::index kept = 0;
        lowrank::index wrong = 0;
        for (lowrank::index i = 0; i < x.size(); ++i) {
            if (y.data()[i] != S(0)) {
                ++kept;
                wrong += y.data()[i] == static_cast<S>(1 / (1 - p)) * x.data()[i] ? 0 : 1;
            }
        }
        CHECK(wrong == 0);
        // 100 000 draws: five standard deviations.
        CHECK(std::abs(static_cast<double>(kept) / 1e5 - (1 - p)) < 5 * std::sqrt(p * (1 - p) / 1e5));
    }
}

TEST_CASE("the mask is a function of its key and of nothing else") {
    const dropout_key key{.probability = 0.5, .seed = 3, .layer = 1, .step = 7};
    const auto mask = mask_of(key, 33, 20);
    CHECK(same_bits(mask, mask_of(key, 33, 20)));
    CHECK(same_bits(matrix<double>(mask.topRows(10)), mask_of(key, 10, 20)));

    auto other = key;
    other.seed = 4;
    CHECK_FALSE(same_bits(mask, mask_of(other, 33, 20)));
    other = key;
    other.layer = 2;
    CHECK_FALSE(same_bits(mask, mask_of(other, 33, 20)));
    other = key;
    other.step = 8;
    CHECK_FALSE(same_bits(mask, mask_of(other, 33, 20)));

    SUBCASE("a batch cut into pieces gets the mask of the whole") {
        other = key;
        other.first_column = 12;
        CHECK(same_bits(matrix<double>(mask.rightCols(8)), mask_of(other, 33, 8)));
    }
}

TEST_CASE("the way back uses the same mask, in place too") {
    const dropout_key key{.probability = 0.3, .seed = 9};
    const auto mask = mask_of(key, 21, 9);
    const auto g = random_matrix<double>(21, 9, 2);
    matrix<double> y = random_matrix<double>(21, 9, 3);
    const matrix<double> want = y + mask.cwiseProduct(g);
    add_dropout<double>(key, 0, g, y);
    CHECK(max_abs_diff(y, want) < 1e-15);

    matrix<double> in_place = g;
    apply_dropout<double>(key, 0, in_place, in_place);
    CHECK(max_abs_diff(in_place, mask.cwiseProduct(g)) < 1e-15);
}

TEST_CASE("probability 0 keeps all, 1 and negative ones are refused") {
    CHECK((mask_of({.probability = 0}, 5, 5).array() == 1).all());
    CHECK_THROWS_AS((void)mask_of({.probability = 1}, 5, 5), contract_violation);
    CHECK_THROWS_AS((void)mask_of({.probability = -0.1}, 5, 5), contract_violation);
    CHECK_THROWS_AS((void)mask_of({.probability = 0.1, .first_column = -1}, 5, 5), contract_violation);
}
