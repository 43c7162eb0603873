// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_LORA_FORMS_KASA_HPP
#define LOWRANK_LORA_KINDS_LORA_FORMS_KASA_HPP

/// \file
/// KaSA: the change scaling * B diag(d) A on a weight without its r smallest singular components.
///
///     auto [adapter, noise] = lowrank::kasa(spec, {.r = 8, .lora_alpha = 16, .seed = 1});
///     auto receipt = lowrank::merge(lowrank::weight_view<float>(w), lowrank::scale(noise, -1.0F));   // W <- W - noise
///
/// Wang et al., KaSA: Knowledge-Aware Singular-Value Adaptation, arXiv 2412.06071. Penalties as in PEFT's KasaConfig.

#include <cstdint>
#include <span>
#include <string_view>
#include <utility>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/decomposition.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/lora/adapter.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The change scaling * B diag(d) A; a `factored_adapter`.
template <real S>
struct kasa_adapter {
    using scalar = S;

    matrix<S> lora_A = {};     ///< r x in
    matrix<S> lora_B = {};     ///< out x r
    vector<S> lora_diag = {};  ///< r
    double lora_alpha = 8;
    bool use_rslora = false;
    double lora_dropout = 0;  ///< Used by training only.

    [[nodiscard]] S scaling() const { return static_cast<S>(lora_scaling(lora_alpha, lora_A.rows(), use_rslora)); }

    [[nodiscard]] low_rank<S> delta() const;

    /// dB = s dL diag(d), dd_i = s B_i . dL_i, dA = dR.
    [[nodiscard]] kasa_adapter pull_back(const delta_gradient<S>& g) const;

private:
    void check() const;
};

/// A new KaSA adapter and the part of W it replaces.
template <real S>
struct kasa_start {
    kasa_adapter<S> adapter = {};
    low_rank<S> noise = {};  ///< The r smallest singular components of W: subtract them from the base.
};

/// A uniform in +-1/sqrt(in), B zero, d standard normal. \pre 1 <= r < min(out, in)
template <real S>
[[nodiscard]] kasa_start<S> kasa(const decomposition<S>& w, const lora_options& options);

/// beta ||d||^2 + gamma (||B^T B - I||_F + ||A A^T - I||_F), and its gradient, added to `gradient`.
///
/// \pre `gradient` has the shapes of the adapter.
template <real S>
double kasa_penalty(const kasa_adapter<S>& a, kasa_adapter<S>& gradient, double beta = 1e-4, double gamma = 1e-3);

/// Three parameters, named as in PEFT; a product of factors.
template <real S>
struct adapter_kind<kasa_adapter<S>> {
    static constexpr std::string_view name = "kasa";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("lora_A.weight"), a.lora_A);
        f(std::string_view("lora_B.weight"), a.lora_B);
        f(std::string_view("lora_diag"), a.lora_diag);
    }
    static double dropout(const kasa_adapter<S>& a) { return a.lora_dropout; }
    static bool permute_rows(kasa_adapter<S>& a, std::span<const index> rows) {
        return detail::permute_rows(a.lora_B, rows);
    }
    using applied = applied_factors<kasa_adapter<S>>;
};

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/kinds/lora_forms/kasa.ipp>
#endif

#endif  // LOWRANK_LORA_KINDS_LORA_FORMS_KASA_HPP
