// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_LORA_FORMS_ALORA_HPP
#define LOWRANK_LORA_KINDS_LORA_FORMS_ALORA_HPP

/// \file
/// aLoRA: a LoRA that applies from the last occurrence of its invocation tokens on, so that what comes before can share
/// the base's KV cache.
///
///     lowrank::alora_adapter<float> a{.lora = adapter, .invocation_tokens = {1, 529, 7}};
///     const std::vector<std::int64_t> ids = {5, 1, 529, 7, 9};
///     const lowrank::index starts[] = {lowrank::alora_start(ids, a.invocation_tokens)};   // ids.size(): nowhere
///     lowrank::alora_forward<float>(a, 1.0F, starts, x, y, ws);     // columns before its row's start stay the base's
///
/// Greenewald et al., arXiv 2504.12397; the same columns as PEFT's `alora_offsets`. It cannot be merged: `merge` with
/// it does not compile.

#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/kinds/lora.hpp>
#include <lowrank/lora/merge/merge.hpp>
#include <lowrank/lora/train/dropout.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A LoRA and the tokens that switch it on.
template <real S>
struct alora_adapter {
    using scalar = S;

    lora_adapter<S> lora = {};
    std::vector<std::int64_t> invocation_tokens = {};
};

/// The first token of the last occurrence of `invocation` in `tokens`; tokens.size() where there is none.
/// \pre `invocation` is not empty.
LOWRANK_API [[nodiscard]] index alora_start(std::span<const std::int64_t> tokens,
                                            std::span<const std::int64_t> invocation);

/// PEFT's `alora_offsets` entry of a start: tokens from there to the end; 0 stands for its None.
[[nodiscard]] inline index alora_offset(index start, index length) { return length - start; }

/// Y += strength * scaling * B A drop(X) on the active columns: row i of the batch is n / rows columns after each
/// other, active from position starts[i] on. Other columns are not touched.
///
/// `position` is where in their sequences the columns begin: 0 for a whole prompt, t for the token decoded at t.
template <real S>
void alora_forward(const alora_adapter<S>& adapter, std::type_identity_t<S> strength, std::span<const index> starts,
                   std::type_identity_t<const_column_view<S>> x, std::type_identity_t<column_view<S>> y, workspace& ws,
                   index position = 0, const dropout_key& key = {});

/// Adds the gradients of `alora_forward`; only active columns contribute. `dx` may be null.
template <real S>
void alora_backward(const alora_adapter<S>& adapter, std::type_identity_t<S> strength, std::span<const index> starts,
                    std::type_identity_t<const_column_view<S>> x, std::type_identity_t<const_column_view<S>> dy,
                    lora_gradient<S>& gradient, std::type_identity_t<column_view<S>>* dx, workspace& ws,
                    index position = 0, const dropout_key& key = {});

/// Refuses to compile: a merged weight would act on every token.
template <storage T, real S>
result<merge_receipt> merge(weight_view<T>, const alora_adapter<S>&) {
    static_assert(sizeof(S) == 0, "an aLoRA cannot be merged: it acts only after its invocation tokens");
    return status{};
}

/// The factors of LoRA. Through `any_adapter` it acts on every column that it is given: those from its invocation on.
template <real S>
struct adapter_kind<alora_adapter<S>> {
    static constexpr std::string_view name = "alora";
    static constexpr std::string_view not_merged =
        "an aLoRA cannot be merged: it acts only after its invocation tokens";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        adapter_kind<lora_adapter<S>>::visit(a.lora, f);
    }
    static const lora_adapter<S>* lora(const alora_adapter<S>& a) { return &a.lora; }
    static double dropout(const alora_adapter<S>& a) { return a.lora.lora_dropout; }
    static bool permute_rows(alora_adapter<S>& a, std::span<const index> rows) {
        return detail::permute_rows(a.lora.lora_B, rows);
    }
    using applied = applied_lora<S, alora_adapter<S>>;
};

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/kinds/lora_forms/alora.ipp>
#endif

#endif  // LOWRANK_LORA_KINDS_LORA_FORMS_ALORA_HPP
