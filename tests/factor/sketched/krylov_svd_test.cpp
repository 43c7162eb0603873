// SPDX-License-Identifier: MIT
#include <lowrank/factor/sketched/krylov_svd.hpp>

#include <cmath>
#include <limits>

#include <lowrank/core/check.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/sketched/randomized_svd.hpp>
#include <lowrank/factor/svd.hpp>

#include <support/matrices.hpp>

#include <doctest/doctest.h>

using namespace lowrank;
using namespace lowrank_tests;

namespace {

template <class S, class F>
void check_triplets(const matrix<S>& w, const F& f, idx k) {
    check_factors(w, f, k);
    const double bound = 20 * eps<S> * std::sqrt(static_cast<double>(std::max(w.rows(), w.cols())));
    // A projection onto U, or where W is tall onto V.
    const double off = w.rows() <= w.cols()
                           ? relative_difference(apply_transposed(w, f.u), (f.v * f.s.asDiagonal()).eval())
                           : relative_difference(apply(w, f.v), (f.u * f.s.asDiagonal()).eval());
    CHECK(off < bound);
}

/// Counts the columns that are multiplied.
struct counting_operator {
    using scalar = float;

    [[nodiscard]] idx rows() const { return w->rows(); }
    [[nodiscard]] idx cols() const { return w->cols(); }
    void add_product(float alpha, const_column_view<float> x, column_view<float> y, workspace& ws) const {
        *columns += x.cols();
        as_operator(*w).add_product(alpha, x, y, ws);
    }
    void add_transposed_product(float alpha, const_column_view<float> x, column_view<float> y, workspace& ws) const {
        *columns += x.cols();
        as_operator(*w).add_transposed_product(alpha, x, y, ws);
    }

    const matrix<float>* w;
    idx* columns;
};

}  // namespace

TEST_CASE_TEMPLATE("near exact on fast, slow and flat spectra", S, float, double) {
    for (const double power : {0.5, 1.0, 4.0}) {
        const vector<double> s = power_law(150, power);
        const auto w = with_values<S>(150, 200, s, 1);
        for (const idx k : {idx{1}, idx{10}, idx{20}}) {
            const auto f = krylov_svd(w, k);
            check_triplets(w, f, k);
            const double best = s.tail(150 - k).norm();
            CHECK(f.error.frobenius <= best * 1.001 + 20 * eps<S>);
            CHECK(f.error.frobenius >= best * (1 - 1e-3 * (std::is_same_v<S, float> ? 1 : 1e-6)) - 20 * eps<S>);
            CHECK(std::abs(f.error.frobenius - true_error(w, f)) <=
                  (f.error.deviation + 1e-12) * f.error.frobenius + 20 * eps<S>);
        }
    }
}

TEST_CASE_TEMPLATE("for the same number of columns through the map it beats subspace iteration", S, float, double) {
    const vector<double> s = power_law(200, 0.5);
    const auto w = with_values<S>(200, 240, s, 2);
    const auto subspace = randomized_svd(w, 12, {.oversample = 4, .power_iterations = 3});  // 4 x 2 products of 16
    const auto krylov = krylov_svd(w, 12, {.block = 16, .depth = 4});
    REQUIRE(subspace);
    REQUIRE(krylov);
    CHECK(krylov.error.frobenius < subspace.error.frobenius);
    // And depth pays.
    const double best = s.tail(188).norm();
    double last = 1e300;
    for (int depth = 1; depth <= 6; ++depth) {
        const double excess = true_error(w, krylov_svd(w, 12, {.block = 12, .depth = depth})) / best - 1.0;
        CHECK(excess <= last + 1e-6);
        last = excess;
    }
    CHECK(last < 1e-4);
}

TEST_CASE_TEMPLATE("values repeated more often than a block is wide", S, float, double) {
    vector<double> s(60);
    s << vector<double>::Constant(30, 2.0), vector<double>::Constant(30, 1.0);
    const auto w = with_values<S>(60, 80, s, 3);
    const auto f = krylov_svd(w, 30, {.block = 4, .depth = 15});
    check_triplets(w, f, 30);
    CHECK(static_cast<double>((f.s.array() - S(2)).abs().maxCoeff()) < 200 * eps<S>);

    const matrix<S> identity = matrix<S>::Identity(40, 40);
    const auto g = krylov_svd(identity, 40, {.block = 8, .depth = 5});
    check_triplets(identity, g, 40);
    CHECK(static_cast<double>((g.s.array() - S(1)).abs().maxCoeff()) < 200 * eps<S>);
}

