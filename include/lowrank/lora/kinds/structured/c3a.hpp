// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_STRUCTURED_C3A_HPP
#define LOWRANK_LORA_KINDS_STRUCTURED_C3A_HPP

/// \file
/// C3A: the change is made of circulant blocks, each a circular convolution with a kernel of b numbers.
///
///     auto a = lowrank::make_c3a<float>(out, in, {.block_size = 64});       // zero: changes nothing yet
///     lowrank::workspace ws;
///     a.add_product(1.0F, x, y, ws);                                        // y += change x; no block is formed
///
/// Chen et al., Parameter-Efficient Fine-Tuning via Circular Convolution, arXiv 2407.19342; parameters as in PEFT. The
/// rank can be full with out in / b parameters. Blocks are multiplied with as they are, not by a Fourier transform.

#include <string_view>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/change.hpp>
#include <lowrank/lora/new_adapter.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// PEFT's default.
struct c3a_options {
    index block_size = 256;
};

/// The change D with D(i b + p, j b + q) = kernel_ij((q - p) mod b) / in, an `operator_adapter`.
template <real S>
struct c3a_adapter {
    using scalar = S;

    matrix<S> c3a_kernel = {};  ///< (out / b * in / b) x b: that of block (i, j) is row i in / b + j
    index out = 0;
    index in = 0;

    [[nodiscard]] index rows() const noexcept { return out; }
    [[nodiscard]] index cols() const noexcept { return in; }
    [[nodiscard]] index block_size() const noexcept { return c3a_kernel.cols(); }

    /// b divides both dimensions, and there is a kernel for each block: what all of the following expect.
    void check() const;

    /// Y += alpha D X. \cost 2 out in flops for each column, as of a dense change; scratch: a copy of X and 2 b.
    void add_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const;
    /// Y += alpha D^T X.
    void add_transposed_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const;
    /// d kernel_ij(m) = sum over p and the columns of dY(i b + p) X(j b + (p + m) mod b) / in. \cost As two products.
    void backward(const_column_view<S> x, const_column_view<S> dy, c3a_adapter& gradient, column_view<S>* dx,
                  workspace& ws) const;

    /// W + D.
    [[nodiscard]] weight_change<S> change() const;
    /// Adds rows first, first + 1, ... of D, one a column, times a factor.
    void add_rows(double factor, index first, column_view<double> to) const;
};

/// A new adapter for an out x in weight: zero, so that it changes nothing yet. \pre block_size divides out and in.
template <real S>
[[nodiscard]] c3a_adapter<S> make_c3a(index out, index in, const c3a_options& options = {});

/// The smallest common divisor b of out and in with which the kernels are no more numbers than the factors of LoRA of
/// rank r; the greatest one if there is none.
LOWRANK_API [[nodiscard]] index c3a_block_size(index out, index in, index r);

/// One kernel for each block.
template <real S>
struct adapter_kind<c3a_adapter<S>> {
    static constexpr std::string_view name = "c3a";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("c3a_kernel"), a.c3a_kernel);
    }
    static constexpr double learning_rate = 1e-1;  // of numbers that are divided by the inputs
    static auto maker(const adapted_layers& /*all*/, const lora_options& options) {
        return [r = options.r](const target_layer<S>& layer) {
            const index out = layer.base.rows();
            const index in = layer.base.cols();
            return make_c3a<S>(out, in, {.block_size = c3a_block_size(out, in, r)});
        };
    }
    using applied = applied_operator<c3a_adapter<S>>;
};

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/kinds/structured/c3a.ipp>
#endif

#endif  // LOWRANK_LORA_KINDS_STRUCTURED_C3A_HPP
