// SPDX-License-Identifier: MIT
#ifndef LOWRANK_CORE_DETAIL_SKINNY_SMALL_HPP
#define LOWRANK_CORE_DETAIL_SKINNY_SMALL_HPP

/// \file
/// The products that Eigen does as well as anyone, without the heap: matrices that stay in cache, and single columns.
///
///     lowrank::detail::small_product<float, 1>(alpha, r, x, y, ws);   // Y += alpha R X, R row-major
///
/// Eigen's general product takes its packing buffers from the heap once they exceed 128 KiB; here they come from the
/// workspace.

#include <algorithm>

#include <Eigen/Core>

#include <lowrank/core/config.hpp>
#include <lowrank/core/detail/skinny_kernel.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>

namespace lowrank::inline LOWRANK_ABI::detail {

/// Eigen's block sizes, with buffers of ours.
template <real S>
class workspace_blocking : public Eigen::internal::level3_blocking<S, S> {
public:
    workspace_blocking(index rows, index cols, index depth, workspace& ws) {
        this->m_mc = rows;
        this->m_nc = cols;
        this->m_kc = depth;
        Eigen::internal::computeProductBlockingSizes<S, S>(this->m_kc, this->m_mc, this->m_nc, index(1));
        this->m_blockA = ws.take<S>(this->m_kc, this->m_mc).data();
        this->m_blockB = ws.take<S>(this->m_kc, this->m_nc).data();
    }
};

/// Y += alpha A X by Eigen, A in either order.
template <real S, int Order>
void small_product(S alpha, const strided_view<const S, Order>& a, const_column_view<S> x, column_view<S> y,
                   workspace& ws) {
    constexpr index tiny = 20;  // the sum of the sizes below which Eigen computes entry by entry
    if (a.rows() + a.cols() + x.cols() < tiny) {
        y += alpha * a.lazyProduct(x);
        return;
    }
    workspace::frame scope(ws);
    workspace_blocking<S> blocking(a.rows(), x.cols(), a.cols(), ws);
    Eigen::internal::general_matrix_matrix_product<index, S, Order == 1 ? Eigen::RowMajor : Eigen::ColMajor, false, S,
                                                   Eigen::ColMajor, false, Eigen::ColMajor, 1>::run(a.rows(), x.cols(),
                                                                                                    a.cols(), a.data(),
                                                                                                    a.outerStride(),
                                                                                                    x.data(),
                                                                                                    x.outerStride(),
                                                                                                    y.data(), index(1),
                                                                                                    y.outerStride(),
                                                                                                    alpha, blocking,
                                                                                                    nullptr);
}

/// All of R, widened into scratch of the current frame.
template <storage T>
strided_view<const compute_t<T>, 1> widened_copy(const strided_view<const T, 1>& r, workspace& ws) {
    using S = compute_t<T>;
    S* to = ws.take<S>(r.cols(), r.rows()).data();
    for (index i = 0; i < r.rows(); ++i) {
        copy_row(r.data() + i * r.outerStride(), r.cols(), r.cols(), to + i * r.cols());
    }
    return {to, r.rows(), r.cols()};
}

/// y += alpha R x for one column, in pieces of whole rows.
template <storage T>
void vector_along(compute_t<T> alpha, const strided_view<const T, 1>& r, const_column_view<compute_t<T>> x,
                  column_view<compute_t<T>> y, workspace& ws) {
    using S = compute_t<T>;
    const index piece_rows = round_up(std::max<index>((real<T> ? 1 << 18 : 1 << 15) / r.cols(), 1), 8);
    const index wide_size = real<T> ? 0 : piece_rows * r.cols();
    for_pieces<S>(ws, ceil_div(r.rows(), piece_rows), wide_size, [&](index piece, S* scratch) {
        const index top = piece * piece_rows, length = std::min(piece_rows, r.rows() - top);
        auto to = y.col(0).segment(top, length);
        if constexpr (real<T>) {
            to.noalias() += alpha * (r.middleRows(top, length) * x.col(0));
        } else {
            for (index i = 0; i < length; ++i) {
                copy_row(r.data() + (top + i) * r.outerStride(), r.cols(), r.cols(), scratch + i * r.cols());
            }
            to.noalias() += alpha * (strided_view<const S, 1>(scratch, length, r.cols()) * x.col(0));
        }
    });
}

/// y += alpha R^T x for one column, in pieces of columns.
template <storage T>
void vector_across(compute_t<T> alpha, const strided_view<const T, 1>& r, const_column_view<compute_t<T>> x,
                   column_view<compute_t<T>> y, workspace& ws) {
    using S = compute_t<T>;
    constexpr index piece_cols = 4096, band = 8;  // rows of a 16-bit weight widened at a time
    const index width = std::min(piece_cols, r.cols());
    for_pieces<S>(ws, ceil_div(r.cols(), piece_cols), real<T> ? 0 : band * width, [&](index piece, S* scratch) {
        const index first = piece * piece_cols, length = std::min(piece_cols, r.cols() - first);
        auto to = y.col(0).segment(first, length);
        if constexpr (real<T>) {
            to.noalias() += alpha * (r.middleCols(first, length).transpose() * x.col(0));
        } else {
            for (index top = 0; top < r.rows(); top += band) {
                const index rows = std::min(band, r.rows() - top);
                for (index i = 0; i < rows; ++i) {
                    copy_row(r.data() + (top + i) * r.outerStride() + first, length, length, scratch + i * width);
                }
                const strided_view<const S, 1> wide(scratch, rows, length, width);
                to.noalias() += alpha * (wide.transpose() * x.col(0).segment(top, rows));
            }
        }
    });
}

}  // namespace lowrank::inline LOWRANK_ABI::detail

#endif  // LOWRANK_CORE_DETAIL_SKINNY_SMALL_HPP
