// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_FACTORED_ALGEBRA_IPP
#define LOWRANK_FACTOR_FACTORED_ALGEBRA_IPP

#include <lowrank/factor/factored_algebra.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <span>
#include <string>
#include <utility>

#include <lowrank/core/dense.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/factor/orthonormalize.hpp>
#include <lowrank/factor/ranks/rank_rules.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
low_rank<S> transpose(const low_rank<S>& a) {
    detail::expects_factors("transpose", a);
    return {.left = copy_in<S>(transposed(a.right)), .right = copy_in<S>(transposed(a.left))};
}

template <real S>
low_rank<S> weighted_sum(std::span<const low_rank<S>> terms, std::span<const S> weights) {
    detail::expects(!terms.empty() && terms.size() == weights.size(),
                    "weighted_sum: needs at least one term, and one weight for each");
    index rank = 0;
    for (const auto& t : terms) {
        detail::expects_factors("weighted_sum", t);
        detail::expects_shape("weighted_sum", "every term", t.rows(), t.cols(), terms[0].rows(), terms[0].cols());
        rank += t.rank();
    }
    low_rank<S> sum{.left = matrix<S>(terms[0].rows(), rank), .right = matrix<S>(rank, terms[0].cols())};
    index at = 0;
    for (std::size_t i = 0; i < terms.size(); ++i) {
        const index k = terms[i].rank();
        sum.left.middleCols(at, k) = terms[i].left;
        sum.left.middleCols(at, k) *= weights[i];
        sum.right.middleRows(at, k) = terms[i].right;
        at += k;
    }
    return sum;
}

template <real S>
low_rank<S> add(const low_rank<S>& a, const low_rank<S>& b, S alpha, S beta) {
    const low_rank<S> terms[] = {a, b};
    const S weights[] = {alpha, beta};
    return weighted_sum<S>(terms, weights);
}

template <real S>
low_rank<S> multiply(const low_rank<S>& a, const low_rank<S>& b) {
    detail::expects_factors("multiply", a);
    detail::expects_factors("multiply", b);
    detail::expects_shape("multiply", "b", b.rows(), b.cols(), a.cols(), b.cols());
    const matrix<S> middle = product(a.right, b.left);
    if (a.rank() <= b.rank()) {
        return {.left = a.left, .right = product(middle, b.right)};
    }
    return {.left = product(a.left, middle), .right = b.right};
}

template <real S>
double inner_product(const low_rank<S>& a, const low_rank<S>& b) {
    detail::expects_factors("inner_product", a);
    detail::expects_factors("inner_product", b);
    detail::expects_shape("inner_product", "b", b.rows(), b.cols(), a.rows(), a.cols());
    const matrix<double> l = product_in<double>(transposed(a.left), b.left);
    const matrix<double> r = product_in<double>(a.right, transposed(b.right));
    double sum = 0.0;
    for (index i = 0; i < l.size(); ++i) {
        sum += l.data()[i] * r.data()[i];
    }
    return sum;
}

namespace detail {

/// `svd` of a low_rank; `function` is named in messages.
template <real S>
[[nodiscard]] decomposition<S> svd_of_factors(const char* function, const low_rank<S>& a) {
    expects_factors(function, a);
    if (!all_finite(a.left) || !all_finite(a.right)) {
        return failed_in(function, errc::non_finite, "a factor holds NaN or infinity; repair or exclude it");
    }
    const index p = std::min({a.rows(), a.cols(), a.rank()});
    if (p == 0) {
        return {matrix<S>(a.rows(), 0), vector<S>(0), matrix<S>(a.cols(), 0)};
    }
    // Both sides scaled to magnitude one by powers of two, put back into the values at the end.
    const double unit_l = static_cast<double>(power_of_two_scale(max_abs(a.left)));
    const double unit_r = static_cast<double>(power_of_two_scale(max_abs(a.right)));
    matrix<double> left = copy_in<double>(a.left), right = copy_in<double>(transposed(a.right));
    left *= unit_l;
    right *= unit_r;
    const auto l = thin_qr<double>(std::move(left));
    const auto r = thin_qr<double>(std::move(right));
    auto f = svd_of_dense<double>(function, product(l.r, transposed(r.r)));
    if (!f) {
        return std::move(f.why);
    }
    std::transform(f.s.begin(), f.s.end(), f.s.begin(), [&](double x) { return without_scales(x, unit_l, unit_r); });
    vector<S> values = head_in<S>(f.s, p);
    if (!all_finite(values)) {
        return value_beyond_range(function);
    }
    decomposition<S> out(copy_in<S>(product(l.q, dense_view<const double>(f.u).middle_cols(0, p))), std::move(values),
                         copy_in<S>(product(r.q, dense_view<const double>(f.v).middle_cols(0, p))),
                         {.deviation = static_cast<double>(std::numeric_limits<S>::epsilon())});
    fix_signs(out.u, out.v);
    return out;
}

}  // namespace detail

template <real S>
decomposition<S> svd(const low_rank<S>& a) {
    return detail::svd_of_factors("svd", a);
}

template <real S>
decomposition<S> resize(const low_rank<S>& a, index k) {
    detail::expects_rank("resize", k, a.rows(), a.cols());
    auto f = detail::svd_of_factors("resize", a);
    return f ? f.leading(std::min(k, f.size())) : std::move(f);
}

template <real S>
decomposition<S> recompress(const low_rank<S>& a, double tolerance) {
    detail::expects(tolerance >= 0.0, "recompress: tolerance must not be negative");
    auto f = detail::svd_of_factors("recompress", a);
    return f ? f.leading(rank_from_relative_error(f.s, tolerance)) : std::move(f);
}

template <real S>
low_rank<S> orthogonalize_left(const low_rank<S>& a) {
    detail::expects_factors("orthogonalize_left", a);
    auto qr = thin_qr<S>(a.left);
    return {.left = std::move(qr.q), .right = product(qr.r, a.right)};
}

template <real S>
low_rank<S> orthogonalize_right(const low_rank<S>& a) {
    return transpose(orthogonalize_left(transpose(a)));
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_FACTORED_ALGEBRA_OF(S)                                                   \
    template low_rank<S> transpose(const low_rank<S>&);                                  \
    template low_rank<S> weighted_sum(std::span<const low_rank<S>>, std::span<const S>); \
    template low_rank<S> add(const low_rank<S>&, const low_rank<S>&, S, S);              \
    template low_rank<S> multiply(const low_rank<S>&, const low_rank<S>&);               \
    template double inner_product(const low_rank<S>&, const low_rank<S>&);               \
    template decomposition<S> svd(const low_rank<S>&);                                   \
    template decomposition<S> resize(const low_rank<S>&, index);                         \
    template decomposition<S> recompress(const low_rank<S>&, double);                    \
    template low_rank<S> orthogonalize_left(const low_rank<S>&);                         \
    template low_rank<S> orthogonalize_right(const low_rank<S>&);
LOWRANK_FACTORED_ALGEBRA_OF(float)
LOWRANK_FACTORED_ALGEBRA_OF(double)
#undef LOWRANK_FACTORED_ALGEBRA_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_FACTORED_ALGEBRA_IPP
