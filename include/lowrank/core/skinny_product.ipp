// SPDX-License-Identifier: MIT
#ifndef LOWRANK_CORE_SKINNY_PRODUCT_IPP
#define LOWRANK_CORE_SKINNY_PRODUCT_IPP

#include <lowrank/core/skinny_product.hpp>

#include <algorithm>

#include <lowrank/core/dense.hpp>
#include <lowrank/core/detail/skinny_kernel.hpp>
#include <lowrank/core/detail/skinny_vector.hpp>

namespace lowrank::inline LOWRANK_ABI::detail {

/// Where a matrix is big enough for the skinny kernels: it does not stay in a second-level cache, and has enough rows and
/// columns to pay for packing X. Depends on shapes alone, so that one product always takes the same path.
template <real S>
[[nodiscard]] inline bool is_big(index rows, index cols) noexcept {
    constexpr index bytes = 2 << 20, least = 64;
    return rows >= least && cols >= least && rows >= bytes / static_cast<index>(sizeof(S)) / cols;
}

/// Columns of X that share one pass over the matrix.
inline constexpr index most_columns = 256;

template <storage T, bool Across>
void skinny_dispatch(compute_t<T> alpha, const strided_view<const T, 1>& r, const const_column_view<compute_t<T>>& x,
                     const column_view<compute_t<T>>& y, workspace& ws) {
    using S = compute_t<T>;
    if (r.rows() == 0 || r.cols() == 0 || x.cols() == 0) {
        return;
    }
    if (x.cols() == 1) {
        if constexpr (Across) {
            vector_across<T>(alpha, r, x, y, ws);
        } else {
            vector_along<T>(alpha, r, x, y, ws);
        }
    } else if (is_big<S>(r.rows(), r.cols())) {
        for (index c = 0; c < x.cols(); c += most_columns) {
            const index k = std::min(most_columns, x.cols() - c);
            const const_column_view<S> xs(x.data() + c * x.outerStride(), x.rows(), k, x.outerStride());
            const column_view<S> ys(const_cast<S*>(y.data()) + c * y.outerStride(), y.rows(), k, y.outerStride());
            if constexpr (Across) {
                skinny_across<T>(alpha, r, xs, ys, ws);
            } else {
                skinny_along<T>(alpha, r, xs, ys, ws);
            }
        }
    } else {
        workspace::frame scope(ws);
        const dense_view<const T> rows(r);
        const dense_view<S> to(const_cast<S*>(y.data()), y.rows(), y.cols(), 1, y.outerStride());
        if constexpr (Across) {
            gemm<S, T, S>(alpha, transposed(rows), x, to, false, &ws);
        } else {
            gemm<S, T, S>(alpha, rows, x, to, false, &ws);
        }
    }
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_SKINNY_OF(T, Across)                                                                                   \
    template void skinny_dispatch<T, Across>(compute_t<T>, const strided_view<const T, 1>&,                            \
                                             const const_column_view<compute_t<T>>&, const column_view<compute_t<T>>&, \
                                             workspace&);
LOWRANK_SKINNY_OF(float, false)
LOWRANK_SKINNY_OF(float, true)
LOWRANK_SKINNY_OF(double, false)
LOWRANK_SKINNY_OF(double, true)
LOWRANK_SKINNY_OF(half, false)
LOWRANK_SKINNY_OF(half, true)
LOWRANK_SKINNY_OF(bfloat16, false)
LOWRANK_SKINNY_OF(bfloat16, true)
#undef LOWRANK_SKINNY_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI::detail

#endif  // LOWRANK_CORE_SKINNY_PRODUCT_IPP
