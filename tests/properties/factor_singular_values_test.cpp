// SPDX-License-Identifier: MIT

// Laws of singular values and eigenvalues that hold for every matrix, on random shapes and spectra.

#include <lowrank/core/philox.hpp>
#include <lowrank/factor/sketched/krylov_svd.hpp>
#include <lowrank/factor/sketched/randomized_svd.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/factor/symmetric_eigen.hpp>

#include <support/matrices.hpp>

#include <doctest/doctest.h>

using namespace lowrank;
using namespace lowrank_tests;

namespace {

/// A matrix of random shape with one of four kinds of spectra, the same for the same `draw`.
template <class S>
matrix<S> drawn_matrix(std::uint64_t draw) {
    const philox rng(77, draw);
    const auto m = static_cast<idx>(1 + rng.below(90, 0));
    const auto n = static_cast<idx>(1 + rng.below(90, 1));
    const idx p = std::min(m, n);
    const auto kind = rng.below(4, 2);
    if (kind == 0) {
        return gaussian<S>(m, n, draw);
    }
    if (kind == 1) {
        return with_values<S>(m, n, geometric(p, 10.0, 0.6), draw);
    }
    if (kind == 2) {
        return with_values<S>(m, n, vector<double>::Constant(p, 0.3), draw);
    }
    const idx rank = std::min<idx>(p, 3);
    return gaussian<S>(m, rank, draw) * gaussian<S>(rank, n, draw + 1000);
}

constexpr std::uint64_t draws = 24;

}  // namespace

TEST_CASE_TEMPLATE("values: transposition, Weyl, interlacing, norms", S, float, double) {
    for (std::uint64_t draw = 0; draw < draws; ++draw) {
        CAPTURE(draw);
        const matrix<S> a = drawn_matrix<S>(draw);
        const idx p = std::min(a.rows(), a.cols());
        const vector<S> s = singular_values(a).value();
        const double rounding = 8 * eps<S> * static_cast<double>(s(0));

        const vector<S> of_transposed = singular_values(matrix<S>(a.transpose())).value();
        CHECK((of_transposed - s).cwiseAbs().maxCoeff() <= rounding);
        CHECK(std::abs(s.template cast<double>().norm() - a.template cast<double>().norm()) <=
              rounding * std::sqrt(static_cast<double>(p)));

        // |s_i(A + E) - s_i(A)| <= ||E||_2
        const matrix<S> e = gaussian<S>(a.rows(), a.cols(), draw + 500) * S(1e-2);
        const vector<S> moved = singular_values(matrix<S>(a + e)).value();
        const auto most = static_cast<double>(singular_values(e).value()(0));
        CHECK((moved - s).template cast<double>().cwiseAbs().maxCoeff() <= most + 2 * rounding);

        // Without its last column: s_i(A) >= s_i(B) >= s_{i+1}(A).
        if (a.cols() > 1) {
            const vector<S> fewer = singular_values(matrix<S>(a.leftCols(a.cols() - 1))).value();
            for (idx i = 0; i < fewer.size(); ++i) {
                CHECK(static_cast<double>(fewer(i)) <= static_cast<double>(s(i)) + rounding);
                CHECK(static_cast<double>(fewer(i)) >= (i + 1 < p ? static_cast<double>(s(i + 1)) : 0.0) - rounding);
            }
        }
    }
}

TEST_CASE("eigenvalues: trace, norm, and the squares of singular values") {
    for (std::uint64_t draw = 0; draw < draws; ++draw) {
        CAPTURE(draw);
        const matrix<double> a = drawn_matrix<double>(draw);
        const matrix<double> g = a.transpose() * a;
        const auto e = symmetric_eigen(g);
        REQUIRE(e);
        const double rounding = 40 * eps<double> * static_cast<double>(g.rows()) * e.values(0);
        CHECK(std::abs(e.values.sum() - g.trace()) <= rounding);
        CHECK(std::abs(e.values.norm() - g.norm()) <= rounding);
        const vector<double> s = singular_values(a).value();
        for (idx i = 0; i < s.size(); ++i) {
            CHECK(std::abs(e.values(i) - s(i) * s(i)) <= rounding);
        }
    }
}

TEST_CASE_TEMPLATE("a truncated decomposition is never above the exact one, and Krylov never far below", S, float,
                   double) {
    for (std::uint64_t draw = 0; draw < draws; ++draw) {
        CAPTURE(draw);
        const matrix<S> a = drawn_matrix<S>(draw);
        const idx k = std::min<idx>(5, std::min(a.rows(), a.cols()));
        const auto exact = svd(a);
        REQUIRE(exact);
        const double rounding = 20 * eps<S> * static_cast<double>(exact.s(0));
        const auto quick = randomized_svd(a, k, {.seed = draw});
        const auto deep = krylov_svd(a, k, {.seed = draw});
        REQUIRE(quick);
        REQUIRE(deep);
        for (idx i = 0; i < k; ++i) {
            CHECK(static_cast<double>(quick.s(i)) <= static_cast<double>(exact.s(i)) + rounding);
            CHECK(static_cast<double>(deep.s(i)) <= static_cast<double>(exact.s(i)) + rounding);
        }
        const double best = exact.s.template cast<double>().tail(exact.s.size() - k).norm();
        const double norm = exact.s.template cast<double>().norm();
        CHECK(quick.error.frobenius >= best - rounding * std::sqrt(static_cast<double>(exact.s.size())));
        CHECK(deep.error.frobenius <= 1.01 * best + 200 * eps<S> * norm);
    }
}
