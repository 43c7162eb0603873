// SPDX-License-Identifier: MIT
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/adapter_kind.hpp>

#include "some_adapters.hpp"

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE("gradients of every kind agree with finite differences, at any strength") {
    const row_matrix<double> w = random_weight<double>(some_out, some_in, 1, 0.4);
    const auto base = as_operator(w);
    const auto dy = random_matrix<double>(some_out, 5, 3);
    for (auto& a : some_adapters<double>(w)) {
        CAPTURE(a.kind());
        // A DoRA norm counts as a constant, which differences do not know; dora_test.cpp holds it still.
        const bool is_dora = a.kind() == "dora";
        for (const double t : {1.0, 0.6}) {
            CAPTURE(t);
            auto x = random_matrix<double>(some_in, 5, 2);
            workspace ws;
            const auto loss = [&](bool refresh) {
                if (refresh) {
                    a.refresh(base);
                }
                matrix<double> y = matrix<double>::Zero(some_out, 5);
                a.add_product(base, t, x, y, ws);
                return y.cwiseProduct(dy).sum();
            };
            auto g = a.zero_gradient();
            matrix<double> dx = matrix<double>::Zero(some_in, 5);
            column_view<double> dx_view = dx;
            a.backward(base, t, x, dy, g, &dx_view, ws);
            CHECK(relative_diff(dx, numeric_gradient(x, [&] { return loss(false); })) < 1e-8);

            matrix<double> got = matrix<double>::Zero(a.parameter_count(), 1);
            a.pull_back(g, std::span(got.data(), static_cast<std::size_t>(got.size())));
            lowrank::index at = 0;
            for (auto& p : a.parameters()) {
                CAPTURE(p.name);
                column_view<double> value(p.values.data(), p.rows, p.cols);
                const matrix<double> part = got.middleRows(at, value.size()).reshaped(p.rows, p.cols);
                at += value.size();
                if (!is_dora || p.name == "lora_magnitude_vector") {
                    CHECK(relative_diff(part, numeric_gradient(value, [&] { return loss(true); })) < 1e-7);
                }
            }
            a.refresh(base);
            CHECK(at == a.parameter_count());
        }
    }
}

TEST_CASE("DoRA through one type is DoRA by its own functions") {
    const row_matrix<double> w = random_weight<double>(some_out, some_in, 1, 0.4);
    const auto base = as_operator(w);
    for (auto& a : some_adapters<double>(w)) {
        const auto* dora = a.get<dora_adapter<double>>();
        if (dora == nullptr) {
            continue;
        }
        const auto change = dora->lora.delta();
        const vector<double> n = adapted_row_norms(w, squared_row_norms(w), change);
        const dora_linear<double> layer{
            .base = base, .change = change, .scale = dora_scale<double>(dora->magnitude, n)};
        const auto x = random_matrix<double>(some_in, 4, 2);
        const auto dy = random_matrix<double>(some_out, 4, 3);
        workspace ws;
        matrix<double> y = matrix<double>::Zero(some_out, 4);
        a.add_product(base, 1, x, y, ws);
        CHECK(relative_diff(y, apply(layer, x)) < 1e-13);
        auto g = zero_gradient(change);
        vector<double> dm = vector<double>::Zero(some_out);
        dora_backward(layer, n, x, dy, g, dm, nullptr, ws);
        auto erased = a.zero_gradient();
        a.backward(base, 1, x, dy, erased, nullptr, ws);
        vector<double> flat = vector<double>::Zero(a.parameter_count());
        a.pull_back(erased, std::span(flat.data(), static_cast<std::size_t>(flat.size())));
        CHECK(relative_diff(flat.head(2 * some_in).reshaped(2, some_in), g.right) < 1e-12);
        CHECK(relative_diff(flat.segment(2 * some_in, 2 * some_out).reshaped(some_out, 2),
                            matrix<double>(dora->lora.scaling() * g.left)) < 1e-12);
        CHECK(relative_diff(flat.tail(some_out), dm) < 1e-12);
    }
}
