// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_LAYERS_CONV_HPP
#define LOWRANK_LORA_LAYERS_CONV_HPP

/// \file
/// Convolutions in one to three dimensions as linear operators on patches, so that every adapter of a linear layer serves
/// them.
///
///     const lowrank::conv_geometry g{.kernel = {1, 3, 3}, .stride = {1, 2, 2}, .padding = {0, 1, 1}};
///     lowrank::unfold<float>(g, image, {1, 32, 32}, x);         // in * 3 * 3 rows, one column per output position
///     auto y = lowrank::apply(w, x);                            // any linear operator: base, adapted, merged
///
/// A weight (out, in / groups, kd, kh, kw) is, as it lies in memory, the out x (in / groups * kd * kh * kw) matrix that
/// multiplies patches; LoRA's A (r, in, k...) and B (out, r, 1...) are the factors of its change. Dilation, padding
/// modes and groups belong to the geometry, so an adapter cannot lose them.

#include <array>
#include <cstddef>
#include <type_traits>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Depth, height, width. Fewer dimensions: the first ones are 1.
using extent3 = std::array<index, 3>;

/// What lies outside the image.
enum class padding_mode {
    zeros,
    reflect,    ///< mirrored without repeating the border
    replicate,  ///< the border, repeated
    circular,   ///< the other side
};

/// How a kernel moves over an image; PyTorch's meaning of each word.
struct conv_geometry {
    extent3 kernel = {1, 1, 1};
    extent3 stride = {1, 1, 1};
    extent3 padding = {0, 0, 0};
    extent3 dilation = {1, 1, 1};
    padding_mode mode = padding_mode::zeros;

    [[nodiscard]] index kernel_size() const noexcept { return kernel[0] * kernel[1] * kernel[2]; }

    /// floor((size + 2 padding - dilation (kernel - 1) - 1) / stride) + 1 in each dimension.
    LOWRANK_API [[nodiscard]] extent3 output_size(const extent3& size) const;
};

/// Copies the patch under each output position into a column: row c * kernel_size + tap, column position.
///
/// `image` holds one channel per column, which is the (channels, d, h, w) array of an engine as it lies.
/// \pre Shapes agree.
template <real S>
void unfold(const conv_geometry& g, std::type_identity_t<const_column_view<S>> image, const extent3& size,
            std::type_identity_t<column_view<S>> patches);

/// image += unfold^T patches: sums what every patch says about each pixel. The gradient of the input.
template <real S>
void add_folded(const conv_geometry& g, std::type_identity_t<const_column_view<S>> patches, const extent3& size,
                std::type_identity_t<column_view<S>> image);

/// The weight of a grouped convolution (or any block-diagonal weight) as a linear operator: rows of group g see only
/// the inputs of group g. The memory must outlive the map.
template <storage T>
class grouped_operator {
public:
    using scalar = compute_t<T>;

    /// `w` is out x (inputs per group). \pre groups divides out.
    grouped_operator(const_weight_view<T> w, index groups) : w_(w), groups_(groups) {
        detail::expects(groups >= 1 && w.rows() % groups == 0, "grouped_operator: groups must divide the rows");
    }

    [[nodiscard]] index rows() const noexcept { return w_.rows(); }
    [[nodiscard]] index cols() const noexcept { return w_.cols() * groups_; }

    void add_product(scalar alpha, const_column_view<scalar> x, column_view<scalar> y, workspace& ws) const;
    void add_transposed_product(scalar alpha, const_column_view<scalar> x, column_view<scalar> y, workspace& ws) const;

private:
    [[nodiscard]] const_weight_view<T> part(index g) const;

    const_weight_view<T> w_;
    index groups_;
};

/// A block-diagonal factor written out: the out x (r / groups) B of a grouped convolution becomes out x r, with which
/// the adapter is an ordinary one.
template <real S>
[[nodiscard]] matrix<S> expand_groups(const matrix<S>& compact, index groups);

/// Reads the blocks back: the gradient of the compact factor from that of the expanded one.
template <real S>
[[nodiscard]] matrix<S> collect_groups(const matrix<S>& full, index groups);

/// dW of Y = W X for a weight whose rows of group g see the inputs of group g: blocks of dY X^T.
template <real S>
[[nodiscard]] row_matrix<S> weight_gradient(const matrix<S>& x, const matrix<S>& dy, index groups = 1);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/layers/conv.ipp>
#endif

#endif  // LOWRANK_LORA_LAYERS_CONV_HPP
