// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/lora/kinds/shared/randlora.hpp>

#include "factored_gradient.hpp"

using namespace lowrank;
using namespace lowrank_tests;

static_assert(factored_adapter<randlora_adapter<float>>);

TEST_CASE("the change is the sum that PEFT forms, for both orders of the sides; gradients are right") {
    const auto shared = make_randlora_projections<double>(9, 11, {.r = 2, .seed = 3});
    for (const auto& shape : {std::pair<lowrank::index, lowrank::index>{9, 11}, {8, 5}, {6, 6}, {3, 7}}) {
        const lowrank::index out = shape.first;
        const lowrank::index in = shape.second;
        const lowrank::index d = std::min(out, in);
        auto a = make_randlora(shared, out, in, 4);
        CHECK(a.lambda.cols() == (d + 1) / 2);
        CHECK(a.gamma(0, 0) == doctest::Approx(1.0 / static_cast<double>(d)));
        CHECK(detail::all_zero(a.delta().dense()));
        a.lambda = random_matrix<double>(2, a.lambda.cols(), 1);
        a.gamma = random_matrix<double>(a.gamma.rows(), d, 2);
        // Row (k, b) of the scaled A is number k m + b; column (b, k) of B is number b r + k.
        const lowrank::index m = a.lambda.cols();
        matrix<double> small = matrix<double>::Zero(std::max(out, in), d);
        for (lowrank::index k = 0; k < 2; ++k) {
            for (lowrank::index b = 0; b < m; ++b) {
                const lowrank::index at = k * m + b;
                for (lowrank::index j = 0; j < d; ++j) {
                    small.col(j) += shared->randlora_B.col(at).head(small.rows()) *
                                    (a.lambda(k, b) * shared->randlora_A(k, j) * a.gamma(b, j));
                }
            }
        }
        const matrix<double> want = 2 * (in <= out ? small : matrix<double>(small.transpose()));
        CHECK(max_abs_diff(a.delta().dense(), want) < 1e-12);
        const auto g = probe_gradient(a);
        const auto loss = [&] { return probe_loss(a); };
        CHECK(relative_diff(g.lambda, numeric_gradient(a.lambda, loss)) < 1e-7);
        CHECK(relative_diff(g.gamma, numeric_gradient(a.gamma, loss)) < 1e-7);
    }
    CHECK_THROWS_AS((void)make_randlora(shared, 10, 11).delta(), contract_violation);
}

TEST_CASE("bases have deviation one; sparse ones have three values in the right shares") {
    for (const auto kind : {randlora_kind::uniform, randlora_kind::sparse, randlora_kind::very_sparse}) {
        const auto p = make_randlora_projections<float>(100, 64, {.r = 8, .kind = kind, .seed = 7});
        for (const matrix<float>* x : {&p->randlora_A, &p->randlora_B}) {
            const double mean = x->cast<double>().mean();
            const double n = static_cast<double>(x->size());
            const double square = (x->cast<double>().array() - mean).square().sum() / (n - 1);
            CHECK(square == doctest::Approx(1).epsilon(1e-5));
            CHECK(std::abs(mean) < 0.2);
            const double zeros = static_cast<double>((x->array() == 0).count()) / n;
            const double want = kind == randlora_kind::uniform ? 0 : kind == randlora_kind::sparse ? 2.0 / 3 : 7.0 / 8;
            CHECK(std::abs(zeros - want) < 0.08);
        }
    }
}
