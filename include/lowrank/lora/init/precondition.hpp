// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_INIT_PRECONDITION_HPP
#define LOWRANK_LORA_INIT_PRECONDITION_HPP

/// \file
/// Gradients of LoRA factors corrected for the shape of the other factor, before any optimizer sees them.
///
///     lowrank::precondition_riemannian<float>(a.lora_A, a.lora_B, gradient.lora_A, gradient.lora_B);
///     lowrank::adamw_step(list, state, options);               // "scaled AdamW"; sgd_step: "scaled GD"
///
/// Riemannian preconditioning: Zhang, Pilanci, arXiv 2402.02347, makes a step of B A independent of how the product is
/// split into factors. LoRA-FA: Zhang et al., arXiv 2308.03303, freezes A; its gradient of B is the one whose step of B
/// A comes nearest to the step of a full weight. Defaults as in PEFT.

#include <type_traits>

#include <Eigen/Cholesky>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// G <- (F F^T + delta I)^-1 G in double, with F r x n and G r x m.
template <real S, class F, class G>
void solve_gram(const F& f, double delta, G&& g) {
    const matrix<double> wide = f.template cast<double>();
    matrix<double> gram = wide * wide.transpose();
    gram.diagonal().array() += delta;
    const matrix<double> rhs = g.template cast<double>();
    g = gram.llt().solve(rhs).template cast<S>();
}

}  // namespace detail

/// gA <- (B^T B + delta I)^-1 gA and gB <- gB (A A^T + delta I)^-1, in place.
///
/// \pre  A and gA are r x in, B and gB out x r; delta > 0; everything is finite.
/// \cost 4 r^2 (in + out) flops in double, and r^3.
template <real S>
void precondition_riemannian(std::type_identity_t<const_column_view<S>> a, std::type_identity_t<const_column_view<S>> b,
                             std::type_identity_t<column_view<S>> ga, std::type_identity_t<column_view<S>> gb,
                             double delta = 1e-2) {
    detail::expects_shape("precondition_riemannian", "ga", ga.rows(), ga.cols(), a.rows(), a.cols());
    detail::expects_shape("precondition_riemannian", "gb", gb.rows(), gb.cols(), b.rows(), b.cols());
    detail::expects(a.rows() == b.cols() && delta > 0,
                    "precondition_riemannian: A and B must have one rank, delta must be positive");
    detail::solve_gram<S>(b.transpose(), delta, ga);
    matrix<S> gb_t = gb.transpose();
    detail::solve_gram<S>(a, delta, gb_t);
    gb = gb_t.transpose();
}

/// gB <- gB (A A^T + delta I)^-1 / scaling^2, in place: LoRA-FA, with A frozen.
///
/// \pre A is r x in, gB out x r; scaling is not 0; delta > 0.
template <real S>
void precondition_frozen_a(std::type_identity_t<const_column_view<S>> a, double scaling,
                           std::type_identity_t<column_view<S>> gb, double delta = 1e-8) {
    detail::expects(a.rows() == gb.cols() && delta > 0 && scaling != 0,
                    "precondition_frozen_a: A and gB must have one rank, delta must be positive, scaling not 0");
    matrix<S> gb_t = gb.transpose();
    detail::solve_gram<S>(a, delta, gb_t);
    gb = static_cast<S>(1 / (scaling * scaling)) * gb_t.transpose();
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_INIT_PRECONDITION_HPP
