// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_ADALORA_HPP
#define LOWRANK_LORA_KINDS_ADALORA_HPP

/// \file
/// AdaLoRA: scaling * B diag(E) A, a factored change whose triplets can be switched off one by one.
///
///     auto a = lowrank::make_adalora<float>(out, in, {.init_r = 12, .lora_alpha = 16});
///     auto change = a.delta();
///
/// Zhang et al., arXiv 2303.10512. As in PEFT the scaling is lora_alpha / (ranknum + 1e-5) with the INITIAL rank.

#include <cstdint>
#include <span>
#include <string_view>
#include <utility>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/lora/adapter.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/new_adapter.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The change scaling * B diag(E) A; a `factored_adapter`. Masked triplets have E = 0.
template <real S>
struct adalora_adapter {
    using scalar = S;

    matrix<S> lora_A = {};  ///< r x in
    matrix<S> lora_B = {};  ///< out x r
    vector<S> lora_E = {};  ///< r
    double lora_alpha = 8;
    double ranknum = 12;      ///< The initial rank of the configuration, whatever has been masked since.
    double lora_dropout = 0;  ///< Used by training only.

    [[nodiscard]] S scaling() const { return static_cast<S>(lora_alpha / (ranknum + 1e-5)); }

    /// left = scaling * B, right = diag(E) A.
    [[nodiscard]] low_rank<S> delta() const;

    /// dB = scaling dL, dA = diag(E) dR, dE = rowsum(dR o A).
    [[nodiscard]] adalora_adapter pull_back(const delta_gradient<S>& g) const;

private:
    void check() const;
};

/// PEFT's defaults.
struct adalora_options {
    index init_r = 12;
    double lora_alpha = 8;
    double lora_dropout = 0;
    std::uint64_t seed = 0;
    std::uint64_t stream = 0;
};

/// A new adapter for an out x in weight: A and B normal of deviation 0.02, E zero, so that it changes nothing yet.
template <real S>
[[nodiscard]] adalora_adapter<S> make_adalora(index out, index in, const adalora_options& options = {});

/// Of three parameters, named as in PEFT; a product of factors.
template <real S>
struct adapter_kind<adalora_adapter<S>> {
    static constexpr std::string_view name = "adalora";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("lora_A"), a.lora_A);
        f(std::string_view("lora_B"), a.lora_B);
        f(std::string_view("lora_E"), a.lora_E);
    }
    static double dropout(const adalora_adapter<S>& a) { return a.lora_dropout; }
    static bool permute_rows(adalora_adapter<S>& a, std::span<const index> rows) {
        return detail::permute_rows(a.lora_B, rows);
    }
    static constexpr double learning_rate = 2e-2;
    /// Its ranks may be allocated anew in training, as train/adalora_allocator.hpp does.
    static constexpr bool allocates_ranks = true;
    static auto maker(const adapted_layers& /*all*/, const lora_options& options) {
        return [options](const target_layer<S>& layer) {
            return make_adalora<S>(layer.base.rows(), layer.base.cols(),
                                   {.init_r = options.r,
                                    .lora_alpha = options.lora_alpha,
                                    .lora_dropout = options.lora_dropout,
                                    .seed = options.seed,
                                    .stream = layer.number});
        };
    }
    using applied = applied_factors<adalora_adapter<S>>;
};

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/kinds/adalora.ipp>
#endif

#endif  // LOWRANK_LORA_KINDS_ADALORA_HPP
