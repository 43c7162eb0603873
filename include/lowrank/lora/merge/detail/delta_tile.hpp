// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_MERGE_DETAIL_DELTA_TILE_HPP
#define LOWRANK_LORA_MERGE_DETAIL_DELTA_TILE_HPP

/// \file
/// A low-rank product, a few rows and columns at a time, with the same bits every time.
///
///     delta_tiles<float> tiles(delta);
///     tiles.select_columns(first, count);
///     const double* d = tiles.rows(i, 4);               // d[r * tiles.stride() + j]
///
/// Each entry is a sum over the inner dimension in ascending order, in double. For float factors each product is
/// exact in double, so that a fused multiply-add and a separate multiply and add agree: the bits are the same for every
/// compiler and machine. For double factors they are the same for one binary.

#include <algorithm>
#include <cstddef>
#include <vector>

#include <Eigen/Core>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/low_rank.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

template <real S>
class delta_tiles {
public:
    static constexpr index rows_at_once = 4;

    /// Borrows `delta`.
    explicit delta_tiles(const low_rank<S>& delta) : left_(delta.left), right_(delta.right) {}

    /// Distance between two rows of a tile.
    [[nodiscard]] index stride() const noexcept { return stride_; }

    /// The following calls of `rows` produce columns first .. first + count - 1.
    void select_columns(index first, index count) {
        const index k = right_.rows();
        stride_ = (count + step - 1) / step * step;
        packed_.assign(static_cast<std::size_t>(k * stride_), 0.0);
        for (index j = 0; j < count; ++j) {
            for (index i = 0; i < k; ++i) {
                packed_[static_cast<std::size_t>(i * stride_ + j)] = static_cast<double>(right_(i, first + j));
            }
        }
        tile_.assign(static_cast<std::size_t>(rows_at_once * stride_), 0.0);
        panel_.assign(static_cast<std::size_t>(rows_at_once * k), 0.0);
    }

    /// Rows first .. first + count - 1 of the selected columns, count <= rows_at_once; valid until the next call.
    const double* rows(index first, index count) {
        const index k = right_.rows();
        for (index i = 0; i < k; ++i) {
            for (index r = 0; r < rows_at_once; ++r) {
                panel_[static_cast<std::size_t>(i * rows_at_once + r)] =
                    r < count ? static_cast<double>(left_(first + r, i)) : 0.0;
            }
        }
        if (k == 0) {
            std::fill(tile_.begin(), tile_.end(), 0.0);
            return tile_.data();
        }
        for (index j = 0; j < stride_; j += step) {
            multiply(j, k);
        }
        return tile_.data();
    }

private:
    using packet = typename Eigen::internal::packet_traits<double>::type;
    static constexpr index width = Eigen::internal::packet_traits<double>::size;
    static constexpr index step = 2 * width;

    /// Columns j .. j + step - 1 of all rows of the tile: eight accumulators in registers.
    void multiply(index j, index k) {
        using Eigen::internal::pmadd;
        using Eigen::internal::pset1;
        packet sum[rows_at_once][2];
        for (auto& row : sum) {
            row[0] = row[1] = pset1<packet>(0.0);
        }
        const double* l = panel_.data();
        const double* r = packed_.data() + j;
        for (index i = 0; i < k; ++i, l += rows_at_once, r += stride_) {
            const packet r0 = Eigen::internal::ploadu<packet>(r);
            const packet r1 = Eigen::internal::ploadu<packet>(r + width);
            for (index row = 0; row < rows_at_once; ++row) {
                const packet factor = pset1<packet>(l[row]);
                sum[row][0] = pmadd(factor, r0, sum[row][0]);
                sum[row][1] = pmadd(factor, r1, sum[row][1]);
            }
        }
        double* out = tile_.data() + j;
        for (index row = 0; row < rows_at_once; ++row, out += stride_) {
            Eigen::internal::pstoreu(out, sum[row][0]);
            Eigen::internal::pstoreu(out + width, sum[row][1]);
        }
    }

    const_column_view<S> left_;
    const_column_view<S> right_;
    index stride_ = 0;
    std::vector<double> packed_ = {};  ///< the selected columns of the right factor, row by row
    std::vector<double> panel_ = {};   ///< rows_at_once rows of the left factor, column by column
    std::vector<double> tile_ = {};
};

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_MERGE_DETAIL_DELTA_TILE_HPP
