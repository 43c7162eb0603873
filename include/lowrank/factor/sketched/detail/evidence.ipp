// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_SKETCHED_DETAIL_EVIDENCE_IPP
#define LOWRANK_FACTOR_SKETCHED_DETAIL_EVIDENCE_IPP

#include <lowrank/factor/sketched/detail/evidence.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

#include <lowrank/factor/orthonormalize.hpp>

namespace lowrank::inline LOWRANK_ABI::detail {

/// ||W - X Y^T||_F unit, by tiles that stay in cache, products in the scalar S and sums in double. Columns of W are
/// contiguous; X or Y carries the factor `unit`.
template <real S, storage T>
[[nodiscard]] double residual_norm(const dense_view<const T>& w, const matrix<S>& x, const matrix<S>& y, S unit) {
    constexpr index height = 512, width = 256;
    double sum = 0.0;
    matrix<S> rest;
    for (index j = 0; j < w.cols(); j += width) {
        const index cols = std::min(width, w.cols() - j);
        for (index i = 0; i < w.rows(); i += height) {
            const index rows = std::min(height, w.rows() - i);
            rest.resize(rows, cols);
            copy_into<S, T>(w.block(i, j, rows, cols), rest.data());
            for (index p = 0; p < rest.size(); ++p) {
                rest.data()[p] *= unit;
            }
            add_product(S(-1), dense_view<const S>(x).middle_rows(i, rows),
                        transposed(dense_view<const S>(y).middle_rows(j, cols)), rest);
            sum += sum_of_squares<S>(rest.data(), rest.size());
        }
    }
    return std::sqrt(sum);
}

/// ||W - U diag(s) V^T||_F, for a W of this norm.
template <real S, storage T>
[[nodiscard]] double dense_residual(const dense_view<const T>& w, double norm_of_w, const matrix<S>& u, vector<S> s,
                                    const matrix<S>& v) {
    const S unit = power_of_two_scale(static_cast<S>(std::min(norm_of_w, double{std::numeric_limits<S>::max()})));
    s *= unit;
    matrix<S> us = u;
    scale_cols(us, s);
    const double norm =
        w.row_stride() == 1 ? residual_norm<S, T>(w, us, v, unit) : residual_norm<S, T>(transposed(w), v, us, unit);
    return norm / static_cast<double>(unit);
}

template <real S, storage T>
error_evidence dense_evidence(const dense_view<const T>& w, const matrix<S>& u, const vector<S>& s,
                              const matrix<S>& v) {
    const double norm = frobenius_of<T>(w);
    const double eps = rounding_of_values<S>(s.size(), norm);
    error_evidence e;
    if (norm == 0.0) {
        return e;
    }
    double share = 0.0;
    for (index i = 0; i < s.size(); ++i) {
        const double x = static_cast<double>(s(i)) / norm;
        share += x * x;
    }
    // The values carry a few eps each, so the difference keeps 1 / (1 - share) times fewer digits.
    if (1.0 - share > 1e4 * eps) {
        e.relative = std::sqrt(1.0 - share);
        e.how = error_source::difference;
        e.deviation = 4.0 * eps / (1.0 - share);
    } else {
        e.relative = dense_residual<S, T>(w, norm, u, s, v) / norm;
        e.how = error_source::residual;
        // Rounding of the product itself is eps ||A|| per entry and row.
        e.deviation = std::min(1.0, 4.0 * static_cast<double>(std::numeric_limits<S>::epsilon()) /
                                        std::max(e.relative, std::numeric_limits<double>::min()));
    }
    e.frobenius = e.relative * norm;
    return e;
}

template <real S>
error_evidence sampled_evidence(matrix<S> z, double unit, const matrix<S>& u, const vector<S>& s) {
    error_evidence e{.how = error_source::sampled};
    const double count = static_cast<double>(z.cols());
    const S own = power_of_two_scale(max_abs(z));
    z *= own;
    add_product(S(-1), u, product(transposed(u), z), z);
    e.frobenius = z.cols() > 0 ? norm_of(z) / std::sqrt(count) / static_cast<double>(own) / unit : 0.0;
    const double norm = std::hypot(norm_of(s), e.frobenius);
    e.relative = norm > 0.0 ? e.frobenius / norm : 0.0;
    // The variance of |E g|^2 for signs is at most 2 ||E||_F^4; a square root halves a relative deviation.
    e.deviation = z.cols() > 0 ? std::sqrt(0.5 / count) : 1.0;
    return e;
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_EVIDENCE_OF(S, T)                                                                                \
    template error_evidence dense_evidence<S, T>(const dense_view<const T>&, const matrix<S>&, const vector<S>&, \
                                                 const matrix<S>&);
LOWRANK_EVIDENCE_OF(float, float)
LOWRANK_EVIDENCE_OF(float, half)
LOWRANK_EVIDENCE_OF(float, bfloat16)
LOWRANK_EVIDENCE_OF(double, double)
#undef LOWRANK_EVIDENCE_OF
template error_evidence sampled_evidence(matrix<float>, double, const matrix<float>&, const vector<float>&);
template error_evidence sampled_evidence(matrix<double>, double, const matrix<double>&, const vector<double>&);
#endif

}  // namespace lowrank::inline LOWRANK_ABI::detail

#endif  // LOWRANK_FACTOR_SKETCHED_DETAIL_EVIDENCE_IPP
