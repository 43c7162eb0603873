// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_DETAIL_TRIDIAGONAL_HPP
#define LOWRANK_FACTOR_DETAIL_TRIDIAGONAL_HPP

/// \file
/// A symmetric matrix to tridiagonal form and back: A = Q T Q^T with Q a product of reflections.
///
///     tridiagonal_form<double> t = tridiagonalize(a);  // a now holds the reflections
///     apply_reflections(a, t.scale, z);                // Z := Q Z
///
/// Half of the arithmetic is a product of the remaining matrix with one vector, read once per column; the other half,
/// and all of the back-transformation, are matrix products with blocks of reflections.
///
/// Dongarra, Sorensen, Hammarling, J. Comput. Appl. Math. 27 (1989). Schreiber, Van Loan, SIAM J. Sci. Stat. Comput. 10
/// (1989), the compact WY form.

#include <algorithm>

#include <lowrank/core/config.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/detail/reflections.hpp>

namespace lowrank::inline LOWRANK_ABI::detail {

template <real S>
struct tridiagonal_form {
    vector<S> diagonal;  ///< n entries.
    vector<S> off;       ///< n entries, the last of them zero.
    vector<S> scale;     ///< H_i = I - scale_i v_i v_i^T, for i < n - 1.
};

/// T with A = Q T Q^T for the symmetric A of magnitude about one, of which the lower triangle is read. Afterwards
/// column i of A holds v_i from row i + 1 on.
template <real S>
[[nodiscard]] tridiagonal_form<S> tridiagonalize(matrix<S>& a) {
    constexpr index block = 32;
    const index n = a.rows();
    tridiagonal_form<S> t{vector<S>(n), vector<S>::Zero(n), vector<S>::Zero(n)};
    matrix<S> w(n, block);
    matrix<S> left;
    matrix<S> right;
    vector<S> inside(block);
    const dense_view<S> all(a), ws(w);
    for (index top = 0; top < n - 1; top += block) {
        const index width = std::min(block, n - 1 - top);
        for (index j = 0; j < width; ++j) {
            // A stands as it was before this block; what its columns owe to the block is V W^T + W V^T.
            const index at = top + j;
            const index rest = n - at - 1;
            if (j > 0) {
                gemv<S>(S(-1), all.block(at, top, n - at, j), &w.coeffRef(at, 0), n, &a.coeffRef(at, at), 1);
                gemv<S>(S(-1), ws.block(at, 0, n - at, j), &a.coeffRef(at, top), n, &a.coeffRef(at, at), 1);
            }
            t.diagonal(at) = a(at, at);
            S* v = &a.coeffRef(at + 1, at);
            const S scale = make_reflection<S>(v, rest, t.off(at));
            t.scale(at) = scale;
            S* y = &w.coeffRef(at + 1, j);
            std::fill(y, y + rest, S(0));
            if (scale == S(0)) {
                continue;
            }
            symv_lower<S>(S(1), all.block(at + 1, at + 1, rest, rest), v, y);
            if (j > 0) {
                const dense_view<const S> vs(all.block(at + 1, top, rest, j)), before(ws.block(at + 1, 0, rest, j));
                const auto owe = [&](const dense_view<const S>& from, const dense_view<const S>& to) {
                    std::fill(inside.data(), inside.data() + j, S(0));
                    gemv<S>(S(1), transposed(from), v, 1, inside.data(), 1);
                    gemv<S>(S(-1), to, inside.data(), 1, y, 1);
                };
                owe(before, vs);
                owe(vs, before);
            }
            for (index i = 0; i < rest; ++i) {
                y[i] *= scale;
            }
            axpy(S(-0.5) * scale * dot_of(y, v, rest), v, y, rest);
        }
        const index first = top + width;
        const index rest = n - first;
        left.resize(rest, 2 * width);
        right.resize(rest, 2 * width);
        for (index j = 0; j < width; ++j) {
            const S *v = &a.coeffRef(0, top + j) + first, *y = &w.coeffRef(0, j) + first;
            std::copy_n(v, rest, left.data() + j * rest);
            std::copy_n(y, rest, left.data() + (width + j) * rest);
            std::copy_n(y, rest, right.data() + j * rest);
            std::copy_n(v, rest, right.data() + (width + j) * rest);
        }
        gemm<S, S, S>(S(-1), left, transposed(right), all.block(first, first, rest, rest), true);
    }
    if (n > 0) {
        t.diagonal(n - 1) = a(n - 1, n - 1);
    }
    return t;
}

/// Z := Q Z for the reflections that `tridiagonalize` left in `a`.
template <real S>
void apply_reflections(const matrix<S>& a, const vector<S>& scale, matrix<S>& z) {
    constexpr index block = 64;
    const index n = a.rows();
    for (index b = (n - 1 + block - 1) / block; b-- > 0;) {
        const index first = b * block;
        apply_block<S>(reflections_of(a, first + 1, first, std::min(block, n - 1 - first)), scale.data() + first, false,
                       dense_view<S>(z).block(first + 1, 0, n - first - 1, z.cols()));
    }
}

}  // namespace lowrank::inline LOWRANK_ABI::detail

#endif  // LOWRANK_FACTOR_DETAIL_TRIDIAGONAL_HPP
