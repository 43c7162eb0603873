// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/factor/sketched/single_pass_svd.hpp>
#include <lowrank/factor/svd.hpp>

#include <cstdint>
#include <limits>
#include <utility>

#include <support/matrices.hpp>

#include <doctest/doctest.h>

using namespace lowrank;
using namespace lowrank_tests;

namespace {

template <class S>
single_pass_sketch<S> read_once(const matrix<S>& w, idx rank, const single_pass_options& options, idx panel) {
    single_pass_sketch<S> sketch(w.rows(), w.cols(), rank, options);
    for (idx first = 0; first < w.rows(); first += panel) {
        REQUIRE(sketch.add_rows(first, matrix<S>(w.middleRows(first, std::min(panel, w.rows() - first)))));
    }
    return sketch;
}

}  // namespace

TEST_CASE_TEMPLATE("exact for exact low rank, near optimal for decaying spectra, error known", S, float, double) {
    const auto exact = with_values<S>(90, 70, geometric(6, 1.0, 0.6), 1);
    const auto f = read_once(exact, 8, {}, 13).finish(8);
    REQUIRE(f);
    CHECK(true_error(exact, f) < 200 * eps<S>);
    CHECK(orthogonality_defect(f.u) < 200 * eps<S>);
    CHECK(orthogonality_defect(f.v) < 200 * eps<S>);

    const vector<double> s = power_law(70, 1.5);
    const auto w = with_values<S>(90, 70, s, 2);
    const auto g = read_once(w, 10, {.range = 30, .corange = 60, .error_samples = 64}, 32).finish(10);
    REQUIRE(g);
    const double error = true_error(w, g);
    CHECK(error < 1.3 * s.tail(60).norm());
    CHECK(g.error.how == error_source::sampled);
    CHECK(std::abs(g.error.frobenius - error) < 4 * g.error.deviation * error);
    CHECK(g.error.relative == doctest::Approx(error / s.norm()).epsilon(0.4));
}

TEST_CASE_TEMPLATE("panels, order and shards do not matter, and what was added can be taken back", S, float, double) {
    const auto w = with_values<S>(40, 50, power_law(40, 1.0), 3);
    const auto whole = read_once(w, 5, {.seed = 9}, 40).finish(5);
    const auto panels = read_once(w, 5, {.seed = 9}, 7).finish(5);
    CHECK(relative_difference(panels.s, whole.s) < 100 * eps<S>);

    single_pass_sketch<S> a(40, 50, 5, {.seed = 9});
    single_pass_sketch<S> b(40, 50, 5, {.seed = 9});
    REQUIRE(b.add_rows(25, matrix<S>(w.bottomRows(15))));
    REQUIRE(a.add_rows(0, matrix<S>(w.topRows(25))));
    const matrix<S> noise = gaussian<S>(4, 50, 4);
    REQUIRE(a.add_rows(3, noise));
    REQUIRE(a.add_rows(3, noise, S(-1)));
    a.merge(b);
    CHECK(relative_difference(a.finish(5).s, whole.s) < 200 * eps<S>);
}

TEST_CASE_TEMPLATE("few rows or few columns, whatever the seed", S, float, double) {
    for (const auto& shape : {std::pair<idx, idx>{6, 60}, {60, 6}, {2, 2}, {1, 50}, {3, 5}, {17, 40}}) {
        const idx rows = shape.first;
        const idx cols = shape.second;
        CAPTURE(rows);
        CAPTURE(cols);
        const idx k = std::min<idx>({rows, cols, 4});
        for (std::uint64_t seed = 0; seed < 40; ++seed) {
            const auto w = gaussian<S>(rows, cols, 20 + seed);
            const auto f = read_once(w, k, {.seed = seed}, 4).finish(k);
            REQUIRE(f);
            const double best = svd(matrix<double>(w.template cast<double>())).error_at(k);
            CHECK(true_error(w, f) < 3.0 * best + 100 * eps<S> * static_cast<double>(w.norm()));
        }
    }
}

TEST_CASE_TEMPLATE("NaN is refused, contracts are checked, edges are defined", S, float, double) {
    single_pass_sketch<S> sketch(6, 5, 2);
    matrix<S> bad = gaussian<S>(2, 5, 5);
    bad(1, 1) = std::numeric_limits<S>::quiet_NaN();
    CHECK(sketch.add_rows(0, bad).code == errc::non_finite);
    const auto zero = sketch.finish(2);
    REQUIRE(zero);
    CHECK(zero.s.isZero(S(0)));
    CHECK(zero.error.frobenius == 0.0);
    CHECK_THROWS_AS((void)sketch.add_rows(5, gaussian<S>(2, 5, 1)), contract_violation);
    CHECK_THROWS_AS((void)sketch.add_rows(0, gaussian<S>(2, 4, 1)), contract_violation);
    CHECK_THROWS_AS((void)sketch.finish(3), contract_violation);
    CHECK_THROWS_AS(sketch.merge(single_pass_sketch<S>(6, 5, 2, {.seed = 1})), contract_violation);
    CHECK_THROWS_AS(single_pass_sketch<S>(6, 5, 6), contract_violation);
    CHECK(static_cast<bool>(single_pass_sketch<S>(4, 4, 0).finish(0)));
}
