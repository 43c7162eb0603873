// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_INIT_PRECONDITION_IPP
#define LOWRANK_LORA_INIT_PRECONDITION_IPP

#include <lowrank/lora/init/precondition.hpp>

#include <limits>
#include <type_traits>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// G <- factor (F F^T + delta I)^-1 G, solved in double, with F r x n and G r x m.
template <real S>
void solve_gram(const dense_view<const S>& f, double delta, const dense_view<S>& g, S factor = S(1)) {
    matrix<double> gram_of_f = gram(transposed(f));
    for (index i = 0; i < gram_of_f.rows(); ++i) {
        gram_of_f(i, i) += delta;
    }
    matrix<double> x = copy_in<double>(g);
    if (!solve(gram_of_f, x)) {
        x.setConstant(std::numeric_limits<double>::quiet_NaN());
    }
    for (index j = 0; j < g.cols(); ++j) {
        for (index i = 0; i < g.rows(); ++i) {
            g(i, j) = factor * static_cast<S>(x(i, j));
        }
    }
}

/// G^T, to be written into.
template <real S>
[[nodiscard]] dense_view<S> turned(const dense_view<S>& g) {
    return {g.data(), g.cols(), g.rows(), g.col_stride(), g.row_stride()};
}

}  // namespace detail

template <real S>
void precondition_riemannian(std::type_identity_t<const_column_view<S>> a, std::type_identity_t<const_column_view<S>> b,
                             std::type_identity_t<column_view<S>> ga, std::type_identity_t<column_view<S>> gb,
                             double delta) {
    detail::expects_shape("precondition_riemannian", "ga", ga.rows(), ga.cols(), a.rows(), a.cols());
    detail::expects_shape("precondition_riemannian", "gb", gb.rows(), gb.cols(), b.rows(), b.cols());
    detail::expects(a.rows() == b.cols() && delta > 0,
                    "precondition_riemannian: A and B must have one rank, delta must be positive");
    detail::solve_gram<S>(transposed(b), delta, ga);
    detail::solve_gram<S>(a, delta, detail::turned<S>(gb));
}

template <real S>
void precondition_frozen_a(std::type_identity_t<const_column_view<S>> a, double scaling,
                           std::type_identity_t<column_view<S>> gb, double delta) {
    detail::expects(a.rows() == gb.cols() && delta > 0 && scaling != 0,
                    "precondition_frozen_a: A and gB must have one rank, delta must be positive, scaling not 0");
    detail::solve_gram<S>(a, delta, detail::turned<S>(gb), static_cast<S>(1 / (scaling * scaling)));
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_PRECONDITION_OF(S)                                                                       \
    template void precondition_riemannian<S>(const_column_view<S>, const_column_view<S>, column_view<S>, \
                                             column_view<S>, double);                                    \
    template void precondition_frozen_a<S>(const_column_view<S>, double, column_view<S>, double);
LOWRANK_PRECONDITION_OF(float)
LOWRANK_PRECONDITION_OF(double)
#undef LOWRANK_PRECONDITION_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_INIT_PRECONDITION_IPP
