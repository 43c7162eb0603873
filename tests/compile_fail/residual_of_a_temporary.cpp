// SPDX-License-Identifier: MIT
// A residual borrows the weight; one of a matrix that ends with the expression would read freed memory.
// expects: deleted
#include <lowrank/factor/sketched/error_estimate.hpp>
#include <lowrank/factor/truncated_svd.hpp>

int main() {
    const lowrank::matrix<float> w = lowrank::matrix<float>::Ones(3, 4);
    const auto f = lowrank::truncated_svd(w, 1);
#ifdef LOWRANK_COMPILE_FAIL
    const auto rest = lowrank::residual(lowrank::matrix<float>(w), f);
#else
    const auto rest = lowrank::residual(w, f);
#endif
    return static_cast<int>(rest.rows()) - 3;
}
