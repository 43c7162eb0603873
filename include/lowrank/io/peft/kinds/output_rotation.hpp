// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_KINDS_OUTPUT_ROTATION_HPP
#define LOWRANK_IO_PEFT_KINDS_OUTPUT_ROTATION_HPP

/// \file
/// A rotation of a layer's outputs, as LyCORIS has it, where PEFT turns the inputs.
///
///     const lowrank::output_rotation a{.blocks = blocks, .block_count = 4};       // W' = blockdiag(R_k)^T W
///     auto rotated = lowrank::apply(a.rotation(), lowrank::matrix<double>(64, 8));
///
/// KohakuBlueleaf/LyCORIS, modules/diag_oft.py and the butterfly beside it; names in files: kinds/oft.hpp.

#include <cstddef>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/lora/algebra/block_rotation.hpp>
#include <lowrank/lora/change.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// W' = diag(rescale) G W with an orthogonal G of the outputs. With Q = B - B^T of a block B, shortened together to the
/// length constraint * out, and R = (I + Q)(I - Q)^-1: G = blockdiag(R_k)^T ("diag-oft"), or the product
/// G_{m-1} ... G_0 of block-diagonal factors blockdiag(R_ik) on butterfly orders of the outputs.
struct output_rotation {
    matrix<float> blocks = {};  ///< (factors * block_count * b) x b, the blocks B below each other
    index block_count = 0;
    bool is_butterfly = false;
    vector<float> rescale = {};          ///< out; empty: none
    double constraint = 0;               ///< LyCORIS stores it as alpha; 0: none
    std::size_t rescale_dimensions = 2;  ///< 4 for a 2-d convolution: [out, 1, 1, 1]

    [[nodiscard]] index block_size() const noexcept { return blocks.cols(); }
    [[nodiscard]] index out() const noexcept { return block_count * block_size(); }
    [[nodiscard]] index factor_count() const noexcept { return out() == 0 ? 0 : blocks.rows() / out(); }

    /// True if the blocks are those of a layer: whole factors, and of several an even b with b 2^(m-1) dividing out.
    [[nodiscard]] bool is_valid() const {
        const index b = block_size();
        const index m = factor_count();
        return b >= 1 && block_count >= 1 && blocks.rows() == m * out() && (is_butterfly || m == 1) && m >= 1 &&
               m < 62 && (!is_butterfly || (b % 2 == 0 && b <= out() >> (m - 1) && out() % (b << (m - 1)) == 0)) &&
               (rescale.size() == 0 || rescale.size() == out());
    }

    /// G. \pre is_valid(). \cost b^3 a block, in double.
    LOWRANK_API [[nodiscard]] block_rotation<double> rotation() const;

private:
    LOWRANK_API [[nodiscard]] matrix<double> skew(index first) const;
    LOWRANK_API [[nodiscard]] std::vector<index> butterfly_index(index i) const;
};

namespace detail {

/// The map of the columns of W (the rows of its transpose), as `row_transform`.
LOWRANK_API [[nodiscard]] any_row_transform rotate_outputs(const output_rotation& a);

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/io/peft/kinds/output_rotation.ipp>
#endif

#endif  // LOWRANK_IO_PEFT_KINDS_OUTPUT_ROTATION_HPP
