// SPDX-License-Identifier: MIT
#include <lowrank/lora/kinds/dora.hpp>

#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/factored_algebra.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/lora/merge/merge.hpp>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

static_assert(linear_operator<dora_linear<float>>);

TEST_CASE_TEMPLATE("norms from the factors are those of the sum, in both storage orders", T, float, double, half,
                   bfloat16) {
    using S = compute_t<T>;
    const auto w = random_weight<T>(12, 30, 1, 0.1);
    const auto change = random_adapter<S>(12, 30, {.r = 4, .seed = 1}).delta();
    const vector<double> want = (w.template cast<S>().template cast<double>() +
                                 change.left.template cast<double>() * change.right.template cast<double>())
                                    .rowwise()
                                    .norm();
    CHECK(relative_diff(adapted_row_norms(w, squared_row_norms(w), change), want) < 20 * epsilon<S>);
    const Eigen::Matrix<T, -1, -1, Eigen::ColMajor> turned = w;
    CHECK(relative_diff(adapted_row_norms(turned, squared_row_norms(turned), change), want) < 20 * epsilon<S>);
}

TEST_CASE("a magnitude equal to the norm of W, with B = 0, changes nothing") {
    const auto w = random_weight<double>(6, 9, 1);
    const auto change = make_lora<double>(6, 9, {.r = 2}).delta();
    const auto norms = adapted_row_norms(w, squared_row_norms(w), change);
    const dora_linear<double> layer{.base = as_operator(w), .change = change, .scale = dora_scale(norms, norms)};
    const auto x = random_matrix<double>(9, 3, 2);
    CHECK(relative_diff(apply(layer, x), apply(w, x)) < 1e-15);
}

TEST_CASE("rows that are zero stay zero") {
    row_matrix<double> w = random_weight<double>(3, 5, 1);
    w.row(1).setZero();
    const low_rank<double> none{.left = matrix<double>(3, 0), .right = matrix<double>(0, 5)};
    const auto norms = adapted_row_norms(w, squared_row_norms(w), none);
    CHECK(norms(1) == 0);
    const auto scale = dora_scale<double>(vector<double>::Ones(3), norms);
    CHECK(scale(1) == 0);
    CHECK(scale(0) == doctest::Approx(1 / norms(0)));
}

TEST_CASE("gradients agree with finite differences at constant norm; merged equals unmerged and comes back") {
    auto w = random_weight<double>(6, 9, 1);
    auto lora = random_adapter<double>(6, 9, {.r = 2, .seed = 1});
    vector<double> magnitude = random_matrix<double>(6, 1, 5).cwiseAbs();
    auto x = random_matrix<double>(9, 4, 2);
    const auto dy = random_matrix<double>(6, 4, 3);
    const auto norms = adapted_row_norms(w, squared_row_norms(w), lora.delta());
    auto change = lora.delta();
    const auto layer = [&] {
        return dora_linear<double>{.base = as_operator(w), .change = change, .scale = dora_scale(magnitude, norms)};
    };
    const auto loss = [&] { return apply(layer(), x).cwiseProduct(dy).sum(); };
    auto g = zero_gradient(change);
    vector<double> dm = vector<double>::Zero(6);
    matrix<double> dx = matrix<double>::Zero(9, 4);
    column_view<double> dx_view = dx;
    workspace ws;
    dora_backward(layer(), norms, x, dy, g, dm, &dx_view, ws);
    CHECK(relative_diff(g.left, numeric_gradient(change.left, loss)) < 1e-7);
    CHECK(relative_diff(g.right, numeric_gradient(change.right, loss)) < 1e-7);
    CHECK(relative_diff(dm, numeric_gradient(magnitude, loss)) < 1e-7);
    CHECK(relative_diff(dx, numeric_gradient(x, loss)) < 1e-7);
    const auto g6 = random_matrix<double>(6, 3, 8);
    CHECK(relative_diff(apply_transposed(layer(), g6),
                        matrix<double>((layer().scale.asDiagonal() * (w + change.dense())).transpose() * g6)) < 1e-13);

    const auto unmerged = apply(layer(), x);
    const auto scale = layer().scale;
    const merge_options<double> options{.row_scale = {scale.data(), 6}};
    const auto before = w;
    const auto receipt = merge(weight_view<double>(w), change, options);
    REQUIRE(receipt);
    CHECK(relative_diff(apply(w, x), unmerged) < 1e-13);
    REQUIRE(unmerge(weight_view<double>(w), *receipt, change, options));
    CHECK(same_bits(w, before));
}
