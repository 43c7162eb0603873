// SPDX-License-Identifier: MIT
#ifndef LOWRANK_TESTS_LORA_SUPPORT_HPP
#define LOWRANK_TESTS_LORA_SUPPORT_HPP

/// \file
/// What the adapter tests share: random data, bit comparison, finite differences, a count of heap allocations.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include <doctest/doctest.h>

#include <lowrank/core/philox.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/lora/kinds/lora.hpp>

#include "support/allocations.hpp"

namespace lowrank_tests {

/// Heap allocations of this thread since the program started.
inline std::uint64_t allocation_count() { return static_cast<std::uint64_t>(allocations()); }

/// How many heap allocations `work` makes when it has been done once before; 0 where they cannot be counted.
template <class F>
std::uint64_t allocations_when_warm(F work) {
    work();
    const auto before = allocation_count();
    work();
    return allocation_count() - before;
}

template <class S>
lowrank::matrix<S> random_matrix(lowrank::index rows, lowrank::index cols, std::uint64_t stream, S scale = S(1)) {
    lowrank::matrix<S> x(rows, cols);
    lowrank::fill_normal(x, scale, lowrank::philox(2718, stream));
    return x;
}

/// A row-major weight of any stored type with normal entries.
template <class T>
lowrank::row_matrix<T> random_weight(lowrank::index rows, lowrank::index cols, std::uint64_t stream, double scale = 1) {
    return random_matrix<double>(rows, cols, stream, scale).template cast<lowrank::compute_t<T>>().template cast<T>();
}

/// An adapter with random A and B.
template <class S>
lowrank::lora_adapter<S> random_adapter(lowrank::index out, lowrank::index in, const lowrank::lora_options& options) {
    auto adapter = lowrank::make_lora<S>(out, in, options);
    adapter.lora_B = random_matrix<S>(out, options.r, options.seed + 1000 + options.stream);
    return adapter;
}

/// True if both hold the same bits: -0 differs from +0.
template <class D>
bool same_bits(const D& a, const D& b) {
    return a.rows() == b.rows() && a.cols() == b.cols() &&
           std::memcmp(a.data(), b.data(), static_cast<std::size_t>(a.size()) * sizeof(*a.data())) == 0;
}

template <class A, class B>
double max_abs_diff(const A& a, const B& b) {
    if (a.size() == 0) {
        return 0;
    }
    return (a.template cast<double>() - b.template cast<double>()).cwiseAbs().maxCoeff();
}

/// The gradient of `loss()` with respect to the entries of `x` by central differences of order four.
template <class D, class F>
lowrank::matrix<double> numeric_gradient(D& x, F&& loss, double step = 1e-3) {
    lowrank::matrix<double> g(x.rows(), x.cols());
    for (lowrank::index j = 0; j < x.cols(); ++j) {
        for (lowrank::index i = 0; i < x.rows(); ++i) {
            const double old = x(i, j);
            const auto at = [&](double offset) {
                x(i, j) = old + offset;
                return loss();
            };
            g(i, j) = (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step);
            x(i, j) = old;
        }
    }
    return g;
}

/// max |a - b| relative to the larger of max |b| and a millionth.
template <class A, class B>
double relative_diff(const A& a, const B& b) {
    return a.size() == 0 ? 0 : max_abs_diff(a, b) / std::max(b.cwiseAbs().maxCoeff(), 1e-6);
}

template <class S>
constexpr double epsilon = std::is_same_v<S, float> ? 1.2e-7 : 2.3e-16;

}  // namespace lowrank_tests

#endif  // LOWRANK_TESTS_LORA_SUPPORT_HPP
