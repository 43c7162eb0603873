// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_LOW_RANK_HPP
#define LOWRANK_FACTOR_LOW_RANK_HPP

/// \file
/// A product of two factors, kept as two factors: the one type behind a truncated SVD, a LoRA update and an edit.
///
///     lowrank::low_rank<float> d{.left = b, .right = a};   // m x k and k x n
///     auto y = lowrank::apply(d, x);                       // B (A x): k (m + n) multiplications per column, not m n
///     double size = lowrank::frobenius_norm(d);            // without forming the m x n product

#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/skinny_product.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/orthonormalize.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The matrix `left * right`, left m x k, right k x n. A linear operator. Its rank is at most k.
///
/// An aggregate: whoever fills it keeps left.cols() == right.rows(); every use checks.
template <real S>
struct low_rank {
    using scalar = S;

    matrix<S> left = {};   ///< m x k.
    matrix<S> right = {};  ///< k x n.

    [[nodiscard]] index rows() const noexcept { return left.rows(); }
    [[nodiscard]] index cols() const noexcept { return right.cols(); }
    /// The inner dimension k.
    [[nodiscard]] index rank() const noexcept { return left.cols(); }

    /// left * right as a dense m x n matrix. \cost 2 m n k flops.
    [[nodiscard]] matrix<S> dense() const {
        check("low_rank::dense");
        matrix<S> w(rows(), cols());
        if (rank() == 0) {
            w.setZero();
        } else {
            w.noalias() = left * right;
        }
        return w;
    }

    /// Y += alpha left (right X). \cost 2 k (m + n) flops per column of X.
    void add_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
        check("low_rank::add_product");
        detail::expects_shape("low_rank::add_product", "x", x.rows(), x.cols(), cols(), y.cols());
        detail::expects_shape("low_rank::add_product", "y", y.rows(), y.cols(), rows(), x.cols());
        if (rank() == 0 || x.cols() == 0) {
            return;
        }
        workspace::frame scope(ws);
        column_view<S> z = ws.take<S>(rank(), x.cols());
        z.setZero();
        lowrank::add_product<S, 0>(S(1), const_column_view<S>(right), x, z, ws);
        lowrank::add_product<S, 0>(alpha, const_column_view<S>(left), z, y, ws);
    }

    /// Y += alpha right^T (left^T X). \cost 2 k (m + n) flops per column of X.
    void add_transposed_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
        check("low_rank::add_transposed_product");
        detail::expects_shape("low_rank::add_transposed_product", "x", x.rows(), x.cols(), rows(), y.cols());
        detail::expects_shape("low_rank::add_transposed_product", "y", y.rows(), y.cols(), cols(), x.cols());
        if (rank() == 0 || x.cols() == 0) {
            return;
        }
        workspace::frame scope(ws);
        column_view<S> z = ws.take<S>(rank(), x.cols());
        z.setZero();
        lowrank::add_transposed_product<S, 0>(S(1), const_column_view<S>(left), x, z, ws);
        lowrank::add_transposed_product<S, 0>(alpha, const_column_view<S>(right), z, y, ws);
    }

private:
    void check(const char* function) const {
        if (left.cols() != right.rows()) [[unlikely]] {
            detail::fail_contract_with(function, ": left has ", left.cols(), " columns and right ", right.rows(),
                                       " rows; they must agree");
        }
    }
};

/// ||left * right||_F in double, through the triangular factors of both sides; never forms the product.
///
/// \pre    Both factors are finite.
/// \return Accurate to a few eps of ||left||_F ||right||_F, also when the two sides nearly cancel.
/// \cost   2 k^2 (m + n) flops and 16 k (m + n) bytes.
template <real S>
[[nodiscard]] double frobenius_norm(const low_rank<S>& a) {
    detail::expects(a.left.cols() == a.right.rows(), "frobenius_norm: the factors must share their inner dimension");
    if (a.rows() == 0 || a.cols() == 0 || a.rank() == 0) {
        return 0.0;
    }
    // A shorter side needs no triangular factor: || L R || = || L R_r^T || for R^T = Q_r R_r.
    const auto core = [](matrix<double> factor) {
        return factor.rows() > factor.cols() ? triangular_factor(std::move(factor)) : std::move(factor);
    };
    const matrix<double> l = core(a.left.template cast<double>());
    const matrix<double> r = core(a.right.transpose().template cast<double>());
    const double scale_l = l.cwiseAbs().maxCoeff();
    const double scale_r = r.cwiseAbs().maxCoeff();
    if (!(scale_l > 0.0) || !(scale_r > 0.0)) {
        return 0.0;
    }
    const matrix<double> product = (l / scale_l) * (r / scale_r).transpose();
    return product.norm() * scale_l * scale_r;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_LOW_RANK_HPP
