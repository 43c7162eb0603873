// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_SKETCHED_RANDOMIZED_SVD_IPP
#define LOWRANK_FACTOR_SKETCHED_RANDOMIZED_SVD_IPP

#include <lowrank/factor/sketched/randomized_svd.hpp>

#include <algorithm>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/factor/orthonormalize.hpp>
#include <lowrank/factor/sketched/detail/projected_svd.hpp>
#include <lowrank/factor/sketched/sketch.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
decomposition<S> detail::randomized_svd_of(sketched_operator<S> a, index k, const randomized_svd_options& options) {
    expects_rank("randomized_svd", k, a.rows(), a.cols());
    expects(options.oversample >= 0 && options.power_iterations >= 0 && options.error_samples >= 0,
            "randomized_svd: oversample, power_iterations and error_samples must not be negative");
    const index width = std::min({std::max<index>(k + options.oversample, 1), a.rows(), a.cols()});
    const index samples = a.has_weight() ? 0 : options.error_samples;

    // One product serves both the sketch and the columns held back for the error.
    matrix<S> q = a.times(range_sketch<S>(a.cols(), width, samples, philox(options.seed)));
    const matrix<S> held_back = columns_of(q, width, samples);
    if (samples > 0) {
        q = columns_of(q, 0, width);
    }
    matrix<S> z;
    for (int pass = 0;; ++pass) {
        if (!all_finite(q)) {
            return non_finite_operator("randomized_svd");
        }
        orthonormalize(q);  // without it, small directions drown in rounding
        z = a.transposed_times(q);
        if (!all_finite(z)) {
            return non_finite_operator("randomized_svd");
        }
        if (pass == options.power_iterations) {
            break;
        }
        orthonormalize(z);
        q = a.times(z);
    }
    if (!all_finite(held_back)) {
        return non_finite_operator("randomized_svd");
    }
    return a.finished("randomized_svd", svd_within<S>("randomized_svd", q, z, k), held_back);
}

#ifdef LOWRANK_COMPILED
template decomposition<float> detail::randomized_svd_of(sketched_operator<float>, index, const randomized_svd_options&);
template decomposition<double> detail::randomized_svd_of(sketched_operator<double>, index,
                                                         const randomized_svd_options&);
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_SKETCHED_RANDOMIZED_SVD_IPP
