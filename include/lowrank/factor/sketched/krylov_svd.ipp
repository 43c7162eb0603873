// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_SKETCHED_KRYLOV_SVD_IPP
#define LOWRANK_FACTOR_SKETCHED_KRYLOV_SVD_IPP

#include <lowrank/factor/sketched/krylov_svd.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/factor/sketched/detail/krylov_space.hpp>
#include <lowrank/factor/sketched/detail/projected_svd.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
decomposition<S> detail::krylov_svd_of(sketched_operator<S> a, index k, const krylov_svd_options& options) {
    expects_rank("krylov_svd", k, a.rows(), a.cols());
    expects(options.block >= 0 && options.depth >= 0 && options.error_samples >= 0,
            "krylov_svd: block, depth and error_samples must not be negative");
    const index block = options.block > 0 ? options.block : k > 128 ? 64 : k > 32 ? 32 : 16;
    const index depth = options.depth > 0 ? options.depth : std::max<index>(4, (3 * k + block - 1) / block);
    const index capacity = std::min({std::max(block * depth, k), a.rows(), a.cols()});

    krylov_space<S> space("krylov_svd", a, capacity, options.seed);
    status why = space.start(block, a.has_weight() ? 0 : options.error_samples);
    settling_values<S> values(k, block);
    while (why && space.dimension() < capacity && !space.exhausted()) {
        // Test for convergence only when the test is cheap compared with another block. In double the squares do not
        // tell when to end.
        const double test = 40.0 * std::pow(static_cast<double>(space.dimension()), 3);
        if (std::same_as<S, float> && options.depth == 0 && k > 0 &&
            test < static_cast<double>(a.rows()) * static_cast<double>(a.cols()) * static_cast<double>(block) &&
            values.settled(space.w())) {
            break;
        }
        why = space.grow();
    }
    if (!why) {
        return why;
    }
    auto out =
        svd_within<S>("krylov_svd", copy_in<S>(space.q()), copy_in<S>(space.w()), std::min(k, space.dimension()));
    if (out) {
        pad_with_zeros(out, k);
    }
    return a.finished("krylov_svd", std::move(out), space.samples());
}

#ifdef LOWRANK_COMPILED
template decomposition<float> detail::krylov_svd_of(sketched_operator<float>, index, const krylov_svd_options&);
template decomposition<double> detail::krylov_svd_of(sketched_operator<double>, index, const krylov_svd_options&);
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_SKETCHED_KRYLOV_SVD_IPP
