// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_WEIGHTED_WEIGHTING_HPP
#define LOWRANK_FACTOR_WEIGHTED_WEIGHTING_HPP

/// \file
/// What counts on one side of a weight: a symmetric positive semidefinite matrix C, held as a root F with C = F F^T.
///
///     auto none = lowrank::weighting();                                      // identity
///     auto asvd = lowrank::diagonal_weighting(x.mean_abs().cwiseSqrt());     // alpha = 0.5
///     auto svdllm = lowrank::gram_weighting(c.sum());                        // Cholesky, or eigen where that fails
///     auto coala = lowrank::triangle_weighting(t.triangle());                // from QR of activations, nothing squared
///
/// Singular weightings are ordinary: fewer tokens than channels, dead channels and duplicated channels all give one.

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

/// How a weighting holds its root F.
enum class weighting_kind {
    identity,  ///< F = I, of any dimension.
    diagonal,  ///< F = diag(weights).
    cholesky,  ///< F lower triangular, not singular.
    spectral,  ///< F = V diag(root), V orthonormal, root > 0: eigenvectors of C above rounding.
};

/// A root F (n x p) of a weighting C = F F^T. An immutable value; the identity by default.
class weighting {
public:
    weighting() = default;

    [[nodiscard]] weighting_kind kind() const noexcept { return kind_; }
    /// n; -1 for the identity, which fits every dimension.
    [[nodiscard]] index dimension() const noexcept {
        return kind_ == weighting_kind::identity   ? -1
               : kind_ == weighting_kind::diagonal ? weights_.size()
                                                   : basis_.rows();
    }
    /// Directions with weight zero: n - rank(C).
    [[nodiscard]] index null_directions() const {
        switch (kind_) {
            case weighting_kind::identity: return 0;
            case weighting_kind::diagonal: return static_cast<index>(std::count(weights_.begin(), weights_.end(), 0.0));
            case weighting_kind::cholesky: return 0;
            case weighting_kind::spectral: break;
        }
        return basis_.rows() - basis_.cols();
    }

    /// M F for M (m x n).
    template <std::same_as<double> S = double>
    [[nodiscard]] matrix<S> times_root(detail::only_matrix<S> m) const {
        expects_fit("weighting::times_root", m.cols());
        switch (kind_) {
            case weighting_kind::identity: return m;
            case weighting_kind::diagonal: return m * weights_.asDiagonal();
            case weighting_kind::cholesky: return m * basis_.triangularView<Eigen::Lower>();
            case weighting_kind::spectral: break;
        }
        return (m * basis_) * weights_.asDiagonal();
    }

    /// (F^T)^+ Y for Y (p x k): the Moore-Penrose inverse of the root that acts from the left.
    template <std::same_as<double> S = double>
    [[nodiscard]] matrix<S> apply_root_pinv(detail::only_matrix<S> y) const {
        switch (kind_) {
            case weighting_kind::identity: return y;
            case weighting_kind::diagonal:
                return weights_.unaryExpr([](double w) { return w > 0.0 ? 1.0 / w : 0.0; }).asDiagonal() * y;
            case weighting_kind::cholesky: basis_.transpose().triangularView<Eigen::Upper>().solveInPlace(y); return y;
            case weighting_kind::spectral: break;
        }
        return basis_ * (weights_.cwiseInverse().asDiagonal() * y);
    }

    static weighting of_diagonal(vector<double> weights) {
        weighting m;
        m.kind_ = weighting_kind::diagonal;
        m.weights_ = std::move(weights);
        return m;
    }
    static weighting of_cholesky(matrix<double> lower) {
        weighting m;
        m.kind_ = weighting_kind::cholesky;
        m.basis_ = std::move(lower);
        return m;
    }
    static weighting of_spectral(matrix<double> vectors, vector<double> roots) {
        weighting m;
        m.kind_ = weighting_kind::spectral;
        m.basis_ = std::move(vectors);
        m.weights_ = std::move(roots);
        return m;
    }

private:
    void expects_fit(const char* function, index n) const {
        if (kind_ != weighting_kind::identity && n != dimension()) [[unlikely]] {
            detail::fail_contract_with(function, ": the weighting has dimension ", dimension(), ", the matrix ", n);
        }
    }

