// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/kinds/lora.hpp>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE_TEMPLATE("forward adds strength * scaling * B A drop(x)", S, float, double) {
    for (const double p : {0.0, 0.4}) {
        const auto a = random_adapter<S>(11, 17, {.r = 3, .lora_alpha = 5, .seed = 2});
        const auto x = random_matrix<S>(17, 150, 1);
        const dropout_key key{.probability = p, .seed = 5, .layer = 2, .step = 3};
        matrix<S> dropped(17, 150);
        apply_dropout<S>(key, 0, x, dropped);
        const matrix<S> start = random_matrix<S>(11, 150, 2);
        matrix<S> y = start;
        workspace ws;
        lora_forward(a, S(0.5), x, y, ws, key);
        const matrix<double> want =
            start.template cast<double>() + 0.5 * (5.0 / 3.0) * a.lora_B.template cast<double>() *
                                                (a.lora_A.template cast<double>() * dropped.template cast<double>());
        CHECK(relative_diff(y, want) < 100 * epsilon<S>);
    }
}

TEST_CASE("gradients agree with finite differences to 1e-7") {
    for (const double p : {0.0, 0.4}) {
        for (const bool rslora : {false, true}) {
            CAPTURE(p);
            auto a = random_adapter<double>(5, 7, {.r = 3, .lora_alpha = 5, .use_rslora = rslora, .seed = 2});
            // More columns than a dropout panel, so that the seam between two is covered.
            auto x = random_matrix<double>(7, 70, 1);
            const auto g = random_matrix<double>(5, 70, 2);
            const dropout_key key{.probability = p, .seed = 5, .layer = 2, .step = 3};
            workspace ws;
            const auto loss = [&] {
                // Cubic in y, so that dy depends on y as in a real network.
                matrix<double> y = matrix<double>::Zero(5, 70);
                lora_forward(a, 0.7, x, y, ws, key);
                return (g.array() * y.array() + y.array().cube() / 3).sum();
            };
            matrix<double> y = matrix<double>::Zero(5, 70);
            lora_forward(a, 0.7, x, y, ws, key);
            const matrix<double> dy = g.array() + y.array().square();
            auto gradient = zero_gradient(a);
            matrix<double> dx = matrix<double>::Zero(7, 70);
            column_view<double> dx_view = dx;
            lora_backward(a, 0.7, x, dy, gradient, &dx_view, ws, key);
            CHECK(relative_diff(gradient.lora_A, numeric_gradient(a.lora_A, loss)) < 1e-7);
            CHECK(relative_diff(gradient.lora_B, numeric_gradient(a.lora_B, loss)) < 1e-7);
            CHECK(relative_diff(dx, numeric_gradient(x, loss)) < 1e-7);
        }
    }
}

TEST_CASE_TEMPLATE("gradients accumulate: two micro-batches equal the whole batch", S, float, double) {
    const auto a = random_adapter<S>(8, 12, {.r = 4, .seed = 2});
    const auto x = random_matrix<S>(12, 90, 1);
    const auto dy = random_matrix<S>(8, 90, 2);
    dropout_key key{.probability = 0.2, .seed = 5};
    workspace ws;
    auto whole = zero_gradient(a);
    lora_backward(a, S(1), x, dy, whole, nullptr, ws, key);
    auto parts = zero_gradient(a);
    lora_backward(a, S(1), x.leftCols(30), dy.leftCols(30), parts, nullptr, ws, key);
    key.first_column = 30;
    lora_backward(a, S(1), x.rightCols(60), dy.rightCols(60), parts, nullptr, ws, key);
    CHECK(relative_diff(parts.lora_A, whole.lora_A.template cast<double>()) < 200 * epsilon<S>);
    CHECK(relative_diff(parts.lora_B, whole.lora_B.template cast<double>()) < 200 * epsilon<S>);
    parts.set_zero();
    CHECK(parts.lora_A.isZero(0));
}

TEST_CASE("the allocation counter counts") {
    const auto before = allocation_count();
    const auto* owner = new lora_adapter<double>(random_adapter<double>(4, 6, {.r = 2}));
    CHECK((allocation_count() > before) == can_count_allocations());
    CHECK(owner->rank() == 2);
    delete owner;
}

TEST_CASE_TEMPLATE("a second call with the same shapes allocates nothing", S, float, double) {
    const auto a = random_adapter<S>(96, 80, {.r = 8, .seed = 2});
    const auto x = random_matrix<S>(80, 70, 1);
    const auto dy = random_matrix<S>(96, 70, 2);
    auto gradient = zero_gradient(a);
    matrix<S> y = matrix<S>::Zero(96, 70);
    matrix<S> dx = matrix<S>::Zero(80, 70);
    column_view<S> dx_view = dx;
    for (const double p : {0.0, 0.5}) {
        workspace ws;
        const dropout_key key{.probability = p};
        const auto pass = [&] {
            lora_forward(a, S(1), x, y, ws, key);
            lora_backward(a, S(1), x, dy, gradient, &dx_view, ws, key);
        };
        pass();
        const auto before = allocation_count();
        pass();
        pass();
        CHECK(allocation_count() == before);
    }
}

TEST_CASE("shapes are checked and empty batches are fine") {
    const auto a = random_adapter<double>(4, 6, {.r = 2});
    auto gradient = zero_gradient(a);
    workspace ws;
    matrix<double> x(6, 3);
    matrix<double> y(4, 3);
    CHECK_THROWS_AS(lora_forward(a, 1, y, x, ws), contract_violation);
    CHECK_THROWS_AS(lora_backward(a, 1, x, x, gradient, nullptr, ws), contract_violation);
    column_view<double> wrong = y;
    CHECK_THROWS_AS(lora_backward(a, 1, x, y, gradient, &wrong, ws), contract_violation);
    gradient.lora_A.resize(1, 1);
    CHECK_THROWS_AS(lora_backward(a, 1, x, y, gradient, nullptr, ws), contract_violation);

    gradient = zero_gradient(a);
    matrix<double> none(4, 0);
    lora_forward(a, 1, matrix<double>(6, 0), none, ws);
    lora_backward(a, 1, matrix<double>(6, 0), none, gradient, nullptr, ws);
    CHECK(gradient.lora_A.isZero(0));
}
