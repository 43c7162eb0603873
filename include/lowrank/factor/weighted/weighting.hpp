// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_WEIGHTED_WEIGHTING_HPP
#define LOWRANK_FACTOR_WEIGHTED_WEIGHTING_HPP

/// \file
/// What counts on one side of a weight: a symmetric positive semidefinite matrix C, held as a root F with C = F F^T.
///
///     auto none = lowrank::weighting();                                               // identity
///     auto asvd = lowrank::diagonal_weighting(statistics.mean_abs().cwiseSqrt());     // alpha = 0.5
///     auto svdllm = lowrank::gram_weighting(c.sum());                   // Cholesky, or eigen where that fails
///     auto coala = lowrank::triangle_weighting(t.triangle());           // from QR of activations, nothing squared
///
/// Singular weightings are ordinary: fewer tokens than channels, dead channels and duplicated channels all give one.

#include <utility>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>

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
    LOWRANK_API [[nodiscard]] index null_directions() const;

    /// M F for M (m x n).
    LOWRANK_API [[nodiscard]] matrix<double> times_root(const matrix<double>& m) const;

    /// (F^T)^+ Y for Y (p x k): the Moore-Penrose inverse of the root that acts from the left.
    LOWRANK_API [[nodiscard]] matrix<double> apply_root_pinv(const matrix<double>& y) const;

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
    weighting_kind kind_ = weighting_kind::identity;
    vector<double> weights_ = {};
    matrix<double> basis_ = {};
};

/// C = diag(weights^2): weights scale the coordinates (mean |x|^alpha, root mean square, root of the Fisher sums).
/// \pre weights are finite and not negative.
LOWRANK_API [[nodiscard]] weighting diagonal_weighting(vector<double> weights);

/// C itself, symmetric positive semidefinite, of which the lower triangle is read: Cholesky where C is safely
/// definite, eigenvectors above rounding where it is not.
///
/// \pre    C is square.
/// \return `non_finite` for NaN or infinity, `mismatch` for a C with negative eigenvalues beyond rounding.
/// \cost   n^3 / 3 flops, 9 n^3 in the fallback.
LOWRANK_API [[nodiscard]] result<weighting> gram_weighting(const matrix<double>& c, bool allow_cholesky = true);

/// C = T^T T for a T (any rows x n), through the SVD of T and so without squaring its condition number.
///
/// \return `non_finite` for NaN or infinity.
LOWRANK_API [[nodiscard]] result<weighting> triangle_weighting(const matrix<double>& t);

/// C + mu I: what regularizes SVD-LLM and COALA. The diagonal of a root is not additive, so this takes the Gram matrix.
/// \pre mu >= 0
LOWRANK_API [[nodiscard]] result<weighting> ridge_weighting(const matrix<double>& c, double mu);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/factor/weighted/weighting.ipp>
#endif

#endif  // LOWRANK_FACTOR_WEIGHTED_WEIGHTING_HPP
