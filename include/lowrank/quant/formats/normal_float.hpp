// SPDX-License-Identifier: MIT
#ifndef LOWRANK_QUANT_FORMATS_NORMAL_FLOAT_HPP
#define LOWRANK_QUANT_FORMATS_NORMAL_FLOAT_HPP

/// \file
/// NormalFloat: 2, 4 or 8 bits per weight, levels at quantiles of the normal distribution, one scale per block.
///
///     auto q = lowrank::quantize_normal_float(w, {.bits = 4});
///     lowrank::row_matrix<float> back = q.dense();         // what the model computes with
///
/// Blocks are consecutive elements in row-major order; an element becomes the level nearest to x / max |x| of its
/// block, the lower one at ties. Codes lie two (four, one) to a byte, the first in the low bits.
///
/// Dettmers et al., QLoRA, arXiv 2305.14314 (NF4). Tables and codes as the quantizer of LoftQ computes them.

#include <cstdint>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The 2^bits levels, ascending, from -1 to 1 with 0 among them, one more above zero than below.
/// \pre 2 <= bits <= 8
LOWRANK_API [[nodiscard]] std::vector<float> normal_float_levels(int bits);

struct normal_float_options {
    int bits = 4;      ///< 2, 4 or 8.
    index block = 64;  ///< Elements that share a scale.
};

/// A weight in codes and scales. An element is levels[code] * scales[its block].
struct normal_float_matrix {
    index rows = 0;
    index cols = 0;
    normal_float_options options = {};
    std::vector<float> levels = {};
    std::vector<float> scales = {};         ///< max |x| of each block
    std::vector<std::uint8_t> packed = {};  ///< codes, 8 / bits to a byte

    /// The code of the element at a row-major position.
    LOWRANK_API [[nodiscard]] unsigned code(index position) const;

    /// rows x cols.
    LOWRANK_API [[nodiscard]] row_matrix<float> dense() const;
};

namespace detail {

template <real S>
[[nodiscard]] normal_float_matrix quantize_normal_float_of(const row_matrix<S>& x, const normal_float_options& options);

}  // namespace detail

/// The nearest levels, block by block; the last block may be shorter. Blocks of zeros have scale 0.
///
/// \pre  bits is 2, 4 or 8, block >= 1; W is finite.
/// \note Bit-equal on every machine for float weights.
template <detail::eigen_dense D>
[[nodiscard]] normal_float_matrix quantize_normal_float(const D& w, const normal_float_options& options = {}) {
    using S = compute_t<typename D::Scalar>;
    return detail::quantize_normal_float_of<S>(row_matrix<S>(w.template cast<S>()), options);
}

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/quant/formats/normal_float.ipp>
#endif

#endif  // LOWRANK_QUANT_FORMATS_NORMAL_FLOAT_HPP
