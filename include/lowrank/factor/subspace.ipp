// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_SUBSPACE_IPP
#define LOWRANK_FACTOR_SUBSPACE_IPP

#include <lowrank/factor/subspace.hpp>

#include <algorithm>
#include <cmath>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/factor/orthonormalize.hpp>
#include <lowrank/factor/svd.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
double subspace_similarity(const matrix<S>& u, const matrix<S>& v, index i, index j) {
    detail::expects_shape("subspace_similarity", "v", v.rows(), v.cols(), u.rows(), v.cols());
    detail::expects_in_range("subspace_similarity", "i", i, index{1}, u.cols());
    detail::expects_in_range("subspace_similarity", "j", j, index{1}, v.cols());
    const auto leading_u = dense_view<const S>(u).middle_cols(0, i),
               leading_v = dense_view<const S>(v).middle_cols(0, j);
    const double overlap = norm_of(product_in<double>(transposed(leading_u), leading_v));
    return overlap * overlap / static_cast<double>(std::min(i, j));
}

template <real S>
matrix<double> subspace_similarities(const matrix<S>& u, const matrix<S>& v) {
    detail::expects_shape("subspace_similarities", "v", v.rows(), v.cols(), u.rows(), v.cols());
    matrix<double> phi = product_in<double>(transposed(u), v);
    for (index j = 0; j < phi.cols(); ++j) {  // sums of squares over all leading blocks
        double column = 0.0;
        for (index i = 0; i < phi.rows(); ++i) {
            column += phi(i, j) * phi(i, j);
            phi(i, j) = column + (j > 0 ? phi(i, j - 1) : 0.0);
        }
    }
    for (index j = 0; j < phi.cols(); ++j) {
        for (index i = 0; i < phi.rows(); ++i) {
            phi(i, j) /= static_cast<double>(std::min(i, j) + 1);
        }
    }
    return phi;
}

template <real S>
result<vector<double>> principal_angles(const matrix<S>& a, const matrix<S>& b) {
    detail::expects_shape("principal_angles", "b", b.rows(), b.cols(), a.rows(), b.cols());
    detail::expects(a.cols() <= a.rows() && b.cols() <= b.rows(), "principal_angles: more columns than rows");
    if (!all_finite(a) || !all_finite(b)) {
        return status{errc::non_finite, "principal_angles: an argument holds NaN or infinity"};
    }
    const bool swap = a.cols() < b.cols();
    matrix<double> x = copy_in<double>(swap ? b : a);  // the larger space
    matrix<double> y = copy_in<double>(swap ? a : b);
    orthonormalize(x);
    orthonormalize(y);
    vector<double> angles(y.cols());
    if (angles.size() == 0) {
        return angles;
    }
    const matrix<double> overlap = product(transposed(x), y);
    const auto cosines = svd(overlap);
    // Sines of the same angles: what of y lies outside x.
    matrix<double> outside = y;
    add_product(-1.0, x, overlap, outside);
    const auto sines = svd(outside);
    if (!cosines || !sines) {
        return cosines ? sines.why : cosines.why;
    }
    for (index i = 0; i < angles.size(); ++i) {
        const double c = std::clamp(cosines.s(i), 0.0, 1.0);                    // descending
        const double s = std::clamp(sines.s(angles.size() - 1 - i), 0.0, 1.0);  // ascending
        angles(i) = c * c > 0.5 ? std::asin(s) : std::acos(c);
    }
    return angles;
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_SUBSPACE_OF(S)                                                             \
    template double subspace_similarity(const matrix<S>&, const matrix<S>&, index, index); \
    template matrix<double> subspace_similarities(const matrix<S>&, const matrix<S>&);     \
    template result<vector<double>> principal_angles(const matrix<S>&, const matrix<S>&);
LOWRANK_SUBSPACE_OF(float)
LOWRANK_SUBSPACE_OF(double)
#undef LOWRANK_SUBSPACE_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_SUBSPACE_IPP
