// SPDX-License-Identifier: MIT
#include <lowrank/lora/kinds/dora.hpp>

#include <cmath>
#include <limits>
#include <span>

#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/factored_algebra.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/lora/any_adapter.hpp>
#include <lowrank/lora/hold_adapter.hpp>
#include <lowrank/lora/merge/merge.hpp>
#include <lowrank/lora/train/dropout.hpp>

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

TEST_CASE("training drops the inputs of everything but the plain base, forward and back") {
    const row_matrix<double> w = random_weight<double>(7, 6, 1, 0.4);
    auto adapter = make_dora(w, {.r = 2, .lora_dropout = 0.5, .seed = 2});
    adapter.lora.lora_B = random_matrix<double>(7, 2, 3);
    adapter.magnitude += random_matrix<double>(7, 1, 4, 0.2);
    any_adapter<double> a = adapter;
    CHECK(a.dropout() == 0.5);
    a.refresh(as_operator(w));
    const lowrank::index n = 90;  // more than one panel
    const matrix<double> x = random_matrix<double>(6, n, 5);
    const matrix<double> dy = random_matrix<double>(7, n, 6);
    const dropout_key key{.probability = 0.5, .seed = 1, .step = 2};
    matrix<double> dropped(6, n);
    apply_dropout<double>(key, 0, x, dropped);
    workspace ws;
    matrix<double> whole = matrix<double>::Zero(7, 6);
    a.add_product(as_operator(w), 1, matrix<double>(matrix<double>::Identity(6, 6)), whole, ws);
    const double t = 0.6;
    matrix<double> y = matrix<double>::Zero(7, n);
    a.add_product(as_operator(w), t, x, y, ws, key);
    CHECK(relative_diff(y, matrix<double>(w * x + t * (whole - w) * dropped)) < 1e-13);

    auto g = a.zero_gradient();
    matrix<double> back = matrix<double>::Zero(6, n);
    column_view<double> dx = back;
    a.backward(as_operator(w), t, x, dy, g, &dx, ws, key);
    matrix<double> want = w.transpose() * dy;
    const matrix<double> through = t * (whole - w).transpose() * dy;
    add_dropout<double>(key, 0, through, want);
    CHECK(relative_diff(back, want) < 1e-13);
    // Parameters get what the dropped inputs give without dropout.
    auto plain = a.zero_gradient();
    a.backward(as_operator(w), t, dropped, dy, plain, nullptr, ws);
    const auto flat = [&](const adapter_gradient<double>& of) {
        vector<double> out = vector<double>::Zero(a.parameter_count());
        a.pull_back(of, std::span(out.data(), static_cast<std::size_t>(out.size())));
        return out;
    };
    CHECK(relative_diff(flat(g), flat(plain)) < 1e-12);
}

TEST_CASE("a norm that is not a number stays one") {
    const vector<double> m = vector<double>::Ones(3);
    vector<double> n = vector<double>::Ones(3);
    n(0) = 0;
    n(1) = std::numeric_limits<double>::quiet_NaN();
    const auto scale = dora_scale<double>(m, n);
    CHECK(scale(0) == 0);
    CHECK(std::isnan(scale(1)));
    CHECK(scale(2) == 1);
}
