// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_FACTORED_ALGEBRA_HPP
#define LOWRANK_FACTOR_FACTORED_ALGEBRA_HPP

/// \file
/// Algebra on products of two factors: everything through QR and a small core, nothing ever m x n.
///
///     auto sum = lowrank::add(a, b, 0.5F, 0.5F);       // exact: factors side by side, rank ka + kb
///     auto small = lowrank::resize(sum, 16);           // best rank 16, as a dense SVD would give it
///     double cosine = lowrank::inner_product(a, b) / (lowrank::frobenius_norm(a) * lowrank::frobenius_norm(b));
///
/// With left = Q_l R_l and right^T = Q_r R_r, the singular values of left * right are those of the k x k matrix
/// R_l R_r^T, and its singular vectors are those of the core turned by Q_l and Q_r.

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/factor/orthonormalize.hpp>
#include <lowrank/factor/ranks/rank_rules.hpp>
#include <lowrank/factor/spectrum.hpp>
#include <lowrank/factor/svd.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

template <real S>
void expects_factors(const char* function, const low_rank<S>& a) {
    if (a.left.cols() != a.right.rows()) [[unlikely]] {
        fail_contract_with(function, ": left has ", a.left.cols(), " columns and right ", a.right.rows(),
                           " rows; they must agree");
    }
}

}  // namespace detail

/// alpha A. \cost k min(m, n) multiplications; the product of the factors is scaled once.
template <real S>
[[nodiscard]] low_rank<S> scale(low_rank<S> a, S alpha) {
    detail::expects_factors("scale", a);
    (a.rows() <= a.cols() ? a.left : a.right) *= alpha;
    return a;
}

/// A^T.
template <real S>
[[nodiscard]] low_rank<S> transpose(const low_rank<S>& a) {
    detail::expects_factors("transpose", a);
    return {.left = a.right.transpose(), .right = a.left.transpose()};
}

/// sum_i weights_i A_i, exact, of rank sum k_i: the factors side by side. `resize` makes it small again.
/// \pre At least one term, all of one shape; as many weights as terms.
template <real S>
[[nodiscard]] low_rank<S> weighted_sum(std::span<const low_rank<S>> terms, std::span<const S> weights) {
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
        sum.left.middleCols(at, terms[i].rank()) = terms[i].left * weights[i];
        sum.right.middleRows(at, terms[i].rank()) = terms[i].right;
        at += terms[i].rank();
    }
    return sum;
}

/// alpha A + beta B, exact, of rank ka + kb.
template <real S>
[[nodiscard]] low_rank<S> add(const low_rank<S>& a, const low_rank<S>& b, S alpha = S(1), S beta = S(1)) {
    const low_rank<S> terms[] = {a, b};
    const S weights[] = {alpha, beta};
    return weighted_sum<S>(terms, weights);
}

/// A B, exact, of rank min(ka, kb). \pre A.cols() == B.rows() \cost 2 n ka kb flops, then one factor product.
template <real S>
[[nodiscard]] low_rank<S> multiply(const low_rank<S>& a, const low_rank<S>& b) {
    detail::expects_factors("multiply", a);
    detail::expects_factors("multiply", b);
    detail::expects_shape("multiply", "b", b.rows(), b.cols(), a.cols(), b.cols());
    const matrix<S> middle = a.right * b.left;
    if (a.rank() <= b.rank()) {
        return {.left = a.left, .right = middle * b.right};
    }
    return {.left = a.left * middle, .right = b.right};
}

/// <A, B> = trace(A^T B) in double, through the two k_a x k_b cores. \pre A and B have one shape.
/// \cost 2 (m + n) ka kb flops.
template <real S>
[[nodiscard]] double inner_product(const low_rank<S>& a, const low_rank<S>& b) {
    detail::expects_factors("inner_product", a);
    detail::expects_factors("inner_product", b);
    detail::expects_shape("inner_product", "b", b.rows(), b.cols(), a.rows(), a.cols());
    const matrix<double> l = a.left.template cast<double>().transpose() * b.left.template cast<double>();
    const matrix<double> r = a.right.template cast<double>() * b.right.template cast<double>().transpose();
    return l.cwiseProduct(r).sum();
}

