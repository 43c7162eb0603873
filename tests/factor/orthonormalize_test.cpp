// SPDX-License-Identifier: MIT
#include <lowrank/factor/orthonormalize.hpp>

#include <support/matrices.hpp>

#include <doctest/doctest.h>

using namespace lowrank;
using namespace lowrank_tests;

namespace {

/// How much of the columns of `a` lies outside the range of the orthonormal `q`, relative to each column.
template <class S>
double worst_outside(const matrix<S>& a, const matrix<S>& q) {
    const matrix<double> x = a.template cast<double>();
    const matrix<double> b = q.template cast<double>();
    const matrix<double> rest = x - b * (b.transpose() * x);
    double worst = 0.0;
    for (idx j = 0; j < x.cols(); ++j) {
        const double norm = x.col(j).norm();
        worst = std::max(worst, norm > 0.0 ? rest.col(j).norm() / norm : 0.0);
    }
    return worst;
}

}  // namespace

TEST_CASE_TEMPLATE("a well-conditioned panel takes the Cholesky path and keeps its range", S, float, double) {
    for (const auto& [m, k] : {std::pair<idx, idx>{400, 32}, {1300, 7}, {64, 64}, {5, 1}}) {
        const auto a = gaussian<S>(m, k, 3);
        matrix<S> q = a;
        CHECK(orthonormalize(q) == orthonormalization::cholesky);
        CHECK(orthogonality_defect(q) < 10 * eps<S> * std::sqrt(static_cast<double>(m)));
        CHECK(worst_outside(a, q) < 100 * eps<S>);
    }
}

TEST_CASE_TEMPLATE("columns of any scale are one panel like any other", S, float, double) {
    const auto a = gaussian<S>(200, 6, 4);
    matrix<S> y = a;
    const int most = std::is_same_v<S, float> ? 100 : 900;
    y.col(1) = y.col(1) * std::ldexp(S(1), most);
    y.col(2) = y.col(2) * std::ldexp(S(1), -most);
    matrix<S> q = y;
    CHECK(orthonormalize(q) == orthonormalization::cholesky);
    CHECK(orthogonality_defect(q) < 20 * eps<S> * std::sqrt(200.0));
    CHECK(worst_outside(a, q) < 100 * eps<S>);
}

TEST_CASE_TEMPLATE("an ill-conditioned or rank-deficient panel still gets an orthonormal basis", S, float, double) {
    // Condition 1e5: safe through a Gram matrix in double.
    matrix<S> y = with_values<S>(300, 20, geometric(20, 1.0, std::pow(1e-5, 1.0 / 19.0)), 5);
    matrix<S> q = y;
    CHECK(orthonormalize(q) == orthonormalization::cholesky);
    CHECK(orthogonality_defect(q) < 20 * eps<S> * std::sqrt(300.0));
    CHECK(worst_outside(y, q) < 1000 * eps<S>);

    // Condition 1 / eps, exact duplicates, zero columns.
    y = with_values<S>(300, 20, geometric(20, 1.0, std::pow(eps<S> / 100, 1.0 / 19.0)), 6);
    q = y;
    CHECK(orthonormalize(q) == orthonormalization::householder);
    CHECK(orthogonality_defect(q) < 20 * eps<S> * std::sqrt(300.0));
    CHECK(worst_outside(y, q) < 1000 * eps<S>);

    y = gaussian<S>(100, 6, 7);
    y.col(3) = y.col(1);
    y.col(4).setZero();
    q = y;
    CHECK(orthonormalize(q) == orthonormalization::householder);
    CHECK(orthogonality_defect(q) < 20 * eps<S> * std::sqrt(100.0));
    CHECK(worst_outside(y, q) < 100 * eps<S>);

    q = matrix<S>::Zero(10, 3);
    orthonormalize(q);
    CHECK(orthogonality_defect(q) == 0.0);
}

TEST_CASE_TEMPLATE("wide and empty panels", S, float, double) {
    matrix<S> q = gaussian<S>(4, 9, 8);
    orthonormalize(q);
    CHECK(q.rows() == 4);
    CHECK(q.cols() == 4);
    CHECK(orthogonality_defect(q) < 20 * eps<S>);

    matrix<S> none(5, 0);
    orthonormalize(none);
    CHECK(none.rows() == 5);
    CHECK(none.cols() == 0);
}

TEST_CASE_TEMPLATE("thin_qr reproduces its argument", S, float, double) {
    for (const auto& [m, n] : {std::pair<idx, idx>{60, 20}, {20, 60}, {1, 5}, {5, 1}, {7, 7}}) {
        for (const S scale : {S(1), S(1e-30), S(1e30)}) {
            const matrix<S> a = gaussian<S>(m, n, 9) * scale;
            const auto [q, r] = thin_qr(a);
            CHECK(q.cols() == std::min(m, n));
            CHECK(orthogonality_defect(q) < 20 * eps<S> * std::sqrt(60.0));
            const matrix<double> product = q.template cast<double>() * r.template cast<double>();
            CHECK(relative_difference(product, a) < 20 * eps<S>);
            const matrix<S> below = r.template triangularView<Eigen::StrictlyLower>();
            CHECK(below.cwiseAbs().maxCoeff() == S(0));
            CHECK(triangular_factor(a) == r);
        }
    }
    const auto [q, r] = thin_qr(matrix<S>(4, 0));
    CHECK(q.rows() == 4);
    CHECK(q.cols() == 0);
    CHECK(r.size() == 0);
}
