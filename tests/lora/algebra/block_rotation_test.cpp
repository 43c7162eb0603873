// SPDX-License-Identifier: MIT
#include <lowrank/lora/algebra/block_rotation.hpp>

#include <lowrank/core/check.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/workspace.hpp>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

static_assert(linear_operator<block_rotation<float>>);

namespace {

/// The factor as a dense matrix.
matrix<double> dense_factor(const rotation_factor<double>& f, lowrank::index size) {
    const lowrank::index b = f.block_size();
    matrix<double> m = matrix<double>::Zero(size, size);
    for (lowrank::index k = 0; k < size; ++k) {
        for (lowrank::index l = k / b * b; l < k / b * b + b; ++l) {
            const auto place = [&](lowrank::index at) {
                return f.places.empty() ? at : f.places[static_cast<std::size_t>(at)];
            };
            m(place(k), place(l)) = f.blocks(k % b, (f.shared(size) ? 0 : l / b * b) + l % b);
        }
    }
    return m;
}

}  // namespace

TEST_CASE("factors, permutations and shared blocks equal the dense product, both ways") {
    block_rotation<double> r{.size = 12};
    CHECK(max_abs_diff(apply(r, random_matrix<double>(12, 3, 1)), random_matrix<double>(12, 3, 1)) == 0);
    r.factors.push_back({.blocks = random_matrix<double>(3, 12, 2)});
    r.factors.push_back({.blocks = random_matrix<double>(4, 4, 3), .places = {3, 1, 7, 11, 0, 2, 10, 4, 6, 5, 9, 8}});
    r.factors.push_back({.blocks = random_matrix<double>(6, 12, 4), .places = {11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0}});
    const matrix<double> dense =
        dense_factor(r.factors[2], 12) * dense_factor(r.factors[1], 12) * dense_factor(r.factors[0], 12);
    // Views with gaps between their columns.
    auto wide = random_matrix<double>(15, 5, 5);
    const const_column_view<double> x(wide.data(), 12, 5, 15);
    CHECK(max_abs_diff(apply(r, x), dense * x) < 1e-12);
    CHECK(max_abs_diff(apply_transposed(r, x), dense.transpose() * x) < 1e-12);

    const auto dz = random_matrix<double>(12, 5, 6);
    auto g = r.zero_gradient();
    matrix<double> dx = matrix<double>::Ones(12, 5);
    column_view<double> dx_view = dx;
    workspace ws;
    r.backward(x, dz, g, &dx_view, ws);
    const auto loss = [&] { return apply(r, x).cwiseProduct(dz).sum(); };
    for (std::size_t k = 0; k < 3; ++k) {
        CHECK(relative_diff(g.factors[k].blocks, numeric_gradient(r.factors[k].blocks, loss)) < 1e-7);
    }
    CHECK(max_abs_diff(dx, dense.transpose() * dz + matrix<double>::Ones(12, 5)) < 1e-12);
    CHECK(max_abs_diff(r.cast<float>().factors[1].blocks, r.factors[1].blocks) < 1e-6);

    CHECK_THROWS_AS((void)apply(r, random_matrix<double>(11, 2, 7)), contract_violation);
    r.factors[0].blocks.resize(5, 12);
    CHECK_THROWS_AS((void)apply(r, x), contract_violation);
}

TEST_CASE("the orthogonality error is that of the worst block") {
    block_rotation<float> r{.size = 4, .factors = {{.blocks = matrix<float>::Identity(2, 2)}}};
    CHECK(orthogonality_error(r) == 0);
    matrix<float> blocks(2, 4);
    blocks << 1, 0, 0.6F, 0.8F, 0, 1, -0.8F, 0.6F;
    r.factors.push_back({.blocks = blocks});
    CHECK(orthogonality_error(r) < 1e-7);
    r.factors[1].blocks(0, 3) = 1;
    CHECK(orthogonality_error(r) == doctest::Approx(0.36).epsilon(1e-6));
}
