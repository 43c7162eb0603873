// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_LORA_FORMS_BDLORA_HPP
#define LOWRANK_LORA_KINDS_LORA_FORMS_BDLORA_HPP

/// \file
/// BD-LoRA: LoRA of which one factor is block-diagonal, so that machines that share a layer exchange less.
///
///     auto a = lowrank::make_bdlora<float>(12, 8, {.r = 4, .blocks_B = 2});      // B: two blocks of 6 x 2
///     auto change = a.delta();                                                   // scaling * B A with the whole factors
///
/// Blocks lie below each other (block_diagonal.hpp). Applying multiplies by the blocks alone. Of a layer whose outputs are
/// divided among machines (query, key, value, up, gate) B is block-diagonal, of one whose inputs are (attention's
/// output, down) A.
///
/// Wang et al., Block-Diagonal LoRA for Eliminating Communication Overhead in Tensor Parallel LoRA Serving, arXiv
/// 2510.23346; huggingface/peft.

#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/operator_reference.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/kinds/detail/gradients.hpp>
#include <lowrank/lora/kinds/lora.hpp>
#include <lowrank/lora/new_adapter.hpp>
#include <lowrank/lora/train/dropout.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The change scaling * B A of factors of which each is block-diagonal if it has more than one block.
template <real S>
struct bdlora_adapter {
    using scalar = S;

    matrix<S> lora_A = {};  ///< r x in / blocks_A
    matrix<S> lora_B = {};  ///< out x r / blocks_B
    index blocks_A = 1;
    index blocks_B = 1;
    double lora_alpha = 8;
    bool use_rslora = false;
    double lora_dropout = 0;  ///< Used by training only.

    [[nodiscard]] index rows() const noexcept { return lora_B.rows(); }
    [[nodiscard]] index cols() const noexcept { return lora_A.cols() * blocks_A; }
    [[nodiscard]] index rank() const noexcept { return lora_A.rows(); }
    [[nodiscard]] S scaling() const { return static_cast<S>(lora_scaling(lora_alpha, rank(), use_rslora)); }

    /// left = scaling * B, right = A, with the zeros beside the blocks.
    [[nodiscard]] low_rank<S> delta() const;
};

/// What a new adapter looks like.
struct bdlora_options {
    index r = 8;
    double lora_alpha = 8;
    bool use_rslora = false;
    double lora_dropout = 0;
    index blocks_A = 1;
    index blocks_B = 1;
    std::uint64_t seed = 0;    ///< Same seed and stream, same A, on every machine.
    std::uint64_t stream = 0;  ///< One per layer.
};

/// A new adapter for an out x in weight: A uniform in +-1/sqrt(columns of a block), B zero, so that it changes nothing.
///
/// \pre blocks_A divides r and in, blocks_B out and r.
template <real S>
[[nodiscard]] bdlora_adapter<S> make_bdlora(index out, index in, const bdlora_options& options = {});

/// The blocks, multiplied with.
template <real S>
class applied_bdlora : public detail::with_factor_gradient<S> {
public:
    using scalar = S;
    static constexpr bool additive = true;
    using gradient = lora_gradient<S>;

    explicit applied_bdlora(bdlora_adapter<S> a);

    bdlora_adapter<S> adapter;

    [[nodiscard]] index rows() const { return adapter.rows(); }
    [[nodiscard]] index cols() const { return adapter.cols(); }
    [[nodiscard]] weight_change<S> change() const { return adapter.delta(); }
    void refresh(operator_reference<S> /*base*/) {}

    [[nodiscard]] gradient zero_gradient() const;

    void add_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y, workspace& ws,
                     const dropout_key& key) const;
    void add_transposed_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y,
                                workspace& ws) const;
    void backward(operator_reference<S> base, S alpha, const_column_view<S> x, const_column_view<S> dy, gradient& g,
                  column_view<S>* dx, workspace& ws, const dropout_key& key) const;
};

/// Two factors, named as in PEFT.
template <real S>
struct adapter_kind<bdlora_adapter<S>> {
    static constexpr std::string_view name = "bdlora";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("lora_A.weight"), a.lora_A);
        f(std::string_view("lora_B.weight"), a.lora_B);
    }
    static double dropout(const bdlora_adapter<S>& a) { return a.lora_dropout; }
    static bool permute_rows(bdlora_adapter<S>& a, std::span<const index> rows) {
        return a.blocks_B == 1 && detail::permute_rows(a.lora_B, rows);
    }
    /// Two blocks if they divide the rank and every layer: of A where a feed-forward block ends, else of B.
    static auto maker(const adapted_layers& all, const lora_options& options) {
        const index blocks = options.r % 2 == 0 && all.common_size() % 2 == 0 ? 2 : 1;
        return [options, blocks](const target_layer<S>& layer) {
            return make_bdlora<S>(layer.base.rows(), layer.base.cols(),
                                  {.r = options.r,
                                   .lora_alpha = options.lora_alpha,
                                   .use_rslora = options.use_rslora,
                                   .lora_dropout = options.lora_dropout,
                                   .blocks_A = layer.is_feedforward ? blocks : 1,
                                   .blocks_B = layer.is_feedforward ? 1 : blocks,
                                   .seed = options.seed,
                                   .stream = layer.number});
        };
    }
    using applied = applied_bdlora<S>;
};

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/kinds/lora_forms/bdlora.ipp>
#endif

#endif  // LOWRANK_LORA_KINDS_LORA_FORMS_BDLORA_HPP
