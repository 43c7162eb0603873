// SPDX-License-Identifier: MIT
#ifndef LOWRANK_CORE_DENSE_IPP
#define LOWRANK_CORE_DENSE_IPP

#include <lowrank/core/dense.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

#include <lowrank/core/detail/skinny_tiles.hpp>
#include <lowrank/core/detail/widen.hpp>
#include <lowrank/core/workspace.hpp>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wignored-attributes"  // a packet as a template argument, on purpose
#endif

namespace lowrank::inline LOWRANK_ABI::detail {

/// Panels of the general product: packets run down `rows` rows of A, scalars of `cols` columns of B are broadcast.
template <real S>
struct gemm_panels {
    static constexpr index rows = across_packets * lanes<S>;
    static constexpr index cols = across_rows;
    /// One panel of A stays in the first-level cache while it meets all of a block of B, in the second.
    static constexpr index depth =
        std::clamp<index>((index(32) << 10) / (rows * static_cast<index>(sizeof(S))) / 16 * 16, 64, 384);
    static constexpr index width = 1024 / cols * cols;
};

/// 64-byte aligned scratch: on the stack if small, else of the workspace, else from the heap.
template <real S, index Small>
class scratch {
public:
    scratch(index size, workspace* ws) {
        if (size <= Small) {
            data_ = stack_;
        } else if (ws != nullptr) {
            data_ = ws->take<S>(size, 1).data();
        } else {
            heap_.reset(
                static_cast<S*>(::operator new[](static_cast<std::size_t>(size) * sizeof(S), std::align_val_t{64})));
            data_ = heap_.get();
        }
    }
    [[nodiscard]] S* data() noexcept { return data_; }

private:
    struct release {
        void operator()(S* p) const noexcept { ::operator delete[](p, std::align_val_t{64}); }
    };
    alignas(64) S stack_[static_cast<std::size_t>(Small)];
    std::unique_ptr<S, release> heap_ = {};
    S* data_ = nullptr;
};

/// An entry in the scalar that is computed in.
template <real S, storage T>
[[nodiscard]] S as_scalar(T x) noexcept {
    if constexpr (real<T>) {
        return static_cast<S>(x);
    } else {
        return static_cast<S>(widened(x));
    }
}

/// The next smaller packet, or the same if there is none.
template <class P>
using half_packet = typename Eigen::internal::unpacket_traits<P>::half;

template <class P>
inline constexpr index lanes_of = static_cast<index>(Eigen::internal::unpacket_traits<P>::size);

/// Calls f(packet's type, first, end) for the pieces of [from, to) that packets of falling size fill; the rest as S.
template <class P, real S, class F>
void by_packets(index from, index to, F&& f) {
    const index whole = from + (to - from) / lanes_of<P> * lanes_of<P>;
    if (whole > from) {
        f(std::type_identity<P>(), from, whole);
    }
    if (whole < to) {
        if constexpr (lanes_of<half_packet<P>> < lanes_of<P>) {
            by_packets<half_packet<P>, S>(whole, to, f);
        } else {
            f(std::type_identity<S>(), whole, to);
        }
    }
}

/// Copies n entries.
template <real S, storage T>
void copy_entries(const T* from, index n, S* to) noexcept {
    if constexpr (std::same_as<S, T>) {
        by_packets<packet_of<S>, S>(0, n, [&](auto type, index first, index end) {
            using P = typename decltype(type)::type;
            if constexpr (std::same_as<P, S>) {
                for (index i = first; i < end; ++i) {
                    to[i] = from[i];
                }
            } else {
                for (index i = first; i < end; i += lanes_of<P>) {
                    Eigen::internal::pstoreu(to + i, Eigen::internal::ploadu<P>(from + i));
                }
            }
        });
    } else {
        for (index i = 0; i < n; ++i) {
            to[i] = as_scalar<S>(from[i]);
        }
    }
}

/// to[p * full + i] = a(i, p), rows of A contiguous: squares of packets are transposed in registers, what is left of
/// them by smaller packets.
template <class P, real S>
void transpose_rows(const dense_view<const S>& a, index full, S* to) noexcept {
    constexpr index n = lanes_of<P>;
    const index rows = a.rows() / n * n, cols = a.cols() / n * n;
    for (index i = 0; i < rows; i += n) {
        for (index p = 0; p < cols; p += n) {
            Eigen::internal::PacketBlock<P, int(n)> square;
            for (index q = 0; q < n; ++q) {
                square.packet[q] = Eigen::internal::ploadu<P>(&a(i + q, p));
            }
            Eigen::internal::ptranspose(square);
            for (index q = 0; q < n; ++q) {
                Eigen::internal::pstoreu(to + (p + q) * full + i, square.packet[q]);
            }
        }
    }
    const auto rest = [&](index row, index col, index height, index width) {
        const auto part = a.block(row, col, height, width);
        if constexpr (lanes_of<half_packet<P>> < n) {
            transpose_rows<half_packet<P>, S>(part, full, to + col * full + row);
        } else {
            for (index p = 0; p < width; ++p) {
                for (index i = 0; i < height; ++i) {
                    to[(col + p) * full + row + i] = part(i, p);
                }
            }
        }
    };
    if (rows < a.rows()) {
        rest(rows, 0, a.rows() - rows, a.cols());
    }
    if (cols < a.cols()) {
        rest(0, cols, rows, a.cols() - cols);
    }
}

/// to[p * full + i] = a(i, p) for the rows of A, at most `full`; zeros in the others.
template <real S, storage T>
void pack_rows(const dense_view<const T>& a, index full, S* to) noexcept {
    const index count = a.rows(), depth = a.cols();
    if (a.row_stride() == 1) {
        for (index p = 0; p < depth; ++p) {
            copy_entries<S>(a.column(p), count, to + p * full);
        }
    } else {
        if constexpr (std::same_as<S, T>) {
            if (a.col_stride() == 1) {
                transpose_rows<packet_of<S>, S>(a, full, to);
            }
        }
        if (!std::same_as<S, T> || a.col_stride() != 1) {
            constexpr index strip = 16;  // entries of one row that are read before the next row
            for (index first = 0; first < depth; first += strip) {
                const index end = std::min(first + strip, depth);
                for (index i = 0; i < count; ++i) {
                    const T* from = a.data() + i * a.row_stride();
                    for (index p = first; p < end; ++p) {
                        to[p * full + i] = as_scalar<S>(from[p * a.col_stride()]);
                    }
                }
            }
        }
    }
    if (count < full) {
        for (index p = 0; p < depth; ++p) {
            std::fill(to + p * full + count, to + (p + 1) * full, S(0));
        }
    }
}

/// The width of the next tile of B.
[[nodiscard]] constexpr index gemm_tile(index left) noexcept {
    return left >= across_rows ? index{across_rows} : left >= 4 ? 4 : 1;
}

template <real S>
struct gemm_block {
    S alpha;
    const S* b;  ///< Entry (p, j) at b[p * depth_step + j] within a tile, or as it lies with its own strides.
    index depth_step, col_step;  ///< 0, 0: packed.
    const dense_view<S>& c;
    index first_col, cols, depth;
    bool lower;

