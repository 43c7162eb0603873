// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_WEIGHTED_WEIGHTED_IPP
#define LOWRANK_FACTOR_WEIGHTED_WEIGHTED_IPP

#include <lowrank/factor/weighted/weighted.hpp>

#include <algorithm>
#include <limits>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/finite.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
decomposition<S> detail::weighted_svd_of(const char* function, const matrix<double>& w, const weightings& m) {
    if (!all_finite(w)) {
        return non_finite_matrix(function);
    }
    const auto expects_dimension = [&](const weighting& side, const char* name, index dimension) {
        if (side.kind() != weighting_kind::identity && side.dimension() != dimension) [[unlikely]] {
            fail_contract_with(function, ": the ", name, " weighting must have dimension ", dimension, ", got ",
                               side.dimension());
        }
    };
    expects_dimension(m.left, "left", w.rows());
    expects_dimension(m.right, "right", w.cols());
    const bool plain_left = m.left.kind() == weighting_kind::identity;
    const bool plain_right = m.right.kind() == weighting_kind::identity;
    matrix<double> lw = w;  // L W = (W^T F)^T
    if (!plain_left) {
        const matrix<double> wt = copy_in<double>(transposed(w));
        lw = copy_in<double>(transposed(m.left.times_root(wt)));
    }
    auto f = svd_of_dense<double>(function, m.right.times_root(lw));
    if (!f) {
        return std::move(f.why);
    }
    // W' = U' diag(s) V'^T: one of the sides takes the factor s_i that it does not have, unless that is zero.
    const bool by_inputs = !plain_left && plain_right;  // no inverse on this side either: W' = W V_k V_k^T
    matrix<double> left = by_inputs ? product(w, f.v) : m.left.apply_root_pinv(f.u);
    matrix<double> right = by_inputs ? std::move(f.v) : product(transposed(lw), f.u);
    matrix<double>& divided = by_inputs ? left : right;
    decomposition<S> out;
    out.s = head_in<S>(f.s, f.size());
    for (index i = 0; i < out.size(); ++i) {
        const double s = static_cast<double>(out.s(i));
        std::for_each_n(divided.data() + i * divided.rows(), divided.rows(),
                        [s](double& x) { x = s > 0.0 ? x / s : 0.0; });
    }
    out.u = copy_in<S>(left);
    out.v = copy_in<S>(right);
    out.error.deviation = static_cast<double>(std::numeric_limits<S>::epsilon());
    return out;
}

#ifdef LOWRANK_COMPILED
template decomposition<float> detail::weighted_svd_of<float>(const char*, const matrix<double>&, const weightings&);
template decomposition<double> detail::weighted_svd_of<double>(const char*, const matrix<double>&, const weightings&);
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_WEIGHTED_WEIGHTED_IPP
