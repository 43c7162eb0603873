// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_DELORA_HPP
#define LOWRANK_LORA_KINDS_DELORA_HPP

/// \file
/// DeLoRA: LoRA whose rank-one terms have length one, so that one trained number bounds the change.
///
///     auto a = lowrank::make_delora<float>(lowrank::as_operator(w), {.r = 8});       // B = 0: changes nothing yet
///     auto change = a.delta();                                                       // two factors: LoRA to all others
///
/// Bini et al., Decoupling Angles and Strength in Low-rank Adaptation, arXiv 2503.18225; parameters as in PEFT. The change
/// is scaled by the lengths of the base's columns as they were at the start, which are kept with the adapter.

#include <cmath>
#include <cstdint>
#include <span>
#include <string_view>

#include <lowrank/core/config.hpp>
#include <lowrank/core/operator_reference.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/lora/adapter.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/new_adapter.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// PEFT's defaults.
struct delora_options {
    index r = 8;
    double delora_lambda = 15;
    double module_dropout = 0;
    std::uint64_t seed = 0;
    std::uint64_t stream = 0;
};

/// The change B diag(lambda / (r |A_i| |B_i|)) A diag(w_norm), with lengths of at least 1e-4; a `factored_adapter`.
template <real S>
struct delora_adapter {
    using scalar = S;

    matrix<S> delora_A = {};       ///< r x in
    matrix<S> delora_B = {};       ///< out x r
    vector<S> delora_lambda = {};  ///< One number.
    vector<S> delora_w_norm = {};  ///< in: lengths of the base's columns; not trained.
    double module_dropout = 0;     ///< Probability in [0, 1) that training drops an entry of x.

    [[nodiscard]] index rank() const { return delora_A.rows(); }

    /// left = B with the scaled lengths, right = A diag(w_norm).
    [[nodiscard]] low_rank<S> delta() const;

    /// The gradients of A, B and lambda; the lengths take part.
    [[nodiscard]] delora_adapter pull_back(const delta_gradient<S>& g) const;

private:
    void check() const;
    /// max(|A_i|, 1e-4), max(|B_i|, 1e-4)
    [[nodiscard]] vector<double> lengths_of_a() const;
    [[nodiscard]] vector<double> lengths_of_b() const;
};

/// A new adapter for a base: A uniform in +-1/sqrt(in), B zero, so that it changes nothing yet, and the lengths of the
/// base's columns. \cost One product of the base with the identity, 64 columns at a time.
template <real S>
[[nodiscard]] delora_adapter<S> make_delora(operator_reference<S> base, const delora_options& options = {});

/// Two factors and their strength.
template <real S>
struct adapter_kind<delora_adapter<S>> {
    static constexpr std::string_view name = "delora";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("delora_A"), a.delora_A);
        f(std::string_view("delora_B"), a.delora_B);
        f(std::string_view("delora_lambda"), a.delora_lambda);
    }
    static double dropout(const delora_adapter<S>& a) { return a.module_dropout; }
    static bool permute_rows(delora_adapter<S>& a, std::span<const index> rows) {
        return detail::permute_rows(a.delora_B, rows);
    }
    /// The strength of PEFT's default at 4096 inputs, relative to the weight, whatever its size.
    static auto maker(const adapted_layers& /*all*/, const lora_options& options) {
        return [options](const target_layer<S>& layer) {
            const double lambda = 15 * std::sqrt(static_cast<double>(layer.base.cols()) / 4096);
            return make_delora<S>(layer.base, {.r = options.r,
                                               .delora_lambda = lambda,
                                               .module_dropout = options.lora_dropout,
                                               .seed = options.seed,
                                               .stream = layer.number});
        };
    }
    using applied = applied_factors<delora_adapter<S>>;
};

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/kinds/delora.ipp>
#endif

#endif  // LOWRANK_LORA_KINDS_DELORA_HPP
