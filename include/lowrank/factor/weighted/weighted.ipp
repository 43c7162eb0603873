// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_WEIGHTED_WEIGHTED_IPP
#define LOWRANK_FACTOR_WEIGHTED_WEIGHTED_IPP

#include <algorithm>
#include <string>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/factor/weighted/weighted.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
low_rank<S> weighted_spectrum<S>::truncate(index k) const {
    detail::expects_in_range("weighted_spectrum::truncate", "k", k, index{0}, size());
    return {.left = columns_of(outer_, 0, k), .right = copy_in<S>(dense_view<const S>(inner_).middle_rows(0, k))};
}

template <real S>
double weighted_spectrum<S>::error(index k) const {
    detail::expects_in_range("weighted_spectrum::error", "k", k, index{0}, size());
    return norm_of(dense_view<const double>(s_).middle_rows(k, size() - k));
}

template <real S>
double weighted_spectrum<S>::relative_error(index k) const {
    const double whole = error(0);
    return whole > 0.0 ? error(k) / whole : 0.0;
}

template <real S>
result<weighted_spectrum<S>> detail::weighted_spectrum_of(const char* function, const matrix<double>& w,
                                                          const weightings& m) {
    if (!all_finite(w)) {
        return status{errc::non_finite,
                      std::string(function) + ": the matrix holds NaN or infinity; repair or exclude the weight"};
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
    auto f = svd(m.right.times_root(lw));
    if (!f) {
        return std::move(f.why);
    }
    weighted_spectrum<S> out;
    if (!plain_left && plain_right) {
        // No inverse on this side either: W' = W V_k V_k^T.
        out.outer_ = copy_in<S>(product(w, f.v));
        out.inner_ = copy_in<S>(transposed(f.v));
    } else {
        out.outer_ = copy_in<S>(m.left.apply_root_pinv(f.u));
        out.inner_ = copy_in<S>(product(transposed(f.u), lw));
    }
    out.s_ = std::move(f.s);
    return out;
}

template <real S>
weighted_svd_result<S> detail::weighted_svd_of(const matrix<double>& w, index k, const weightings& m) {
    expects_rank("weighted_svd", k, w.rows(), w.cols());
    weighted_svd_result<S> out;
    const auto spec = weighted_spectrum_of<S>("weighted_svd", w, m);
    if (!spec) {
        out.why = spec.error();
        return out;
    }
    const index kept = std::min(k, spec->size());
    out.product = spec->truncate(kept);
    out.error = spec->error(kept);
    out.relative = spec->relative_error(kept);
    return out;
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_WEIGHTED_OF(S)                                                                                \
    template class weighted_spectrum<S>;                                                                      \
    template result<weighted_spectrum<S>> detail::weighted_spectrum_of<S>(const char*, const matrix<double>&, \
                                                                          const weightings&);                 \
    template weighted_svd_result<S> detail::weighted_svd_of<S>(const matrix<double>&, index, const weightings&);
LOWRANK_WEIGHTED_OF(float)
LOWRANK_WEIGHTED_OF(double)
#undef LOWRANK_WEIGHTED_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_WEIGHTED_WEIGHTED_IPP
