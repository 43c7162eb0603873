// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_SHARED_TINYLORA_HPP
#define LOWRANK_LORA_KINDS_SHARED_TINYLORA_HPP

/// \file
/// TinyLoRA: a few numbers steer the leading singular directions of a weight; layers may have them together.
///
///     auto a = lowrank::make_tinylora<float>(lowrank::as_operator(w), {.r = 2, .u = 16});   // 16 numbers train
///     auto change = a.delta();                                                              // left = B R, right = A
///
/// A and B are the leading r singular components of W, B = U sqrt(S) and A = sqrt(S) V^T, and P_0 ... P_u-1 random r x r
/// matrices; all are frozen. The change is B R A with R = sum_i v_i P_i; v alone is trained, in as many layers as have it.
///
/// Morris et al., Learning to Reason in 13 Parameters, arXiv 2602.04118; shapes as in PEFT.

#include <cstdint>
#include <string>
#include <string_view>

#include <lowrank/core/config.hpp>
#include <lowrank/core/operator_reference.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/lora/adapter.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/new_adapter.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The change B (sum_i v_i P_i) A; a `factored_adapter` that trains v.
template <real S>
struct tinylora_adapter {
    using scalar = S;

    matrix<S> tinylora_A = {};  ///< k x in with k = min(r, out, in)
    matrix<S> tinylora_B = {};  ///< out x k
    matrix<S> tinylora_P = {};  ///< (u k) x k: P_0 ... P_u-1, one below the other
    vector<S> v = {};           ///< u
    index group = 0;            ///< Layers of one group have one v.
    index r = 2;
    double dropout = 0;  ///< Used by training only.

    [[nodiscard]] low_rank<S> delta() const;

    /// dv_i = <P_i, B^T dL>.
    [[nodiscard]] tinylora_adapter pull_back(const delta_gradient<S>& g) const;

private:
    void check() const;
};

/// What a new adapter looks like. PEFT's defaults.
struct tinylora_options {
    index r = 2;
    index u = 64;
    index group = 0;
    double dropout = 0;
    std::uint64_t seed = 0;    ///< Same seed and stream, same P, on every machine.
    std::uint64_t stream = 0;  ///< One per layer.
};

/// A new adapter of a weight: its leading components, P with normal entries of variance 1 / k, and v zero, so that it
/// changes nothing yet.
///
/// \pre  r, u >= 1; the weight is finite.
/// \cost a Krylov SVD of rank r.
template <real S>
[[nodiscard]] tinylora_adapter<S> make_tinylora(operator_reference<S> w, const tinylora_options& options = {});

/// Trains v; everything else is frozen.
template <real S>
struct adapter_kind<tinylora_adapter<S>> {
    static constexpr std::string_view name = "tinylora";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("tinylora_v"), a.v);
    }
    static std::string shared_name(const tinylora_adapter<S>& a, std::string_view parameter) {
        return std::string(parameter) + "." + std::to_string(a.group);
    }
    static double dropout(const tinylora_adapter<S>& a) { return a.dropout; }
    static constexpr double learning_rate = 2e-2;
    /// A group for every layer.
    static auto maker(const adapted_layers& /*all*/, const lora_options& options) {
        return [options](const target_layer<S>& layer) {
            return make_tinylora<S>(layer.base, {.r = options.r,
                                                 .group = static_cast<index>(layer.number),
                                                 .dropout = options.lora_dropout,
                                                 .seed = options.seed,
                                                 .stream = layer.number});
        };
    }
    using applied = applied_factors<tinylora_adapter<S>>;
};

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/kinds/shared/tinylora.ipp>
#endif

#endif  // LOWRANK_LORA_KINDS_SHARED_TINYLORA_HPP
