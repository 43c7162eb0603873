// SPDX-License-Identifier: MIT
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/factor/symmetric_eigen.hpp>
#include <lowrank/factor/truncated_svd.hpp>

#include <Eigen/SVD>

#include <support/matrices.hpp>

#include <doctest/doctest.h>

using namespace lowrank;
using namespace lowrank_tests;

namespace {

/// The laws every decomposition obeys: shapes, order, residual, orthogonality, signs.
template <class S, class W>
decomposition<S> check_laws(const W& w) {
    const idx p = std::min(w.rows(), w.cols());
    const double bound = 20 * eps<S> * std::sqrt(static_cast<double>(std::max({w.rows(), w.cols(), idx{1}})));
    const auto f = svd(w);
    REQUIRE(f);
    CHECK(f.u.rows() == w.rows());
    CHECK(f.u.cols() == p);
    CHECK(f.s.size() == p);
    CHECK(f.v.rows() == w.cols());
    CHECK(f.v.cols() == p);
    CHECK(std::is_sorted(f.s.begin(), f.s.end(), std::greater<>()));
    CHECK((p == 0 || f.s(p - 1) >= S(0)));
    CHECK(relative_residual(w, f) < bound);
    CHECK(orthogonality_defect(f.u) < bound);
    CHECK(orthogonality_defect(f.v) < bound);
    for (idx i = 0; i < p; ++i) {
        idx at = 0;
        f.u.col(i).cwiseAbs().maxCoeff(&at);
        CHECK(f.u(at, i) > S(0));
    }
    return f;
}

/// The largest error of the values relative to the largest value.
template <class S>
double value_error(const vector<S>& s, const vector<double>& want) {
    return (s.template cast<double>() - want).cwiseAbs().maxCoeff() / want(0);
}

}  // namespace

TEST_CASE_TEMPLATE("random matrices of every shape and both storage orders", S, float, double) {
    for (const auto& shape : {std::pair<idx, idx>{50, 50}, {90, 40}, {40, 90}, {300, 20}, {1, 30}, {30, 1}, {1, 1}}) {
        const idx m = shape.first;
        const idx n = shape.second;
        CAPTURE(m);
        CAPTURE(n);
        const matrix<S> a = gaussian<S>(m, n, 1);
        const auto f = check_laws<S>(a);
        const row_matrix<S> r = a;
        const auto g = check_laws<S>(r);
        CHECK(f.s == g.s);
        CHECK(f.u == g.u);
        CHECK(f.v == g.v);

        // In long double, because a double reference is itself off by more than the bound.
        const Eigen::JacobiSVD<matrix<long double>> reference(a.template cast<long double>());
        CHECK(value_error<S>(f.s, reference.singularValues().template cast<double>()) < 4 * eps<S>);
    }
}

TEST_CASE_TEMPLATE("values are right over the whole range of a spectrum", S, float, double) {
    const idx n = 60;
    for (const double ratio : {1.0, 0.9, 0.5, 0.1}) {
        CAPTURE(ratio);
        const vector<double> s = geometric(n, 3.0, ratio);
        const auto w = with_values<S>(100, n, s, 3);
        const auto f = check_laws<S>(w);
        // Building W in double and rounding it costs a few eps as well.
        CHECK(value_error<S>(f.s, s) < 16 * eps<S>);
    }
}

TEST_CASE("double input keeps the digits that a Gram matrix would lose") {
    // Values down to 1e-13 of the largest: squared, they are far below rounding.
    const vector<double> s = geometric(40, 1.0, std::pow(1e-13, 1.0 / 39.0));
    const auto f = check_laws<double>(with_values<double>(70, 40, s, 4));
    for (idx i = 0; i < 40; ++i) {
        CHECK(std::abs(f.s(i) - s(i)) < 20 * eps<double>);
    }
}

