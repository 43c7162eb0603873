// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/mixed_batch.hpp>

#include <vector>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE_TEMPLATE("every column gets its own adapter and nothing else", S, float, double) {
    std::vector<active_adapter<S>> adapters;
    for (std::uint64_t i = 0; i < 3; ++i) {
        adapters.push_back({.adapter = std::make_shared<const lora_adapter<S>>(
                                random_adapter<S>(9, 7, {.r = static_cast<lowrank::index>(1 + 3 * i), .seed = i})),
                            .strength = S(1) / S(i + 1)});
    }
    adapters.push_back({});  // not in use: may be null
    const std::vector<lowrank::index> which{2, -1, 0, 0, 1, 2, -1};
    const auto x = random_matrix<S>(7, 7, 5);
    const auto start = random_matrix<S>(9, 7, 6);
    matrix<S> y = start;
    workspace ws;
    mixed_forward<S>(adapters, which, x, y, ws);
    for (lowrank::index j = 0; j < 7; ++j) {
        matrix<S> want = start.col(j);
        if (const auto a = which[std::size_t(j)]; a >= 0) {
            const auto& active = adapters[std::size_t(a)];
            want += active.strength * apply(*active.adapter, matrix<S>(x.col(j)));
        }
        CHECK(relative_diff(y.col(j), want.template cast<double>()) < 50 * epsilon<S>);
    }
    const auto before = allocation_count();
    mixed_forward<S>(adapters, which, x, y, ws);
    CHECK(allocation_count() == before);

    const std::vector<lowrank::index> too_large{4, 0, 0, 0, 0, 0, 0};
    CHECK_THROWS_AS(mixed_forward<S>(adapters, too_large, x, y, ws), contract_violation);
    const std::vector<lowrank::index> null{3, 0, 0, 0, 0, 0, 0};
    CHECK_THROWS_AS(mixed_forward<S>(adapters, null, x, y, ws), contract_violation);
    CHECK_THROWS_AS(mixed_forward<S>(adapters, std::vector<lowrank::index>{0}, x, y, ws), contract_violation);
}
