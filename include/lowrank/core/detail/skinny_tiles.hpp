// SPDX-License-Identifier: MIT
#ifndef LOWRANK_CORE_DETAIL_SKINNY_TILES_HPP
#define LOWRANK_CORE_DETAIL_SKINNY_TILES_HPP

/// \file
/// The register tiles of the skinny product, on Eigen's portable packets: the only code that runs once per flop.
///
///     lowrank::detail::multiply_tile<12, 2>(1.0F, r, stride, one, depth, x, width, out, 64, false, ahead);
///
/// A tile keeps rows x packets sums in registers: 12 x 2 or 8 x 3 of 32 registers, 6 x 2 or 4 x 3 of 16. 24 fused
/// multiply-adds then need 14 or 11 loads, which two load ports deliver. docs/kernel.md has the pictures.

#include <type_traits>
#include <utility>

#include <Eigen/Core>

#include <lowrank/core/config.hpp>
#include <lowrank/core/packets.hpp>
#include <lowrank/core/types.hpp>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wignored-attributes"  // a packet as a template argument, on purpose
#endif

namespace lowrank::inline LOWRANK_ABI::detail {

inline constexpr bool many_registers = EIGEN_ARCH_DEFAULT_NUMBER_OF_REGISTERS >= 32;

/// Rows and packets of a full tile of R X, and of R^T X.
inline constexpr int along_rows = many_registers ? 12 : 6, along_packets = 2;
inline constexpr int across_rows = many_registers ? 8 : 4, across_packets = 3;

/// Scalars in one cache line.
template <class T>
inline constexpr index line = 64 / static_cast<index>(sizeof(T));

/// Asks for the cache line at `p`, into the second level; any address is fine.
inline void prefetch(const void* p) noexcept {
#if defined(__GNUC__) || defined(__clang__)
    __builtin_prefetch(p, 0, 2);
#else
    (void)p;
#endif
}

/// Walks over the cache lines of a block, row after row, and asks for them a few at a time while tiles compute.
///
/// Along a row the lines are consecutive, so that the hardware sees a stream and runs ahead of us. A core has few line
/// buffers for what we ask for ourselves, so a tile asks for `pace` lines with each line of its own depth, spread out.
template <class T>
struct fetch_cursor {
    const T* row = nullptr;  ///< first scalar of the row
    index stride = 0;
    index rows = 0;    ///< rows left, this one included
    index length = 0;  ///< scalars in a row
    index at = 0;      ///< next scalar
    index pace = 0;

    /// Called at step `q` of each line of depth.
    void step(index q, index steps) noexcept {
        for (; q < pace && rows > 0; q += steps) {
            prefetch(row + at);
            at += line<T>;
            if (at >= length) {
                at = 0;
                row += stride;
                --rows;
            }
        }
    }
};

/// Where the hardware sees the streams by itself.
struct fetch_nothing {
    static void step(index, index) noexcept {}
};

/// A step between scalars that is known when the tile is compiled.
template <index Step>
inline constexpr std::integral_constant<index, Step> fixed{};

/// out(i, :) = [out(i, :) +] alpha sum_p r(i, p) x(p, :) for `Rows` rows r, `Packets` packets wide, p < depth.
///
/// r(i, p) is r[i * row_step + p * depth_step], of which the steps may be constants (`fixed`); x holds depth rows of
/// Packets * lanes scalars, x_step apart. Each scalar of r is broadcast against packets of x. Meanwhile `ahead` goes on
/// fetching. A sum is cut into `Ways` that are added at the end: 1, 2 or 4. With one, a row has the same bits in any tile.
template <int Rows, int Packets, int Ways = 1, real S, class RowStep, class DepthStep, class Fetch, class Width>
void multiply_tile(S alpha, const S* r, RowStep row_step, DepthStep depth_step, index depth, const S* x, Width x_step,
                   S* out, index out_stride, bool accumulate, Fetch& ahead) noexcept {
    using P = packet_of<S>;
    using namespace Eigen::internal;
    P sum[array_extent<Ways>][array_extent<Rows>][array_extent<Packets>];
    unroll<Ways>([&](auto w) LOWRANK_FORCE_INLINE {
        unroll<Rows>([&](auto i) LOWRANK_FORCE_INLINE {
            unroll<Packets>([&](auto v) LOWRANK_FORCE_INLINE { sum[w][i][v] = pset1<P>(S(0)); });
        });
    });
    const auto step = [&](index p, auto w) LOWRANK_FORCE_INLINE {
        P xs[array_extent<Packets>];
        unroll<Packets>([&](auto v) LOWRANK_FORCE_INLINE { xs[v] = ploadu<P>(x + p * x_step + v * lanes<S>); });
        unroll<Rows>([&](auto i) LOWRANK_FORCE_INLINE {
            const P b = pset1<P>(r[i * row_step + p * depth_step]);
            unroll<Packets>([&](auto v) LOWRANK_FORCE_INLINE { sum[w][i][v] = pmadd(b, xs[v], sum[w][i][v]); });
        });
    };
    index p = 0;
    for (; p + line<S> <= depth; p += line<S>) {
        for (index q = 0; q < line<S>; q += Ways) {
            ahead.step(q, line<S>);
            unroll<Ways>([&](auto w) LOWRANK_FORCE_INLINE { step(p + q + w, w); });
        }
    }
    for (; p < depth; ++p) {
        step(p, std::integral_constant<int, 0>());
    }
    const P factor = pset1<P>(alpha);
    unroll<Rows>([&](auto i) LOWRANK_FORCE_INLINE {
        unroll<Packets>([&](auto v) LOWRANK_FORCE_INLINE {
            P total = sum[0][i][v];
            if constexpr (Ways > 1) {
                total = padd(total, sum[1][i][v]);
            }
            if constexpr (Ways > 2) {
                total = padd(total, padd(sum[2][i][v], sum[3][i][v]));
            }
            S* to = out + i * out_stride + v * lanes<S>;
            pstoreu(to, accumulate ? pmadd(factor, total, ploadu<P>(to)) : pmul(factor, total));
        });
    });
}

}  // namespace lowrank::inline LOWRANK_ABI::detail

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#endif  // LOWRANK_CORE_DETAIL_SKINNY_TILES_HPP
