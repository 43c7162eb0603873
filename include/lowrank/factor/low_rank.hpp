// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_LOW_RANK_HPP
#define LOWRANK_FACTOR_LOW_RANK_HPP

/// \file
/// A product of two factors, kept as two factors: the one type behind a truncated SVD, a LoRA update and an edit.
///
///     lowrank::low_rank<float> d{.left = lora_B, .right = lora_A};   // m x k and k x n
///     auto y = lowrank::apply(d, x);                       // B (A x): k (m + n) multiplications per column, not m n
///     double size = lowrank::frobenius_norm(d);            // without forming the m x n product

#include <algorithm>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>

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
    [[nodiscard]] matrix<S> dense() const;

    /// Y += alpha left (right X). \cost 2 k (m + n) flops per column of X.
    void add_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const;

    /// Y += alpha right^T (left^T X). \cost 2 k (m + n) flops per column of X.
    void add_transposed_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const;
};

namespace detail {

/// left.cols() == right.rows().
template <real S>
void expects_factors(const char* function, const low_rank<S>& a) {
    if (a.left.cols() != a.right.rows()) [[unlikely]] {
        fail_contract_with(function, ": left has ", a.left.cols(), " columns and right ", a.right.rows(),
                           " rows; they must agree");
    }
}

/// The rule of every factorization by rank: 0 <= k <= min(m, n).
inline void expects_rank(const char* function, index k, index m, index n) {
    expects_in_range(function, "rank", k, index{0}, std::min(m, n));
}

}  // namespace detail

/// ||left * right||_F in double, through the triangular factors of both sides; never forms the product.
///
/// \pre    Both factors are finite.
/// \return Accurate to a few eps of ||left||_F ||right||_F, also when the two sides nearly cancel.
/// \cost   2 k^2 (m + n) flops and 16 k (m + n) bytes.
template <real S>
[[nodiscard]] double frobenius_norm(const low_rank<S>& a);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/factor/low_rank.ipp>
#endif

#endif  // LOWRANK_FACTOR_LOW_RANK_HPP
