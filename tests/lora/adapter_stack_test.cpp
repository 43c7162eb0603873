// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/adapter_stack.hpp>

#include "some_adapters.hpp"

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE_TEMPLATE("all kinds at once add their changes of the original weight, in any order", S, float, double) {
    const row_matrix<S> w = random_weight<S>(some_out, some_in, 1, 0.4);
    const auto base = as_operator(w);
    std::vector<used_adapter<S>> stack;
    matrix<double> want = w.template cast<double>();
    S strength = S(0.3);
    for (const auto& a : some_adapters<S>(w)) {
        stack.push_back({.adapter = std::make_shared<const any_adapter<S>>(a), .strength = strength});
        want += adapted_weight(a, w, strength) - w.template cast<double>();
        strength = -strength + S(0.05);
    }
    stack.push_back({.adapter = stack.front().adapter, .strength = S(0)});
    const auto x = random_matrix<S>(some_in, 4, 2);
    workspace ws;
    const auto product = [&] {
        matrix<S> y = matrix<S>::Zero(some_out, 4);
        add_adapted_product<S>(base, stack, x, y, ws);
        return y;
    };
    const matrix<S> y = product();
    CHECK(relative_diff(y, matrix<double>(want * x.template cast<double>())) < 200 * epsilon<S>);
    std::reverse(stack.begin(), stack.end());
    CHECK(relative_diff(product(), matrix<double>(y.template cast<double>())) < 200 * epsilon<S>);

    const auto dy = random_matrix<S>(some_out, 4, 3);
    const matrix<double> dx_want = want.transpose() * dy.template cast<double>();
    matrix<S> dx = matrix<S>::Zero(some_in, 4);
    column_view<S> dx_view = dx;
    add_adapted_transposed_product<S>(base, stack, dy, dx_view, ws);
    CHECK(relative_diff(dx, dx_want) < 200 * epsilon<S>);
    // Only one of them trains; the gradient of x is that of all.
    const any_adapter<S>& trained = *stack[2].adapter;
    auto g = trained.zero_gradient();
    dx.setZero();
    adapted_backward<S>(
        base, stack, x, dy, [&](const any_adapter<S>& a) { return &a == &trained ? &g : nullptr; }, &dx_view, ws);
    CHECK(relative_diff(dx, dx_want) < 200 * epsilon<S>);
    vector<S> flat = vector<S>::Zero(trained.parameter_count());
    trained.pull_back(g, std::span(flat.data(), static_cast<std::size_t>(flat.size())));
    CHECK(flat.cwiseAbs().maxCoeff() > 0);
}

TEST_CASE(
    "no adapter, an empty entry, and LoRA whose B is zero, leave the base's output bit for bit; dropout is LoRA's "
    "own") {
    const row_matrix<float> w = random_weight<float>(some_out, some_in, 1);
    const auto x = random_matrix<float>(some_in, 9, 2);
    workspace ws;
    const auto product = [&](std::vector<used_adapter<float>> stack, const dropout_key* key = nullptr) {
        matrix<float> y = matrix<float>::Zero(some_out, 9);
        add_adapted_product<float>(as_operator(w), stack, x, y, ws, key);
        return y;
    };
    const matrix<float> plain = apply(w, x);
    CHECK(same_bits(product({}), plain));
    const auto share = [](lora_adapter<float> a) { return std::make_shared<const any_adapter<float>>(std::move(a)); };
    CHECK(same_bits(product({{.adapter = share(make_lora<float>(some_out, some_in, {.r = 2}))}}), plain));

    const auto a = random_adapter<float>(some_out, some_in, {.r = 2, .lora_dropout = 0.5});
    const dropout_key key{.probability = 0.9, .seed = 3, .layer = 1, .step = 2};
    auto own = key;
    own.probability = 0.5;
    matrix<float> want = plain;
    lora_forward(a, 0.7F, x, want, ws, own);
    CHECK(same_bits(product({{.adapter = share(a), .strength = 0.7F}}, &key), want));
    CHECK(same_bits(product({used_adapter<float>{}}), plain));
}
