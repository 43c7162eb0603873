// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_COMBINE_ARITHMETIC_HPP
#define LOWRANK_LORA_COMBINE_ARITHMETIC_HPP

/// \file
/// Arithmetic on adapters as vectors of weight space: negate, subtract, average, project out, orthogonalize.
///
///     auto skill = lowrank::subtract(coder, poet);                         // an adapter of rank r1 + r2, exact
///     auto forget = lowrank::negate(poet);
///     auto clean = lowrank::project_out(coder.delta(), poet.delta());      // <clean, poet> = 0
///     auto small = lowrank::to_lora(clean, lowrank::fixed_rank(8));        // at a rank again (convert.hpp)
///
/// Everything is exact on the factors and cheap; no out x in matrix is formed. Functions on `low_rank` apply to the
/// `delta()` of every adapter. `add` and `scale` of `low_rank` are in factored_algebra.hpp.
///
/// Ilharco et al., Editing Models with Task Arithmetic, arXiv 2212.04089. Wang et al., O-LoRA, arXiv 2310.14152.

#include <span>
#include <type_traits>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/lora/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

// ---- On adapters. Results of two adapters have scaling 1.

/// alpha times the change, by B. Bit-exact for powers of two and -1.
template <real S>
[[nodiscard]] lora_adapter<S> scale(lora_adapter<S> a, std::type_identity_t<S> alpha) {
    a.lora_B *= alpha;
    return a;
}

/// The opposite change. Bit-exact.
template <real S>
[[nodiscard]] lora_adapter<S> negate(const lora_adapter<S>& a) {
    return scale(a, S(-1));
}

/// alpha a + beta b, of rank ra + rb. \pre One shape.
template <real S>
[[nodiscard]] lora_adapter<S> add(const lora_adapter<S>& a, const lora_adapter<S>& b,
                                  std::type_identity_t<S> alpha = S(1), std::type_identity_t<S> beta = S(1));

/// a - b, of rank ra + rb. \pre One shape.
template <real S>
[[nodiscard]] lora_adapter<S> subtract(const lora_adapter<S>& a, const lora_adapter<S>& b) {
    return add(a, b, S(1), S(-1));
}

/// The mean of the changes, of rank sum r_i. \pre At least one, of one shape.
template <real S>
[[nodiscard]] lora_adapter<S> average(std::span<const lora_adapter<S>> adapters);

// ---- On changes.

/// <A, B> / (||A||_F ||B||_F), and 0 if one of them is 0: do two adapters pull the same way? \pre One shape.
template <real S>
[[nodiscard]] double cosine(const low_rank<S>& a, const low_rank<S>& b);

/// A - <A, B> / <B, B> B: what of A is not along B. A itself for B = 0. \pre One shape.
template <real S>
[[nodiscard]] low_rank<S> project_out(const low_rank<S>& a, const low_rank<S>& b);

/// (I - Q Q^T) A for the range Q of `directions` (out x k): the change no longer writes there. The rank stays.
/// \pre directions.rows() == A.rows(), finite.
template <real S>
[[nodiscard]] low_rank<S> project_out_outputs(low_rank<S> a, matrix<S> directions);

/// A (I - Q Q^T) for the range Q of `directions` (in x k): the change no longer reads there. The rank stays.
/// \pre directions.rows() == A.cols(), finite.
template <real S>
[[nodiscard]] low_rank<S> project_out_inputs(low_rank<S> a, matrix<S> directions);

/// Gram and Schmidt in the order given: each change minus what lies along the ones before it, so that all are
/// orthogonal as vectors of weight space. The sum of the first i spans what it spanned.
///
/// Coefficients are solved for in double against the original changes, so result i is a combination of changes 0..i of
/// rank sum k. A change in the span of the ones before it becomes (numerically) zero.
/// \pre One shape. \cost The Gram matrix of all changes.
template <real S>
[[nodiscard]] std::vector<low_rank<S>> orthogonalize(std::span<const low_rank<S>> changes);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/combine/arithmetic.ipp>
#endif

#endif  // LOWRANK_LORA_COMBINE_ARITHMETIC_HPP
