// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_SKETCHED_UPDATE_IPP
#define LOWRANK_FACTOR_SKETCHED_UPDATE_IPP

#include <lowrank/factor/sketched/update.hpp>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/factor/factored_algebra.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// `changed`, of what is in f, as that of the changed matrix: what was missing of the old one is missing of it.
template <real S>
[[nodiscard]] decomposition<S> with_missing(decomposition<S> changed, const decomposition<S>& f) {
    if (changed && !f.complete()) {
        changed.error = f.error;
        const double norm = changed.norm();
        changed.error.relative = norm > 0.0 ? f.error.frobenius / norm : 0.0;
    }
    return changed;
}

}  // namespace detail

template <real S>
decomposition<S> add_low_rank(const decomposition<S>& f, const low_rank<S>& d) {
    return detail::with_missing(svd(add(f.product(), d)), f);
}

template <real S>
decomposition<S> rank_one_update(const decomposition<S>& f, const vector<S>& a, const vector<S>& b, S alpha) {
    low_rank<S> d{.left = a, .right = copy_in<S>(transposed(b))};
    d.left *= alpha;
    return add_low_rank(f, d);
}

template <real S>
decomposition<S> append_rows(const decomposition<S>& f, const matrix<S>& b) {
    detail::expects_shape("append_rows", "b", b.rows(), b.cols(), b.rows(), f.v.rows());
    // [U diag(s), 0; 0, I] [V^T; B]
    const index m = f.u.rows(), k = f.s.size(), p = b.rows();
    const low_rank<S> old = f.product();
    low_rank<S> grown;
    grown.left.setZero(m + p, k + p);
    grown.left.topLeftCorner(m, k) = old.left;
    grown.left.bottomRightCorner(p, p).setIdentity();
    grown.right.resize(k + p, b.cols());
    grown.right.topRows(k) = old.right;
    grown.right.bottomRows(p) = b;
    return detail::with_missing(svd(grown), f);
}

template <real S>
decomposition<S> append_columns(const decomposition<S>& f, const matrix<S>& b) {
    detail::expects_shape("append_columns", "b", b.rows(), b.cols(), f.u.rows(), b.cols());
    decomposition<S> mirrored = f;
    mirrored.u.swap(mirrored.v);
    auto g = append_rows(mirrored, copy_in<S>(transposed(b)));
    g.u.swap(g.v);
    detail::fix_signs(g.u, g.v);
    return g;
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_UPDATES_OF(S)                                                                                  \
    template decomposition<S> add_low_rank(const decomposition<S>&, const low_rank<S>&);                       \
    template decomposition<S> rank_one_update(const decomposition<S>&, const vector<S>&, const vector<S>&, S); \
    template decomposition<S> append_rows(const decomposition<S>&, const matrix<S>&);                          \
    template decomposition<S> append_columns(const decomposition<S>&, const matrix<S>&);
LOWRANK_UPDATES_OF(float)
LOWRANK_UPDATES_OF(double)
#undef LOWRANK_UPDATES_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_SKETCHED_UPDATE_IPP