/// The thin SVD of left * right, min(m, n, k) triplets, without forming the product.
///
/// \return `non_finite` if a factor holds NaN or infinity; values are within a few eps of ||left|| ||right||, also
///         where they nearly cancel, for the core is formed in double.
/// \cost   6 k^2 (m + n) + 20 k^3 flops: for k = 64 and m = n = 4096 a thousand times less than the dense way.
template <real S>
[[nodiscard]] svd_result<S> svd(const low_rank<S>& a) {
    detail::expects_factors("svd", a);
    if (!all_finite(a.left) || !all_finite(a.right)) {
        return {.why = {errc::non_finite, "svd: a factor holds NaN or infinity; repair or exclude it"}};
    }
    const index p = std::min({a.rows(), a.cols(), a.rank()});
    svd_result<S> out;
    if (p == 0) {
        out.u.resize(a.rows(), 0);
        out.v.resize(a.cols(), 0);
        return out;
    }
    // Both sides scaled to magnitude one by powers of two, put back into the values at the end.
    const S unit_l = detail::power_of_two_scale(a.left.cwiseAbs().maxCoeff());
    const S unit_r = detail::power_of_two_scale(a.right.cwiseAbs().maxCoeff());
    const auto l = thin_qr<double>((a.left * unit_l).template cast<double>());
    const auto r = thin_qr<double>((a.right.transpose() * unit_r).template cast<double>());
    const matrix<double> core = l.r * r.r.transpose();
    auto f = svd(core);
    if (!f) {
        out.why = std::move(f.why);
        return out;
    }
    out.u = (l.q * f.u.leftCols(p)).template cast<S>();
    out.v = (r.q * f.v.leftCols(p)).template cast<S>();
    out.s = (f.s.head(p) / static_cast<double>(unit_l) / static_cast<double>(unit_r)).template cast<S>();
    if (!all_finite(out.s)) {
        return {.why = {errc::non_finite, "svd: the largest singular value exceeds the range of the scalar"}};
    }
    detail::fix_signs(out.u, out.v);
    return out;
}

/// The spectrum of left * right: every rank, rule and error of it, from one small decomposition.
/// \return As `svd` of a low_rank.
template <real S>
[[nodiscard]] result<spectrum<S>> make_spectrum(const low_rank<S>& a) {
    auto f = svd(a);
    if (!f) {
        return std::move(f.why);
    }
    return spectrum<S>(std::move(f));
}

/// A smaller product and what it loses.
template <real S>
struct resize_result {
    low_rank<S> product = {};
    double error = 0.0;     ///< ||A - product||_F.
    double relative = 0.0;  ///< The same over ||A||_F.
    status why = {};

    explicit operator bool() const noexcept { return static_cast<bool>(why); }
};

/// The best approximation of left * right of rank at most k, factors of equal norm unless asked otherwise.
///
/// \pre    k >= 0
/// \return As `svd` of a low_rank. A rank above that of the factors gives them at their own rank, min(m, n, k).
/// \cost   6 k^2 (m + n) flops for the rank k that A has now.
template <real S>
[[nodiscard]] resize_result<S> resize(const low_rank<S>& a, index k, sigma_split split = sigma_split::square) {
    detail::expects(k >= 0, "resize: the rank must not be negative");
    const auto spec = make_spectrum(a);
    if (!spec) {
        return {.why = spec.error()};
    }
    const index kept = std::min(k, spec->size());
    return {.product = spec->truncate(kept, split),
            .error = spec->error(kept),
            .relative = spec->relative_error(kept),
            .why = {}};
}

/// The smallest rank with ||A - product||_F <= tolerance ||A||_F: numerically exact recompression for a tolerance of a
/// few eps. \pre tolerance >= 0
template <real S>
[[nodiscard]] resize_result<S> recompress(const low_rank<S>& a, double tolerance,
                                          sigma_split split = sigma_split::square) {
    detail::expects(tolerance >= 0.0, "recompress: tolerance must not be negative");
    const auto spec = make_spectrum(a);
    if (!spec) {
        return {.why = spec.error()};
    }
    const index kept = rank_from_relative_error(spec->values(), tolerance);
    return {.product = spec->truncate(kept, split),
            .error = spec->error(kept),
            .relative = spec->relative_error(kept),
            .why = {}};
}

/// The same product with orthonormal columns on the left: left := Q, right := R right. The product is unchanged.
/// For k > m the inner dimension becomes m. \pre Factors are finite.
template <real S>
[[nodiscard]] low_rank<S> orthogonalize_left(const low_rank<S>& a) {
    detail::expects_factors("orthogonalize_left", a);
    auto qr = thin_qr<S>(a.left);
    return {.left = std::move(qr.q), .right = qr.r * a.right};
}

/// The same product with orthonormal rows on the right: left := left R^T, right := Q^T. \pre Factors are finite.
template <real S>
[[nodiscard]] low_rank<S> orthogonalize_right(const low_rank<S>& a) {
    return transpose(orthogonalize_left(transpose(a)));
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_FACTORED_ALGEBRA_HPP
