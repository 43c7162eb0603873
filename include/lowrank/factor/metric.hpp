// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_METRIC_HPP
#define LOWRANK_FACTOR_METRIC_HPP

/// \file
/// What counts on one side of a weight: a symmetric positive semidefinite matrix C, held as a root F with C = F F^T.
///
///     auto none = lowrank::metric();                                      // identity
///     auto asvd = lowrank::diagonal_metric(x.mean_abs().cwiseSqrt());     // alpha = 0.5
///     auto svdllm = lowrank::gram_metric(c.sum());                        // Cholesky, or eigen where that fails
///     auto coala = lowrank::triangle_metric(t.triangle());                // from QR of activations, nothing squared
///
/// Singular metrics are ordinary: fewer tokens than channels, dead channels and duplicated channels all give one.

#include <algorithm>
#include <cmath>
#include <concepts>
#include <limits>
#include <utility>

#include <Eigen/Cholesky>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/factor/symmetric_eigen.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// How a metric holds its root F.
enum class metric_kind {
    identity,  ///< F = I, of any dimension.
    diagonal,  ///< F = diag(weights).
    cholesky,  ///< F lower triangular, not singular.
    spectral,  ///< F = V diag(root), V orthonormal, root > 0: eigenvectors of C above rounding.
};

/// A root F (n x p) of a metric C = F F^T. An immutable value; the identity by default.
class metric {
public:
    metric() = default;

    [[nodiscard]] metric_kind kind() const noexcept { return kind_; }
    /// n; -1 for the identity, which fits every dimension.
    [[nodiscard]] index dimension() const noexcept {
        return kind_ == metric_kind::identity ? -1 : kind_ == metric_kind::diagonal ? weights_.size() : basis_.rows();
    }
    /// Directions with weight zero: n - rank(C).
    [[nodiscard]] index null_directions() const {
        switch (kind_) {
            case metric_kind::identity: return 0;
            case metric_kind::diagonal: return static_cast<index>(std::count(weights_.begin(), weights_.end(), 0.0));
            case metric_kind::cholesky: return 0;
            case metric_kind::spectral: break;
        }
        return basis_.rows() - basis_.cols();
    }

    /// M F for M (m x n).
    template <std::same_as<double> S = double>
    [[nodiscard]] matrix<S> times_root(detail::only_matrix<S> m) const {
        expects_fit("metric::times_root", m.cols());
        switch (kind_) {
            case metric_kind::identity: return m;
            case metric_kind::diagonal: return m * weights_.asDiagonal();
            case metric_kind::cholesky: return m * basis_.triangularView<Eigen::Lower>();
            case metric_kind::spectral: break;
        }
        return (m * basis_) * weights_.asDiagonal();
    }

    /// (F^T)^+ Y for Y (p x k): the Moore-Penrose inverse of the root that acts from the left.
    template <std::same_as<double> S = double>
    [[nodiscard]] matrix<S> undo_left(detail::only_matrix<S> y) const {
        switch (kind_) {
            case metric_kind::identity: return y;
            case metric_kind::diagonal:
                return weights_.unaryExpr([](double w) { return w > 0.0 ? 1.0 / w : 0.0; }).asDiagonal() * y;
            case metric_kind::cholesky: basis_.transpose().triangularView<Eigen::Upper>().solveInPlace(y); return y;
            case metric_kind::spectral: break;
        }
        return basis_ * (weights_.cwiseInverse().asDiagonal() * y);
    }

    static metric of_diagonal(vector<double> weights) {
        metric m;
        m.kind_ = metric_kind::diagonal;
        m.weights_ = std::move(weights);
        return m;
    }
    static metric of_cholesky(matrix<double> lower) {
        metric m;
        m.kind_ = metric_kind::cholesky;
        m.basis_ = std::move(lower);
        return m;
    }
    static metric of_spectral(matrix<double> vectors, vector<double> roots) {
        metric m;
        m.kind_ = metric_kind::spectral;
        m.basis_ = std::move(vectors);
        m.weights_ = std::move(roots);
        return m;
    }

private:
    void expects_fit(const char* function, index n) const {
        if (kind_ != metric_kind::identity && n != dimension()) [[unlikely]] {
            detail::fail_contract_with(function, ": the metric has dimension ", dimension(), ", the matrix ", n);
        }
    }

    metric_kind kind_ = metric_kind::identity;
    vector<double> weights_ = {};
    matrix<double> basis_ = {};
};

