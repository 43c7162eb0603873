// SPDX-License-Identifier: MIT
#include <lowrank/lora/kinds/rotations/hra.hpp>

#include <lowrank/core/check.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/merge/merge_transformed.hpp>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

static_assert(linear_operator<householder_rotation<float>>);
static_assert(rotating_adapter<hra_adapter<float>>);

namespace {

/// The product as PEFT forms it: reflections multiplied from the right, or I - 2 V V^T of Gram-Schmidt's columns.
matrix<double> dense_reflections(const hra_adapter<double>& a) {
    const lowrank::index in = a.hra_u.rows();
    matrix<double> r = matrix<double>::Identity(in, in);
    matrix<double> done(in, 0);
    for (lowrank::index k = 0; k < a.hra_u.cols(); ++k) {
        vector<double> u = a.hra_u.col(k);
        if (a.apply_GS) {
            u -= done * (done.transpose() * u).eval();
        }
        if (u.norm() > 0) {
            u /= u.norm();
            r = r - 2 * (r * u) * u.transpose();
        }
        done.conservativeResize(in, k + 1);
        done.col(k) = u;
    }
    return r;
}

}  // namespace

TEST_CASE("the compact form is the product of reflections, orthogonal; gradients agree with finite differences") {
    const auto w = random_weight<double>(5, 9, 1);
    const any_operator<double> base = as_operator(w);
    auto x = random_matrix<double>(9, 4, 2);
    const auto dy = random_matrix<double>(5, 4, 3);
    for (const bool gs : {false, true}) {
        for (const lowrank::index r : {1, 4, 5}) {
            hra_adapter<double> a{.hra_u = random_matrix<double>(9, r, 4), .apply_GS = gs};
            const matrix<double> want = dense_reflections(a);
            CHECK(max_abs_diff(apply(a.rotation(), matrix<double>(matrix<double>::Identity(9, 9))), want) < 1e-13);
            CHECK(max_abs_diff(apply_transposed(a.rotation(), x), want.transpose() * x) < 1e-13);
            CHECK(orthogonality_error(a.rotation()) < 1e-13);

            const auto layer = rotate(base, a);
            auto g = zero_gradient(layer);
            matrix<double> dx = matrix<double>::Zero(9, 4);
            column_view<double> dx_view = dx;
            workspace ws;
            rotated_backward(layer, x, dy, g, &dx_view, ws);
            const auto loss = [&] { return apply(rotate(base, a), x).cwiseProduct(dy).sum(); };
            CHECK(relative_diff(a.pull_back(g).hra_u, numeric_gradient(a.hra_u, loss)) < 1e-7);
            CHECK(relative_diff(dx, numeric_gradient(x, loss)) < 1e-7);
        }
    }
}

TEST_CASE_TEMPLATE("pairs of equal reflections cancel at the start; lengths do not matter", S, float, double) {
    auto a = make_hra<S>(7, 40, {.r = 6, .seed = 5});
    const auto x = random_matrix<S>(40, 3, 6);
    CHECK(max_abs_diff(apply(a.rotation(), x), x) < 20 * epsilon<S>);
    a.hra_u = random_matrix<S>(40, 6, 7);
    const matrix<S> y = apply(a.rotation(), x);
    CHECK(std::abs(y.norm() / x.norm() - 1) < 10 * epsilon<S>);
    CHECK(orthogonality_error(a.rotation()) < 20 * epsilon<S>);
    a.hra_u.col(2) *= S(1000);
    CHECK(max_abs_diff(apply(a.rotation(), x), y) < 20 * epsilon<S>);
}

TEST_CASE("a zero column reflects nothing and gets no gradient; merging and back; dependent columns are refused") {
    auto a = make_hra<double>(5, 9, {.r = 3});
    a.hra_u = random_matrix<double>(9, 3, 8);
    a.hra_u.col(1).setZero();
    hra_adapter<double> two{.hra_u = matrix<double>(9, 2)};
    two.hra_u << a.hra_u.col(0), a.hra_u.col(2);
    const auto x = random_matrix<double>(9, 4, 9);
    CHECK(max_abs_diff(apply(a.rotation(), x), apply(two.rotation(), x)) < 1e-14);

    auto w = random_weight<double>(5, 9, 10);
    const auto original = w;
    const auto layer = rotate(any_operator<double>(as_operator(original)), a);
    const matrix<double> y = apply(layer, x);
    auto g = zero_gradient(layer);
    workspace ws;
    rotated_backward(layer, x, y, g, nullptr, ws);
    CHECK(a.pull_back(g).hra_u.col(1).norm() == 0);
    const row_rotation transform(layer);
    const auto receipt = merge_transformed(weight_view<double>(w), transform).value();
    CHECK(max_abs_diff(apply(w, x), y) < 1e-13);
    CHECK(bool(unmerge_transformed(weight_view<double>(w), receipt, transform)));
    CHECK(same_bits(w, original));

    a.apply_GS = true;
    a.hra_u.col(1) = 2 * a.hra_u.col(0);
    CHECK_THROWS_AS((void)a.rotation(), contract_violation);
    CHECK(make_hra<float>(3, 8, {.r = 4, .apply_GS = true}).rotation().v.cols() == 4);
}

TEST_CASE("forward and backward allocate nothing after the first call") {
    const auto w = random_weight<float>(32, 48, 20);
    const auto layer = rotate(any_operator<float>(as_operator(w)), make_hra<float>(32, 48, {.r = 8}));
    auto g = zero_gradient(layer);
    const auto x = random_matrix<float>(48, 9, 21);
    const auto dy = random_matrix<float>(32, 9, 22);
    matrix<float> y = matrix<float>::Zero(32, 9);
    matrix<float> dx = matrix<float>::Zero(48, 9);
    column_view<float> dx_view = dx;
    workspace ws;
    const auto once = [&] {
        layer.add_product(1.0F, x, y, ws);
        rotated_backward(layer, x, dy, g, &dx_view, ws);
    };
    CHECK(allocations_when_warm(once) == 0);
}
