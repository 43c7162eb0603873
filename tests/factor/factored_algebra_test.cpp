// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/factor/factored_algebra.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/factor/svd.hpp>

#include <array>
#include <limits>
#include <vector>

#include <support/matrices.hpp>

#include <doctest/doctest.h>

using namespace lowrank;
using namespace lowrank_tests;

namespace {

template <class S>
low_rank<S> random_product(idx m, idx k, idx n, std::uint64_t stream) {
    return {.left = gaussian<S>(m, k, stream), .right = gaussian<S>(k, n, stream + 1000)};
}

template <class S>
matrix<double> dense(const low_rank<S>& a) {
    return a.left.template cast<double>() * a.right.template cast<double>();
}

}  // namespace

TEST_CASE_TEMPLATE("sum, scale, transpose and product are those of the dense matrices", S, float, double) {
    const auto a = random_product<S>(20, 3, 15, 1);
    const auto b = random_product<S>(20, 5, 15, 2);
    const auto c = random_product<S>(15, 2, 12, 3);
    CHECK(relative_difference(dense(add(a, b, S(2), S(-0.5))), (2 * dense(a) - 0.5 * dense(b)).eval()) < 20 * eps<S>);
    CHECK(add(a, b).rank() == 8);
    CHECK(relative_difference(dense(scale(a, S(-3))), (-3 * dense(a)).eval()) < 20 * eps<S>);
    CHECK(relative_difference(dense(transpose(a)), dense(a).transpose().eval()) < 20 * eps<S>);
    const auto ac = multiply(a, c);
    CHECK(ac.rank() == 2);
    CHECK(relative_difference(dense(ac), (dense(a) * dense(c)).eval()) < 50 * eps<S>);
    CHECK(multiply(transpose(c), transpose(a)).rank() == 2);
    const std::vector<low_rank<S>> terms{a, b, a};
    const std::vector<S> weights{S(1), S(2), S(3)};
    CHECK(relative_difference(dense(weighted_sum<S>(terms, weights)), (4 * dense(a) + 2 * dense(b)).eval()) <
          20 * eps<S>);
}

TEST_CASE_TEMPLATE("inner products and norms", S, float, double) {
    const auto a = random_product<S>(30, 4, 22, 4);
    const auto b = random_product<S>(30, 6, 22, 5);
    CHECK(inner_product(a, b) == doctest::Approx(dense(a).cwiseProduct(dense(b)).sum()).epsilon(1e-11));
    CHECK(inner_product(a, a) == doctest::Approx(frobenius_norm(a) * frobenius_norm(a)).epsilon(1e-12));
    CHECK(frobenius_norm(add(a, a, S(1), S(-1))) < 1e-13 * frobenius_norm(a));
}

TEST_CASE_TEMPLATE("the SVD of a product, and resize, are those of the dense matrix", S, float, double) {
    for (const auto& shape : {std::array<idx, 3>{40, 8, 25}, {8, 30, 60}, {5, 9, 4}, {1, 1, 7}}) {
        const auto a = random_product<S>(shape[0], shape[1], shape[2], 6);
        const matrix<double> wide = dense(a);
        const auto f = svd(a);
        REQUIRE(f);
        const auto g = svd(wide);
        const idx p = std::min({shape[0], shape[1], shape[2]});
        REQUIRE(f.s.size() == p);
        CHECK((f.s.template cast<double>() - g.s.head(p)).cwiseAbs().maxCoeff() < 4 * eps<S> * g.s(0));
        CHECK(relative_residual(wide, f) < 50 * eps<S>);
        CHECK(orthogonality_defect(f.u) < 50 * eps<S>);
        CHECK(orthogonality_defect(f.v) < 50 * eps<S>);
        for (idx k = 0; k <= p; ++k) {
            const auto small = resize(a, k);
            REQUIRE(small);
            CHECK(small.size() == k);
            const double error = (wide - dense(small.product())).norm();
            CHECK(std::abs(error - small.error.frobenius) < 50 * eps<S> * wide.norm());
            CHECK(std::abs(error - g.s.tail(g.s.size() - k).norm()) < 50 * eps<S> * wide.norm());
        }
        CHECK(resize(a, std::min(shape[0], shape[2])).size() == p);
    }
}

