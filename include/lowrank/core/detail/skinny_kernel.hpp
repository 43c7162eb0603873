// SPDX-License-Identifier: MIT
#ifndef LOWRANK_CORE_DETAIL_SKINNY_KERNEL_HPP
#define LOWRANK_CORE_DETAIL_SKINNY_KERNEL_HPP

/// \file
/// The loops around the register tiles of the skinny product: packing, cache blocking and division into tasks.
///
///     lowrank::detail::skinny_along(alpha, r, x, y, ws);   // Y += alpha R X   for R row-major
///     lowrank::detail::skinny_across(alpha, r, x, y, ws);  // Y += alpha R^T X
///
/// A column-major matrix is the transpose of a row-major one, so these two are all there is. Work is cut into pieces
/// whose size depends on the shapes alone, and no sum crosses a piece: the bits do not depend on the executor.

#include <algorithm>
#include <type_traits>

#include <Eigen/Core>

#include <lowrank/core/config.hpp>
#include <lowrank/core/detail/skinny_tiles.hpp>
#include <lowrank/core/detail/widen.hpp>
#include <lowrank/core/parallel.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>

namespace lowrank::inline LOWRANK_ABI::detail {

[[nodiscard]] constexpr index ceil_div(index a, index b) noexcept { return (a + b - 1) / b; }
[[nodiscard]] constexpr index round_up(index a, index b) noexcept { return ceil_div(a, b) * b; }

/// Pieces are spread over at most this many tasks, each with scratch of its own.
inline constexpr index most_tasks = 64;

/// Runs body(piece, scratch) for each piece; pieces of one task share `scratch_size` scalars.
template <real S, class F>
void for_pieces(workspace& ws, index pieces, index scratch_size, F&& body) {
    const index tasks = ws.exec ? std::min(pieces, most_tasks) : 1;
    const index spaced = round_up(std::max<index>(scratch_size, 1), line<S>);
    workspace::frame scope(ws);
    S* scratch = ws.take<S>(spaced, tasks).data();
    parallel_for(ws.exec, tasks, [&](index t) {
        for (index piece = pieces * t / tasks; piece < pieces * (t + 1) / tasks; ++piece) {
            body(piece, scratch + t * spaced);
        }
    });
}

/// Rows of the next tile when `left` are left: a full tile, or what the small tiles can do.
template <int Full>
[[nodiscard]] constexpr index tile_of(index left) noexcept {
    return left >= Full ? Full : left >= 4 ? 4 : 1;
}

/// Calls f with the row count of a tile as a constant.
template <int Full, class F>
void with_tile(index taken, F&& f) {
    if (taken == Full) {
        f(std::integral_constant<int, Full>());
    } else if (taken == 4) {
        f(std::integral_constant<int, 4>());
    } else {
        f(std::integral_constant<int, 1>());
    }
}

/// A cursor over the rows x cols block of R at (row, col), clipped to R; `steps` lines of depth traverse it.
template <storage T>
fetch_cursor<T> fetch_block(const strided_view<const T, 1>& r, index row, index col, index rows, index cols,
                            index steps) noexcept {
    rows = std::min(rows, r.rows() - row);
    cols = std::min(cols, r.cols() - col);
    if (rows <= 0 || cols <= 0) {
        return {};
    }
    return {.row = r.data() + row * r.outerStride() + col,
            .stride = r.outerStride(),
            .rows = rows,
            .length = cols,
            .pace = ceil_div(rows * ceil_div(cols, line<T>), std::max<index>(steps, 1))};
}

/// to[i] = from[i] for i in [0, count), widened if need be, then zeros up to `padded`.
template <storage T>
void copy_row(const T* from, index count, index padded, compute_t<T>* to) noexcept {
    if constexpr (real<T>) {
        std::copy_n(from, count, to);
    } else {
        widen(from, count, to);
    }
    std::fill(to + count, to + padded, compute_t<T>(0));
}

// ---- Y += alpha R X ---------------------------------------------------------------------------------------------

/// How R X is cut: X into blocks of `depth` rows and panels of along_packets packets, R into pieces of `rows` rows.
template <storage T>
struct along_plan {
    using S = compute_t<T>;
    index width;  ///< columns of X, rounded up to packets
    index depth;  ///< rows of X in one block
    index rows;   ///< rows of R in one piece

    bool fetches;  ///< the next block of R is asked for while one is multiplied

