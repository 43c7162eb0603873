// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_WEIGHTED_WEIGHTING_IPP
#define LOWRANK_FACTOR_WEIGHTED_WEIGHTING_IPP

#include <lowrank/factor/weighted/weighting.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/factor/symmetric_eigen.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_BODY index weighting::null_directions() const {
    switch (kind_) {
        case weighting_kind::identity: return 0;
        case weighting_kind::diagonal: return static_cast<index>(std::count(weights_.begin(), weights_.end(), 0.0));
        case weighting_kind::cholesky: return 0;
        case weighting_kind::spectral: break;
    }
    return basis_.rows() - basis_.cols();
}

LOWRANK_BODY matrix<double> weighting::times_root(const matrix<double>& m) const {
    if (kind_ != weighting_kind::identity && m.cols() != dimension()) [[unlikely]] {
        detail::fail_contract_with("weighting::times_root: the weighting has dimension ", dimension(), ", the matrix ",
                                   m.cols());
    }
    matrix<double> out =
        kind_ == weighting_kind::identity || kind_ == weighting_kind::diagonal ? m : product(m, basis_);
    if (kind_ == weighting_kind::diagonal || kind_ == weighting_kind::spectral) {
        scale_cols(out, weights_);
    }
    return out;
}

LOWRANK_BODY matrix<double> weighting::apply_root_pinv(const matrix<double>& y) const {
    if (kind_ == weighting_kind::identity) {
        return y;
    }
    matrix<double> out = y;
    if (kind_ == weighting_kind::cholesky) {  // F^-T Y
        solve_left_upper(transposed(basis_), out);
        return out;
    }
    vector<double> inverse(weights_.size());
    for (index i = 0; i < inverse.size(); ++i) {
        inverse(i) = weights_(i) > 0.0 ? 1.0 / weights_(i) : 0.0;
    }
    scale_rows(inverse, out);
    return kind_ == weighting_kind::diagonal ? out : product(basis_, out);
}

LOWRANK_BODY weighting diagonal_weighting(vector<double> weights) {
    detail::expects(
        all_finite(weights) && std::all_of(weights.begin(), weights.end(), [](double w) { return w >= 0.0; }),
        "diagonal_weighting: weights must be finite and not negative");
    return weighting::of_diagonal(std::move(weights));
}

namespace detail {

/// Eigenvectors of C, of which the lower triangle is read, with eigenvalues above rounding.
LOWRANK_API [[nodiscard]] result<weighting> spectral_weighting(const matrix<double>& c);

LOWRANK_BODY result<weighting> spectral_weighting(const matrix<double>& c) {
    auto eigen = symmetric_eigen_of("gram_weighting", c, true);
    if (!eigen) {
        return std::move(eigen.why);
    }
    const index n = eigen.values.size();
    const double floor =
        n == 0 ? 0.0
               : std::max(0.0, eigen.values(0)) * static_cast<double>(n) * 4.0 * std::numeric_limits<double>::epsilon();
    index kept = 0;
    while (kept < n && eigen.values(kept) > floor) {
        ++kept;
    }
    if (n > 0 && eigen.values(n - 1) < -16.0 * floor) {
        return status{errc::mismatch, "gram_weighting: the matrix has negative eigenvalues, so it is no weighting"};
    }
    vector<double> roots(kept);
    for (index i = 0; i < kept; ++i) {
        roots(i) = std::sqrt(eigen.values(i));
    }
    return weighting::of_spectral(columns_of(eigen.vectors, 0, kept), std::move(roots));
}

}  // namespace detail

LOWRANK_BODY result<weighting> gram_weighting(const matrix<double>& c, bool allow_cholesky) {
    detail::expects_shape("gram_weighting", "c", c.rows(), c.cols(), c.rows(), c.rows());
    const index n = c.rows();
    matrix<double>
        root;  // of C with its diagonal scaled to one, so that channels of different size do not look singular
    root.setZero(n, n);
    vector<double> unit(n);
    bool finite = true, positive = n > 0;
    for (index j = 0; j < n; ++j) {
        finite = finite && all_finite(c.data() + j * n + j, n - j);
        positive = positive && c(j, j) > 0.0;
        unit(j) = std::sqrt(std::max(c(j, j), 0.0));
    }
    if (!finite) {
        return status{errc::non_finite, "gram_weighting: the matrix holds NaN or infinity"};
    }
    if (allow_cholesky && positive) {
        for (index j = 0; j < n; ++j) {
            for (index i = j; i < n; ++i) {
                root(i, j) = c(i, j) / unit(i) / unit(j);
            }
        }
        if (cholesky(root)) {
            double smallest = 1.0;
            for (index j = 0; j < n; ++j) {
                smallest = std::min(smallest, root(j, j));
            }
            // The smallest diagonal bounds the condition of F from below; 1e-5 leaves ten digits in its inverse.
            if (smallest > 1e-5) {
                for (index j = 0; j < n; ++j) {
                    std::fill_n(root.data() + j * n, j, 0.0);
                }
                scale_rows(unit, root);
                return weighting::of_cholesky(std::move(root));
            }
        }
    }
    return detail::spectral_weighting(c);
}

LOWRANK_BODY result<weighting> triangle_weighting(const matrix<double>& t) {
    auto f = detail::svd_of_dense<double>("triangle_weighting", t);
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
    return weighting::of_spectral(columns_of(f.v, 0, kept), head_in<double>(f.s, kept));
}

LOWRANK_BODY result<weighting> ridge_weighting(const matrix<double>& c, double mu) {
    detail::expects(mu >= 0.0, "ridge_weighting: mu must not be negative");
    detail::expects_shape("ridge_weighting", "c", c.rows(), c.cols(), c.rows(), c.rows());
    matrix<double> ridge = c;
    for (index i = 0; i < c.rows(); ++i) {
        ridge(i, i) += mu;
    }
    return gram_weighting(ridge);
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_WEIGHTED_WEIGHTING_IPP
