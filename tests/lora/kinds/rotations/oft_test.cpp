// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/kinds/rotations/oft.hpp>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

static_assert(rotating_adapter<oft_adapter<float>>);

namespace {

template <class S>
oft_adapter<S> random_oft(lowrank::index in, const oft_options& options, double size = 0.3) {
    auto a = make_oft<S>(6, in, options);
    a.oft_R = random_matrix<S>(a.oft_R.rows(), a.oft_R.cols(), 9, static_cast<S>(size));
    return a;
}

}  // namespace

TEST_CASE_TEMPLATE("a new adapter leaves the base's output alone, a trained one turns the inputs", S, float, double) {
    const auto w = random_weight<S>(6, 12, 1);
    const any_operator<S> base = as_operator(w);
    const auto x = random_matrix<S>(12, 5, 2);
    for (const bool neumann : {false, true}) {
        const auto fresh = rotate(base, make_oft<S>(6, 12, {.block_size = 4, .use_cayley_neumann = neumann}));
        CHECK((apply(fresh, x).array() == apply(base, x).array()).all());
    }
    for (const bool share : {false, true}) {
        const auto a = random_oft<S>(12, {.block_size = 4, .block_share = share, .use_cayley_neumann = false});
        CHECK(a.block_size() == 4);
        const auto r = a.rotation();
        CHECK(orthogonality_error(r) < 10 * epsilon<S>);
        const matrix<S> z = apply(r, x);
        CHECK(std::abs(z.norm() / x.norm() - 1) < 10 * epsilon<S>);
        CHECK(max_abs_diff(apply_transposed(r, z), x) < 50 * epsilon<S>);
        CHECK(max_abs_diff(z, x) > 0.1);
    }
}

TEST_CASE("the exact transform and the series turn in opposite directions") {
    auto a = random_oft<double>(6, {.block_size = 6, .use_cayley_neumann = false}, 0.01);
    const auto exact = a.rotation();
    a.use_cayley_neumann = true;
    a.num_cayley_neumann_terms = 9;
    const auto series = a.rotation();
    CHECK(max_abs_diff(series.factors[0].blocks, exact.factors[0].blocks.transpose()) < 1e-10);
    a.num_cayley_neumann_terms = 5;
    CHECK(orthogonality_error(a.rotation()) > 0);
    CHECK(orthogonality_error(a.rotation()) < 1e-4);
}

TEST_CASE("gradients of the parameters agree with finite differences") {
    const auto w = random_weight<double>(5, 12, 3);
    const any_operator<double> base = as_operator(w);
    const auto x = random_matrix<double>(12, 4, 4);
    const auto dy = random_matrix<double>(5, 4, 5);
    workspace ws;
    for (const oft_options& options :
         {oft_options{.block_size = 4, .use_cayley_neumann = false},
          oft_options{.block_size = 6, .block_share = true, .use_cayley_neumann = false}, oft_options{.block_size = 3},
          oft_options{.block_size = 1}, oft_options{.block_size = 4, .num_cayley_neumann_terms = 2}}) {
        auto a = random_oft<double>(12, options);
        const auto layer = rotate(base, a);
        auto g = zero_gradient(layer);
        rotated_backward(layer, x, dy, g, nullptr, ws);
        const auto loss = [&] { return apply(rotate(base, a), x).cwiseProduct(dy).sum(); };
        CHECK(relative_diff(a.pull_back(g).oft_R, numeric_gradient(a.oft_R, loss)) < 1e-7);
    }
}

TEST_CASE("COFT keeps every block in its ball, in use and by projecting the parameters") {
    auto a = random_oft<double>(12, {.block_size = 4, .coft = true, .eps = 0.5, .use_cayley_neumann = false}, 1.0);
    a.oft_R.row(1) *= 1e-3;  // already inside
    const matrix<double> inside = a.oft_R.row(1);
    const auto used = a.rotation();
    auto projected = a;
    projected.project();
    CHECK(max_abs_diff(projected.oft_R.row(1), inside) == 0);
    CHECK(std::abs(std::sqrt(2.0) * projected.oft_R.row(0).norm() - 0.5 / std::sqrt(3.0)) < 1e-14);
    CHECK(max_abs_diff(projected.rotation().factors[0].blocks, used.factors[0].blocks) < 1e-14);
    a.coft = false;
    CHECK(max_abs_diff(a.rotation().factors[0].blocks, used.factors[0].blocks) > 0.1);
}

TEST_CASE("block sizes that do not divide become the nearest divisor; broken shapes are refused") {
    CHECK(rotation_block_size(96, 32) == 32);
    CHECK(rotation_block_size(100, 32) == 25);
    CHECK(rotation_block_size(90, 32) == 30);
    CHECK(rotation_block_size(12, 5) == 4);
    CHECK(rotation_block_size(13, 5) == 1);
    CHECK(rotation_block_size(13, 9) == 13);
    CHECK(rotation_block_size(13, 40) == 13);
    CHECK_THROWS_AS((void)make_oft<float>(6, 100), contract_violation);
    auto a = make_oft<float>(6, 12, {.block_size = 4});
    a.oft_R.resize(3, 5);
    CHECK_THROWS_AS((void)a.rotation(), contract_violation);
    a.oft_R.setZero(2, 6);
    CHECK_THROWS_AS((void)a.rotation(), contract_violation);
}
