// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_ALGEBRA_BLOCK_DIAGONAL_HPP
#define LOWRANK_LORA_ALGEBRA_BLOCK_DIAGONAL_HPP

/// \file
/// Products with a block-diagonal matrix whose blocks lie below each other: M (p x q) of n blocks is stored as p x q / n.
///
///     lowrank::matrix<float> blocks(4, 3);                                   // a 4 x 6 matrix of two 2 x 3 blocks
///     blocks.setConstant(0.5F);
///     lowrank::add_block_product(1.0F, blocks, 2, x, y, ws);                 // y += M x
///     auto m = lowrank::block_diagonal(blocks, 2);                           // M itself
///
/// Rows i p / n ... of the stored matrix are block i, which lies in columns i q / n ... of M. One block is any matrix. The
/// order is that of PEFT's BD-LoRA and GraLoRA.

#include <type_traits>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Y += alpha M X.
/// \pre  `blocks` divides the rows; shapes agree.
/// \cost 2 p q / n flops a column.
template <real S>
void add_block_product(std::type_identity_t<S> alpha, const matrix<S>& stored, index blocks,
                       std::type_identity_t<const_column_view<S>> x, std::type_identity_t<column_view<S>> y,
                       workspace& ws);

/// Y += alpha M^T X.
template <real S>
void add_block_transposed_product(std::type_identity_t<S> alpha, const matrix<S>& stored, index blocks,
                                  std::type_identity_t<const_column_view<S>> x, std::type_identity_t<column_view<S>> y,
                                  workspace& ws);

/// The blocks of alpha U V^T that M has, added to `stored`: the gradient of M through Y += M X is that of dY and X.
template <real S>
void add_block_outer_product(std::type_identity_t<S> alpha, std::type_identity_t<const_column_view<S>> u,
                             std::type_identity_t<const_column_view<S>> v, index blocks, matrix<S>& stored,
                             workspace& ws);

/// M (p x q), with the zeros beside its blocks.
template <real S>
[[nodiscard]] matrix<S> block_diagonal(const matrix<S>& stored, index blocks);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/algebra/block_diagonal.ipp>
#endif

#endif  // LOWRANK_LORA_ALGEBRA_BLOCK_DIAGONAL_HPP
