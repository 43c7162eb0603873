// SPDX-License-Identifier: MIT
#include <lowrank/lora/diagnostics.hpp>

#include <cmath>

#include <lowrank/factor/low_rank.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/lora/convert/convert.hpp>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

namespace {

/// Columns first .. first + count - 1 of the unit matrix.
template <class S>
lowrank::matrix<S> unit_columns(lowrank::index rows, lowrank::index first, lowrank::index count) {
    return lowrank::matrix<S>::Identity(rows, rows).middleCols(first, count);
}

/// diag(values) placed at row `out` and column `in`.
low_rank<double> planted(lowrank::index out, lowrank::index in, const lowrank::vector<double>& values) {
    return {.left = unit_columns<double>(12, out, values.size()) * values.asDiagonal(),
            .right = unit_columns<double>(10, in, values.size()).transpose()};
}

}  // namespace

TEST_CASE_TEMPLATE("the rank used is told from the rank paid for", S, float, double) {
    auto a = random_adapter<S>(30, 20, {.r = 8, .lora_alpha = 8});
    a.lora_B.col(3) = a.lora_B.col(1) + a.lora_B.col(2);
    a.lora_A.row(5).setZero();
    const auto d = diagnose(a.delta()).value();
    CHECK(d.inner_rank == 8);
    CHECK(d.numerical_rank == 6);
    CHECK(d.norm == doctest::Approx(double(a.delta().dense().norm())));
    CHECK(d.rank_for_90 <= d.rank_for_99);
    CHECK(d.rank_for_99 <= 6);
    CHECK(d.stable_rank <= d.effective_rank + 1e-9);
    const auto zero = diagnose(low_rank<S>{.left = matrix<S>::Zero(5, 2), .right = matrix<S>::Zero(2, 4)}).value();
    CHECK(zero.numerical_rank == 0);
    CHECK(zero.norm == 0);
    a.lora_A(0, 0) = S(std::nan(""));
    CHECK(diagnose(a.delta()).error().code == errc::non_finite);
}

TEST_CASE("similarities on planted directions") {
    const vector<double> three{{4, 2, 1}};
    const auto a = planted(0, 0, three);
    const auto b = planted(1, 5, three);  // outputs 1..3, inputs 5..7
    const auto outputs = adapter_similarity(a, b, direction_side::outputs).value();
    CHECK(outputs.rows() == 3);
    CHECK(outputs(0, 0) == doctest::Approx(0).epsilon(1e-12));
    CHECK(outputs(1, 0) == doctest::Approx(1));        // {0, 1} holds {1}
    CHECK(outputs(2, 2) == doctest::Approx(2.0 / 3));  // {0, 1, 2} and {1, 2, 3}
    CHECK(adapter_similarity(a, b).value().norm() < 1e-12);
    CHECK(adapter_similarity(a, a).value()(2, 2) == doctest::Approx(1));

    matrix<double> w = matrix<double>::Zero(12, 10);
    for (lowrank::index i = 0; i < 10; ++i) {
        w(i, i) = 10.0 - static_cast<double>(i);
    }
    const auto spec = svd(w).value();
    const auto phi = weight_similarity(b, spec).value();
    CHECK(phi(2, 4) == doctest::Approx(0).epsilon(1e-12));  // the first five inputs of W are 0..4
    CHECK(phi(2, 7) == doctest::Approx(1));
    CHECK(weight_similarity(b, spec, direction_side::outputs).value()(0, 1) == doctest::Approx(1));

    // Section 7.3: ||delta|| = sqrt(21) against what W does between inputs 0..2 and outputs 0..2.
    const auto amp = amplification(a, spec);
    CHECK(amp.r == 3);
    CHECK(amp.projected == doctest::Approx(std::sqrt(100.0 + 81 + 64)));
    CHECK(amp.factor == doctest::Approx(std::sqrt(21.0 / 245)));
    CHECK(amp.of_weight_top == doctest::Approx(std::sqrt(245.0)));
    CHECK(amp.of_random < amp.of_weight_top);
    CHECK(amplification(a, w, 1).projected == doctest::Approx(10));
    const auto nowhere = amplification(planted(0, 5, three), w);
    CHECK(nowhere.projected == doctest::Approx(0).epsilon(1e-12));
}

TEST_CASE("an intruder is found and scale_at_strength") {
    matrix<double> w = matrix<double>::Zero(12, 10);
    for (lowrank::index i = 0; i < 10; ++i) {
        w(i, i) = 10.0 - static_cast<double>(i);
    }
    // A direction spread over all outputs, so that it is close to none of W's.
    const low_rank<double> change{.left = matrix<double>::Constant(12, 1, 40 / std::sqrt(12.0)),
                                  .right = matrix<double>::Constant(1, 10, 1 / std::sqrt(10.0))};
    const auto base = svd(w).value();
    const matrix<double> merged_weight = w + change.dense();
    const auto merged = svd(merged_weight).value();
    const auto found = find_intruders(base, merged, {.top = 3});
    REQUIRE(found.size() >= 1);
    CHECK(found[0].position == 0);
    CHECK(found[0].cosine < 0.5);
    CHECK(found[0].cosine == doctest::Approx((base.u.transpose() * merged.u.col(0)).cwiseAbs().maxCoeff()));
    CHECK(find_intruders(base, base).empty());

    const auto reduced = reduce_intruders<double>(change, merged, {found.data(), 1}, 0.25);
    REQUIRE(reduced);
    CHECK(reduced.product.rank() == 1);
    const matrix<double> want = change.dense() - 0.75 * merged.s(0) * merged.u.col(0) * merged.v.col(0).transpose();
    const auto best = svd(want).value();
    CHECK(max_abs_diff(reduced.product.dense(), best.truncate(1).dense()) < 1e-10);
    CHECK(reduced.error.frobenius == doctest::Approx(best.error_at(1)));
    CHECK(same_bits(reduce_intruders<double>(change, merged, {}).product.left, change.left));
}
