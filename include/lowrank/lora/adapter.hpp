// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_ADAPTER_HPP
#define LOWRANK_LORA_ADAPTER_HPP

/// \file
/// What factored adapters have in common: their change as two factors, and the gradient of those factors.
///
///     auto change = factored.delta();                              // left * right, whatever the parameters are
///     auto g = lowrank::zero_gradient(change);
///     lowrank::delta_backward(change, x, dy, g, &dx, ws);          // shared by all adapters
///     auto gradient = factored.pull_back(g);                       // each adapter's own, on small matrices
///
/// Many kinds differ in how their parameters become the two factors and in nothing else. Merging, sums, norms, conversion
/// and serving know only the factors.

#include <concepts>
#include <type_traits>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/low_rank.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Gradients of the two factors of a change; backward adds to them.
template <real S>
struct delta_gradient {
    matrix<S> left = {};
    matrix<S> right = {};
};

/// A gradient of the shapes of `change`, all zero.
template <real S>
[[nodiscard]] delta_gradient<S> zero_gradient(const low_rank<S>& change) {
    delta_gradient<S> g;
    g.left.setZero(change.left.rows(), change.left.cols());
    g.right.setZero(change.right.rows(), change.right.cols());
    return g;
}

/// An adapter whose change is a product of two factors: `delta()`, and `pull_back(g)` from the gradients of the
/// factors to those of its parameters, which come as a value of the adapter's own type.
template <class A>
concept factored_adapter = requires(const A& a, const delta_gradient<typename A::scalar>& g) {
    { a.delta() } -> std::same_as<low_rank<typename A::scalar>>;
    { a.pull_back(g) } -> std::same_as<A>;
};

/// Adds the gradients of a loss through Y += L (R X), given dY:
///
///     dL += dY (R X)^T     dR += (L^T dY) X^T     dX += R^T (L^T dY)
///
/// `dx` may be null.
/// \pre  Shapes agree.
/// \cost 2 k (3 in + 2 out) n flops with dX.
template <real S>
void delta_backward(const low_rank<S>& change, std::type_identity_t<const_column_view<S>> x,
                    std::type_identity_t<const_column_view<S>> dy, delta_gradient<S>& gradient,
                    std::type_identity_t<column_view<S>>* dx, workspace& ws);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/adapter.ipp>
#endif

#endif  // LOWRANK_LORA_ADAPTER_HPP
