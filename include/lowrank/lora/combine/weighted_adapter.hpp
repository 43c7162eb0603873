// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_COMBINE_WEIGHTED_ADAPTER_HPP
#define LOWRANK_LORA_COMBINE_WEIGHTED_ADAPTER_HPP

/// \file
/// PEFT's `add_weighted_adapter`, number for number: all eleven combination types at one layer.
///
///     const lowrank::lora_adapter<float> adapters[] = {poet, coder};
///     const double weights[] = {0.7, 0.3};
///     auto both = lowrank::weighted_adapter<float>(adapters, weights, {.type = lowrank::combination_type::cat});
///
/// For new work use combine.hpp: of these types only `cat` and (`fixed`) `svd` compute sum w_i s_i B_i A_i. `linear`
/// and its variants combine A and B separately, whose product has cross terms between the adapters.
///
/// PEFT 0.20, tuners/lora/model.py. The svd types multiply by the scaling twice and rsLoRA is scaled by sqrt(r) too
/// much there; `weighted_rule::fixed` does neither (peft issues 3111, 3449).

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string_view>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/lora/combine/combine.hpp>
#include <lowrank/lora/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// `combination_type` of PEFT.
enum class combination_type {
    linear,
    cat,
    ties,
    dare_linear,
    dare_ties,
    magnitude_prune,
    svd,
    ties_svd,
    dare_linear_svd,
    dare_ties_svd,
    magnitude_prune_svd,
};

/// PEFT's spelling of a type, or nothing.
LOWRANK_API [[nodiscard]] std::optional<combination_type> combination_type_from_name(std::string_view name);

/// Which PEFT.
enum class weighted_rule {
    peft_0_20,  ///< As released: see the file comment.
    fixed,      ///< The svd types combine weight * delta, and the new scaling is 1 also with rsLoRA.
};

struct weighted_options {
    combination_type type = combination_type::svd;
    weighted_rule rule = weighted_rule::peft_0_20;
    index svd_rank = 0;    ///< Rank of the svd types; 0: the largest of the adapters.
    double svd_clamp = 1;  ///< Below 1: both factors of the svd types are cut at this quantile of their entries.
    double density = 1;    ///< Of ties, dare and magnitude_prune.
    sign_election election = sign_election::total;
    std::uint64_t seed = 0;  ///< Of the dare types.
    std::uint64_t stream = 0;
    /// One adapter is always `linear`. PEFT counts the adapters of the model, not those that have the layer.
    bool single_is_linear = true;
};

/// Which matrix of an adapter a mask of the dare types is for.
enum class masked_tensor { lora_A, lora_B, delta };

namespace detail {

[[nodiscard]] inline bool is_svd_type(combination_type t) { return t >= combination_type::svd; }

}  // namespace detail

/// The combination of adapters at one layer, with the masks of the dare types from
/// `mask_of(tensor, adapter, rows, cols)` (a `keep_mask`).
///
/// lora_alpha = r, so the scaling is 1; with rsLoRA, inherited from the first adapter, it is sqrt(r) as in PEFT, or 1
/// under `fixed`. A single adapter is `linear` unless the options say otherwise.
/// \pre    At least one adapter, all of one shape, a weight for each; equal ranks but for `cat` and the svd types;
///         svd_rank <= min(out, in).
/// \return `non_finite` if a factor holds NaN or infinity.
/// \cost   A dense matrix per adapter and one dense `svd` for the svd types, except `svd` itself, which goes through
///         QR and a small core; small otherwise.
template <real S>
[[nodiscard]] result<lora_adapter<S>> weighted_adapter(
    std::span<const lora_adapter<S>> adapters, std::span<const double> weights, const weighted_options& options,
    const std::function<keep_mask(masked_tensor, std::size_t, index, index)>& mask_of);

/// The same with masks from the seed.
template <real S>
[[nodiscard]] result<lora_adapter<S>> weighted_adapter(std::span<const lora_adapter<S>> adapters,
                                                       std::span<const double> weights,
                                                       const weighted_options& options = {});

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/combine/weighted_adapter.ipp>
#endif

#endif  // LOWRANK_LORA_COMBINE_WEIGHTED_ADAPTER_HPP
