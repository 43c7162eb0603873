// SPDX-License-Identifier: MIT
#ifndef LOWRANK_TESTS_LORA_FACTORED_GRADIENT_HPP
#define LOWRANK_TESTS_LORA_FACTORED_GRADIENT_HPP

/// \file
/// The gradient of a fixed loss through the change of a factored adapter, in its parameters.

#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/adapter.hpp>

#include "support.hpp"

namespace lowrank_tests {

/// sum(G o (change X)) for fixed random X and G.
template <class A>
double probe_loss(const A& adapter) {
    const auto change = adapter.delta();
    const auto x = random_matrix<double>(change.cols(), 4, 71);
    const auto g = random_matrix<double>(change.rows(), 4, 72);
    return lowrank::apply(change, x).cwiseProduct(g).sum();
}

/// Its gradient, by delta_backward and the adapter's pull_back.
template <lowrank::factored_adapter A>
A probe_gradient(const A& adapter) {
    const auto change = adapter.delta();
    auto g = lowrank::zero_gradient(change);
    lowrank::workspace ws;
    lowrank::delta_backward(change, random_matrix<double>(change.cols(), 4, 71),
                            random_matrix<double>(change.rows(), 4, 72), g, nullptr, ws);
    return adapter.pull_back(g);
}

}  // namespace lowrank_tests

#endif  // LOWRANK_TESTS_LORA_FACTORED_GRADIENT_HPP
