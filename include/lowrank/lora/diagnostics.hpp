// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_DIAGNOSTICS_HPP
#define LOWRANK_LORA_DIAGNOSTICS_HPP

/// \file
/// Diagnostics of an adapter: the rank it uses, its directions compared with those of W and of other adapters.
///
///     auto d = lowrank::diagnose(adapter.delta()).value();          // spectrum, ranks
///     auto phi = lowrank::adapter_similarity(poet.delta(), coder.delta()); // heat map of section 7.2 of the paper
///     auto amp = lowrank::amplification(adapter.delta(), w);        // section 7.3
///     auto of_base = lowrank::svd(base).value(), of_tuned = lowrank::svd(tuned).value();
///     auto new_directions = lowrank::find_intruders(of_base, of_tuned);
///
/// Changes go through QR and a small core; of W only products with a few columns are formed.
///
/// Hu et al., LoRA, arXiv 2106.09685, section 7. Shuttleworth et al., LoRA vs Full Fine-tuning: An Illusion of
/// Equivalence, arXiv 2410.21228 (intruder dimensions; mitigation as in PEFT's lora/intruders.py).

#include <concepts>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/decomposition.hpp>
#include <lowrank/factor/factored_algebra.hpp>
#include <lowrank/factor/low_rank.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The spectrum of a change and the single numbers read from it.
template <real S>
struct change_diagnostics {
    decomposition<S> values = {};  ///< Singular values and directions.
    index inner_rank = 0;          ///< Columns of the left factor: the rank paid for.
    index numerical_rank = 0;      ///< Values above a few eps of the largest: the rank used.
    index rank_for_90 = 0;         ///< Smallest rank with 90 % of sum s^2,
    index rank_for_99 = 0;         ///< and 99 %.
    double effective_rank = 0;     ///< exp of the entropy of s / sum s.
    double stable_rank = 0;        ///< ||.||_F^2 / ||.||_2^2.
    double norm = 0;               ///< ||.||_F.
};

/// \return As `svd` of a low_rank.
template <real S>
[[nodiscard]] result<change_diagnostics<S>> diagnose(const low_rank<S>& change);

/// Which singular directions are compared.
enum class direction_side {
    inputs,   ///< Right singular vectors: what the change reads. The paper's A.
    outputs,  ///< Left ones: what it writes.
};

/// phi(i, j) for the first i directions of one change and the first j of another, entry (i - 1, j - 1), over their
/// numerical ranks: 1 if one space contains the other, 0 if they are orthogonal.
///
/// \pre    One shape on the side compared.
/// \return As `svd` of a low_rank.
template <real S>
[[nodiscard]] result<matrix<double>> adapter_similarity(const low_rank<S>& a, const low_rank<S>& b,
                                                        direction_side side = direction_side::inputs);

/// phi(i, j) for the first i directions of a change and the first j of W: does the adapter follow what W does most?
/// \pre One shape. \return As `svd` of a low_rank.
template <real S>
[[nodiscard]] result<matrix<double>> weight_similarity(const low_rank<S>& change, const decomposition<S>& w,
                                                       direction_side side = direction_side::inputs);

/// Section 7.3 of the LoRA paper: how much a change amplifies what W does in the change's directions.
struct amplification_result : fallible {
    double factor = 0;         ///< change_norm / projected; 0 where projected is 0.
    double change_norm = 0;    ///< ||delta||_F.
    double projected = 0;      ///< ||U^T W V||_F, U and V the first r directions of the change.
    double of_random = 0;      ///< The same for random U and V: what chance gives.
    double of_weight_top = 0;  ///< The same for the first r of W, where its spectrum was given.
    index r = 0;               ///< Directions used.
};

namespace detail {

/// `amplification` with the products of W from `times`.
template <real S>
[[nodiscard]] amplification_result amplification_of(const low_rank<S>& change,
                                                    const std::function<matrix<S>(const matrix<S>&)>& times, index r,
                                                    std::uint64_t seed);

}  // namespace detail

/// The amplification factor in the first r directions of the change; r = 0: its numerical rank.
///
/// \pre    W has the shape of the change; r is at most min(out, in, inner rank).
/// \return As `svd` of a low_rank.
/// \cost   Two products of W with r columns.
template <real S, operator_like W>
requires std::same_as<operator_scalar<W>, S>
[[nodiscard]] amplification_result amplification(const low_rank<S>& change, const W& w, index r = 0,
                                                 std::uint64_t seed = 0) {
    const auto& map = as_operator(w);
    detail::expects_shape("amplification", "w", map.rows(), map.cols(), change.rows(), change.cols());
    return detail::amplification_of<S>(
        change, [&w](const matrix<S>& x) { return apply(w, x); }, r, seed);
}

/// The same with the spectrum of W, which says as well how much W does in its own first r directions.
template <real S>
[[nodiscard]] amplification_result amplification(const low_rank<S>& change, const decomposition<S>& w, index r = 0,
                                                 std::uint64_t seed = 0);

/// A leading direction of the merged weight that W does not have.
struct intruder {
    index position = 0;  ///< Among the singular values of the merged weight.
    double cosine = 0;   ///< Largest |cosine| with any left singular vector of W.
};

struct intruder_options {
    index top = 10;        ///< Leading directions of the merged weight that are looked at.
    double epsilon = 0.5;  ///< A largest cosine below this makes an intruder.
};

/// The intruders among the first `top` left singular vectors of W + delta.
/// \pre Both spectra are of one shape. \cost 2 out top min(out, in) flops.
template <real S>
[[nodiscard]] std::vector<intruder> find_intruders(const decomposition<S>& w, const decomposition<S>& merged,
                                                   const intruder_options& options = {});

/// A change without its intruders, and what bringing it back to its rank took away.
template <real S>
struct reduced_change : fallible {
    low_rank<S> product = {};
    error_evidence error = {};
};

/// delta + (lambda - 1) sum_intruders s_i u_i v_i^T at the rank `delta` has: the change with its intruders scaled to
/// `lambda` of their size.
///
/// \pre    0 <= lambda <= 1; `found` is of `merged`.
/// \return As `resize`; the change itself, bit for bit, without intruders.
template <real S>
[[nodiscard]] reduced_change<S> reduce_intruders(const low_rank<S>& change, const decomposition<S>& merged,
                                                 std::span<const intruder> found, double lambda = 0.75);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/diagnostics.ipp>
#endif

#endif  // LOWRANK_LORA_DIAGNOSTICS_HPP
