// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_CONV_LORA_HPP
#define LOWRANK_LORA_KINDS_CONV_LORA_HPP

/// \file
/// loralib's ConvLoRA: the product B A read again, row by row, as a weight of the convolution's shape.
///
///     lowrank::conv_lora_adapter<float> a{.lora_A = lora_A, .lora_B = lora_B, .rows = out, .cols = in, .r = 4};
///     w += a.dense_delta();                            // scaling * reshape(B A); cols: in / groups * kernel size
///
/// A is (r k) x (in k) and B (out / groups k) x (r k). The reshape is not a product of small factors of the weight's
/// own shape (its rank as an out x in k k matrix is not r), so this adapter is applied and merged through its dense
/// change.

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/lora/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// dW of Y = W X for a weight whose rows of group g see the inputs of group g: blocks of dY X^T.
template <real S>
[[nodiscard]] row_matrix<S> weight_gradient(const matrix<S>& x, const matrix<S>& dy, index groups = 1) {
    detail::expects(groups >= 1 && x.rows() % groups == 0 && dy.rows() % groups == 0,
                    "weight_gradient: groups must divide inputs and outputs");
    detail::expects_shape("weight_gradient", "dy", dy.rows(), dy.cols(), dy.rows(), x.cols());
    const index in = x.rows() / groups;
    const index out = dy.rows() / groups;
    row_matrix<S> g(dy.rows(), in);
    for (index k = 0; k < groups; ++k) {
        g.middleRows(k * out, out).noalias() = dy.middleRows(k * out, out) * x.middleRows(k * in, in).transpose();
    }
    return g;
}

/// The change scaling * reshape(B A) of a rows x cols weight, reshaped in row-major order.
template <real S>
struct conv_lora_adapter {
    using scalar = S;

    matrix<S> lora_A = {};
    matrix<S> lora_B = {};
    index rows = 0;  ///< out
    index cols = 0;  ///< in / groups * kernel size
    index r = 8;     ///< of the scaling; the inner dimension is r times the kernel's edge
    double lora_alpha = 8;

    [[nodiscard]] S scaling() const { return static_cast<S>(lora_scaling(lora_alpha, r, false)); }

    /// \pre B A has rows * cols entries.
    [[nodiscard]] row_matrix<S> dense_delta() const {
        check();
        const row_matrix<S> product = scaling() * (lora_B * lora_A);
        return Eigen::Map<const row_matrix<S>>(product.data(), rows, cols);
    }

    /// Gradients of A and B from that of the weight.
    [[nodiscard]] conv_lora_adapter pull_back(const row_matrix<S>& weight_gradient) const {
        check();
        detail::expects_shape("conv_lora_adapter::pull_back", "weight_gradient", weight_gradient.rows(),
                              weight_gradient.cols(), rows, cols);
        const Eigen::Map<const row_matrix<S>> g(weight_gradient.data(), lora_B.rows(), lora_A.cols());
        return {.lora_A = scaling() * (lora_B.transpose() * g),
                .lora_B = scaling() * (g * lora_A.transpose()),
                .rows = rows,
                .cols = cols,
                .r = r,
                .lora_alpha = lora_alpha};
    }

private:
    void check() const {
        detail::expects(lora_A.rows() == lora_B.cols() && lora_B.rows() * lora_A.cols() == rows * cols,
                        "conv_lora_adapter: B A must have as many entries as the weight");
    }
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_CONV_LORA_HPP
