// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/adapted_linear.hpp>
#include <lowrank/lora/kinds/dora.hpp>
#include <lowrank/lora/kinds/lora.hpp>

#include <cstring>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

static_assert(linear_operator<adapted_linear<float>> && linear_operator<adapted_linear<double>>);

namespace {

template <class S>
std::shared_ptr<const any_adapter<S>> shared(lora_adapter<S> a) {
    return std::make_shared<const any_adapter<S>>(std::move(a));
}

}  // namespace

TEST_CASE_TEMPLATE("the base plus every adapter at its strength", S, float, double) {
    const auto w = random_weight<S>(12, 20, 1);
    const auto a = random_adapter<S>(12, 20, {.r = 3, .lora_alpha = 6, .seed = 1});
    const auto b = random_adapter<S>(12, 20, {.r = 7, .lora_alpha = 4, .use_rslora = true, .seed = 2});
    const adapted_linear<S> layer{.base = as_operator(w),
                                  .adapters = {{.adapter = shared(a), .strength = S(0.5)}, {.adapter = shared(b)}}};
    const auto wide = [](const auto& m) { return matrix<double>(m.template cast<double>()); };
    const matrix<double> dense = wide(w) + 0.5 * wide(a.delta().dense()) + wide(b.delta().dense());
    const auto x = random_matrix<S>(20, 6, 3);
    const auto g = random_matrix<S>(12, 6, 4);
    CHECK(relative_diff(apply(layer, x), matrix<double>(dense * wide(x))) < 200 * epsilon<S>);
    CHECK(relative_diff(apply_transposed(layer, g), matrix<double>(dense.transpose() * wide(g))) < 200 * epsilon<S>);

    SUBCASE("behind any_operator, and as the base of another layer") {
        const adapted_linear<S> outer{.base = layer, .adapters = {{.adapter = shared(a), .strength = S(-0.5)}}};
        const matrix<double> less = wide(w) + wide(b.delta().dense());
        CHECK(relative_diff(apply(any_operator<S>(outer), x), matrix<double>(less * wide(x))) < 200 * epsilon<S>);
    }
}

TEST_CASE_TEMPLATE("adapters with a zero B or strength 0 leave the base's bits", T, float, double, half, bfloat16) {
    using S = compute_t<T>;
    const auto w = random_weight<T>(33, 21, 1);
    const auto fresh = shared(make_lora<S>(33, 21, {.r = 4, .seed = 1}));
    const auto trained = shared(random_adapter<S>(33, 21, {.r = 4, .seed = 1}));
    const adapted_linear<S> layer{.base = as_operator(w),
                                  .adapters = {{.adapter = fresh}, {.adapter = trained, .strength = S(0)}}};
    const auto x = random_matrix<S>(21, 5, 2);
    CHECK(same_bits(apply(layer, x), apply(w, x)));
    const auto g = random_matrix<S>(33, 5, 3);
    CHECK(same_bits(apply_transposed(layer, g), apply_transposed(w, g)));

    // Not even the sign of a zero changes.
    workspace ws;
    const matrix<S> zero_x = matrix<S>::Zero(21, 1);
    matrix<S> y = matrix<S>::Constant(33, 1, -S(0));
    fresh->add_product(as_operator(w), S(1), zero_x, y, ws);
    CHECK(same_bits(y, matrix<S>(matrix<S>::Constant(33, 1, -S(0)))));
}

TEST_CASE("adapters that need the base add their changes of it, whatever the factor of the product") {
    const row_matrix<double> w = random_weight<double>(12, 20, 1);
    auto dora = make_dora(w, {.r = 2, .seed = 5});
    dora.lora.lora_B = random_matrix<double>(12, 2, 6);
    any_adapter<double> turned = dora;
    turned.refresh(as_operator(w));
    const auto lora = random_adapter<double>(12, 20, {.r = 3, .seed = 1});
    const adapted_linear<double> layer{
        .base = as_operator(w),
        .adapters = {{.adapter = std::make_shared<const any_adapter<double>>(turned), .strength = 0.5},
                     {.adapter = std::make_shared<const any_adapter<double>>(turned), .strength = 0.25},
                     {.adapter = shared(lora)}}};
    const matrix<double> alone =
        apply(adapted_linear<double>{.base = as_operator(w), .adapters = {{.adapter = layer.adapters[0].adapter}}},
              matrix<double>(matrix<double>::Identity(20, 20)));
    const matrix<double> want = w + 0.75 * (alone - w) + lora.delta().dense();
    const auto x = random_matrix<double>(20, 3, 7);
    const auto g = random_matrix<double>(12, 3, 8);
    matrix<double> y = matrix<double>::Zero(12, 3);
    matrix<double> back = matrix<double>::Zero(20, 3);
    workspace ws;
    layer.add_product(-2, x, y, ws);
    layer.add_transposed_product(-2, g, back, ws);
    CHECK(relative_diff(y, matrix<double>(-2 * want * x)) < 1e-13);
    CHECK(relative_diff(back, matrix<double>(-2 * want.transpose() * g)) < 1e-13);
}

TEST_CASE("an engine's row-major activations enter and leave without a copy") {
    const lowrank::index tokens = 4;
    std::vector<float> in(tokens * 10);
    std::vector<float> out(tokens * 6, 0.0F);
    for (std::size_t i = 0; i < in.size(); ++i) {
        in[i] = static_cast<float>(i % 7) - 3.0F;
    }
    const auto w = random_weight<float>(6, 10, 1);
    const auto a = random_adapter<float>(6, 10, {.r = 2, .seed = 1});
    const adapted_linear<float> layer{.base = as_operator(w), .adapters = {{.adapter = shared(a)}}};
    const const_column_view<float> x(in.data(), 10, tokens);
    column_view<float> y(out.data(), 6, tokens);
    workspace ws;
    layer.add_product(1.0F, x, y, ws);
    const auto before = allocation_count();
    layer.add_product(1.0F, x, y, ws);
    CHECK(allocation_count() == before);
    const matrix<double> want = 2 * (w + a.delta().dense()).cast<double>() * x.cast<double>();
    CHECK(relative_diff(y, want) < 1e-5);
    CHECK(x.data() == in.data());
}

TEST_CASE("adapters that do not fit are contract violations") {
    const auto w = random_weight<float>(6, 10, 1);
    const matrix<float> x = matrix<float>::Ones(10, 1);
    adapted_linear<float> layer{.base = as_operator(w), .adapters = {{.adapter = shared(make_lora<float>(6, 9))}}};
    CHECK_THROWS_AS((void)apply(layer, x), contract_violation);
    layer.adapters = {used_adapter<float>{}, used_adapter<float>{.strength = 0.5F}};  // they lack this layer
    CHECK(same_bits(apply(layer, x), apply(w, x)));
}
