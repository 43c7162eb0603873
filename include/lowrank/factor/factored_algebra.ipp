// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_FACTORED_ALGEBRA_IPP
#define LOWRANK_FACTOR_FACTORED_ALGEBRA_IPP

#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>

#include <lowrank/core/dense.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/factor/factored_algebra.hpp>
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

template <real S>
svd_result<S> svd(const low_rank<S>& a) {
    detail::expects_factors("svd", a);
    svd_result<S> out;
    if (!all_finite(a.left) || !all_finite(a.right)) {
        out.why = {errc::non_finite, "svd: a factor holds NaN or infinity; repair or exclude it"};
        return out;
    }
    const index p = std::min({a.rows(), a.cols(), a.rank()});
    if (p == 0) {
        out.u.resize(a.rows(), 0);
        out.v.resize(a.cols(), 0);
        return out;
    }
    // Both sides scaled to magnitude one by powers of two, put back into the values at the end.
    const double unit_l = static_cast<double>(detail::power_of_two_scale(max_abs(a.left)));
    const double unit_r = static_cast<double>(detail::power_of_two_scale(max_abs(a.right)));
    matrix<double> left = copy_in<double>(a.left), right = copy_in<double>(transposed(a.right));
    left *= unit_l;
    right *= unit_r;
    const auto l = thin_qr<double>(std::move(left));
    const auto r = thin_qr<double>(std::move(right));
    const matrix<double> core = product(l.r, transposed(r.r));
    auto f = svd(core);
    if (!f) {
        out.why = std::move(f.why);
        return out;
    }
    f.s /= unit_l;
    f.s /= unit_r;
    const vector<S> values = head_in<S>(f.s, p);
    if (!all_finite(values)) {
        out.why = {errc::non_finite, "svd: the largest singular value exceeds the range of the scalar"};
        return out;
    }
    out.u = copy_in<S>(product(l.q, dense_view<const double>(f.u).middle_cols(0, p)));
    out.s = values;
    out.v = copy_in<S>(product(r.q, dense_view<const double>(f.v).middle_cols(0, p)));
    detail::fix_signs(out.u, out.v);
    return out;
}

namespace detail {

template <real S>
[[nodiscard]] resize_result<S> resized(const spectrum<S>& spec, index k, sigma_split split) {
    resize_result<S> out;
    out.product = spec.truncate(k, split);
    out.error = spec.error(k);
    out.relative = spec.relative_error(k);
    return out;
}

}  // namespace detail

template <real S>
resize_result<S> resize(const low_rank<S>& a, index k, sigma_split split) {
    detail::expects(k >= 0, "resize: the rank must not be negative");
    const auto spec = make_spectrum(a);
    if (!spec) {
        return {{.why = spec.error()}};
    }
    return detail::resized(*spec, std::min(k, spec->size()), split);
}

template <real S>
resize_result<S> recompress(const low_rank<S>& a, double tolerance, sigma_split split) {
    detail::expects(tolerance >= 0.0, "recompress: tolerance must not be negative");
    const auto spec = make_spectrum(a);
    if (!spec) {
        return {{.why = spec.error()}};
    }
    return detail::resized(*spec, rank_from_relative_error(spec->values(), tolerance), split);
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
    template svd_result<S> svd(const low_rank<S>&);                                      \
    template resize_result<S> resize(const low_rank<S>&, index, sigma_split);            \
    template resize_result<S> recompress(const low_rank<S>&, double, sigma_split);       \
    template low_rank<S> orthogonalize_left(const low_rank<S>&);                         \
    template low_rank<S> orthogonalize_right(const low_rank<S>&);
LOWRANK_FACTORED_ALGEBRA_OF(float)
LOWRANK_FACTORED_ALGEBRA_OF(double)
#undef LOWRANK_FACTORED_ALGEBRA_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_FACTORED_ALGEBRA_IPP
