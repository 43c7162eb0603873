// SPDX-License-Identifier: MIT
#include <tuple>

#include <lowrank/core/check.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/any_adapter.hpp>
#include <lowrank/lora/hold_adapter.hpp>
#include <lowrank/lora/kinds/structured/c3a.hpp>
#include <lowrank/lora/merge/merge_change.hpp>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

static_assert(operator_adapter<c3a_adapter<float>>);

namespace {

/// Entry by entry, as the formula says.
matrix<double> dense(const c3a_adapter<double>& a) {
    const lowrank::index b = a.block_size();
    matrix<double> d(a.out, a.in);
    for (lowrank::index o = 0; o < a.out; ++o) {
        for (lowrank::index i = 0; i < a.in; ++i) {
            const lowrank::index block = o / b * (a.in / b) + i / b;
            d(o, i) = a.c3a_kernel(block, (i % b - o % b + b) % b) / static_cast<double>(a.in);
        }
    }
    return d;
}

}  // namespace

TEST_CASE("circulant blocks of every size are multiplied with, transposed, added and differentiated as what they are") {
    for (const auto& each : {std::tuple<lowrank::index, lowrank::index, lowrank::index>{12, 8, 4},
                             {6, 9, 3},
                             {5, 5, 5},
                             {3, 2, 1},
                             {150, 300, 150},
                             {256, 128, 128}}) {
        const lowrank::index out = std::get<0>(each);
        const lowrank::index in = std::get<1>(each);
        const lowrank::index b = std::get<2>(each);
        CAPTURE(b);
        auto a = make_c3a<double>(out, in, {.block_size = b});
        CHECK(detail::all_zero(a.c3a_kernel));
        a.c3a_kernel = random_matrix<double>((out / b) * (in / b), b, 1);
        const matrix<double> d = dense(a);
        for (const lowrank::index n : {1, 3, 20}) {
            const auto x = random_matrix<double>(in, n, 2);
            const auto g = random_matrix<double>(out, n, 3);
            workspace ws;
            matrix<double> y = matrix<double>::Ones(out, n);
            a.add_product(0.5, x, y, ws);
            CHECK(relative_diff(y, matrix<double>(matrix<double>::Ones(out, n) + 0.5 * d * x)) < 1e-13);
            matrix<double> dx = matrix<double>::Ones(in, n);
            column_view<double> dx_view = dx;
            auto gradient = detail::with_zero_parameters(a);
            a.backward(x, g, gradient, &dx_view, ws);
            CHECK(relative_diff(dx, matrix<double>(matrix<double>::Ones(in, n) + d.transpose() * g)) < 1e-13);
            const matrix<double> dd = g * x.transpose();
            matrix<double> want = matrix<double>::Zero(a.c3a_kernel.rows(), b);
            for (lowrank::index o = 0; o < out; ++o) {
                for (lowrank::index i = 0; i < in; ++i) {
                    want(o / b * (in / b) + i / b, (i % b - o % b + b) % b) += dd(o, i) / static_cast<double>(in);
                }
            }
            CHECK(relative_diff(gradient.c3a_kernel, want) < 1e-12);
        }
        const matrix<double> w = random_matrix<double>(out, in, 4);
        CHECK(relative_diff(changed(a.change(), w), matrix<double>(w + d)) < 1e-14);
    }
}

TEST_CASE("the size of the blocks gives no more numbers than LoRA of the rank, where a size does") {
    CHECK(c3a_block_size(64, 64, 8) == 4);
    CHECK(c3a_block_size(64, 64, 1) == 32);
    CHECK(c3a_block_size(64, 172, 4) == 4);
    CHECK(c3a_block_size(64, 172, 1) == 4);  // the greatest that divides both
    CHECK(c3a_block_size(7, 5, 8) == 1);
}

TEST_CASE("blocks that do not fit the weight are refused") {
    CHECK_THROWS_AS((void)make_c3a<float>(12, 8, {.block_size = 3}), contract_violation);
    auto a = make_c3a<float>(12, 8, {.block_size = 4});
    a.in = 16;
    CHECK_THROWS_AS(any_adapter<float>{a}, contract_violation);
}
