// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_SKETCHED_DETAIL_PROJECTED_SVD_IPP
#define LOWRANK_FACTOR_SKETCHED_DETAIL_PROJECTED_SVD_IPP

#include <lowrank/factor/sketched/detail/projected_svd.hpp>

#include <concepts>
#include <utility>

#include <lowrank/core/dense.hpp>
#include <lowrank/factor/orthonormalize.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/factor/symmetric_eigen.hpp>

namespace lowrank::inline LOWRANK_ABI::detail {

template <real S>
decomposition<S> svd_within(const char* function, const matrix<S>& q, const matrix<S>& b_transposed, index k) {
    decomposition<S> out;
    if constexpr (std::same_as<S, float>) {
        // As in svd, but only the k columns wanted are formed.
        auto eigen = symmetric_eigen_of(function, gram(b_transposed), true);
        if (!eigen) {
            return std::move(eigen.why);
        }
        matrix<double> turn = columns_of(eigen.vectors, 0, k);
        matrix<double> v = product_in<double>(b_transposed, turn);
        vector<double> s;
        normalize_columns(v, s, turn, 3e-5, 1e-8);
        out.u = product(q, copy_in<S>(turn));
        out.s = head_in<S>(s, k);
        out.v = copy_in<S>(v);
    } else {
        auto core = svd_of_dense<S>(function, b_transposed);
        if (!core) {
            return std::move(core.why);
        }
        out.u = product(q, dense_view<const S>(core.v).middle_cols(0, k));
        out.s = head_in<S>(core.s, k);
        out.v = columns_of(core.u, 0, k);
    }
    fix_signs(out.u, out.v);
    return out;
}

template <real S>
void pad_with_zeros(decomposition<S>& f, index k) {
    const index found = f.s.size();
    if (found >= k) {
        return;
    }
    const auto complete = [&](matrix<S>& x) {
        matrix<S> all;
        all.setZero(x.rows(), k);
        all.leftCols(found) = x;
        matrix<S> q = thin_qr(std::move(all)).q;  // zero columns become orthonormal ones
        q.leftCols(found) = x;
        x.swap(q);
    };
    complete(f.u);
    complete(f.v);
    vector<S> s;
    s.setZero(k);
    s.head(found) = f.s;
    f.s.swap(s);
    fix_signs(f.u, f.v);
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_PROJECTED_SVD_OF(S)                                                                  \
    template decomposition<S> svd_within<S>(const char*, const matrix<S>&, const matrix<S>&, index); \
    template void pad_with_zeros<S>(decomposition<S>&, index);
LOWRANK_PROJECTED_SVD_OF(float)
LOWRANK_PROJECTED_SVD_OF(double)
#undef LOWRANK_PROJECTED_SVD_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI::detail

#endif  // LOWRANK_FACTOR_SKETCHED_DETAIL_PROJECTED_SVD_IPP
