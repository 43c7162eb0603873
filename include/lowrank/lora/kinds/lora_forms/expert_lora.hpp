// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_LORA_FORMS_EXPERT_LORA_HPP
#define LOWRANK_LORA_KINDS_LORA_FORMS_EXPERT_LORA_HPP

/// \file
/// LoRA of a stack of experts, the 3-D weight of a mixture of experts: W_e' = W_e + scaling B_e A_e for each expert e.
///
///     auto stack = lowrank::make_expert_lora<float>(8, out, in, {.r = 4});
///     lowrank::any_adapter<float> third = stack.expert(2);           // applies and trains as any LoRA
///     stack.put_expert(2, *third.get<lowrank::lora_adapter<float>>());
///
/// Experts lie in the factors as in PEFT's target_parameters: slow in the rows of A, fast in the columns of B.

#include <span>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/lora/change.hpp>
#include <lowrank/lora/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A matrix that is zero but for products of two factors in some blocks of it; a `row_source`.
template <real S>
struct product_blocks {
    struct block {
        index row = 0;  ///< Of the matrix, where the product begins.
        index col = 0;
        low_rank<S> product = {};
    };
    index row_count = 0;
    index col_count = 0;
    std::vector<block> blocks = {};

    [[nodiscard]] index rows() const noexcept { return row_count; }
    [[nodiscard]] index cols() const noexcept { return col_count; }
    void add_rows(double factor, index first, column_view<double> to) const;
};

/// How a checkpoint stores the experts of a stack.
enum class expert_layout {
    out_by_in,  ///< experts x out x in
    in_by_out,  ///< experts x in x out
};

/// The changes scaling B_e A_e (out x in) of a stack of experts, all of one rank r.
template <real S>
struct expert_lora {
    using scalar = S;

    index experts = 1;
    matrix<S> lora_A = {};  ///< (experts r) x in: rows e r ... are A_e.
    matrix<S> lora_B = {};  ///< out x (r experts): column k experts + e is column k of B_e.
    double lora_alpha = 8;
    bool use_rslora = false;

    [[nodiscard]] index rows() const noexcept { return lora_B.rows(); }
    [[nodiscard]] index cols() const noexcept { return lora_A.cols(); }
    /// Of each expert.
    [[nodiscard]] index rank() const noexcept { return lora_A.rows() / experts; }

    /// LoRA of one expert. \pre 0 <= e < experts. \cost copies its factors.
    [[nodiscard]] lora_adapter<S> expert(index e) const;
    /// Puts the factors of one expert, or a gradient of them, into the stack.
    /// \pre they have the shapes of the stack's; 0 <= e < experts.
    void put_expert(index e, const matrix<S>& a, const matrix<S>& b);
    void put_expert(index e, const lora_adapter<S>& lora) { put_expert(e, lora.lora_A, lora.lora_B); }

    /// What it does to the stack, seen as one matrix of (experts out) x in, or of (experts in) x out.
    /// \cost copies the factors.
    [[nodiscard]] added_rows_change change(expert_layout layout = expert_layout::out_by_in) const;
};

/// A new adapter that changes nothing yet, as `make_lora` makes them: A uniform in +-1/sqrt(in), B zero.
/// \pre experts >= 1, and as `make_lora`; no dropout, which has no place for a stack.
template <real S>
[[nodiscard]] expert_lora<S> make_expert_lora(index experts, index out, index in, const lora_options& options = {});

/// The experts of a stack, each with its LoRA. \pre there is one; all have the same shapes, rank and scaling.
template <real S>
[[nodiscard]] expert_lora<S> stack_experts(std::span<const lora_adapter<S>> experts);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/kinds/lora_forms/expert_lora.ipp>
#endif

#endif  // LOWRANK_LORA_KINDS_LORA_FORMS_EXPERT_LORA_HPP
