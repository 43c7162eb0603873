// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_SKETCHED_RANDOMIZED_SVD_HPP
#define LOWRANK_FACTOR_SKETCHED_RANDOMIZED_SVD_HPP

/// \file
/// The leading singular triplets of a matrix we can only multiply with, by randomized subspace iteration.
///
///     auto f = lowrank::randomized_svd(w, 64, {.oversample = 16, .power_iterations = 2, .seed = 7});
///     if (!f) return log(f.why.message);
///     log(f.error.relative, to_string(f.error.how));   // how far off, and how that is known
///
/// Halko, Martinsson, Tropp, SIAM Review 53 (2011), Algorithms 4.4 and 5.1, with an orthonormal basis after every pass.
/// The subspace is only as good as the decay of the spectrum lets it be: on slowly decaying weights raise
/// `power_iterations` or use `krylov_svd`, and read the error.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/orthonormalize.hpp>
#include <lowrank/factor/sketched/sketch.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/factor/symmetric_eigen.hpp>
#include <lowrank/factor/truncated_svd.hpp>

namespace lowrank::inline LOWRANK_ABI {

struct randomized_svd_options {
    index oversample = 8;      ///< Columns sketched beyond the rank, then dropped.
    int power_iterations = 2;  ///< Passes of A A^T; each costs two more products.
    std::uint64_t seed = 0;    ///< Same seed, same sketch, on every machine.
    index error_samples = 8;   ///< Extra columns of the first product that estimate the error of a non-dense map.
};

namespace detail {

/// Y = A X, or A^T X.
template <linear_operator M>
void product_into(const M& a, const matrix<typename M::scalar>& x, matrix<typename M::scalar>& y, bool transposed,
                  workspace& ws) {
    using S = typename M::scalar;
    y.setZero(transposed ? a.cols() : a.rows(), x.cols());
    if (transposed) {
        a.add_transposed_product(S(1), const_column_view<S>(x), column_view<S>(y), ws);
    } else {
        a.add_product(S(1), const_column_view<S>(x), column_view<S>(y), ws);
    }
}

/// The dense weight behind a map, if there is one.
template <class M>
concept operator_with_weight = linear_operator<M> && requires(const M& m) {
    {m.weight()};
    requires dense_weight<decltype(m.weight())>;
};

/// The sum of (scale x_i)^2 over `count` scalars, in double: as many independent sums as it takes to read at the speed of
/// memory.
template <class T>
[[nodiscard]] double sum_of_squares(const T* x, index count, double scale = 1.0) {
    constexpr index sums = 32;
    double sum[sums] = {};
    index i = 0;
    for (; i + sums <= count; i += sums) {
        for (index j = 0; j < sums; ++j) {
            const double value = static_cast<double>(x[i + j]) * scale;
            sum[j] += value * value;
        }
    }
    for (; i < count; ++i) {
        const double value = static_cast<double>(x[i]) * scale;
        sum[0] += value * value;
    }
    return Eigen::Map<const vector<double>>(sum, sums).sum();
}

/// ||W||_F of a finite dense weight in double; neither overflows nor underflows.
template <class W>
[[nodiscard]] double dense_norm(const W& w) {
    double scale = 1.0;
    if constexpr (std::same_as<typename plain_t<W>::Scalar, double>) {
        scale = w.size() == 0 ? 1.0 : power_of_two_scale(w.cwiseAbs().maxCoeff());
    }
    double sum = 0.0;
    for (index i = 0; i < w.outerSize(); ++i) {
        sum += sum_of_squares(w.data() + i * w.outerStride(), w.innerSize(), scale);
    }
    return std::sqrt(sum) / scale;
}

/// ||W - U diag(s) V^T||_F, by tiles that stay in cache, products in the scalar S and sums in double.
template <class W, real S>
[[nodiscard]] double dense_residual(const W& w, const matrix<S>& u, const vector<S>& s, const matrix<S>& v) {
    constexpr index height = 512, width = 256;  // along the memory of W, and across
    const S unit = s.size() > 0 ? power_of_two_scale(s(0)) : S(1);
    const matrix<S> us = u * (s * unit).asDiagonal();
    const matrix<S>& inner = plain_t<W>::IsRowMajor ? v : us;
    const matrix<S>& outer = plain_t<W>::IsRowMajor ? us : v;
    double sum = 0.0;
    matrix<S> rest;
    for (index j = 0; j < w.outerSize(); j += width) {
        const index cols = std::min(width, w.outerSize() - j);
        const matrix<S> across = outer.middleRows(j, cols).transpose();
        for (index i = 0; i < w.innerSize(); i += height) {
            const index rows = std::min(height, w.innerSize() - i);
            rest.resize(rows, cols);
            for (index c = 0; c < cols; ++c) {
                const auto* from = w.data() + (j + c) * w.outerStride() + i;
                S* to = rest.data() + c * rows;
                for (index r = 0; r < rows; ++r) {
                    to[r] = static_cast<S>(from[r]) * unit;
                }
            }
            rest.noalias() -= inner.middleRows(i, rows) * across;
            sum += sum_of_squares(rest.data(), rest.size());
        }
    }
    return std::sqrt(sum) / static_cast<double>(unit);
}

/// Error evidence for A ~ U diag(s) V^T with U^T A = diag(s) V^T, from the weight itself.
template <class W, real S>
[[nodiscard]] error_evidence dense_evidence(const W& w, const matrix<S>& u, const vector<S>& s, const matrix<S>& v) {
    const double eps = static_cast<double>(std::numeric_limits<S>::epsilon());
    const double norm = dense_norm(w);
    error_evidence e;
    if (!(norm > 0.0)) {
        return e;
    }
    const double share = (s.template cast<double>() / norm).squaredNorm();
    // The values carry a few eps each, so the difference keeps 1 / (1 - share) times fewer digits.
    if (1.0 - share > 1e4 * eps) {
        e.relative = std::sqrt(1.0 - share);
        e.how = error_source::difference;
        e.deviation = 4.0 * eps / (1.0 - share);
    } else {
        e.relative = dense_residual(w, u, s, v) / norm;
        e.how = error_source::residual;
        // Rounding of the product itself is eps ||A|| per entry and row.
        e.deviation = std::min(1.0, 4.0 * eps / std::max(e.relative, std::numeric_limits<double>::min()));
    }
    e.frobenius = e.relative * norm;
    return e;
}

/// Error evidence from Z = A G for a matrix G of independent signs that had no part in U.
template <real S>
[[nodiscard]] error_evidence sampled_evidence(matrix<S> z, const matrix<S>& u, const vector<S>& s) {
    error_evidence e{.how = error_source::sampled};
    const index count = z.cols();
    const S unit = power_of_two_scale(z.size() > 0 ? z.cwiseAbs().maxCoeff() : S(0));
    z *= unit;
    const matrix<S> inside = u.transpose() * z;
    z.noalias() -= u * inside;
    const double mean = count > 0 ? z.template cast<double>().squaredNorm() / static_cast<double>(count) : 0.0;
    e.frobenius = std::sqrt(mean) / static_cast<double>(unit);
    const double norm = std::hypot(s.template cast<double>().stableNorm(), e.frobenius);
    e.relative = norm > 0.0 ? e.frobenius / norm : 0.0;
    // The variance of |E g|^2 for signs is at most 2 ||E||_F^4; a square root halves a relative deviation.
    e.deviation = count > 0 ? std::sqrt(0.5 / static_cast<double>(count)) : 1.0;
    return e;
}

/// The evidence that is to be had: from the weight where there is one, from the samples elsewhere.
template <class M, real S>
[[nodiscard]] error_evidence evidence_for(const M& a, const matrix<S>& samples, const matrix<S>& u, const vector<S>& s,
                                          const matrix<S>& v) {
    if constexpr (dense_weight<M>) {
        return dense_evidence(a, u, s, v);
    } else if constexpr (operator_with_weight<M>) {
        return dense_evidence(a.weight(), u, s, v);
    } else {
        return sampled_evidence<S>(samples, u, s);
    }
}

/// The k leading singular triplets of A inside the range of Q, from the tall B^T = A^T Q: A ~ Q B.
template <real S>
[[nodiscard]] truncated_svd_result<S> svd_within(const matrix<S>& q, matrix<S> b_transposed, index k) {
    truncated_svd_result<S> out;
    if constexpr (std::same_as<S, float>) {
        // As in svd, but only the k columns wanted are formed.
        matrix<double> gram;
        gram_lower(b_transposed, gram);
        auto eigen = symmetric_eigen_of<double>(gram, true);
        if (!eigen) {
            out.why = std::move(eigen.why);
            return out;
        }
        matrix<double> turn = eigen.vectors.leftCols(k);
        matrix<double> v = wide_product(b_transposed, turn);
        vector<double> s;
        normalize_columns(v, s, turn, 3e-5, 1e-8);
        out.u.noalias() = q * turn.template cast<S>();
        out.s = s.template cast<S>();
        out.v = v.template cast<S>();
    } else {
        auto core = svd_of_tall<S>(std::move(b_transposed));
        if (!core) {
            out.why = std::move(core.why);
            return out;
        }
        out.u.noalias() = q * core.v.leftCols(k);
        out.s = core.s.head(k);
        out.v = core.u.leftCols(k);
    }
    fix_signs(out.u, out.v);
    return out;
}

/// Completes a factorization of an A of lower rank to k triplets with s = 0 and orthonormal vectors.
template <real S>
void pad_with_zeros(truncated_svd_result<S>& f, index k) {
    const index found = f.s.size();
    if (found >= k) {
        return;
    }
    const auto complete = [&](matrix<S>& x) {
        matrix<S> all = matrix<S>::Zero(x.rows(), k);
        all.leftCols(found) = x;
        const matrix<S> q = thin_qr(std::move(all)).q;  // zero columns become orthonormal ones
        matrix<S> out(x.rows(), k);
        out << x, q.rightCols(k - found);
        x.swap(out);
    };
    complete(f.u);
    complete(f.v);
    f.s.conservativeResize(k);
    f.s.tail(k - found).setZero();
    fix_signs(f.u, f.v);
}

[[nodiscard]] inline status non_finite_operator(const char* function) {
    return {errc::non_finite,
            std::string(function) + ": a product with the map holds NaN or infinity; repair or exclude the weight"};
}

}  // namespace detail

/// The k leading singular triplets of A (m x n), a dense weight or any linear operator.
///
/// U^T A = diag(s) V^T holds to rounding, so the values never exceed the true ones and the error is that of a
/// projection.
/// \pre    0 <= k <= min(m, n); no option is negative.
/// \return `non_finite` if a product holds NaN or infinity. The error is exact to the stated deviation for a dense
///         weight, an estimate for other maps.
/// \cost   2 (power_iterations + 1) products with k + oversample columns, 8 (m + n) (k + oversample)^2 flops each pass
///         for the bases.
/// \note   The sketch is equal on every machine; the result bit-equal for one binary and CPU.
template <operator_like M>
[[nodiscard]] truncated_svd_result<operator_scalar<M>> randomized_svd(const M& m, index k,
                                                                      const randomized_svd_options& options,
                                                                      workspace& ws) {
    using S = operator_scalar<M>;
    const auto& a = as_operator(m);
    const index most = std::min<index>(a.rows(), a.cols());
    detail::expects_in_range("randomized_svd", "rank", k, index{0}, most);
    detail::expects(options.oversample >= 0 && options.power_iterations >= 0 && options.error_samples >= 0,
                    "randomized_svd: oversample, power_iterations and error_samples must not be negative");
    constexpr bool dense = detail::dense_weight<M> || detail::operator_with_weight<M>;
    const index width = std::min(k + options.oversample, most);
    const index samples = dense ? 0 : options.error_samples;

    // One product serves both the sketch and the columns held back for the error.
    matrix<S> q;
    matrix<S> z;
    detail::product_into(a, sign_sketch<S>(a.cols(), width + samples, philox(options.seed)), q, false, ws);
    const matrix<S> held_back = q.rightCols(samples);
    q.conservativeResize(Eigen::NoChange, width);
    for (int pass = 0;; ++pass) {
        if (!all_finite(q)) {
            return {.why = detail::non_finite_operator("randomized_svd")};
        }
        orthonormalize(q);  // without it, small directions drown in rounding
        detail::product_into(a, q, z, true, ws);
        if (pass == options.power_iterations) {
            break;
        }
        if (!all_finite(z)) {
            return {.why = detail::non_finite_operator("randomized_svd")};
        }
        orthonormalize(z);
        detail::product_into(a, z, q, false, ws);
    }
    if (!all_finite(z) || !all_finite(held_back)) {
        return {.why = detail::non_finite_operator("randomized_svd")};
    }
    auto out = detail::svd_within(q, std::move(z), k);
    if (out) {
        out.error = detail::evidence_for(m, held_back, out.u, out.s, out.v);
    }
    return out;
}

/// The same with scratch memory of its own.
template <operator_like M>
[[nodiscard]] truncated_svd_result<operator_scalar<M>> randomized_svd(const M& m, index k,
                                                                      const randomized_svd_options& options = {}) {
    workspace ws;
    return randomized_svd(m, k, options, ws);
}

#ifdef LOWRANK_EXTERN_TEMPLATES
extern template truncated_svd_result<float> detail::svd_within<float>(const matrix<float>&, matrix<float>, index);
extern template truncated_svd_result<double> detail::svd_within<double>(const matrix<double>&, matrix<double>, index);
extern template error_evidence detail::dense_evidence<matrix<float>, float>(const matrix<float>&, const matrix<float>&,
                                                                            const vector<float>&, const matrix<float>&);
extern template error_evidence detail::dense_evidence<matrix<double>, double>(const matrix<double>&,
                                                                              const matrix<double>&,
                                                                              const vector<double>&,
                                                                              const matrix<double>&);
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_SKETCHED_RANDOMIZED_SVD_HPP
