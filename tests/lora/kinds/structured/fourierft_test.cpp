// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cmath>
#include <numbers>
#include <tuple>
#include <variant>

#include <lowrank/core/check.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/any_adapter.hpp>
#include <lowrank/lora/hold_adapter.hpp>
#include <lowrank/lora/kinds/structured/fourierft.hpp>
#include <lowrank/lora/merge/merge_change.hpp>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

static_assert(operator_adapter<fourierft_adapter<float>>);

namespace {

/// Entry by entry, as the formula says.
matrix<double> dense(const fourierft_adapter<double>& a) {
    matrix<double> d = matrix<double>::Zero(a.out, a.in);
    for (lowrank::index k = 0; k < a.fourierft_spectrum.size(); ++k) {
        for (lowrank::index p = 0; p < a.out; ++p) {
            for (lowrank::index q = 0; q < a.in; ++q) {
                const double angle = static_cast<double>(a.waves.positions(0, k) * p) / static_cast<double>(a.out) +
                                     static_cast<double>(a.waves.positions(1, k) * q) / static_cast<double>(a.in);
                d(p, q) += a.fourierft_spectrum(k) * std::cos(2 * std::numbers::pi * angle);
            }
        }
    }
    return a.scaling / static_cast<double>(a.out * a.in) * d;
}

}  // namespace

TEST_CASE("a sparse spectrum is multiplied with, transposed, added and factored as the matrix it stands for") {
    for (const auto& each :
         {std::tuple<lowrank::index, lowrank::index, lowrank::index>{12, 8, 3}, {7, 9, 63}, {1, 5, 2}, {40, 30, 100}}) {
        const lowrank::index out = std::get<0>(each);
        const lowrank::index in = std::get<1>(each);
        const lowrank::index n = std::get<2>(each);
        CAPTURE(n);
        auto a = make_fourierft<double>(out, in, {.n_frequency = n, .scaling = 60, .random_loc_seed = 5});
        CHECK(detail::all_zero(a.fourierft_spectrum));
        a.fourierft_spectrum = random_matrix<double>(n, 1, 1);
        const matrix<double> d = dense(a);
        const auto x = random_matrix<double>(in, 4, 2);
        const auto g = random_matrix<double>(out, 4, 3);
        workspace ws;
        matrix<double> y = matrix<double>::Zero(out, 4);
        a.add_product(0.5, x, y, ws);
        CHECK(relative_diff(y, matrix<double>(0.5 * d * x)) < 1e-12);
        matrix<double> back = matrix<double>::Zero(in, 4);
        a.add_transposed_product(2, g, back, ws);
        CHECK(relative_diff(back, matrix<double>(2 * d.transpose() * g)) < 1e-12);
        const auto loss = [&] {
            matrix<double> z = matrix<double>::Zero(out, 4);
            a.add_product(1, x, z, ws);
            return z.cwiseProduct(g).sum();
        };
        auto gradient = detail::with_zero_parameters(a);
        a.backward(x, g, gradient, nullptr, ws);
        CHECK(relative_diff(gradient.fourierft_spectrum, numeric_gradient(a.fourierft_spectrum, loss)) < 1e-7);

        CHECK(a.rank() <= std::min(2 * n, out + 2));
        CHECK(a.delta().rank() == a.rank());
        CHECK(relative_diff(a.delta().dense(), d) < 1e-12);
        const matrix<double> w = random_matrix<double>(out, in, 4);
        CHECK(relative_diff(changed<double>(a.row_sums(), w), matrix<double>(w + d)) < 1e-13);
        CHECK(std::holds_alternative<low_rank<double>>(a.change()) == (a.rank() * (out + in) < out * in));
    }
}

TEST_CASE("frequencies are those of the seed; what does not fit the weight is refused") {
    const auto a = make_fourierft<float>(12, 8, {.n_frequency = 10, .random_loc_seed = 3});
    CHECK(a.waves.positions == torch_random_positions(12, 8, 10, 3));
    CHECK_THROWS_AS((void)make_fourierft<float>(12, 8, {.n_frequency = 97}), contract_violation);
    CHECK_THROWS_AS((void)make_fourierft<float>(12, 8, {.n_frequency = 0}), contract_violation);
    auto wrong = a;
    wrong.out = 3;
    CHECK_THROWS_AS(any_adapter<float>{wrong}, contract_violation);
    wrong = a;
    wrong.waves.places.conservativeResize(2, 9);
    CHECK_THROWS_AS(any_adapter<float>{wrong}, contract_violation);
}