TEST_CASE_TEMPLATE("recompress finds the rank that is really there", S, float, double) {
    const auto a = random_product<S>(30, 4, 25, 7);
    const auto doubled = add(a, a, S(1), S(2));  // rank 4, written with 8
    const auto small = recompress(doubled, 100 * eps<S>);
    REQUIRE(small);
    CHECK(small.size() == 4);
    CHECK(relative_difference(dense(small.product()), (3 * dense(a)).eval()) < 100 * eps<S>);
    CHECK(small.error.relative <= 100 * eps<S>);
    CHECK(recompress(a, 1.0).size() == 0);
    const auto half_error = recompress(a, 0.5);
    REQUIRE(half_error);
    CHECK(half_error.error.relative <= 0.5);
    CHECK(resize(a, half_error.size() - 1).error.relative > 0.5);
}

TEST_CASE_TEMPLATE("orthogonalize keeps the product", S, float, double) {
    for (const idx k : {idx{4}, idx{30}}) {
        const auto a = random_product<S>(20, k, 17, 8);
        const auto l = orthogonalize_left(a);
        CHECK(orthogonality_defect(l.left) < 50 * eps<S>);
        CHECK(relative_difference(dense(l), dense(a)) < 50 * eps<S>);
        const auto r = orthogonalize_right(a);
        CHECK(orthogonality_defect(r.right.transpose()) < 50 * eps<S>);
        CHECK(relative_difference(dense(r), dense(a)) < 50 * eps<S>);
    }
}

TEST_CASE_TEMPLATE("extreme scales, rank zero, NaN, wrong shapes", S, float, double) {
    const auto a = random_product<S>(9, 3, 8, 9);
    const auto one = svd(a);
    const S big = std::is_same_v<S, float> ? S(1e15) : S(1e140);
    for (const auto& scaled : {low_rank<S>{.left = a.left * big, .right = a.right * big},
                               low_rank<S>{.left = a.left / big, .right = a.right / big},
                               low_rank<S>{.left = a.left * big, .right = a.right / big}}) {
        const auto f = svd(scaled);
        REQUIRE(f);
        const vector<S> shape = f.s / f.s(0);
        CHECK(relative_difference(shape, (one.s / one.s(0)).eval()) < 50 * eps<S>);
    }
    const low_rank<S> none{.left = matrix<S>(4, 0), .right = matrix<S>(0, 5)};
    REQUIRE(svd(none));
    CHECK(svd(none).u.rows() == 4);
    CHECK(resize(none, 3).product().dense() == matrix<S>::Zero(4, 5));
    CHECK(inner_product(none, none) == 0.0);
    auto bad = a;
    bad.left(0, 0) = std::numeric_limits<S>::quiet_NaN();
    CHECK(svd(bad).why.code == errc::non_finite);
    CHECK(resize(bad, 2).why.code == errc::non_finite);
    CHECK(recompress(bad, 0.1).why.code == errc::non_finite);
    CHECK_THROWS_AS((void)add(a, none), contract_violation);
    CHECK_THROWS_AS((void)multiply(a, a), contract_violation);
    CHECK_THROWS_AS((void)inner_product(a, none), contract_violation);
    CHECK_THROWS_AS((void)resize(a, -1), contract_violation);
    CHECK_THROWS_WITH_AS((void)resize(a, 9), "resize: rank must be in [0, 8], got 9", contract_violation);
    CHECK(resize(bad, 2).why.message.starts_with("resize: "));
    CHECK(recompress(bad, 0.1).why.message.starts_with("recompress: "));
}
