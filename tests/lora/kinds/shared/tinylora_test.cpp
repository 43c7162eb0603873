// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/lora/any_adapter.hpp>
#include <lowrank/lora/kinds/shared/tinylora.hpp>
#include <lowrank/lora/train/trainer.hpp>

#include "lora/factored_gradient.hpp"
#include "lora/some_adapters.hpp"

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE("TinyLoRA: the change is B (sum v_i P_i) A, and v alone has a gradient") {
    tinylora_adapter<double> a{.tinylora_A = random_matrix<double>(3, 6, 1),
                               .tinylora_B = random_matrix<double>(5, 3, 2),
                               .tinylora_P = random_matrix<double>(12, 3, 3),
                               .v = random_matrix<double>(4, 1, 4)};
    matrix<double> r = matrix<double>::Zero(3, 3);
    for (lowrank::index i = 0; i < 4; ++i) {
        r += a.v(i) * a.tinylora_P.middleRows(3 * i, 3);
    }
    CHECK(max_abs_diff(a.delta().dense(), matrix<double>(a.tinylora_B * r * a.tinylora_A)) < 1e-13);
    CHECK(relative_diff(probe_gradient(a).v, numeric_gradient(a.v, [&] { return probe_loss(a); })) < 1e-7);
    any_adapter<double> any = a;
    CHECK(any.parameter_count() == 4);
    CHECK(any.parameters().front().shared == "tinylora_v.0");
    a.v.resize(3);
    CHECK_THROWS_AS((void)a.delta(), contract_violation);
}

TEST_CASE("TinyLoRA: a new adapter holds the leading components of its weight and changes nothing") {
    const row_matrix<double> w = random_weight<double>(9, 7, 4);
    const auto a = make_tinylora<double>(as_operator(w), {.r = 3, .u = 400, .group = 2, .seed = 5});
    const auto f = svd(w).value();
    CHECK(max_abs_diff(matrix<double>(a.tinylora_B * a.tinylora_A), f.truncate(3).dense()) < 1e-8);
    const matrix<double> in_balance = a.tinylora_A * a.tinylora_A.transpose();
    CHECK(max_abs_diff(in_balance, matrix<double>(a.tinylora_B.transpose() * a.tinylora_B)) < 1e-8);
    const double variance = a.tinylora_P.squaredNorm() / static_cast<double>(a.tinylora_P.size());
    CHECK(variance == doctest::Approx(1.0 / 3).epsilon(0.1));
    CHECK(detail::all_zero(a.delta().dense()));
    CHECK(probe_gradient(a).v.norm() > 1e-3);
    const auto small = make_tinylora<double>(as_operator(w), {.r = 30, .u = 2});
    CHECK(small.tinylora_A.rows() == 7);
    CHECK(small.r == 30);
}

TEST_CASE("TinyLoRA: layers of one group train one vector, those of another their own") {
    const row_matrix<double> w = random_weight<double>(6, 5, 4);
    trainer<double> together({.optimizer = optimizer_kind::sgd, .learning_rate = 0.5});
    for (std::uint64_t layer = 0; layer < 3; ++layer) {
        auto a = make_tinylora<double>(as_operator(w),
                                       {.u = 3, .group = static_cast<lowrank::index>(layer / 2), .stream = layer});
        together.add("layer" + std::to_string(layer), a, as_operator(w));
    }
    workspace ws;
    vector<double> wanted = vector<double>::Zero(3);
    for (const lowrank::index layer : {0, 1, 2}) {
        const auto& a = together.adapter(layer);
        auto g = a.zero_gradient();
        a.backward(as_operator(w), 1, random_matrix<double>(5, 4, 20), random_matrix<double>(6, 4, 21), g, nullptr, ws);
        vector<double> own = vector<double>::Zero(3);
        a.pull_back(g, std::span(own.data(), std::size_t{3}));
        wanted += layer < 2 ? own : vector<double>(vector<double>::Zero(3));
        together.accumulate(layer, g);
    }
    REQUIRE(together.step());
    const auto v = [&](lowrank::index layer) { return together.adapter(layer).get<tinylora_adapter<double>>()->v; };
    CHECK(v(0) == v(1));
    CHECK(max_abs_diff(v(0), vector<double>(-0.5 * wanted)) < 1e-14);
    CHECK(v(2) != v(0));
    CHECK(together.state().tensors.size() == 2);
}
