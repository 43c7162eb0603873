// SPDX-License-Identifier: MIT
#include <lowrank/lora/train/block_dropout.hpp>

#include <set>

#include <lowrank/core/check.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/kinds/rotations/boft.hpp>
#include <lowrank/lora/kinds/rotations/oft.hpp>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE("a share of one factor's blocks becomes the identity, others stay; gradients are those of the rest") {
    const auto w = random_weight<double>(5, 16, 1);
    const any_operator<double> base = as_operator(w);
    auto a = make_boft<double>(5, 16, {.block_size = 2, .n_butterfly_factor = 3});
    a.boft_R = random_matrix<double>(48, 2, 2);
    const auto x = random_matrix<double>(16, 4, 3);
    const auto dy = random_matrix<double>(5, 4, 4);
    std::set<lowrank::index> factors;
    std::set<lowrank::index> blocks;
    for (std::uint64_t step = 0; step < 40; ++step) {
        const dropout_key key{.probability = 0.3, .seed = 7, .layer = 1, .step = step};
        auto layer = rotate(base, a);
        const auto full = layer.rotation;
        const auto dropped = drop_blocks(layer.rotation, key);
        CHECK(dropped.blocks.size() == 2);  // floor(0.3 * 8)
        CHECK(dropped.blocks[0] != dropped.blocks[1]);
        factors.insert(dropped.factor);
        blocks.insert(dropped.blocks.begin(), dropped.blocks.end());
        for (lowrank::index k = 0; k < 3; ++k) {
            for (lowrank::index i = 0; i < 8; ++i) {
                const bool off = k == dropped.factor && (i == dropped.blocks[0] || i == dropped.blocks[1]);
                const auto at = static_cast<std::size_t>(k);
                const matrix<double> now = layer.rotation.factors[at].blocks.middleCols(2 * i, 2);
                const matrix<double> was = full.factors[at].blocks.middleCols(2 * i, 2);
                CHECK(max_abs_diff(now, off ? matrix<double>(matrix<double>::Identity(2, 2)) : was) == 0);
            }
        }
        auto again = full;
        CHECK(drop_blocks(again, key).blocks == dropped.blocks);
        if (step > 0) {
            continue;
        }
        auto g = zero_gradient(layer);
        workspace ws;
        rotated_backward(layer, x, dy, g, nullptr, ws);
        clear_dropped(g.rotation, dropped);
        const auto loss = [&] {
            auto l = rotate(base, a);
            (void)drop_blocks(l.rotation, key);
            return apply(l, x).cwiseProduct(dy).sum();
        };
        CHECK(relative_diff(a.pull_back(g).boft_R, numeric_gradient(a.boft_R, loss)) < 1e-7);
    }
    CHECK(factors.size() == 3);
    CHECK(blocks.size() == 8);
}

TEST_CASE("nothing is dropped at probability 0 and from a shared block; everything at 1") {
    auto a = make_oft<float>(4, 12, {.block_size = 4, .use_cayley_neumann = false});
    a.oft_R = random_matrix<float>(3, 6, 5);
    auto r = a.rotation();
    const auto before = r.factors[0].blocks;
    CHECK(drop_blocks(r, {}).blocks.empty());
    CHECK(max_abs_diff(r.factors[0].blocks, before) == 0);
    CHECK(drop_blocks(r, {.probability = 1}).blocks.size() == 3);
    const auto x = random_matrix<float>(12, 2, 6);
    matrix<float> z = matrix<float>::Zero(12, 2);
    workspace ws;
    r.add_product(1.0F, x, z, ws);
    CHECK(max_abs_diff(z, x) == 0);
    a.oft_R.conservativeResize(1, 6);
    auto shared = a.rotation();
    CHECK(drop_blocks(shared, {.probability = 1}).blocks.empty());
    CHECK_THROWS_AS((void)drop_blocks(r, {.probability = 1.5}), contract_violation);
}
