// SPDX-License-Identifier: MIT
// Shared by the programs that take the single header in different company.
#ifndef LOWRANK_TESTS_CONFIG_FORM_HPP
#define LOWRANK_TESTS_CONFIG_FORM_HPP

#include <cstdio>

/// Truncates a rank-2 matrix to rank 2: nothing may be lost.
inline int truncate_something() {
    lowrank::matrix<double> left(7, 2);
    lowrank::matrix<double> right(2, 5);
    lowrank::fill_uniform(left, -1.0, 1.0, lowrank::philox(1));
    lowrank::fill_uniform(right, -1.0, 1.0, lowrank::philox(2));
    const lowrank::matrix<double> w = left * right;
    const auto spectrum = lowrank::svd(w);
    if (!spectrum || !((spectrum.truncate(2).dense() - w).norm() < 1e-12 * w.norm())) {
        std::fputs("failed: rank 2 of a rank-2 matrix is the matrix\n", stderr);
        return 1;
    }
    return 0;
}

#endif  // LOWRANK_TESTS_CONFIG_FORM_HPP