    /// Multiplies one panel of A, with its columns `step` apart, into rows [row, row + rows) of C.
    template <int Packets, class Step>
    void multiply(const S* panel, Step step, index row, index rows) const noexcept {
        constexpr index full = Packets * lanes<S>;
        alignas(64) S rest[static_cast<std::size_t>(gemm_panels<S>::cols * full)];
        const bool direct = c.row_stride() == 1 && rows == full;
        fetch_nothing none;
        for (index j = 0; j < cols;) {
            const index taken = gemm_tile(cols - j);
            const index col = first_col + j;
            if (!lower || row + rows > col) {
                const S* from = b + j * (col_step == 0 ? depth : col_step);
                S* to = direct ? c.data() + row + col * c.col_stride() : rest;
                const index stride = direct ? c.col_stride() : full;
                const auto tile = [&](auto n) {
                    // A sum waits four cycles for the one before it: small tiles keep several of each.
                    constexpr int ways = n * Packets > 8 ? 1 : n * Packets > 4 ? 2 : 4;
                    if (col_step == 0) {
                        multiply_tile<n, Packets, ways>(alpha, from, fixed<1>, fixed<n>, depth, panel, step, to, stride,
                                                        direct, none);
                    } else {
                        multiply_tile<n, Packets, ways>(alpha, from, col_step, depth_step, depth, panel, step, to,
                                                        stride, direct, none);
                    }
                };
                if (taken == across_rows) {
                    tile(std::integral_constant<int, across_rows>());
                } else if (taken == 4) {
                    tile(std::integral_constant<int, 4>());
                } else {
                    tile(std::integral_constant<int, 1>());
                }
                if (!direct) {
                    for (index q = 0; q < taken; ++q) {
                        for (index i = 0; i < rows; ++i) {
                            c(row + i, col + q) += rest[q * full + i];
                        }
                    }
                }
            }
            j += taken;
        }
    }
};

/// The rows of A lie across the packets, so a result with fewer rows than columns is computed as its transpose.
template <real S, storage TA, storage TB>
void gemm_by_rows(S alpha, const dense_view<const TA>& a, const dense_view<const TB>& b, const dense_view<S>& c,
                  bool lower, workspace* ws) {
    using panels = gemm_panels<S>;
    const index m = c.rows(), n = c.cols(), k = a.cols();
    const index depth = std::min(panels::depth, k), width = std::min(panels::width, n);
    scratch<S, 2048> panel(panels::rows * depth, ws);
    scratch<S, 2048> packed_b(width * depth, ws);
    for (index first_col = 0; first_col < n; first_col += panels::width) {
        const index cols = std::min(panels::width, n - first_col);
        for (index first = 0; first < k; first += panels::depth) {
            const index length = std::min(panels::depth, k - first);
            gemm_block<S> block{alpha, packed_b.data(), 0, 0, c, first_col, cols, length, lower};
            bool packed = true;
            if constexpr (std::same_as<S, TB>) {  // for few panels of A packing B does not pay
                packed = m > 3 * panels::rows || b.row_stride() != 1;
                if (!packed) {
                    block.b = b.block(first, first_col, 0, 0).data();
                    block.depth_step = b.row_stride();
                    block.col_step = b.col_stride();
                }
            }
            for (index j = 0; packed && j < cols;) {
                const index taken = gemm_tile(cols - j);
                const auto part = b.block(first, first_col + j, length, taken);
                pack_rows<S, TB>({part.data(), taken, length, part.col_stride(), part.row_stride()}, taken,
                                 packed_b.data() + j * length);
                j += taken;
            }
            for (index row = lower ? first_col / panels::rows * panels::rows : 0; row < m;) {
                // Three packets a panel, but two and two where four are left, and what is needed for the last rows.
                const index left = (m - row + lanes<S> - 1) / lanes<S>;
                const index packets = left == 4 ? 2 : std::min<index>(left, across_packets);
                const index most = packets * lanes<S>, rows = std::min(most, m - row);
                const auto from = a.block(row, first, rows, length);
                const auto multiply = [&](auto count) {
                    if constexpr (std::same_as<S, TA>) {
                        if (a.row_stride() == 1 && rows == most && n <= 2 * panels::cols) {  // packing would not pay
                            return block.template multiply<count>(from.data(), from.col_stride(), row, rows);
                        }
                    }
                    pack_rows<S, TA>(from, most, panel.data());
                    block.template multiply<count>(panel.data(), fixed<count * lanes<S>>, row, rows);
                };
                if (packets == 3) {
                    multiply(std::integral_constant<int, 3>());
                } else if (packets == 2) {
                    multiply(std::integral_constant<int, 2>());
                } else {
                    multiply(std::integral_constant<int, 1>());
                }
                row += rows;
            }
        }
    }
}

/// sums[q][c] = (row q of A) . (column c of X) for `Rows` rows and `Cols` columns that lie `stride` and `x_stride` apart.
template <int Rows, int Cols, real S>
void dot_rows(const S* a, index stride, const S* x, index x_stride, index n,
              S (&sums)[array_extent<Rows>][array_extent<Cols>]) {
    using namespace Eigen::internal;
    unroll<Rows>([&](auto q)
                     LOWRANK_FORCE_INLINE { unroll<Cols>([&](auto c) LOWRANK_FORCE_INLINE { sums[q][c] = S(0); }); });
    by_packets<packet_of<S>, S>(0, n, [&](auto type, index first, index end) {
        using P = typename decltype(type)::type;
        if constexpr (std::same_as<P, S>) {
            for (index i = first; i < end; ++i) {
                for (index q = 0; q < Rows; ++q) {
                    for (index c = 0; c < Cols; ++c) {
                        sums[q][c] += a[q * stride + i] * x[c * x_stride + i];
                    }
                }
            }
        } else {
            constexpr int ways = Rows * Cols >= 8 ? 1 : 2;
            P sum[array_extent<ways>][array_extent<Rows>][array_extent<Cols>];
            unroll<ways>([&](auto w) LOWRANK_FORCE_INLINE {
                unroll<Rows>([&](auto q) LOWRANK_FORCE_INLINE {
                    unroll<Cols>([&](auto c) LOWRANK_FORCE_INLINE { sum[w][q][c] = pset1<P>(S(0)); });
                });
            });
            const auto step = [&](index i, auto w) LOWRANK_FORCE_INLINE {
                P xs[array_extent<Cols>];
                unroll<Cols>([&](auto c) LOWRANK_FORCE_INLINE { xs[c] = ploadu<P>(x + c * x_stride + i); });
                unroll<Rows>([&](auto q) LOWRANK_FORCE_INLINE {
                    const P entry = ploadu<P>(a + q * stride + i);
                    unroll<Cols>([&](auto c)
                                     LOWRANK_FORCE_INLINE { sum[w][q][c] = pmadd(entry, xs[c], sum[w][q][c]); });
                });
            };
            index i = first;
            for (; i + ways * lanes_of<P> <= end; i += ways * lanes_of<P>) {
                unroll<ways>([&](auto w) LOWRANK_FORCE_INLINE { step(i + w * lanes_of<P>, w); });
            }
            for (; i < end; i += lanes_of<P>) {
                step(i, std::integral_constant<int, 0>());
            }
            unroll<Rows>([&](auto q) LOWRANK_FORCE_INLINE {
                unroll<Cols>([&](auto c) LOWRANK_FORCE_INLINE {
                    P total = sum[0][q][c];
                    if constexpr (ways == 2) {
                        total = padd(total, sum[1][q][c]);
                    }
                    sums[q][c] += predux(total);
                });
            });
        }
    });
}

/// C += alpha A B where rows of A and columns of B are contiguous: an entry of C is a sum of products of packets.
template <real S>
void gemm_by_dots(S alpha, const dense_view<const S>& a, const dense_view<const S>& b, const dense_view<S>& c) {
    const auto tile = [&](auto rows, auto cols, index i, index j) {
        S sums[array_extent<rows>][cols];
        dot_rows<rows, cols>(a.data() + i * a.row_stride(), a.row_stride(), b.column(j), b.col_stride(), a.cols(),
                             sums);
        for (index q = 0; q < rows; ++q) {
            for (index p = 0; p < cols; ++p) {
                c(i + q, j + p) += alpha * sums[q][p];
            }
        }
    };
    constexpr std::integral_constant<int, 4> four;
    constexpr std::integral_constant<int, 1> one;
    for (index j = 0; j < c.cols();) {
        const bool wide = c.cols() - j >= 4;
        for (index i = 0; i < c.rows();) {
            const bool tall = c.rows() - i >= 4;
            wide ? (tall ? tile(four, four, i, j) : tile(one, four, i, j))
                 : (tall ? tile(four, one, i, j) : tile(one, one, i, j));
            i += tall ? 4 : 1;
        }
        j += wide ? 4 : 1;
    }
}

template <real S, storage TA, storage TB>
void gemm(S alpha, const dense_view<const TA>& a, const dense_view<const TB>& b, const dense_view<S>& c, bool lower,
          workspace* ws) {
    const index m = c.rows(), n = c.cols(), k = a.cols();
    if (m == 0 || n == 0 || k == 0) {
        return;
    }
    if constexpr (std::same_as<S, TA> && std::same_as<S, TB>) {
        if (n == 1) {
            return gemv<S>(alpha, a, b.data(), b.row_stride(), c.data(), c.row_stride());
        }
        if (m == 1) {
            return gemv<S>(alpha, transposed(b), a.data(), a.col_stride(), c.data(), c.col_stride());
        }
    }
    if (m * n * k <= 512) {
        for (index j = 0; j < n; ++j) {
            for (index i = lower ? j : 0; i < m; ++i) {
                S sum(0);
                for (index p = 0; p < k; ++p) {
                    sum += as_scalar<S>(a(i, p)) * as_scalar<S>(b(p, j));
                }
                c(i, j) += alpha * sum;
            }
        }
        return;
    }
    if constexpr (std::same_as<S, TA> && std::same_as<S, TB>) {
        if (!lower && a.row_stride() == 1 && c.row_stride() == 1 && m <= 2 * lanes<S> && n <= 8) {
            for (index j = 0; j < n; ++j) {
                gemv<S>(alpha, a, b.column(j), b.row_stride(), c.column(j), 1);
            }
            return;
        }
        // Few long sums, along rows of A and columns of B as they lie.
        if (a.col_stride() == 1 && b.row_stride() == 1 && std::min(m, n) <= 8 && k >= 128 && !lower) {
            return n <= m ? gemm_by_dots<S>(alpha, a, b, c)
                          : gemm_by_dots<S>(alpha, transposed(b), transposed(a),
                                            {c.data(), n, m, c.col_stride(), c.row_stride()});
        }
    }
    // What has unit stride in C takes the packets, unless that side is too short to fill a panel.
    const bool across = !lower && (c.row_stride() != 1 ? c.col_stride() == 1 : m < gemm_panels<S>::rows && n > m);
    if (across) {
        gemm_by_rows<S, TB, TA>(alpha, transposed(b), transposed(a), {c.data(), n, m, c.col_stride(), c.row_stride()},
                                false, ws);
    } else {
        gemm_by_rows<S, TA, TB>(alpha, a, b, c, lower, ws);
    }
}

template <real S>
S dot_of(const S* x, const S* y, index n) {
    using P = packet_of<S>;
    using namespace Eigen::internal;
    constexpr index step = 4 * lanes<S>;
    P sum[4] = {pset1<P>(S(0)), pset1<P>(S(0)), pset1<P>(S(0)), pset1<P>(S(0))};
    index i = 0;
    for (; i + step <= n; i += step) {
        unroll<4>([&](auto v) LOWRANK_FORCE_INLINE {
            sum[v] = pmadd(ploadu<P>(x + i + v * lanes<S>), ploadu<P>(y + i + v * lanes<S>), sum[v]);
        });
    }
    for (; i + lanes<S> <= n; i += lanes<S>) {
        sum[0] = pmadd(ploadu<P>(x + i), ploadu<P>(y + i), sum[0]);
    }
    S rest(0);
    for (; i < n; ++i) {
        rest += x[i] * y[i];
    }
    return predux(padd(padd(sum[0], sum[1]), padd(sum[2], sum[3]))) + rest;
}

template <real S>
void axpy(S alpha, const S* x, S* y, index n) {
    using P = packet_of<S>;
    using namespace Eigen::internal;
    const P factor = pset1<P>(alpha);
    index i = 0;
    for (; i + lanes<S> <= n; i += lanes<S>) {
        pstoreu(y + i, pmadd(factor, ploadu<P>(x + i), ploadu<P>(y + i)));
    }
    for (; i < n; ++i) {
        y[i] += alpha * x[i];
    }
}

template <real S>
void rotate(S* x, S* y, index n, S c, S s) {
    using P = packet_of<S>;
    using namespace Eigen::internal;
    const P cs = pset1<P>(c), ss = pset1<P>(s);
    index i = 0;
    for (; i + lanes<S> <= n; i += lanes<S>) {
        const P a = ploadu<P>(x + i), b = ploadu<P>(y + i);
        pstoreu(x + i, psub(pmul(cs, a), pmul(ss, b)));
        pstoreu(y + i, pmadd(ss, a, pmul(cs, b)));
    }
    for (; i < n; ++i) {
        const S a = x[i], b = y[i];
        x[i] = c * a - s * b;
        y[i] = s * a + c * b;
    }
}

/// y += sum_q factors[q] (column q) for `Cols` columns that lie `stride` apart.
template <int Cols, real S>
void add_columns(const S* a, index stride, const S* factors, S* y, index n) {
    using P = packet_of<S>;
    using namespace Eigen::internal;
    P f[array_extent<Cols>];
    unroll<Cols>([&](auto q) LOWRANK_FORCE_INLINE { f[q] = pset1<P>(factors[q]); });
    index i = 0;
    for (; i + lanes<S> <= n; i += lanes<S>) {
        P sum = ploadu<P>(y + i);
        unroll<Cols>([&](auto q) LOWRANK_FORCE_INLINE { sum = pmadd(f[q], ploadu<P>(a + q * stride + i), sum); });
        pstoreu(y + i, sum);
    }
    for (; i < n; ++i) {
        S sum = y[i];
        for (int q = 0; q < Cols; ++q) {
            sum += factors[q] * a[q * stride + i];
        }
        y[i] = sum;
    }
}

/// y += alpha A x for `Packets` packets of rows of a column-major A: the sums stay in registers.
template <class P, int Packets, real S>
void gemv_short(S alpha, const dense_view<const S>& a, const S* x, index x_stride, S* y) {
    using namespace Eigen::internal;
    constexpr int ways = Packets >= 4 ? 2 : 4;
    const index n = a.cols(), stride = a.col_stride();
    P sum[array_extent<ways>][array_extent<Packets>];
    unroll<ways>([&](auto w) LOWRANK_FORCE_INLINE {
        unroll<Packets>([&](auto v) LOWRANK_FORCE_INLINE { sum[w][v] = pset1<P>(S(0)); });
    });
    const auto step = [&](index j, auto w) LOWRANK_FORCE_INLINE {
        const P factor = pset1<P>(x[j * x_stride]);
        unroll<Packets>([&](auto v) LOWRANK_FORCE_INLINE {
            sum[w][v] = pmadd(factor, ploadu<P>(a.data() + j * stride + v * lanes_of<P>), sum[w][v]);
        });
    };
    index j = 0;
    for (; j + ways <= n; j += ways) {
        unroll<ways>([&](auto w) LOWRANK_FORCE_INLINE { step(j + w, w); });
    }
    for (; j < n; ++j) {
        step(j, std::integral_constant<int, 0>());
    }
    unroll<Packets>([&](auto v) LOWRANK_FORCE_INLINE {
        P total = padd(sum[0][v], sum[1][v]);
        if constexpr (ways == 4) {
            total = padd(total, padd(sum[2][v], sum[3][v]));
        }
        S* to = y + v * lanes_of<P>;
        pstoreu(to, pmadd(pset1<P>(alpha), total, ploadu<P>(to)));
    });
}

template <real S>
void gemv(S alpha, const dense_view<const S>& a, const S* x, index x_stride, S* y, index y_stride) {
    const index m = a.rows(), n = a.cols();
    if (a.row_stride() == 1 && y_stride == 1) {
        if (m <= 8 * lanes<S>) {
            index top = 0;
            for (; top + 4 * lanes<S> <= m; top += 4 * lanes<S>) {
                gemv_short<packet_of<S>, 4, S>(alpha, a.middle_rows(top, 4 * lanes<S>), x, x_stride, y + top);
            }
            by_packets<packet_of<S>, S>(top, m, [&](auto type, index first, index end) {
                using P = typename decltype(type)::type;
                if constexpr (std::same_as<P, S>) {
                    for (index i = first; i < end; ++i) {
                        S sum(0);
                        for (index j = 0; j < n; ++j) {
                            sum += a(i, j) * x[j * x_stride];
                        }
                        y[i] += alpha * sum;
                    }
                } else {
                    for (index i = first; i < end; i += lanes_of<P>) {
                        gemv_short<P, 1, S>(alpha, a.middle_rows(i, lanes_of<P>), x, x_stride, y + i);
                    }
                }
            });
            return;
        }
        constexpr index band = 2048;  // of y, which stays in the first-level cache
        for (index top = 0; top < m; top += band) {
            const index length = std::min(band, m - top);
            index j = 0;
            for (; j + 8 <= n; j += 8) {
                S f[8];
                for (index q = 0; q < 8; ++q) {
                    f[q] = alpha * x[(j + q) * x_stride];
                }
                add_columns<8>(a.column(j) + top, a.col_stride(), f, y + top, length);
            }
            for (; j < n; ++j) {
                axpy(alpha * x[j * x_stride], a.column(j) + top, y + top, length);
            }
        }
        return;
    }
    if (a.col_stride() == 1 && x_stride == 1) {
        constexpr int rows = many_registers ? 8 : 4;
        index i = 0;
        for (; i + rows <= m; i += rows) {
            S sums[array_extent<rows>][1];
            dot_rows<rows, 1>(a.data() + i * a.row_stride(), a.row_stride(), x, 0, n, sums);
            for (index q = 0; q < rows; ++q) {
                y[(i + q) * y_stride] += alpha * sums[q][0];
            }
        }
        for (; i < m; ++i) {
            y[i * y_stride] += alpha * dot_of(a.data() + i * a.row_stride(), x, n);
        }
        return;
    }
    for (index j = 0; j < n; ++j) {
        const S f = alpha * x[j * x_stride];
        for (index i = 0; i < m; ++i) {
            y[i * y_stride] += f * a(i, j);
        }
    }
}

/// Four columns at a time: y below them gets their multiples, and each its product with x, in one pass.
template <real S>
void symv_lower(S alpha, const dense_view<const S>& a, const S* x, S* y) {
    using P = packet_of<S>;
    using namespace Eigen::internal;
    const index n = a.rows(), stride = a.col_stride();
    index j = 0;
    for (; j + 4 <= n; j += 4) {
        const S* column = a.column(j);
        S f[4], t[4];
        for (index q = 0; q < 4; ++q) {
            f[q] = alpha * x[j + q];
            t[q] = S(0);
        }
        for (index q = 0; q < 4; ++q) {  // the small triangle
            y[j + q] += f[q] * column[q * stride + j + q];
            for (index p = q + 1; p < 4; ++p) {
                y[j + p] += f[q] * column[q * stride + j + p];
                t[q] += column[q * stride + j + p] * x[j + p];
            }
        }
        P fs[4], ts[4];
        unroll<4>([&](auto q) LOWRANK_FORCE_INLINE {
            fs[q] = pset1<P>(f[q]);
            ts[q] = pset1<P>(S(0));
        });
        const auto single = [&](index i) {
            for (index q = 0; q < 4; ++q) {
                y[i] += f[q] * column[q * stride + i];
                t[q] += column[q * stride + i] * x[i];
            }
        };
        index i = j + 4;
        for (; i < n && reinterpret_cast<std::uintptr_t>(column + i) % sizeof(P) != 0; ++i) {
            single(i);  // a load across two cache lines costs twice
        }
        for (; i + lanes<S> <= n; i += lanes<S>) {
            const P xs = ploadu<P>(x + i);
            P ys = ploadu<P>(y + i);
            unroll<4>([&](auto q) LOWRANK_FORCE_INLINE {
                const P entry = ploadu<P>(column + q * stride + i);
                ys = pmadd(fs[q], entry, ys);
                ts[q] = pmadd(entry, xs, ts[q]);
            });
            pstoreu(y + i, ys);
        }
        for (; i < n; ++i) {
            single(i);
        }
        unroll<4>([&](auto q) LOWRANK_FORCE_INLINE { y[j + q] += alpha * (t[q] + predux(ts[q])); });
    }
    for (; j < n; ++j) {
        const S* column = a.column(j);
        S t = column[j] * x[j];
        for (index i = j + 1; i < n; ++i) {
            y[i] += alpha * x[j] * column[i];
            t += column[i] * x[i];
        }
        y[j] += alpha * t;
    }
}

template <real S>
void solve_right_upper_of(const dense_view<const S>& r, const dense_view<S>& y) {
    constexpr index block = 32;
    const index n = r.cols(), m = y.rows();
    for (index first = 0; first < n; first += block) {
        const index width = std::min(block, n - first);
        const auto here = y.middle_cols(first, width);
        gemm<S, S, S>(S(-1), dense_view<const S>(y.middle_cols(0, first)), r.block(0, first, first, width), here, false,
                      nullptr);
        for (index j = 0; j < width; ++j) {
            for (index p = 0; p < j; ++p) {
                const S f = -r(first + p, first + j);
                if (y.row_stride() == 1) {
                    axpy(f, here.column(p), here.column(j), m);
                } else {
                    for (index i = 0; i < m; ++i) {
                        here(i, j) += f * here(i, p);
                    }
                }
            }
            const S pivot = r(first + j, first + j);
            for (index i = 0; i < m; ++i) {
                here(i, j) /= pivot;
            }
        }
    }
}

template <real S>
bool cholesky_of(const dense_view<S>& a) {
    constexpr index block = 32;
    const index n = a.rows();
    for (index first = 0; first < n; first += block) {
        const index width = std::min(block, n - first), rest = n - first - width;
        const auto here = a.block(first, first, width, width);
        for (index j = 0; j < width; ++j) {
            S pivot = here(j, j);
            for (index p = 0; p < j; ++p) {
                pivot -= here(j, p) * here(j, p);
            }
            if (!(pivot > S(0))) {
                return false;
            }
            here(j, j) = std::sqrt(pivot);
            for (index i = j + 1; i < width; ++i) {
                S x = here(i, j);
                for (index p = 0; p < j; ++p) {
                    x -= here(i, p) * here(j, p);
                }
                here(i, j) = x / here(j, j);
            }
        }
        const auto below = a.block(first + width, first, rest, width);
        solve_right_upper_of<S>(transposed(dense_view<const S>(here)), below);
        gemm<S, S, S>(S(-1), dense_view<const S>(below), transposed(below),
                      a.block(first + width, first + width, rest, rest), true, nullptr);
    }
    return true;
}

/// From the last block of rows up: a product with the rows that are done, then substitution within the block.
template <real S>
void solve_left_upper_of(const dense_view<const S>& r, const dense_view<S>& y) {
    constexpr index block = 32;
    const index n = r.cols();
    for (index b = (n + block - 1) / block; b-- > 0;) {
        const index first = b * block, width = std::min(block, n - first), after = first + width;
        const auto here = y.middle_rows(first, width);
        gemm<S, S, S>(S(-1), r.block(first, after, width, n - after),
                      dense_view<const S>(y.middle_rows(after, n - after)), here, false, nullptr);
        for (index j = 0; j < y.cols(); ++j) {
            for (index i = width; i-- > 0;) {
                S x = here(i, j);
                for (index p = i + 1; p < width; ++p) {
                    x -= r(first + i, first + p) * here(p, j);
                }
                here(i, j) = x / r(first + i, first + i);
            }
        }
    }
}

/// By rows where those are contiguous: strips of columns keep the lines of both sides in cache.
template <real S, storage T>
void copy_into(const dense_view<const T>& a, S* to) {
    constexpr index strip = 16;
    const index m = a.rows(), n = a.cols();
    if (a.row_stride() == 1) {
        for (index j = 0; j < n; ++j) {
            const T* from = a.column(j);
            for (index i = 0; i < m; ++i) {
                to[i + j * m] = as_scalar<S>(from[i]);
            }
        }
        return;
    }
    for (index first = 0; first < n; first += strip) {
        const index end = std::min(first + strip, n);
        for (index i = 0; i < m; ++i) {
            const T* from = a.data() + i * a.row_stride();
            for (index j = first; j < end; ++j) {
                to[i + j * m] = as_scalar<S>(from[j * a.col_stride()]);
            }
        }
    }
}

/// The view with its contiguous side along the columns.
template <class T>
[[nodiscard]] dense_view<const T> along_memory(const dense_view<const T>& a) noexcept {
    return a.row_stride() != 1 && a.col_stride() == 1 ? transposed(a) : a;
}

template <real S>
S max_abs_of(const dense_view<const S>& given) {
    using P = packet_of<S>;
    using namespace Eigen::internal;
    const dense_view<const S> a = along_memory(given);
    P most = pset1<P>(S(0));
    S rest(0);
    for (index j = 0; j < a.cols(); ++j) {
        index i = 0;
        if (a.row_stride() == 1) {
            for (; i + lanes<S> <= a.rows(); i += lanes<S>) {
                most = pmax(most, pabs(ploadu<P>(a.column(j) + i)));
            }
        }
        for (; i < a.rows(); ++i) {
            rest = std::max(rest, std::abs(a(i, j)));
        }
    }
    return std::max(rest, predux_max(most));
}

/// sum (scale x_i)^2: as many independent sums as it takes to read at the speed of memory.
template <storage T>
double sum_of_squares(const T* x, index count, double scale) {
    constexpr index sums = 32;
    double sum[sums] = {};
    index i = 0;
    for (; i + sums <= count; i += sums) {
        for (index j = 0; j < sums; ++j) {
            const double value = as_scalar<double>(x[i + j]) * scale;
            sum[j] += value * value;
        }
    }
    for (; i < count; ++i) {
        const double value = as_scalar<double>(x[i]) * scale;
        sum[0] += value * value;
    }
    for (index width = sums / 2; width > 0; width /= 2) {
        for (index j = 0; j < width; ++j) {
            sum[j] += sum[j + width];
        }
    }
    return sum[0];
}

template <storage T>
double frobenius_of(const dense_view<const T>& given) {
    const dense_view<const T> a = along_memory(given);
    double scale = 1.0;
    if constexpr (std::same_as<T, double>) {
        const double largest = max_abs_of<double>(a);
        scale = largest > 0.0 ? std::ldexp(1.0, std::min(-std::ilogb(largest), 1023)) : 1.0;
    }
    double sum = 0.0;
    for (index j = 0; j < a.cols(); ++j) {
        if (a.row_stride() == 1) {
            sum += sum_of_squares<T>(a.column(j), a.rows(), scale);
        } else {
            for (index i = 0; i < a.rows(); ++i) {
                sum += sum_of_squares<T>(&a(i, j), 1, scale);
            }
        }
    }
    return std::sqrt(sum) / scale;
}

template <storage T>
void add_column_squares(double factor, const dense_view<const T>& a, double* sums) {
    if (a.row_stride() == 1) {
        for (index j = 0; j < a.cols(); ++j) {
            sums[j] += factor * sum_of_squares<T>(a.column(j), a.rows(), 1.0);
        }
        return;
    }
    for (index i = 0; i < a.rows(); ++i) {
        for (index j = 0; j < a.cols(); ++j) {
            const double x = as_scalar<double>(a(i, j));
            sums[j] += factor * x * x;
        }
    }
}

template <real S>
void gemm_in(S alpha, const dense_view<const S>& a, const dense_view<const S>& b, const dense_view<S>& c,
             workspace& ws) {
    const workspace::frame scope(ws);
    gemm<S, S, S>(alpha, a, b, c, false, &ws);
}

/// to += factor * from, entries `stride` apart.
template <real S>
void add_strided(S factor, const S* from, S* to, index n, index from_stride, index to_stride) {
    if (from_stride == 1 && to_stride == 1) {
        axpy(factor, from, to, n);
        return;
    }
    for (index i = 0; i < n; ++i) {
        to[i * to_stride] += factor * from[i * from_stride];
    }
}

/// Y := L^-1 Y for the unit lower triangle of a small L.
template <real S>
void solve_unit_lower(const dense_view<S>& l, const dense_view<S>& y) {
    const index n = l.rows();
    for (index j = 0; j < y.cols(); ++j) {
        for (index p = 0; p + 1 < n; ++p) {
            add_strided(-y(p, j), &l(p + 1, p), &y(p + 1, j), n - p - 1, l.row_stride(), y.row_stride());
        }
    }
}

template <real S>
void swap_rows(const dense_view<S>& a, index i, index k) {
    for (index j = 0; j < a.cols(); ++j) {
        std::swap(a(i, j), a(k, j));
    }
}

/// Panels of columns: each is factored with its pivots, then the rows of U to its right follow, and one product takes
/// the panel out of all that is below and to the right. B is treated as further columns of A.
template <real S>
bool solve_of(const dense_view<S>& a, const dense_view<S>& b) {
    constexpr index block = 32;
    const index n = a.rows();
    for (index first = 0; first < n; first += block) {
        const index width = std::min(block, n - first), after = first + width, rest = n - after;
        for (index j = first; j < after; ++j) {
            index pivot = j;
            for (index i = j + 1; i < n; ++i) {
                if (std::abs(a(i, j)) > std::abs(a(pivot, j))) {
                    pivot = i;
                }
            }
            if (!(std::abs(a(pivot, j)) > S(0))) {
                return false;
            }
            if (pivot != j) {
                swap_rows(a, j, pivot);
                swap_rows(b, j, pivot);
            }
            for (index i = j + 1; i < n; ++i) {
                a(i, j) /= a(j, j);
            }
            for (index k = j + 1; k < after && j + 1 < n; ++k) {
                add_strided(-a(j, k), &a(j + 1, j), &a(j + 1, k), n - j - 1, a.row_stride(), a.row_stride());
            }
        }
        const dense_view<S> diagonal = a.block(first, first, width, width), below = a.block(after, first, rest, width);
        const auto eliminate = [&](const dense_view<S>& top, const dense_view<S>& bottom) {
            solve_unit_lower(diagonal, top);
            gemm<S, S, S>(S(-1), below, dense_view<const S>(top), bottom, false, nullptr);
        };
        eliminate(a.block(first, after, width, rest), a.block(after, after, rest, rest));
        eliminate(b.middle_rows(first, width), b.middle_rows(after, rest));
    }
    solve_left_upper_of<S>(a, b);
    return true;
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_DENSE_OF(S)                                                                                            \
    template void gemm<S, S, S>(S, const dense_view<const S>&, const dense_view<const S>&, const dense_view<S>&, bool, \
                                workspace*);                                                                           \
    template void gemm_in<S>(S, const dense_view<const S>&, const dense_view<const S>&, const dense_view<S>&,          \
                             workspace&);                                                                              \
    template void gemv<S>(S, const dense_view<const S>&, const S*, index, S*, index);                                  \
    template void symv_lower<S>(S, const dense_view<const S>&, const S*, S*);                                          \
    template S dot_of<S>(const S*, const S*, index);                                                                   \
    template void axpy<S>(S, const S*, S*, index);                                                                     \
    template void rotate<S>(S*, S*, index, S, S);                                                                      \
    template void solve_right_upper_of<S>(const dense_view<const S>&, const dense_view<S>&);                           \
    template bool cholesky_of<S>(const dense_view<S>&);
LOWRANK_DENSE_OF(float)
LOWRANK_DENSE_OF(double)
#undef LOWRANK_DENSE_OF
#define LOWRANK_GEMM_OF(S, TA, TB)                                                                                   \
    template void gemm<S, TA, TB>(S, const dense_view<const TA>&, const dense_view<const TB>&, const dense_view<S>&, \
                                  bool, workspace*);
LOWRANK_GEMM_OF(double, float, float)
LOWRANK_GEMM_OF(double, float, double)
LOWRANK_GEMM_OF(double, double, float)
LOWRANK_GEMM_OF(float, half, float)
LOWRANK_GEMM_OF(float, bfloat16, float)
#undef LOWRANK_GEMM_OF
#define LOWRANK_COPIES_OF(T)                                                 \
    template void copy_into<float, T>(const dense_view<const T>&, float*);   \
    template void copy_into<double, T>(const dense_view<const T>&, double*); \
    template double sum_of_squares<T>(const T*, index, double);              \
    template double frobenius_of<T>(const dense_view<const T>&);             \
    template void add_column_squares<T>(double, const dense_view<const T>&, double*);
LOWRANK_COPIES_OF(float)
LOWRANK_COPIES_OF(double)
LOWRANK_COPIES_OF(half)
LOWRANK_COPIES_OF(bfloat16)
#undef LOWRANK_COPIES_OF
template void solve_left_upper_of<float>(const dense_view<const float>&, const dense_view<float>&);
template void solve_left_upper_of<double>(const dense_view<const double>&, const dense_view<double>&);
template float max_abs_of<float>(const dense_view<const float>&);
template double max_abs_of<double>(const dense_view<const double>&);
template bool solve_of<float>(const dense_view<float>&, const dense_view<float>&);
template bool solve_of<double>(const dense_view<double>&, const dense_view<double>&);
#endif

}  // namespace lowrank::inline LOWRANK_ABI::detail

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#endif  // LOWRANK_CORE_DENSE_IPP
