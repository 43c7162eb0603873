// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_LOW_RANK_IPP
#define LOWRANK_FACTOR_LOW_RANK_IPP

#include <lowrank/factor/low_rank.hpp>

#include <utility>

#include <lowrank/core/dense.hpp>
#include <lowrank/core/skinny_product.hpp>
#include <lowrank/factor/orthonormalize.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
matrix<S> low_rank<S>::dense() const {
    detail::expects_factors("low_rank::dense", *this);
    return lowrank::product(left, right);
}

template <real S>
void low_rank<S>::add_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
    detail::expects_factors("low_rank::add_product", *this);
    detail::expects_shape("low_rank::add_product", "x", x.rows(), x.cols(), cols(), y.cols());
    detail::expects_shape("low_rank::add_product", "y", y.rows(), y.cols(), rows(), x.cols());
    if (rank() == 0 || x.cols() == 0) {
        return;
    }
    workspace::frame scope(ws);
    column_view<S> z = ws.take<S>(rank(), x.cols());
    z.setZero();
    lowrank::add_product<S, 0>(S(1), const_column_view<S>(right), x, z, ws);
    lowrank::add_product<S, 0>(alpha, const_column_view<S>(left), z, y, ws);
}

template <real S>
void low_rank<S>::add_transposed_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
    detail::expects_factors("low_rank::add_transposed_product", *this);
    detail::expects_shape("low_rank::add_transposed_product", "x", x.rows(), x.cols(), rows(), y.cols());
    detail::expects_shape("low_rank::add_transposed_product", "y", y.rows(), y.cols(), cols(), x.cols());
    if (rank() == 0 || x.cols() == 0) {
        return;
    }
    workspace::frame scope(ws);
    column_view<S> z = ws.take<S>(rank(), x.cols());
    z.setZero();
    lowrank::add_transposed_product<S, 0>(S(1), const_column_view<S>(left), x, z, ws);
    lowrank::add_transposed_product<S, 0>(alpha, const_column_view<S>(right), z, y, ws);
}

template <real S>
double frobenius_norm(const low_rank<S>& a) {
    detail::expects_factors("frobenius_norm", a);
    if (a.rows() == 0 || a.cols() == 0 || a.rank() == 0) {
        return 0.0;
    }
    // A shorter side needs no triangular factor: || L R || = || L R_r^T || for R^T = Q_r R_r.
    const auto core = [](matrix<double> factor) {
        return factor.rows() > factor.cols() ? triangular_factor(std::move(factor)) : std::move(factor);
    };
    matrix<double> l = copy_in<double>(a.left), r = copy_in<double>(transposed(a.right));
    const double scale_l = detail::power_of_two_scale(max_abs(l)), scale_r = detail::power_of_two_scale(max_abs(r));
    l *= scale_l;
    r *= scale_r;
    const double norm = norm_of(product(core(std::move(l)), transposed(core(std::move(r)))));
    return detail::without_scales(norm, scale_l, scale_r);
}

#ifdef LOWRANK_COMPILED
template struct low_rank<float>;
template struct low_rank<double>;
template double frobenius_norm(const low_rank<float>&);
template double frobenius_norm(const low_rank<double>&);
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_LOW_RANK_IPP