    weighting_kind kind_ = weighting_kind::identity;
    vector<double> weights_ = {};
    matrix<double> basis_ = {};
};

/// C = diag(weights^2): weights scale the coordinates (mean |x|^alpha, root mean square, root of the Fisher sums).
/// \pre weights are finite and not negative.
[[nodiscard]] inline weighting diagonal_weighting(vector<double> weights) {
    detail::expects(all_finite(weights) && (weights.size() == 0 || weights.minCoeff() >= 0.0),
                    "diagonal_weighting: weights must be finite and not negative");
    return weighting::of_diagonal(std::move(weights));
}

namespace detail {

/// Eigenvectors of C with eigenvalues above rounding.
template <std::same_as<double> S = double>
[[nodiscard]] result<weighting> spectral_metric(const only_matrix<S>& c) {
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
        return status{errc::mismatch, "gram_weighting: the matrix has negative eigenvalues, so it is no weighting"};
    }
    return weighting::of_spectral(eigen.vectors.leftCols(kept), eigen.values.head(kept).cwiseSqrt());
}

}  // namespace detail

/// C itself, symmetric positive semidefinite, of which the lower triangle is read: Cholesky where C is safely
/// definite, eigenvectors above rounding where it is not.
///
/// \pre    C is square.
/// \return `non_finite` for NaN or infinity, `mismatch` for a C with negative eigenvalues beyond rounding.
/// \cost   n^3 / 3 flops, 9 n^3 in the fallback.
template <std::same_as<double> S = double>
[[nodiscard]] result<weighting> gram_weighting(const detail::only_matrix<S>& c, bool allow_cholesky = true) {
    detail::expects_shape("gram_weighting", "c", c.rows(), c.cols(), c.rows(), c.rows());
    const matrix<S> lower = c.template triangularView<Eigen::Lower>();
    if (!all_finite(lower)) {
        return status{errc::non_finite, "gram_weighting: the matrix holds NaN or infinity"};
    }
    if (allow_cholesky && c.rows() > 0 && lower.diagonal().minCoeff() > 0.0) {
        // Judged after scaling the diagonal to one, so that channels of very different size do not look singular.
        const vector<S> unit = lower.diagonal().cwiseSqrt();
        matrix<S> scaled = unit.cwiseInverse().asDiagonal() * lower * unit.cwiseInverse().asDiagonal();
        const Eigen::LLT<Eigen::Ref<matrix<S>>> cholesky(scaled);
        // The smallest diagonal bounds the condition of F from below; 1e-5 leaves ten digits in its inverse.
        if (cholesky.info() == Eigen::Success && scaled.diagonal().minCoeff() > 1e-5) {
            matrix<S> root = scaled.template triangularView<Eigen::Lower>();
            return weighting::of_cholesky(unit.asDiagonal() * root);
        }
    }
    return detail::spectral_metric(lower);
}

/// C = T^T T for a T (any rows x n), through the SVD of T and so without squaring its condition number.
///
/// \return `non_finite` for NaN or infinity.
template <std::same_as<double> S = double>
[[nodiscard]] result<weighting> triangle_weighting(const detail::only_matrix<S>& t) {
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
    return weighting::of_spectral(f.v.leftCols(kept), f.s.head(kept));
}

/// C + mu I: what regularizes SVD-LLM and COALA. The diagonal of a root is not additive, so this takes the Gram matrix.
/// \pre mu >= 0
template <std::same_as<double> S = double>
[[nodiscard]] result<weighting> ridge_weighting(detail::only_matrix<S> c, double mu) {
    detail::expects(mu >= 0.0, "ridge_weighting: mu must not be negative");
    c.diagonal().array() += mu;
    return gram_weighting<S>(c);
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_WEIGHTED_WEIGHTING_HPP
