// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/kinds/rotations/boft.hpp>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE("butterfly places: factor 0 keeps the order, factor i couples half blocks 2^i apart") {
    using order = std::vector<lowrank::index>;
    CHECK(butterfly_places(8, 2, 0) == order{0, 1, 2, 3, 4, 5, 6, 7});
    CHECK(butterfly_places(8, 2, 1) == order{0, 2, 1, 3, 4, 6, 5, 7});
    CHECK(butterfly_places(8, 2, 2) == order{0, 4, 1, 5, 2, 6, 3, 7});
    CHECK(butterfly_places(8, 4, 1) == order{0, 1, 4, 5, 2, 3, 6, 7});
    CHECK_THROWS_AS((void)butterfly_places(8, 3, 1), contract_violation);
    CHECK_THROWS_AS((void)butterfly_places(12, 4, 2), contract_violation);
}

TEST_CASE("m factors of size b connect every input with b 2^(m-1) others, orthogonally") {
    auto a = make_boft<double>(3, 16, {.block_size = 2, .n_butterfly_factor = 4});
    CHECK(a.factor_count() == 4);
    a.boft_R = random_matrix<double>(64, 2, 1);
    const matrix<double> r = apply(a.rotation(), matrix<double>(matrix<double>::Identity(16, 16)));
    CHECK((r.array() != 0).all());
    CHECK(max_abs_diff(r.transpose() * r, matrix<double>::Identity(16, 16)) < 1e-13);
    CHECK(orthogonality_error(a.rotation()) < 1e-14);
}

TEST_CASE("a new adapter leaves the base's output alone; gradients agree with finite differences") {
    const auto w = random_weight<double>(5, 8, 1);
    const any_operator<double> base = as_operator(w);
    const auto x = random_matrix<double>(8, 4, 2);
    const auto dy = random_matrix<double>(5, 4, 3);
    workspace ws;
    for (const boft_options& options : {boft_options{}, boft_options{.block_size = 0, .block_num = 2},
                                        boft_options{.block_size = 2, .n_butterfly_factor = 3},
                                        boft_options{.block_size = 4, .n_butterfly_factor = 2}}) {
        auto a = make_boft<double>(5, 8, options);
        CHECK((apply(rotate(base, a), x).array() == apply(base, x).array()).all());
        a.boft_R = random_matrix<double>(a.boft_R.rows(), a.boft_R.cols(), 4, 0.5);
        a.boft_s = random_matrix<double>(5, 1, 5);
        const auto layer = rotate(base, a);
        auto g = zero_gradient(layer);
        rotated_backward(layer, x, dy, g, nullptr, ws);
        const auto gradient = a.pull_back(g);
        const auto loss = [&] { return apply(rotate(base, a), x).cwiseProduct(dy).sum(); };
        CHECK(relative_diff(gradient.boft_R, numeric_gradient(a.boft_R, loss)) < 1e-7);
        CHECK(relative_diff(gradient.boft_s, numeric_gradient(a.boft_s, loss)) < 1e-7);
    }
    CHECK_THROWS_AS((void)make_boft<double>(5, 8, {.block_size = 3}), contract_violation);
    CHECK_THROWS_AS((void)make_boft<double>(5, 8, {.block_size = 4, .block_num = 2}), contract_violation);
    CHECK_THROWS_AS((void)make_boft<double>(5, 8, {.block_size = 4, .n_butterfly_factor = 3}), contract_violation);
}
