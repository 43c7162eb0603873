// SPDX-License-Identifier: MIT
#include <lowrank/factor/weighted/weighted.hpp>

#include <limits>
#include <string>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/factor/weighted/statistics.hpp>

#include <support/matrices.hpp>

#include <doctest/doctest.h>

using namespace lowrank;
using namespace lowrank_tests;

namespace {

/// || L (W - product) R ||_F with the roots taken from the weightings themselves.
template <class S>
double weighted_distance(const matrix<S>& w, const low_rank<S>& product, const weightings& m) {
    const matrix<double> rest =
        w.template cast<double>() - product.left.template cast<double>() * product.right.template cast<double>();
    return m.left.times_root(matrix<double>(m.right.times_root(rest).transpose())).norm();
}

struct named_metrics {
    std::string name;
    weightings m;
};

/// Every kind of weighting on a side of dimension m and one of dimension n, singular ones included.
std::vector<named_metrics> all_metrics(idx m, idx n) {
    const matrix<double> x = gaussian<double>(n, 3 * n, 71);
    const matrix<double> few = gaussian<double>(n, n / 3, 72);
    const matrix<double> g = gaussian<double>(m, 2 * m, 73);
    const matrix<double> few_g = gaussian<double>(m, m / 2, 74);
    vector<double> weights = gaussian<double>(n, 1, 75).cwiseAbs();
    vector<double> dead = weights;
    dead.head(n / 4).setZero();
    vector<double> rows = gaussian<double>(m, 1, 76).cwiseAbs();
    rows(0) = 0.0;
    const weighting full = *gram_weighting(x * x.transpose());
    const weighting singular = *gram_weighting(few * few.transpose());
    const weighting triangle = *triangle_weighting(few.transpose());
    const weighting left = *gram_weighting(g * g.transpose());
    const weighting left_singular = *gram_weighting(few_g * few_g.transpose());
    return {{"identity", {}},
            {"diagonal", {.right = diagonal_weighting(weights)}},
            {"diagonal with dead inputs", {.right = diagonal_weighting(dead)}},
            {"diagonal rows", {.left = diagonal_weighting(rows)}},
            {"Fisher both sides", {.left = diagonal_weighting(rows), .right = diagonal_weighting(dead)}},
            {"Gram", {.right = full}},
            {"Gram, fewer samples than inputs", {.right = singular}},
            {"triangle, fewer samples than inputs", {.right = triangle}},
            {"output Gram", {.left = left}},
            {"output Gram, singular", {.left = left_singular}},
            {"Kronecker", {.left = left, .right = full}},
            {"Kronecker, singular on both sides", {.left = left_singular, .right = singular}}};
}

}  // namespace

TEST_CASE_TEMPLATE("the reported error is the distance, and nothing of the rank comes closer", S, float, double) {
    for (const auto& shape : {std::pair<idx, idx>{14, 18}, {18, 12}}) {
        const idx m = shape.first;
        const idx n = shape.second;
        const auto w = gaussian<S>(m, n, 1);
        for (const auto& named : all_metrics(m, n)) {
            const weightings& metrics_of = named.m;
            CAPTURE(named.name);
            const auto spec = weighted_svd(w, metrics_of);
            REQUIRE(spec);
            const double whole = spec.error_at(0);
            const auto zero = low_rank<S>{.left = matrix<S>(m, 0), .right = matrix<S>(0, n)};
            CHECK(whole == doctest::Approx(weighted_distance(w, zero, metrics_of)).epsilon(1e-6));
            for (const idx k : {idx{1}, idx{4}, idx{7}}) {
                if (k > spec.size()) {
                    continue;
                }
                const auto best = spec.truncate(k);
                CHECK(best.rank() == k);
                const double distance = weighted_distance(w, best, metrics_of);
                CHECK(std::abs(distance - spec.error_at(k)) < 1e3 * eps<S> * whole);
                for (std::uint64_t trial = 0; trial < 12; ++trial) {
                    const S step = static_cast<S>(std::pow(10.0, -static_cast<double>(trial % 4)));
                    const low_rank<S> other{.left = best.left + step * gaussian<S>(m, k, 100 + trial),
                                            .right = best.right + step * gaussian<S>(k, n, 200 + trial)};
                    CHECK(weighted_distance(w, other, metrics_of) >= spec.error_at(k) - 1e3 * eps<S> * whole);
                }
                const auto plain = svd(w).truncate(k);
                CHECK(weighted_distance(w, plain, metrics_of) >= spec.error_at(k) - 1e3 * eps<S> * whole);
            }
        }
    }
}

