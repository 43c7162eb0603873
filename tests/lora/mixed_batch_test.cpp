// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/kinds/dora.hpp>
#include <lowrank/lora/kinds/rotations/hra.hpp>
#include <lowrank/lora/mixed_batch.hpp>

#include <memory>
#include <utility>
#include <vector>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE_TEMPLATE("every column gets its own adapter of any kind at its strength, and nothing else", S, float,
                   double) {
    const row_matrix<S> w = random_weight<S>(9, 7, 1);
    const auto base = as_operator(w);
    std::vector<used_adapter<S>> adapters;
    const auto use = [&](any_adapter<S> a, S strength) {
        a.refresh(base);
        adapters.push_back({.adapter = std::make_shared<const any_adapter<S>>(std::move(a)), .strength = strength});
    };
    use(random_adapter<S>(9, 7, {.r = 1, .seed = 1}), S(1));
    auto dora = make_dora(w, {.r = 2, .seed = 2});
    dora.lora.lora_B = random_matrix<S>(9, 2, 3);
    use(dora, S(0.5));
    use(hra_adapter<S>{.hra_u = random_matrix<S>(7, 3, 4)}, S(1));
    use(random_adapter<S>(9, 7, {.r = 7, .seed = 5}), S(0.25));
    adapters.push_back({});                    // one that lacks the layer
    adapters.push_back({.strength = S(0.5)});  // at any strength

    const std::vector<lowrank::index> which{2, -1, 0, 0, 1, 3, -1, 4, 1, 5};
    const auto x = random_matrix<S>(7, 10, 5);
    const auto start = random_matrix<S>(9, 10, 6);
    matrix<S> whole = start;
    matrix<S> changes = start;
    workspace ws;
    add_mixed_product<S>(base, adapters, which, x, whole, ws);
    add_mixed_changes<S>(base, adapters, which, x, changes, ws);
    for (lowrank::index j = 0; j < 10; ++j) {
        CAPTURE(j);
        const auto a = which[std::size_t(j)];
        matrix<S> want = start.col(j);
        const std::vector<used_adapter<S>> own =
            a < 0 ? std::vector<used_adapter<S>>() : std::vector<used_adapter<S>>{adapters[std::size_t(a)]};
        add_adapted_product<S>(base, own, x.col(j), want, ws);
        CHECK(relative_diff(whole.col(j), want.template cast<double>()) < 50 * epsilon<S>);
        const matrix<S> plain = w * x.col(j);
        CHECK(relative_diff(changes.col(j), matrix<double>((want - plain).template cast<double>())) < 200 * epsilon<S>);
    }
    const auto before = allocation_count();
    add_mixed_product<S>(base, adapters, which, x, whole, ws);
    add_mixed_changes<S>(base, adapters, which, x, changes, ws);
    CHECK(allocation_count() == before);

    const std::vector<lowrank::index> too_large{6, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    CHECK_THROWS_AS(add_mixed_product<S>(base, adapters, too_large, x, whole, ws), contract_violation);
    CHECK_THROWS_AS(add_mixed_changes<S>(base, adapters, std::vector<lowrank::index>{0}, x, whole, ws),
                    contract_violation);
}
