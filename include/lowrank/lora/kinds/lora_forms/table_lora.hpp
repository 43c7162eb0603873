// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_LORA_FORMS_TABLE_LORA_HPP
#define LOWRANK_LORA_KINDS_LORA_FORMS_TABLE_LORA_HPP

/// \file
/// LoRA of an embedding table as an adapter of the table as it is stored, one row a token: W' = W + scaling (B A)^T.
///
///     lowrank::any_adapter<float> a = lowrank::table_lora_adapter<float>{.lora = adapter};    // A r x num, B dim x r
///     auto receipt = lowrank::merge(lowrank::weight_view<float>(table), a);                   // num x dim
///     lowrank::embedding_forward(adapter, 1.0F, ids, y, ws);                                  // layers/embedding.hpp

#include <span>
#include <string_view>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/lora/adapter.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The change scaling (B A)^T of a num x dim table; a `factored_adapter`.
template <real S>
struct table_lora_adapter {
    using scalar = S;

    lora_adapter<S> lora = {};  ///< A is r x num, B dim x r.

    /// left = A^T, right = scaling B^T.
    [[nodiscard]] low_rank<S> delta() const;
    /// dA = dL^T, dB = scaling dR^T.
    [[nodiscard]] table_lora_adapter pull_back(const delta_gradient<S>& g) const;
};

/// Two factors, named as in PEFT.
template <real S>
struct adapter_kind<table_lora_adapter<S>> {
    static constexpr std::string_view name = "table_lora";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("lora_embedding_A"), a.lora.lora_A);
        f(std::string_view("lora_embedding_B"), a.lora.lora_B);
    }
    /// Rows are tokens, which are columns of A.
    static bool permute_rows(table_lora_adapter<S>& a, std::span<const index> rows) {
        matrix<S> turned = a.lora.lora_A.transpose();
        detail::permute_rows(turned, rows);
        a.lora.lora_A = turned.transpose();
        return true;
    }
    using applied = applied_factors<table_lora_adapter<S>>;
};

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/kinds/lora_forms/table_lora.ipp>
#endif

#endif  // LOWRANK_LORA_KINDS_LORA_FORMS_TABLE_LORA_HPP
