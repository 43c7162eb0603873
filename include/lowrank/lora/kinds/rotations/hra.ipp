// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_ROTATIONS_HRA_IPP
#define LOWRANK_LORA_KINDS_ROTATIONS_HRA_IPP

#include <lowrank/lora/kinds/rotations/hra.hpp>

#include <algorithm>
#include <cmath>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/skinny_product.hpp>
#include <lowrank/lora/algebra/rotation.ipp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
void householder_rotation<S>::check(const const_column_view<S>& x, const const_column_view<S>& y) const {
    detail::expects_shape("householder_rotation", "x", x.rows(), x.cols(), v.rows(), y.cols());
    detail::expects_shape("householder_rotation", "y", y.rows(), y.cols(), v.rows(), x.cols());
    detail::expects_shape("householder_rotation", "t", t.rows(), t.cols(), v.cols(), v.cols());
}

namespace detail {

/// B = T A or T^T A, small matrices.
template <real S>
void small_product(const matrix<S>& t, bool transpose, const column_view<S>& a, column_view<S>& b, workspace& ws) {
    b.setZero();
    gemm_in<S>(S(1), transpose ? transposed(t) : dense_view<const S>(t), a, b, ws);
}

}  // namespace detail

template <real S>
void householder_rotation<S>::run(bool transpose, S alpha, const const_column_view<S>& x, column_view<S>& y,
                                  workspace& ws) const {
    check(x, const_column_view<S>(y));
    const workspace::frame scope(ws);
    auto a = ws.take<S>(v.cols(), x.cols());
    a.setZero();
    lowrank::add_transposed_product<S, 0>(S(1), const_column_view<S>(v), x, a, ws);
    auto b = ws.take<S>(v.cols(), x.cols());
    detail::small_product(t, transpose, a, b, ws);
    add_scaled(alpha, x, y);
    lowrank::add_product<S, 0>(-alpha, const_column_view<S>(v), b, y, ws);
}

template <real S>
void householder_rotation<S>::backward(const_column_view<S> x, const_column_view<S> dz, householder_rotation& gradient,
                                       column_view<S>* dx, workspace& ws) const {
    check(x, dz);
    detail::expects_shape("householder_rotation::backward", "gradient.v", gradient.v.rows(), gradient.v.cols(),
                          v.rows(), v.cols());
    const workspace::frame scope(ws);
    const index r = v.cols();
    const const_column_view<S> v_view(v);
    auto a = ws.take<S>(r, x.cols());
    a.setZero();
    lowrank::add_transposed_product<S, 0>(S(1), v_view, x, a, ws);
    auto b = ws.take<S>(r, x.cols());
    detail::small_product(t, false, a, b, ws);
    add_outer_product(S(-1), dz, b, gradient.v, ws);
    auto db = ws.take<S>(r, x.cols());
    db.setZero();
    lowrank::add_transposed_product<S, 0>(S(-1), v_view, dz, db, ws);
    add_outer_product(S(1), db, a, gradient.t, ws);
    detail::small_product(t, true, db, b, ws);
    add_outer_product(S(1), x, b, gradient.v, ws);
    if (dx != nullptr) {
        add_scaled(S(1), dz, *dx);
        lowrank::add_product<S, 0>(S(1), v_view, b, *dx, ws);
    }
}

template <real S>
double orthogonality_error(const householder_rotation<S>& r) {
    // R^T R - I = V E V^T with E = T^T G T - T - T^T; its norm^2 is tr(E^T G E G).
    const matrix<double> t = copy_in<double>(r.t);
    const matrix<double> g = gram(r.v);
    matrix<double> e = product(transposed(t), product(g, t));
    add_scaled(-1.0, t, e);
    add_scaled(-1.0, transposed(t), e);
    const matrix<double> ge = product(g, e);
    const matrix<double> eg = product(e, g);
    double square = 0;
    add_row_dots(ge, eg, [&](index) -> double& { return square; });
    return square > 0 ? std::sqrt(square) : 0.0;
}

namespace detail {

/// What the columns of U give: unit columns V, T of the rotation, and the norms of U's columns or, with apply_GS, the
/// triangle of U = V R.
struct reflection_basis {
    matrix<double> v;
    matrix<double> t;
    matrix<double> r;
    vector<double> norms;
};

LOWRANK_INLINE reflection_basis make_reflection_basis(matrix<double> u, bool orthonormalize) {
    const index in = u.rows();
    const index r = u.cols();
    reflection_basis b{.v = std::move(u), .t = {}, .r = {}, .norms = vector<double>(r)};
    b.t.setIdentity(r, r);
    b.r.setZero(r, r);
    for (index k = 0; k < r; ++k) {
        double* column = b.v.data() + k * in;
        const auto length = [&] { return std::sqrt(dot_of(column, column, in)); };
        const double before = length();
        for (index j = 0; orthonormalize && j < k; ++j) {
            const double* other = b.v.data() + j * in;
            b.r(j, k) = dot_of(other, column, in);
            axpy(-b.r(j, k), other, column, in);
        }
        b.norms(k) = length();
        b.r(k, k) = b.norms(k);
        expects(!orthonormalize || b.norms(k) > 1e-12 * before,
                "hra_adapter: apply_GS needs linearly independent columns of hra_u");
        for (index i = 0; i < in && b.norms(k) > 0; ++i) {
            column[i] /= b.norms(k);
        }
    }
    if (orthonormalize) {
        for (index k = 0; k < r; ++k) {
            b.t(k, k) = 2;
        }
        return b;
    }
    matrix<double> m = gram(b.v);  // T is the inverse of I / 2 + its strict upper triangle
    for (index k = 0; k < r; ++k) {
        m(k, k) = 0.5;
    }
    solve_left_upper(m, b.t);
    return b;
}

}  // namespace detail

