// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_LORA_FORMS_MERGED_LINEAR_HPP
#define LOWRANK_LORA_KINDS_LORA_FORMS_MERGED_LINEAR_HPP

/// \file
/// LoRA on a fused projection (query, key, value in one weight), some of whose parts are adapted: loralib's
/// MergedLinear.
///
///     lowrank::merged_linear_adapter<float> qkv{.lora_A = lora_A, .lora_B = lora_B, .enable = {true, false, true}};
///     auto change = qkv.delta();                       // out x in, zero rows where a part is not enabled
///
/// With n enabled parts of r rows each, A is (r n) x in and B is (n out / parts) x r: part j uses rows j r .. of A and
/// rows j out / parts .. of B. As one product the change has rank r n and a block-diagonal left factor.

#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/lora/adapter.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The change of a fused weight; a `factored_adapter`.
template <real S>
struct merged_linear_adapter {
    using scalar = S;

    matrix<S> lora_A = {};          ///< (r n) x in
    matrix<S> lora_B = {};          ///< (n out / parts) x r
    std::vector<bool> enable = {};  ///< one per part of the weight, in order
    double lora_alpha = 8;

    [[nodiscard]] index parts() const noexcept { return static_cast<index>(enable.size()); }
    [[nodiscard]] index enabled() const {
        index n = 0;
        for (const bool on : enable) {
            n += on ? 1 : 0;
        }
        return n;
    }
    [[nodiscard]] index rank() const noexcept { return lora_B.cols(); }
    [[nodiscard]] S scaling() const { return static_cast<S>(lora_scaling(lora_alpha, rank(), false)); }

    /// left = scaling * blocks of B (out x r n), right = A.
    [[nodiscard]] low_rank<S> delta() const;

    /// Gradients of A and B, in the adapter's own form.
    [[nodiscard]] merged_linear_adapter pull_back(const delta_gradient<S>& g) const;

private:
    void check() const;
    /// Adds scaling times the blocks of B to those of the full left factor, or the other way round.
    void add_blocks(matrix<S>& compact, matrix<S>& full, bool to_full) const;
};

/// The factors of LoRA, block by block.
template <real S>
struct adapter_kind<merged_linear_adapter<S>> {
    static constexpr std::string_view name = "merged_linear";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("lora_A.weight"), a.lora_A);
        f(std::string_view("lora_B.weight"), a.lora_B);
    }
    using applied = applied_factors<merged_linear_adapter<S>>;
};

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/kinds/lora_forms/merged_linear.ipp>
#endif

#endif  // LOWRANK_LORA_KINDS_LORA_FORMS_MERGED_LINEAR_HPP