/// C = diag(weights^2): weights scale the coordinates (mean |x|^alpha, root mean square, root of the Fisher sums).
/// \pre weights are finite and not negative.
[[nodiscard]] inline metric diagonal_metric(vector<double> weights) {
    detail::expects(all_finite(weights) && (weights.size() == 0 || weights.minCoeff() >= 0.0),
                    "diagonal_metric: weights must be finite and not negative");
    return metric::of_diagonal(std::move(weights));
}

namespace detail {

/// Eigenvectors of C with eigenvalues above rounding.
template <std::same_as<double> S = double>
[[nodiscard]] result<metric> spectral_metric(const only_matrix<S>& c) {
    auto eigen = symmetric_eigen<S>(c);
    if (!eigen) {
        return std::move(eigen.why);
    }
    const double floor = eigen.values.size() == 0 ? 0.0
                                                  : std::max(0.0, eigen.values(0)) * static_cast<double>(c.rows()) *
                                                        4.0 * std::numeric_limits<double>::epsilon();
    index kept = 0;
    while (kept < eigen.values.size() && eigen.values(kept) > floor) {
        ++kept;
    }
    if (eigen.values.size() > 0 && eigen.values(eigen.values.size() - 1) < -16.0 * floor) {
        return status{errc::mismatch, "gram_metric: the matrix has negative eigenvalues, so it is no metric"};
    }
    return metric::of_spectral(eigen.vectors.leftCols(kept), eigen.values.head(kept).cwiseSqrt());
}

}  // namespace detail

/// C itself, symmetric positive semidefinite, of which the lower triangle is read: Cholesky where C is safely
/// definite, eigenvectors above rounding where it is not.
///
/// \pre    C is square.
/// \return `non_finite` for NaN or infinity, `mismatch` for a C with negative eigenvalues beyond rounding.
/// \cost   n^3 / 3 flops, 9 n^3 in the fallback.
template <std::same_as<double> S = double>
[[nodiscard]] result<metric> gram_metric(const detail::only_matrix<S>& c, bool allow_cholesky = true) {
    detail::expects_shape("gram_metric", "c", c.rows(), c.cols(), c.rows(), c.rows());
    const matrix<S> lower = c.template triangularView<Eigen::Lower>();
    if (!all_finite(lower)) {
        return status{errc::non_finite, "gram_metric: the matrix holds NaN or infinity"};
    }
    if (allow_cholesky && c.rows() > 0 && lower.diagonal().minCoeff() > 0.0) {
        // Judged after scaling the diagonal to one, so that channels of very different size do not look singular.
        const vector<S> unit = lower.diagonal().cwiseSqrt();
        matrix<S> scaled = unit.cwiseInverse().asDiagonal() * lower * unit.cwiseInverse().asDiagonal();
        const Eigen::LLT<Eigen::Ref<matrix<S>>> cholesky(scaled);
        // The smallest diagonal bounds the condition of F from below; 1e-5 leaves ten digits in its inverse.
        if (cholesky.info() == Eigen::Success && scaled.diagonal().minCoeff() > 1e-5) {
            matrix<S> root = scaled.template triangularView<Eigen::Lower>();
            return metric::of_cholesky(unit.asDiagonal() * root);
        }
    }
    return detail::spectral_metric(lower);
}

/// C = T^T T for a T (any rows x n), through the SVD of T and so without squaring its condition number.
///
/// \return `non_finite` for NaN or infinity.
template <std::same_as<double> S = double>
[[nodiscard]] result<metric> triangle_metric(const detail::only_matrix<S>& t) {
    auto f = svd<matrix<S>>(t);
    if (!f) {
        return std::move(f.why);
    }
    const double floor = f.s.size() == 0 ? 0.0
                                         : f.s(0) * static_cast<double>(std::max(t.rows(), t.cols())) *
                                               std::numeric_limits<double>::epsilon();
    index kept = 0;
    while (kept < f.s.size() && f.s(kept) > floor) {
        ++kept;
    }
    return metric::of_spectral(f.v.leftCols(kept), f.s.head(kept));
}

/// C + mu I: what regularizes SVD-LLM and COALA. The diagonal of a root is not additive, so this takes the Gram matrix.
/// \pre mu >= 0
template <std::same_as<double> S = double>
[[nodiscard]] result<metric> ridge_metric(detail::only_matrix<S> c, double mu) {
    detail::expects(mu >= 0.0, "ridge_metric: mu must not be negative");
    c.diagonal().array() += mu;
    return gram_metric<S>(c);
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_METRIC_HPP
