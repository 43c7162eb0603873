// SPDX-License-Identifier: MIT
#include <lowrank/lora/kinds/rotations/output_rotation.hpp>

#include <vector>

#include <lowrank/core/linear_operator.hpp>
#include <lowrank/lora/any_adapter.hpp>
#include <lowrank/lora/hold_adapter.hpp>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE("gradients of a rotation of the outputs agree with finite differences, shortened or not") {
    const row_matrix<double> w = random_weight<double>(8, 5, 1, 0.4);
    const matrix<double> x = random_matrix<double>(5, 6, 2);
    const matrix<double> dy = random_matrix<double>(8, 6, 3);
    for (const bool butterfly : {false, true}) {
        for (const double constraint : {0.0, 0.05}) {
            CAPTURE(butterfly);
            CAPTURE(constraint);
            output_rotation_adapter<double> a{
                .blocks = random_matrix<double>(butterfly ? 16 : 8, butterfly ? 2 : 4, 4, 0.4),
                .block_count = butterfly ? 4 : 2,
                .is_butterfly = butterfly,
                .rescale = random_matrix<double>(8, 1, 5),
                .constraint = constraint};
            workspace ws;
            const auto loss = [&] {
                any_adapter<double> any = a;
                any.refresh(as_operator(w));
                matrix<double> y = matrix<double>::Zero(8, 6);
                any.add_product(as_operator(w), 0.7, x, y, ws);
                return y.cwiseProduct(dy).sum();
            };
            any_adapter<double> any = a;
            any.refresh(as_operator(w));
            auto g = any.zero_gradient();
            any.backward(as_operator(w), 0.7, x, dy, g, nullptr, ws);
            std::vector<double> flat(static_cast<std::size_t>(any.parameter_count()), 0.0);
            any.pull_back(g, flat);
            const Eigen::Map<const matrix<double>> blocks(flat.data(), a.blocks.rows(), a.blocks.cols());
            const Eigen::Map<const matrix<double>> scale(flat.data() + a.blocks.size(), 8, 1);
            matrix<double> rescale = a.rescale;
            CHECK(relative_diff(blocks, numeric_gradient(a.blocks, loss)) < 1e-6);
            const auto scaled_loss = [&] {
                a.rescale = rescale;
                return loss();
            };
            CHECK(relative_diff(scale, numeric_gradient(rescale, scaled_loss)) < 1e-6);
        }
    }
}