TEST_CASE_TEMPLATE("exact low rank, zero and repeated values", S, float, double) {
    // Products of small integers are exact: the rank is exactly 5.
    const matrix<S> low = (gaussian<S>(40, 5, 14) * S(3)).array().round().matrix() *
                          (gaussian<S>(5, 30, 15) * S(3)).array().round().matrix();
    const auto f = check_laws<S>(low);
    CHECK(f.s(4) > S(1));
    CHECK(static_cast<double>(f.s(5)) < 10 * eps<S> * static_cast<double>(f.s(0)));

    const auto zero = check_laws<S>(matrix<S>(matrix<S>::Zero(6, 9)));
    CHECK(zero.s.isZero(S(0)));

    const auto identity = check_laws<S>(matrix<S>(matrix<S>::Identity(12, 8)));
    CHECK((identity.s.array() - S(1)).abs().maxCoeff() <= S(4 * eps<S>));

    vector<double> twins(20);
    twins << 5, 5, 5, 5, 2, 2, 1, 1, 1, 1, 1, 1, 1e-9, 1e-9, 1e-9, 1e-9, 0, 0, 0, 0;
    const auto t = check_laws<S>(with_values<S>(33, 20, twins, 5));
    CHECK(value_error<S>(t.s, twins) < 8 * std::max(eps<S>, 8 * eps<double>));

    check_laws<S>(matrix<S>(matrix<S>::Constant(25, 25, S(0.1))));
}

TEST_CASE_TEMPLATE("a graded matrix and a Hilbert matrix", S, float, double) {
    matrix<S> hilbert(20, 20);
    for (idx i = 0; i < 20; ++i) {
        for (idx j = 0; j < 20; ++j) {
            hilbert(i, j) = S(1) / static_cast<S>(i + j + 1);
        }
    }
    check_laws<S>(hilbert);
    matrix<S> graded = gaussian<S>(40, 40, 6);
    for (idx i = 0; i < 40; ++i) {
        graded.row(i) *= std::pow(S(10), S(-0.5) * static_cast<S>(i));
    }
    check_laws<S>(graded);
}

TEST_CASE_TEMPLATE("every scale, denormals included", S, float, double) {
    const matrix<S> a = gaussian<S>(30, 20, 7);
    const auto one = check_laws<S>(a);
    for (const int e : {-100, 100}) {
        const S scale = std::ldexp(S(1), e);
        const auto f = check_laws<S>(matrix<S>(a * scale));
        CHECK(f.s == one.s * scale);  // a power of two changes no digit
        CHECK(f.u == one.u);
    }
    check_laws<S>(matrix<S>(a * S(1e-30)));
    check_laws<S>(matrix<S>(a * S(1e30)));
    if constexpr (std::is_same_v<S, double>) {
        check_laws<S>(matrix<S>(a * 1e-300));
        check_laws<S>(matrix<S>(a * 1e300));
    }
    // Denormal entries: the values are denormal, too, and right to one unit of the smallest number.
    const S tiny = std::numeric_limits<S>::denorm_min();
    matrix<S> d(2, 2);
    d << tiny * S(300), S(0), S(0), tiny * S(4);
    const auto f = svd(d);
    REQUIRE(f);
    CHECK(f.s(0) == tiny * S(300));
    CHECK(f.s(1) == tiny * S(4));
    CHECK(orthogonality_defect(f.u) < 1e-6);
}

TEST_CASE_TEMPLATE("what has no decomposition says so", S, float, double) {
    for (const S bad : {std::numeric_limits<S>::quiet_NaN(), std::numeric_limits<S>::infinity()}) {
        matrix<S> w = gaussian<S>(5, 7, 8);
        w(3, 2) = bad;
        const auto f = svd(w);
        CHECK_FALSE(static_cast<bool>(f));
        CHECK(f.why.code == errc::non_finite);
        CHECK(f.u.size() + f.s.size() + f.v.size() == 0);
        CHECK(singular_values(w).error().code == errc::non_finite);
    }
    // Finite entries, but a singular value outside the range.
    const matrix<S> huge = matrix<S>::Constant(10, 10, std::numeric_limits<S>::max());
    CHECK(svd(huge).why.code == errc::non_finite);
}