TEST_CASE_TEMPLATE("a rank above that of the matrix ends in zeros with orthonormal vectors", S, float, double) {
    const auto w = with_values<S>(50, 70, geometric(5, 1.0, 0.5), 4);
    const auto f = krylov_svd(w, 12);
    check_triplets(w, f, 12);
    CHECK(static_cast<double>(f.s(5)) < 50 * eps<S>);
    CHECK(f.error.frobenius < 50 * eps<S>);

    const matrix<S> zero = matrix<S>::Zero(9, 6);
    const auto g = krylov_svd(zero, 4);
    REQUIRE(g);
    CHECK(g.s == vector<S>::Zero(4));
    CHECK(orthogonality_defect(g.u) < 10 * eps<S>);
    CHECK(orthogonality_defect(g.v) < 10 * eps<S>);
    CHECK(g.error.frobenius == 0.0);
}

TEST_CASE_TEMPLATE("maps, seeds, scales, empty, NaN", S, float, double) {
    const auto w = with_values<S>(90, 70, power_law(70, 0.7), 5);
    const any_operator<S> hidden(as_operator(w));
    const auto f = krylov_svd(hidden, 8, {.error_samples = 64});
    check_triplets(w, f, 8);
    CHECK(f.error.how == error_source::sampled);
    CHECK(std::abs(f.error.frobenius - true_error(w, f)) < 4 * f.error.deviation * f.error.frobenius);

    const auto a = krylov_svd(w, 8, {.seed = 1});
    const auto b = krylov_svd(w, 8, {.seed = 1});
    CHECK(a.u == b.u);
    CHECK(a.s == b.s);
    for (const S scale : {S(1e-30), S(1e30)}) {
        const auto g = krylov_svd(matrix<S>(w * scale), 8, {.seed = 1});
        REQUIRE(g);
        CHECK(relative_difference(vector<S>(g.s / scale), a.s) < 50 * eps<S>);
        CHECK(g.error.relative == doctest::Approx(a.error.relative).epsilon(1e-3));
    }

    CHECK(static_cast<bool>(krylov_svd(w, 0)));
    const auto empty = krylov_svd(matrix<S>(5, 0), 0);
    REQUIRE(empty);
    CHECK(empty.u.rows() == 5);
    auto bad = w;
    bad(3, 3) = std::numeric_limits<S>::quiet_NaN();
    CHECK(krylov_svd(bad, 3).why.code == errc::non_finite);
    CHECK_THROWS_WITH_AS((void)krylov_svd(w, 71), "krylov_svd: rank must be in [0, 70], got 71", contract_violation);
}

TEST_CASE("by default the space ends where the values have settled, and only there") {
    constexpr idx k = 4;
    vector<double> fast(600), repeated(600);
    for (idx i = 0; i < 600; ++i) {
        fast(i) = std::pow(10.0, -static_cast<double>(i) / 12.0);
        repeated(i) = i < 20 ? 1.0 : 0.1 * fast(i - 20);  // more copies than a block is wide
    }
    const auto columns = [&](const matrix<float>& w, const vector<double>& s, int depth) {
        idx count = 0;
        const auto f = krylov_svd(counting_operator{&w, &count}, k, {.depth = depth});
        REQUIRE(f);
        check_triplets(w, f, k);
        CHECK((f.s.cast<double>() - s.head(k)).cwiseAbs().maxCoeff() < 8 * eps<float> * s(0));
        return count;
    };
    const matrix<float> w_fast = with_values<float>(700, 600, fast, 8);
    const matrix<float> w_repeated = with_values<float>(700, 600, repeated, 8);
    CHECK(columns(w_fast, fast, 0) < columns(w_fast, fast, 4));
    CHECK(columns(w_repeated, repeated, 0) == columns(w_repeated, repeated, 4));
}
