// SPDX-License-Identifier: MIT
#ifndef LOWRANK_CORE_DETAIL_SKINNY_VECTOR_HPP
#define LOWRANK_CORE_DETAIL_SKINNY_VECTOR_HPP

/// \file
/// The product of a weight with a single column, cut into pieces that several threads may take.
///
///     lowrank::detail::vector_along(alpha, r, x, y, ws);   // y += alpha R x, R row-major

#include <algorithm>

#include <lowrank/core/config.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/detail/skinny_kernel.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>

namespace lowrank::inline LOWRANK_ABI::detail {

/// y += alpha R x for one column, in pieces of rows; a 16-bit weight is widened at most `widened_cols` columns at a
/// time, so that a piece stays in a second-level cache however long its rows are.
template <storage T>
void vector_along(compute_t<T> alpha, const strided_view<const T, 1>& r, const_column_view<compute_t<T>> x,
                  column_view<compute_t<T>> y, workspace& ws) {
    using S = compute_t<T>;
    constexpr index widened_cols = 1 << 14;
    const index piece_rows = round_up(std::max<index>((real<T> ? 1 << 18 : 1 << 15) / r.cols(), 1), 8);
    const index width = std::min(r.cols(), widened_cols), wide_size = real<T> ? 0 : piece_rows * width;
    for_pieces<S>(ws, ceil_div(r.rows(), piece_rows), wide_size, [&](index piece, S* scratch) {
        const index top = piece * piece_rows, length = std::min(piece_rows, r.rows() - top);
        if constexpr (real<T>) {
            gemv<S>(alpha, dense_view<const S>(r).middle_rows(top, length), x.data(), 1, y.data() + top, 1);
        } else {
            for (index first = 0; first < r.cols(); first += width) {
                const index cols = std::min(width, r.cols() - first);
                for (index i = 0; i < length; ++i) {
                    copy_row(r.data() + (top + i) * r.outerStride() + first, cols, cols, scratch + i * width);
                }
                gemv<S>(alpha, {scratch, length, cols, width, 1}, x.data() + first, 1, y.data() + top, 1);
            }
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
        if constexpr (real<T>) {
            gemv<S>(alpha, transposed(dense_view<const S>(r).middle_cols(first, length)), x.data(), 1, y.data() + first,
                    1);
        } else {
            for (index top = 0; top < r.rows(); top += band) {
                const index rows = std::min(band, r.rows() - top);
                for (index i = 0; i < rows; ++i) {
                    copy_row(r.data() + (top + i) * r.outerStride() + first, length, length, scratch + i * width);
                }
                gemv<S>(alpha, {scratch, length, rows, 1, width}, x.data() + top, 1, y.data() + first, 1);
            }
        }
    });
}

}  // namespace lowrank::inline LOWRANK_ABI::detail

#endif  // LOWRANK_CORE_DETAIL_SKINNY_VECTOR_HPP
