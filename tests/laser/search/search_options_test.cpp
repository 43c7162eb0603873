// SPDX-License-Identifier: MIT
#include <lowrank/laser/search/search_options.hpp>

#include <cmath>
#include <cstddef>
#include <vector>

#include <doctest/doctest.h>

#include <lowrank/laser/search/search.hpp>

#include "laser/planted_model.hpp"

using namespace lowrank;
using lowrank_tests::planted_model;

namespace {

/// The loss of one weight's truncation by its rank, as a curve: the evaluator reads the rank off the weight.
struct curve {
    row_matrix<double> w = vector<double>::LinSpaced(32, 32, 1).asDiagonal();
    std::vector<double> loss_at;
    mutable lowrank::index asked = 0;

    [[nodiscard]] sample_scores operator()(sample_range r) const {
        ++asked;
        const auto rank = static_cast<std::size_t>((w.diagonal().array() > 0.5).count());
        sample_scores s;
        for (auto i = r.begin; i < r.end; ++i) {
            s.add(false, loss_at[rank]);
        }
        return s;
    }
};

}  // namespace

TEST_CASE("golden section finds the best fraction of every curve that falls, then rises, with fewer evaluations") {
    for (int lowest = 0; lowest <= 32; ++lowest) {
        CAPTURE(lowest);
        curve model;
        for (int k = 0; k <= 32; ++k) {
            model.loss_at.push_back(1 + 0.01 * std::abs(k - lowest));
        }
        search_options how{.validation = {0, 4}};
        how.fractions.clear();
        for (int k = 31; k >= 0; --k) {
            how.fractions.push_back(k / 32.0);
        }
        const std::vector<named_weight<double>> weights = {{"w", model.w}};
        const evaluator evaluate = [&](sample_range r) { return model(r); };
        const auto all = exhaustive_search<double>(weights, evaluate, how);
        const auto asked_all = model.asked;
        how.unimodal = true;
        model.asked = 0;
        const auto few = exhaustive_search<double>(weights, evaluate, how);
        REQUIRE(all);
        REQUIRE(few);
        CHECK(few.best.log_loss == all.best.log_loss);
        CHECK(few.best_edit == all.best_edit);
        CHECK(model.asked <= 15);
        CHECK(asked_all == 33);
    }
}

TEST_CASE("a winning weight is asked for only when there is one") {
    planted_model<float> model(1, 4);
    const search_result<float> none;
    CHECK_THROWS_AS((void)none.winning_weight(model.weights()), contract_violation);
    search_result<float> one;
    one.candidates.resize(1);
    one.candidates[0].weight = 1;
    one.winner = 0;
    CHECK(one.winning_weight(model.weights()).data() == model.head.data());
}
