// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_INIT_PRECONDITION_HPP
#define LOWRANK_LORA_INIT_PRECONDITION_HPP

/// \file
/// Gradients of LoRA factors corrected for the shape of the other factor, before any optimizer sees them.
///
///     auto gradient = lowrank::zero_gradient(adapter);         // filled by lora_backward
///     std::vector<lowrank::trainable<float>> list;
///     lowrank::append(list, adapter, gradient, 0, 0);
///     auto state = lowrank::make_adamw_state(list);
///     lowrank::precondition_riemannian<float>(adapter.lora_A, adapter.lora_B, gradient.lora_A, gradient.lora_B);
///     lowrank::adamw_step(list, state, {.groups = {{.learning_rate = 1e-3}}});   // "scaled AdamW"
///
/// Riemannian preconditioning: Zhang, Pilanci, arXiv 2402.02347, makes a step of B A independent of how the product is
/// split into factors. LoRA-FA: Zhang et al., arXiv 2308.03303, freezes A; its gradient of B is the one whose step of B
/// A comes nearest to the step of a full weight. Defaults as in PEFT.

#include <type_traits>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// gA <- (B^T B + delta I)^-1 gA and gB <- gB (A A^T + delta I)^-1, in place.
///
/// \pre  A and gA are r x in, B and gB out x r; delta > 0; everything is finite.
/// \cost 4 r^2 (in + out) flops in double, and r^3.
template <real S>
void precondition_riemannian(std::type_identity_t<const_column_view<S>> a, std::type_identity_t<const_column_view<S>> b,
                             std::type_identity_t<column_view<S>> ga, std::type_identity_t<column_view<S>> gb,
                             double delta = 1e-2);

/// gB <- gB (A A^T + delta I)^-1 / scaling^2, in place: LoRA-FA, with A frozen.
///
/// \pre A is r x in, gB out x r; scaling is not 0; delta > 0.
template <real S>
void precondition_frozen_a(std::type_identity_t<const_column_view<S>> a, double scaling,
                           std::type_identity_t<column_view<S>> gb, double delta = 1e-8);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/init/precondition.ipp>
#endif

#endif  // LOWRANK_LORA_INIT_PRECONDITION_HPP
