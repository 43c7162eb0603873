// SPDX-License-Identifier: MIT
// A sigma_gradient and nested_ranks keep a pointer to the decomposition: it must outlive them.
// expects: deleted
#include <lowrank/factor/svd.hpp>
#include <lowrank/laser/edits/nested_ranks.hpp>
#include <lowrank/laser/scores/sigma_gradient.hpp>

int main() {
    const lowrank::matrix<float> w = lowrank::matrix<float>::Ones(3, 4);
    const auto f = lowrank::svd(w);
#ifdef LOWRANK_COMPILE_FAIL
    const lowrank::sigma_gradient<float> g(lowrank::svd(w));
    const lowrank::nested_ranks<float> nested(lowrank::svd(w), {1});
#else
    const lowrank::sigma_gradient<float> g(f);
    const lowrank::nested_ranks<float> nested(f, {1});
#endif
    return static_cast<int>(g.samples() + nested.built_up()) < 0 ? 1 : 0;
}