template <real S>
householder_rotation<S> hra_adapter<S>::rotation() const {
    const auto b = detail::make_reflection_basis(copy_in<double>(hra_u), apply_GS);
    return {.v = copy_in<S>(b.v), .t = copy_in<S>(b.t)};
}

template <real S>
hra_adapter<S> hra_adapter<S>::pull_back(const rotated_gradient<householder_rotation<S>>& g) const {
    detail::expects_shape("hra_adapter::pull_back", "gradient", g.rotation.v.rows(), g.rotation.v.cols(), hra_u.rows(),
                          hra_u.cols());
    const auto b = detail::make_reflection_basis(copy_in<double>(hra_u), apply_GS);
    const index r = hra_u.cols();
    matrix<double> dv = copy_in<double>(g.rotation.v);
    hra_adapter out = *this;
    if (apply_GS) {
        // Through the QR factorization U = V R with a constant T: dU = (dV + V L) R^-T, where L is symmetric with the
        // lower triangle of -dV^T V.
        const matrix<double> m = product(transposed(dv), b.v);
        matrix<double> low(r, r);
        for (index j = 0; j < r; ++j) {
            for (index i = 0; i < r; ++i) {
                low(i, j) = -m(i > j ? i : j, i > j ? j : i);
            }
        }
        add_product(1.0, b.v, low, dv);
        matrix<double> du = copy_in<double>(transposed(dv));
        solve_left_upper(b.r, du);
        out.hra_u = copy_in<S>(transposed(du));
        return out;
    }
    // T is the inverse of M = I / 2 + striu(V^T V): dM = -T^T dT T^T.
    matrix<double> dm = product(transposed(b.t), product_in<double>(g.rotation.t, transposed(b.t)));
    matrix<double> both(r, r);
    for (index j = 0; j < r; ++j) {
        for (index i = 0; i < r; ++i) {
            both(i, j) = i == j ? 0.0 : -dm(i < j ? i : j, i < j ? j : i);
        }
    }
    add_product(1.0, b.v, both, dv);
    const index in = hra_u.rows();
    for (index k = 0; k < r; ++k) {
        const double* direction = b.v.data() + k * in;
        double* d = dv.data() + k * in;
        detail::axpy(-detail::dot_of(direction, d, in), direction, d, in);
        for (index i = 0; i < in; ++i) {
            out.hra_u(i, k) = b.norms(k) > 0 ? static_cast<S>(d[i] / b.norms(k)) : S(0);
        }
    }
    return out;
}

template <real S>
hra_adapter<S> make_hra(index /*out*/, index in, const hra_options& options) {
    detail::expects(in >= 1 && options.r >= 1, "make_hra: in and r must be at least 1");
    const bool paired = options.r % 2 == 0 && !options.apply_GS;
    const index drawn = paired ? options.r / 2 : options.r;
    matrix<S> u(in, drawn);
    const auto bound = static_cast<S>(1 / std::sqrt(static_cast<double>(drawn)));
    fill_uniform(u, -bound, bound, philox(options.seed, options.stream));
    hra_adapter<S> a{.hra_u = matrix<S>(in, options.r), .apply_GS = options.apply_GS};
    for (index k = 0; k < options.r; ++k) {
        const S* from = u.data() + (paired ? k / 2 : k) * in;
        std::copy_n(from, in, a.hra_u.data() + k * in);
    }
    return a;
}

#ifdef LOWRANK_COMPILED
template void row_rotation<householder_rotation<double>>::forward(index, column_view<double>, workspace&) const;
template void row_rotation<householder_rotation<double>>::backward(index, column_view<double>, workspace&) const;
#define LOWRANK_HRA_OF(S)                                                                                             \
    template struct householder_rotation<S>;                                                                          \
    template double orthogonality_error<S>(const householder_rotation<S>&);                                           \
    template struct hra_adapter<S>;                                                                                   \
    template hra_adapter<S> make_hra<S>(index, index, const hra_options&);                                            \
    template void add_rotated_product<householder_rotation<S>>(operator_reference<S>, const householder_rotation<S>&, \
                                                               const vector<S>&, S, const_column_view<S>,             \
                                                               column_view<S>, workspace&);                           \
    template void add_rotated_transposed_product<householder_rotation<S>>(                                            \
        operator_reference<S>, const householder_rotation<S>&, const vector<S>&, S, const_column_view<S>,             \
        column_view<S>, workspace&);                                                                                  \
    template void rotated_backward<householder_rotation<S>>(                                                          \
        operator_reference<S>, const householder_rotation<S>&, const vector<S>&, const_column_view<S>,                \
        const_column_view<S>, rotated_gradient<householder_rotation<S>>&, column_view<S>*, workspace&);
LOWRANK_HRA_OF(float)
LOWRANK_HRA_OF(double)
#undef LOWRANK_HRA_OF
template class applied_rotation<hra_adapter<float>>;
template class applied_rotation<hra_adapter<double>>;
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_ROTATIONS_HRA_IPP