TEST_CASE_TEMPLATE("empty matrices have empty factors of the right shapes", S, float, double) {
    for (const auto& [m, n] : {std::pair<idx, idx>{0, 0}, {0, 5}, {5, 0}}) {
        const auto f = svd(matrix<S>(m, n));
        REQUIRE(f);
        CHECK(f.u.rows() == m);
        CHECK(f.v.rows() == n);
        CHECK(f.s.size() == 0);
    }
}

TEST_CASE_TEMPLATE("16-bit weights are decomposed in float, views without a copy of the caller's", T, half, bfloat16) {
    const matrix<float> a = gaussian<float>(30, 24, 9);
    const row_matrix<T> w = a.cast<T>();
    const row_matrix<float> widened = w.template cast<float>();
    const auto f = svd(w);
    const auto g = svd(widened);
    REQUIRE(f);
    CHECK(f.s == g.s);
    CHECK(f.u == g.u);
    CHECK(svd(const_weight_view<T>(w)).s == g.s);
}

TEST_CASE_TEMPLATE("values alone are the values of the decomposition", S, float, double) {
    const auto check = [](const matrix<S>& w) {
        CAPTURE(w.rows());
        CAPTURE(w.cols());
        const auto f = svd(w);
        const auto s = singular_values(w);
        REQUIRE(f);
        REQUIRE(s);
        REQUIRE(s->size() == f.s.size());
        CHECK(std::is_sorted(s->begin(), s->end(), std::greater<>()));
        if (f.s.size() > 0) {
            CHECK((*s - f.s).cwiseAbs().maxCoeff() <= S(4 * eps<S>) * f.s(0));
        }
    };
    check(gaussian<S>(60, 40, 10));
    check(gaussian<S>(20, 50, 11));
    check(gaussian<S>(200, 30, 12));
    check(matrix<S>(4, 0));
    check(matrix<S>::Zero(5, 3));
    check(with_values<S>(90, 70, geometric(70, 1.0, 0.5), 13));
    check(matrix<S>(gaussian<S>(50, 4, 14) * gaussian<S>(4, 45, 15)) * S(1e30));
    check(gaussian<S>(40, 40, 16) * S(1e-30));
}

TEST_CASE_TEMPLATE("a spectrum that falls below rounding: the basis is completed", S, float, double) {
    const auto f = check_laws<S>(with_values<S>(150, 120, geometric(120, 1.0, 0.7), 17));
    CHECK(f.s(119) < 20 * eps<S>);
}

TEST_CASE("the same matrix gives the same bits") {
    const auto w = gaussian<double>(70, 50, 11);
    const auto f = svd(w);
    const auto g = svd(w);
    CHECK(f.u == g.u);
    CHECK(f.s == g.s);
    CHECK(f.v == g.v);
}

TEST_CASE("expressions are decomposed as what they are") {
    const matrix<double> x = gaussian<double>(20, 9, 77);
    const matrix<double> g = x.transpose() * x;
    CHECK((svd(x * 2.0).s - 2.0 * svd(x).s).norm() < 1e-12);
    CHECK((svd(x.leftCols(4) + x.rightCols(4)).s - svd(matrix<double>(x.leftCols(4) + x.rightCols(4))).s).norm() ==
          0.0);
    CHECK(truncated_svd(x.transpose() * x, 3).size() == 3);
    CHECK((symmetric_eigen(x.transpose() * x).values - symmetric_eigen(g).values).norm() < 1e-12 * g.norm());
    const any_operator<double> m = x;  // borrowed
    CHECK((apply(m, g) - x * g).norm() < 1e-12 * (x * g).norm());
}