    // Few columns are over before the next block is there, and the hardware streams long rows better by itself. With
    // many, short blocks leave the first-level cache to the panel and keep the next block in the second.
    along_plan(index cols, index k) : width(round_up(k, lanes<S>)), rows(along_rows * 8), fetches(k >= 32) {
        const index panel_bytes = (fetches ? 32 : 96) << 10;  // the panel of X that the tiles of a piece share
        const index panel = std::min(width, along_packets * lanes<S>);
        const index most = panel_bytes / static_cast<index>(sizeof(S)) / panel;
        depth = round_up(ceil_div(cols, ceil_div(cols, most)), line<S>);
    }
};

/// Copies X, column-major, into panels: block after block, panel after panel, row after row, padded with zeros.
template <real S>
void pack_panels(const_column_view<S> x, index depth, index width, S* to) {
    constexpr index full = along_packets * lanes<S>;
    const index rows = x.rows(), stride = x.outerStride();
    for (index first = 0; first < rows; first += depth) {
        const index length = std::min(depth, rows - first);
        for (index c0 = 0; c0 < width; c0 += full) {
            const index panel = std::min(full, width - c0), filled = std::min(panel, x.cols() - c0);
            for (index p0 = 0; p0 < length; p0 += line<S>) {
                const index p1 = std::min(p0 + line<S>, length);
                for (index c = 0; c < filled; ++c) {
                    const S* from = x.data() + (c0 + c) * stride + first;
                    for (index p = p0; p < p1; ++p) {
                        to[p * panel + c] = from[p];
                    }
                }
                for (index c = filled; c < panel; ++c) {
                    for (index p = p0; p < p1; ++p) {
                        to[p * panel + c] = S(0);
                    }
                }
            }
            to += length * panel;
        }
    }
}

/// Y += (row-major block at `from`, rows `stride` apart), in strips that one cache line of each column of Y covers.
template <real S, class Y>
void add_transposed(const S* from, index stride, Y y) {
    for (index i = 0; i < y.rows(); i += line<S>) {
        const index end = std::min(i + line<S>, y.rows());
        for (index c = 0; c < y.cols(); ++c) {
            S* to = y.data() + c * y.outerStride();
            for (index j = i; j < end; ++j) {
                to[j] += from[j * stride + c];
            }
        }
    }
}

template <storage T>
void skinny_along(compute_t<T> alpha, strided_view<const T, 1> r, const_column_view<compute_t<T>> x,
                  column_view<compute_t<T>> y, workspace& ws) {
    using S = compute_t<T>;
    constexpr index full = along_packets * lanes<S>;
    const index rows = r.rows(), cols = r.cols(), k = x.cols();
    const along_plan<T> plan(cols, k);
    workspace::frame scope(ws);
    S* packed = ws.take<S>(cols, plan.width).data();
    pack_panels<S>(x, plan.depth, plan.width, packed);

    const index out_size = round_up(plan.rows * plan.width, line<S>);
    const index wide_size = real<T> ? 0 : plan.rows * plan.depth;  // one block of R, widened
    for_pieces<S>(ws, ceil_div(rows, plan.rows), out_size + wide_size, [&](index piece, S* out) {
        const index top = piece * plan.rows, bottom = std::min(top + plan.rows, rows);
        for (index first = 0; first < cols; first += plan.depth) {
            const index length = std::min(plan.depth, cols - first);
            const S* block = out + out_size;
            index stride = plan.depth;
            if constexpr (real<T>) {
                block = r.data() + top * r.outerStride() + first;
                stride = r.outerStride();
            } else {
                for (index i = top; i < bottom; ++i) {
                    copy_row(r.data() + i * r.outerStride() + first, length, length,
                             out + out_size + (i - top) * stride);
                }
            }
            fetch_cursor<T> ahead;
            if (plan.fetches) {
                const bool end = first + plan.depth >= cols;
                const index tiles = ceil_div(bottom - top, along_rows) * ceil_div(plan.width, full);
                if (!end || bottom < rows) {
                    ahead = fetch_block(r, end ? bottom : top, end ? 0 : first + plan.depth, plan.rows, plan.depth,
                                        tiles * std::max<index>(length / line<S>, 1));
                }
            }
            const S* panel = packed + first * plan.width;
            for (index c = 0; c < plan.width; c += full) {
                const index width = std::min(full, plan.width - c);
                for (index i = top; i < bottom;) {
                    const index taken = tile_of<along_rows>(bottom - i);
                    const S* from = block + (i - top) * stride;
                    S* to = out + (i - top) * plan.width + c;
                    with_tile<along_rows>(taken, [&](auto tile) {
                        if (width == full) {
                            multiply_tile<tile, along_packets>(alpha, from, stride, fixed<1>, length, panel,
                                                               fixed<full>, to, plan.width, first != 0, ahead);
                        } else {
                            multiply_tile<tile, 1>(alpha, from, stride, fixed<1>, length, panel, fixed<lanes<S>>, to,
                                                   plan.width, first != 0, ahead);
                        }
                    });
                    i += taken;
                }
                panel += length * width;
            }
        }
        add_transposed(out, plan.width, y.middleRows(top, bottom - top));
    });
}

// ---- Y += alpha R^T X -------------------------------------------------------------------------------------------

/// Copies X (rows x k) into blocks of `depth` rows, in them tiles of columns, in them row after row: what a tile
/// broadcasts at one step lies in one cache line, wherever the columns of X lie.
template <real S>
void pack_columns(const_column_view<S> x, index depth, S* to) {
    const index rows = x.rows(), k = x.cols(), stride = x.outerStride();
    for (index top = 0; top < rows; top += depth) {
        const index length = std::min(depth, rows - top);
        for (index c = 0; c < k;) {
            const index taken = tile_of<across_rows>(k - c);
            const S* from = x.data() + c * stride + top;
            for (index a = 0; a < taken; ++a) {
                for (index p = 0; p < length; ++p) {
                    to[p * taken + a] = from[a * stride + p];
                }
            }
            to += length * taken;
            c += taken;
        }
    }
}

/// Copies `rows` rows of R, `cols` scalars wide, into a strip of across_packets packets, row after row, padded with
/// zeros.
template <storage T>
void pack_strip(const T* from, index stride, index rows, index cols, compute_t<T>* to) noexcept {
    using S = compute_t<T>;
    constexpr index full = across_packets * lanes<S>;
    for (index i = 0; i < rows; ++i, from += stride, to += full) {
        if (cols < full) {
            copy_row(from, cols, full, to);
        } else if constexpr (real<T>) {
            using P = packet_of<S>;
            unroll<across_packets>([&](auto v) {
                Eigen::internal::pstore(to + v * lanes<S>, Eigen::internal::ploadu<P>(from + v * lanes<S>));
            });
        } else {
            widen(from, full, to);
        }
    }
}

// R^T X = (X^T R)^T: scalars of X are broadcast against packets of R. R is read in bands of a few rows from left to
// right, as memory streams it. What of it the tiles share is copied into a strip in the first-level cache, for rows of
// R that are a power of two apart would compete for the same few lines of it. The sums wait, packed, in the
// second-level cache until the piece is done.
template <storage T>
void skinny_across(compute_t<T> alpha, strided_view<const T, 1> r, const_column_view<compute_t<T>> x,
                   column_view<compute_t<T>> y, workspace& ws) {
    using S = compute_t<T>;
    constexpr index full = across_packets * lanes<S>, depth = 32, sum_bytes = 1 << 20, shared_strips = 12;
    const index rows = r.rows(), cols = r.cols(), k = x.cols();
    // Sums go down the columns of R, so the width of a piece shows in no bit. Alone, wide pieces read longer streams.
    const index fitting = std::max<index>(sum_bytes / static_cast<index>(sizeof(S)) / k / full, 1);
    const index strips = ceil_div(cols, full), most = ws.exec ? std::min(fitting, shared_strips) : fitting;
    const index piece_cols = ceil_div(strips, ceil_div(strips, most)) * full;
    workspace::frame scope(ws);
    S* packed = ws.take<S>(rows, k).data();
    pack_columns<S>(x, depth, packed);

    for_pieces<S>(ws, ceil_div(cols, piece_cols), (depth + piece_cols / full * k) * full, [&](index piece, S* strip) {
        S* out = strip + depth * full;
        const index begin = piece * piece_cols, end = std::min(begin + piece_cols, cols);
        for (index top = 0; top < rows; top += depth) {
            const index length = std::min(depth, rows - top);
            for (index j = begin; j < end; j += full) {
                pack_strip(r.data() + top * r.outerStride() + j, r.outerStride(), length, std::min(full, end - j),
                           strip);
                // While this strip is multiplied, the next one is fetched.
                const bool last = j + full >= end;
                auto ahead = fetch_block(r, std::min(last ? top + depth : top, rows), last ? begin : j + full, depth,
                                         full, ceil_div(k, across_rows) * (depth / line<S>));
                S* sums = out + (j - begin) * k;
                for (index c = 0; c < k;) {
                    const index taken = tile_of<across_rows>(k - c);
                    const S* from = packed + top * k + c * length;
                    with_tile<across_rows>(taken, [&](auto tile) {
                        multiply_tile<tile, across_packets>(alpha, from, fixed<1>, fixed<tile>, length, strip,
                                                            fixed<full>, sums + c * full, full, top != 0, ahead);
                    });
                    c += taken;
                }
            }
        }
        for (index c = 0; c < k; ++c) {
            for (index j = begin; j < end; j += full) {
                const S* sums = out + (j - begin) * k + c * full;
                S* to = y.data() + c * y.outerStride() + j;
                for (index q = 0; q < std::min(full, end - j); ++q) {
                    to[q] += sums[q];
                }
            }
        }
    });
}

}  // namespace lowrank::inline LOWRANK_ABI::detail

#endif  // LOWRANK_CORE_DETAIL_SKINNY_KERNEL_HPP