TEST_CASE_TEMPLATE("the identity weighting is the plain SVD", S, float, double) {
    const auto w = gaussian<S>(15, 11, 2);
    const auto plain = svd(w);
    const auto f = weighted_svd(w, 4);
    REQUIRE(f);
    CHECK(relative_difference(f.product().dense(), plain.truncate(4).dense()) < 200 * eps<S>);
    CHECK(f.error.frobenius == doctest::Approx(plain.error_at(4)).epsilon(20 * eps<S>));
    CHECK(f.error.relative == doctest::Approx(plain.relative_error(4)).epsilon(20 * eps<S>));
}

TEST_CASE("Cholesky, eigenvectors and QR of the activations reach one optimum") {
    const auto w = gaussian<double>(20, 16, 3);
    const matrix<double> x = gaussian<double>(16, 50, 4);
    gram_accumulator gram(16);
    qr_accumulator triangle(16);
    REQUIRE(gram.add(x));
    REQUIRE(triangle.add(x));
    const auto v1 = weighted_svd(w, 5, {.right = *gram_weighting(gram.sum())});
    const auto v2 = weighted_svd(w, 5, {.right = *gram_weighting(gram.sum(), false)});
    const auto qr = weighted_svd(w, 5, {.right = *triangle_weighting(triangle.triangle())});
    REQUIRE(v1);
    REQUIRE(v2);
    REQUIRE(qr);
    CHECK(relative_difference(v2.product().dense(), v1.product().dense()) < 1e-10);
    CHECK(relative_difference(qr.product().dense(), v1.product().dense()) < 1e-10);
    // The error is that of the layer's outputs on those activations.
    CHECK(v1.error.frobenius == doctest::Approx(((w - v1.product().dense()) * x).norm()).epsilon(1e-10));
}

TEST_CASE("with enough rank for what the inputs span, the outputs are exact although W is not") {
    const auto w = gaussian<double>(20, 30, 5);
    const matrix<double> x = gaussian<double>(30, 6, 6);  // six directions of thirty
    for (const auto& right : {*gram_weighting(x * x.transpose()), *triangle_weighting(x.transpose())}) {
        const auto f = weighted_svd(w, 6, {.right = right});
        REQUIRE(f);
        CHECK(((w - f.product().dense()) * x).norm() < 1e-10 * (w * x).norm());
        CHECK((w - f.product().dense()).norm() > 0.1 * w.norm());
    }
}

TEST_CASE_TEMPLATE("NaN is a status, a weighting of the wrong size a broken contract, edges are defined", S, float,
                   double) {
    auto w = gaussian<S>(5, 4, 7);
    CHECK_THROWS_WITH_AS((void)weighted_svd(w, 2, {.right = diagonal_weighting(vector<double>::Ones(5))}),
                         "weighted_svd: the right weighting must have dimension 4, got 5", contract_violation);
    CHECK_THROWS_AS((void)weighted_svd(w, 2, {.left = diagonal_weighting(vector<double>::Ones(4))}),
                    contract_violation);
    CHECK_THROWS_AS((void)weighted_svd(w, -1), contract_violation);
    CHECK_THROWS_WITH_AS((void)weighted_svd(w, 5), "weighted_svd: rank must be in [0, 4], got 5", contract_violation);
    const auto all = weighted_svd(w, 4);
    REQUIRE(all);
    CHECK(relative_difference(all.product().dense(), w) < 50 * eps<S>);
    CHECK(all.error.frobenius == 0.0);
    const auto nothing = weighted_svd(w, 2, {.right = diagonal_weighting(vector<double>::Zero(4))});
    REQUIRE(nothing);
    CHECK(nothing.error.frobenius == 0.0);
    CHECK(nothing.error.relative == 0.0);
    const auto empty = weighted_svd(matrix<S>(0, 4), 0);
    REQUIRE(empty);
    CHECK(empty.product().cols() == 4);
    w(1, 1) = std::numeric_limits<S>::quiet_NaN();
    CHECK(weighted_svd(w, 1).why.code == errc::non_finite);
    CHECK(weighted_svd(w, 1).why.message.starts_with("weighted_svd: "));
    CHECK(weighted_svd(w, weightings{}).why.message.starts_with("weighted_svd: "));
}
