// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_ALGEBRA_BLOCK_DIAGONAL_IPP
#define LOWRANK_LORA_ALGEBRA_BLOCK_DIAGONAL_IPP

#include <lowrank/lora/algebra/block_diagonal.hpp>

#include <type_traits>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/skinny_product.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// Calls `body(block, its first row, rows, its first column in the whole, columns)`.
template <class M, class F>
void for_blocks(const char* function, const M& stored, index blocks, F&& body) {
    expects(blocks >= 1 && stored.rows() % blocks == 0, function);
    const index rows = stored.rows() / blocks;
    for (index i = 0; i < blocks; ++i) {
        body(i * rows, rows, i * stored.cols(), stored.cols());
    }
}

}  // namespace detail

template <real S>
void add_block_product(std::type_identity_t<S> alpha, const matrix<S>& stored, index blocks,
                       std::type_identity_t<const_column_view<S>> x, std::type_identity_t<column_view<S>> y,
                       workspace& ws) {
    detail::expects_shape("add_block_product", "x", x.rows(), x.cols(), stored.cols() * blocks, y.cols());
    detail::expects_shape("add_block_product", "y", y.rows(), y.cols(), stored.rows(), x.cols());
    const const_column_view<S> m = stored;
    detail::for_blocks("add_block_product: blocks must divide the rows", stored, blocks,
                       [&](index row, index rows, index col, index cols) {
                           add_product<S, 0>(alpha, detail::some_rows(m, row, rows), detail::some_rows(x, col, cols),
                                             detail::some_rows(y, row, rows), ws);
                       });
}

template <real S>
void add_block_transposed_product(std::type_identity_t<S> alpha, const matrix<S>& stored, index blocks,
                                  std::type_identity_t<const_column_view<S>> x, std::type_identity_t<column_view<S>> y,
                                  workspace& ws) {
    detail::expects_shape("add_block_transposed_product", "x", x.rows(), x.cols(), stored.rows(), y.cols());
    detail::expects_shape("add_block_transposed_product", "y", y.rows(), y.cols(), stored.cols() * blocks, x.cols());
    const const_column_view<S> m = stored;
    detail::for_blocks("add_block_transposed_product: blocks must divide the rows", stored, blocks,
                       [&](index row, index rows, index col, index cols) {
                           add_transposed_product<S, 0>(alpha, detail::some_rows(m, row, rows),
                                                        detail::some_rows(x, row, rows),
                                                        detail::some_rows(y, col, cols), ws);
                       });
}

template <real S>
void add_block_outer_product(std::type_identity_t<S> alpha, std::type_identity_t<const_column_view<S>> u,
                             std::type_identity_t<const_column_view<S>> v, index blocks, matrix<S>& stored,
                             workspace& ws) {
    detail::expects_shape("add_block_outer_product", "u", u.rows(), u.cols(), stored.rows(), v.cols());
    detail::expects_shape("add_block_outer_product", "v", v.rows(), v.cols(), stored.cols() * blocks, u.cols());
    const column_view<S> m = stored;
    detail::for_blocks("add_block_outer_product: blocks must divide the rows", stored, blocks,
                       [&](index row, index rows, index col, index cols) {
                           add_outer_product(alpha, detail::some_rows(u, row, rows), detail::some_rows(v, col, cols),
                                             detail::some_rows(m, row, rows), ws);
                       });
}

template <real S>
matrix<S> block_diagonal(const matrix<S>& stored, index blocks) {
    matrix<S> m;
    m.setZero(stored.rows(), stored.cols() * blocks);
    detail::for_blocks("block_diagonal: blocks must divide the rows", stored, blocks,
                       [&](index row, index rows, index col, index cols) {
                           for (index j = 0; j < cols; ++j) {
                               for (index i = 0; i < rows; ++i) {
                                   m(row + i, col + j) = stored(row + i, j);
                               }
                           }
                       });
    return m;
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_BLOCK_DIAGONAL_OF(S)                                                                                  \
    template void add_block_product<S>(S, const matrix<S>&, index, const_column_view<S>, column_view<S>, workspace&); \
    template void add_block_transposed_product<S>(S, const matrix<S>&, index, const_column_view<S>, column_view<S>,   \
                                                  workspace&);                                                        \
    template void add_block_outer_product<S>(S, const_column_view<S>, const_column_view<S>, index, matrix<S>&,        \
                                             workspace&);                                                             \
    template matrix<S> block_diagonal<S>(const matrix<S>&, index);
LOWRANK_BLOCK_DIAGONAL_OF(float)
LOWRANK_BLOCK_DIAGONAL_OF(double)
#undef LOWRANK_BLOCK_DIAGONAL_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_ALGEBRA_BLOCK_DIAGONAL_IPP
