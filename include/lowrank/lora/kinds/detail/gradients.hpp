// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_DETAIL_GRADIENTS_HPP
#define LOWRANK_LORA_KINDS_DETAIL_GRADIENTS_HPP

/// \file
/// What applied adapters share whose gradient is two factors, or a value of the adapter's own type.
///
///     class applied_mine : public lowrank::detail::with_factor_gradient<float> { ... };

#include <span>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// The gradient is that of A and B.
template <real S>
struct with_factor_gradient {
    using gradient = lora_gradient<S>;
    static std::vector<std::span<S>> spans(gradient& g) { return {entries(g.lora_A), entries(g.lora_B)}; }
    static void pull_back(const gradient& g, S* out) { add_entries(g.lora_B, add_entries(g.lora_A, out)); }
};

/// The gradient is an A of the gradients of its parameters.
template <class A>
struct with_own_gradient {
    using gradient = A;
    static std::vector<std::span<typename A::scalar>> spans(A& g) { return parameter_spans(g); }
    static void pull_back(const A& g, typename A::scalar* out) { add_parameters(g, out); }
};

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_DETAIL_GRADIENTS_HPP
