// SPDX-License-Identifier: MIT
#ifndef LOWRANK_TESTS_SUPPORT_SWEEP_HPP
#define LOWRANK_TESTS_SUPPORT_SWEEP_HPP

/// \file
/// One grid of matrices for every numeric law: shapes from 1 to 64 in both dimensions, scales over the whole range of
/// the scalar, six kinds of spectra, 40 seeds. The oracle is Eigen's two-sided Jacobi SVD in double.
///
///     sweep<float>([](const swept<float>& x) { check_sketched(x, randomized_svd(x.w, 2), 2); });

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include <doctest/doctest.h>

#include <lowrank/core/types.hpp>
#include <lowrank/factor/error_evidence.hpp>

#include "matrices.hpp"
#include "sanitized.hpp"

namespace lowrank_tests {

/// The singular values of A by Eigen's two-sided Jacobi, independent of the code under test.
lowrank::vector<double> jacobi_values(const lowrank::matrix<double>& a);

/// One matrix of the grid. `wide` and `values` are those of w / 2^exponent, of magnitude about one, in double.
template <class S>
struct swept {
    std::uint64_t seed = 0;
    int kind = 0;
    int exponent = 0;
    lowrank::matrix<S> w = {};
    lowrank::matrix<double> wide = {};
    lowrank::vector<double> values = {};

    [[nodiscard]] idx full() const { return values.size(); }
    /// x, a number of w, in the unit of `values`.
    [[nodiscard]] double in_unit(double x) const { return std::ldexp(x, -exponent); }
    /// What one rounding of a number as large as the norm may change, in that unit: eps, or the smallest number there is.
    [[nodiscard]] double rounding() const {
        return std::max(eps<S> * std::max(values.norm(), 0.0),
                        in_unit(static_cast<double>(std::numeric_limits<S>::denorm_min())) *
                            std::sqrt(static_cast<double>(w.size())));
    }
    /// Whether the singular values fit the scalar.
    [[nodiscard]] bool fits() const {
        return std::ldexp(values(0) * (1.0 + 8 * eps<S>), exponent / 2) <=
               std::ldexp(static_cast<double>(std::numeric_limits<S>::max()), exponent / 2 - exponent);
    }
    /// ||W - W_k||_F of the best W_k.
    [[nodiscard]] double best(idx k) const { return values.tail(full() - k).norm(); }
};

inline constexpr int swept_kinds = 6;

/// Gaussian, decaying, of low rank, of equal values, of ones, and with zero columns; entries at most about one.
template <class S>
lowrank::matrix<S> swept_matrix(idx rows, idx cols, int kind, std::uint64_t stream) {
    const idx p = std::min(rows, cols);
    lowrank::matrix<double> a;
    switch (kind) {
        case 0: a = gaussian<double>(rows, cols, stream); break;
        case 1: a = with_values<double>(rows, cols, geometric(p, 1.0, 0.4), stream); break;
        case 2: {
            const idx rank = std::min<idx>(p, 2);
            a = gaussian<double>(rows, rank, stream) * gaussian<double>(rank, cols, stream + 7777);
            break;
        }
        case 3: a = with_values<double>(rows, cols, lowrank::vector<double>::Ones(p), stream); break;
        case 4: a.setOnes(rows, cols); break;
        default:
            a = gaussian<double>(rows, cols, stream);
            for (idx j = 0; j < cols; j += 2) {
                a.col(j).setZero();
            }
    }
    const double largest = a.cwiseAbs().maxCoeff();
    if (largest > 0.0) {
        a /= largest;
    }
    return a.template cast<S>();
}

/// Powers of two over the range of the scalar, about 1e-38 to 1e38 or 1e-300 to 1e300, and denormal numbers.
template <class S>
std::vector<int> swept_exponents() {
    if (std::numeric_limits<S>::max_exponent < 200) {
        return {0, -126, 126, -60, 60, -136, -20};
    }
    return {0, -996, 996, -500, 500, -1064, 30};
}

inline constexpr std::array<idx, 10> swept_sizes = {1, 2, 3, 4, 6, 9, 16, 17, 33, 64};

/// Calls check(x) for each shape of the grid and each seed; the scale and the kind go round, so that each shape meets
/// each of them. A sanitizer looks for other faults than wrong digits: it sees every eighth seed.
template <class S, class F>
void sweep(F&& check, std::uint64_t seeds = 40, idx largest = 64) {
    const auto exponents = swept_exponents<S>();
    std::uint64_t number = 0;
    for (const idx rows : swept_sizes) {
        for (const idx cols : swept_sizes) {
            if (std::max(rows, cols) > largest) {
                continue;
            }
            // Large matrices cost as much as hundreds of small ones: every eighth seed.
            const bool large = rows * cols > 300;
            const std::uint64_t first = large ? static_cast<std::uint64_t>(7 * (rows + cols)) % 8 : 0;
            const std::uint64_t step = (large ? 8 : 1) * (sanitized ? 8 : 1);
            for (std::uint64_t seed = first; seed < seeds; seed += step) {
                swept<S> x;
                x.seed = seed;
                x.kind = static_cast<int>(number % swept_kinds);
                x.exponent = exponents[static_cast<std::size_t>((number / swept_kinds) % exponents.size())];
                ++number;
                const lowrank::matrix<S> unit = swept_matrix<S>(rows, cols, x.kind, 100 * seed + number);
                x.w.resize(rows, cols);
                for (idx i = 0; i < unit.size(); ++i) {
                    x.w.data()[i] = std::ldexp(unit.data()[i], x.exponent);
                }
                x.wide.resize(rows, cols);
                for (idx i = 0; i < unit.size(); ++i) {
                    x.wide.data()[i] = std::ldexp(static_cast<double>(x.w.data()[i]), -x.exponent);
                }
                x.values = jacobi_values(x.wide);
                CAPTURE(rows);
                CAPTURE(cols);
                CAPTURE(seed);
                CAPTURE(x.kind);
                CAPTURE(x.exponent);
                check(x);
            }
        }
    }
}

}  // namespace lowrank_tests

#endif  // LOWRANK_TESTS_SUPPORT_SWEEP_HPP
