// SPDX-License-Identifier: MIT
#include <llama/layer_by_ranks.hpp>

#include <vector>

#include <doctest/doctest.h>

#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/laser/edits/edit.hpp>

#include "llama/tiny_models.hpp"

TEST_CASE("a layer at several ranks of any of its projections says what it says with each truncated weight") {
    for (const bool bias : {false, true}) {
        auto m = tiny::model<double>({.bias = bias, .layers = 2});
        const auto b = tiny::batch(m.shape, {5, 1, 7});
        lowrank::workspace ws;
        const auto inputs = llama::layer_inputs(m, b, ws);
        using layer = llama::layer<double>;
        for (const auto which : {&layer::q_proj, &layer::k_proj, &layer::v_proj, &layer::o_proj, &layer::gate_proj,
                                 &layer::up_proj, &layer::down_proj}) {
            auto& weight = (m.layers[1].*which).weight;
            CAPTURE((m.layers[1].*which).name);
            const auto s = lowrank::svd(weight).value();
            const std::vector<llama::index> ranks = {0, 2, s.size() - 1, s.size()};
            const lowrank::nested_ranks<double> nested(s, ranks);
            int calls = 0;
            llama::layer_by_ranks(m, b, 1, which, nested, lowrank::const_column_view<double>(inputs[1]), ws,
                                  [&](llama::index i, lowrank::const_column_view<double> output) {
                                      ++calls;
                                      auto edited = m;
                                      auto& w = (edited.layers[1].*which).weight;
                                      REQUIRE(lowrank::truncate_weight<double>(lowrank::weight_view<double>(w), s,
                                                                               ranks[static_cast<std::size_t>(i)]));
                                      lowrank::workspace other;
                                      const auto want = llama::forward_from(edited, b, 1, inputs[1], other);
                                      CHECK((output - want).norm() <= 1e-12 * want.norm());
                                  });
            CHECK(calls == 4);
        }
    }
}
