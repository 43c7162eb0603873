// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_SKETCHED_UPDATE_IPP
#define LOWRANK_FACTOR_SKETCHED_UPDATE_IPP

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/factor/factored_algebra.hpp>
#include <lowrank/factor/sketched/update.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// U diag(s) V^T as two factors.
template <real S>
[[nodiscard]] low_rank<S> factors_of(const svd_result<S>& f) {
    low_rank<S> out{.left = f.u, .right = copy_in<S>(transposed(f.v))};
    scale_cols(out.left, f.s);
    return out;
}

}  // namespace detail

template <real S>
svd_result<S> truncated(const svd_result<S>& f, index k) {
    detail::expects_in_range("truncated", "k", k, index{0}, f.s.size());
    svd_result<S> out;
    out.u = columns_of(f.u, 0, k);
    out.s = head_in<S>(f.s, k);
    out.v = columns_of(f.v, 0, k);
    out.why = f.why;
    return out;
}

template <real S>
svd_result<S> add_low_rank(const svd_result<S>& f, const low_rank<S>& d) {
    detail::expects(static_cast<bool>(f.why), "add_low_rank: the decomposition must have succeeded");
    return svd(add(detail::factors_of(f), d));
}

template <real S>
svd_result<S> rank_one_update(const svd_result<S>& f, const vector<S>& a, const vector<S>& b, S alpha) {
    low_rank<S> d{.left = a, .right = copy_in<S>(transposed(b))};
    d.left *= alpha;
    return add_low_rank(f, d);
}

template <real S>
svd_result<S> append_rows(const svd_result<S>& f, const matrix<S>& b) {
    detail::expects(static_cast<bool>(f.why), "append_rows: the decomposition must have succeeded");
    detail::expects_shape("append_rows", "b", b.rows(), b.cols(), b.rows(), f.v.rows());
    // [U diag(s), 0; 0, I] [V^T; B]
    const index m = f.u.rows(), k = f.s.size(), p = b.rows();
    const low_rank<S> old = detail::factors_of(f);
    low_rank<S> grown;
    grown.left.setZero(m + p, k + p);
    grown.left.topLeftCorner(m, k) = old.left;
    grown.left.bottomRightCorner(p, p).setIdentity();
    grown.right.resize(k + p, b.cols());
    grown.right.topRows(k) = old.right;
    grown.right.bottomRows(p) = b;
    return svd(grown);
}

template <real S>
svd_result<S> append_columns(const svd_result<S>& f, const matrix<S>& b) {
    detail::expects_shape("append_columns", "b", b.rows(), b.cols(), f.u.rows(), b.cols());
    svd_result<S> mirrored = f;
    mirrored.u.swap(mirrored.v);
    auto g = append_rows(mirrored, copy_in<S>(transposed(b)));
    g.u.swap(g.v);
    detail::fix_signs(g.u, g.v);
    return g;
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_UPDATES_OF(S)                                                                            \
    template svd_result<S> truncated(const svd_result<S>&, index);                                       \
    template svd_result<S> add_low_rank(const svd_result<S>&, const low_rank<S>&);                       \
    template svd_result<S> rank_one_update(const svd_result<S>&, const vector<S>&, const vector<S>&, S); \
    template svd_result<S> append_rows(const svd_result<S>&, const matrix<S>&);                          \
    template svd_result<S> append_columns(const svd_result<S>&, const matrix<S>&);
LOWRANK_UPDATES_OF(float)
LOWRANK_UPDATES_OF(double)
#undef LOWRANK_UPDATES_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_SKETCHED_UPDATE_IPP
