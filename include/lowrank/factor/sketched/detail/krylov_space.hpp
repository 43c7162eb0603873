// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_SKETCHED_DETAIL_KRYLOV_SPACE_HPP
#define LOWRANK_FACTOR_SKETCHED_DETAIL_KRYLOV_SPACE_HPP

/// \file
/// The growing block Krylov space of A A^T behind `krylov_svd` and `adaptive_svd`: an orthonormal Q and W = A^T Q.
///
///     krylov_space<S> space("krylov_svd", a, capacity, seed);
///     space.start(block, samples);                     // Q spans A Omega
///     space.grow();                                    // Q spans A Omega, (A A^T) A Omega
///
/// Columns that the space already holds are dropped. When a block adds nothing, it is replaced by a fresh random one;
/// so values are found that repeat more often than a block is wide.

#include <cstdint>

#include <lowrank/core/config.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/sketched/detail/sketched_operator.hpp>

namespace lowrank::inline LOWRANK_ABI::detail {

/// Watches the leading values of a growing space, to end it once they have settled to 4 eps of S.
///
/// The space captures sum_{i <= k} s_i^2 of ||A||^2, which grows with each block, in the end by a constant share of the
/// growth before. What will still come follows from two growths, and is weighed against the error it takes away.
template <real S>
class settling_values {
public:
    /// \pre No multiple value is wider than `block`; a space with a start of that width may miss copies.
    settling_values(index k, index block) : k_(k), block_(block) {}

    /// W = A^T Q of the space so far, to which columns were only added since the last call.
    [[nodiscard]] bool settled(const dense_view<const S>& w);

private:
    index k_;
    index block_;
    matrix<double> gram_ = {};     ///< W^T W, lower triangle.
    vector<double> squares_ = {};  ///< Of the leading k values, at the last call.
    double growth_ = 0.0;          ///< Of their sum, at the last call.
};

template <real S>
class krylov_space {
public:
    /// `function` is named in messages. Borrows the operator.
    krylov_space(const char* function, sketched_operator<S>& a, index capacity, std::uint64_t seed)
        : function_(function), a_(a), q_(a.rows(), capacity), w_(a.cols(), capacity), seed_(seed) {}

    [[nodiscard]] index dimension() const noexcept { return dimension_; }
    [[nodiscard]] index capacity() const noexcept { return q_.cols(); }
    /// True once A has nothing outside the space.
    [[nodiscard]] bool exhausted() const noexcept { return exhausted_; }
    [[nodiscard]] dense_view<const S> q() const { return {q_.data(), q_.rows(), dimension_, 1, q_.rows()}; }
    [[nodiscard]] dense_view<const S> w() const { return {w_.data(), w_.rows(), dimension_, 1, w_.rows()}; }
    /// A G for signs G that had no part in the space.
    [[nodiscard]] const matrix<S>& samples() const noexcept { return samples_; }

    /// The first block, and `samples` held-back columns from the same product.
    [[nodiscard]] status start(index block, index samples);
    /// One more block: A orth(A^T Q_last), or fresh random columns when that adds nothing.
    [[nodiscard]] status grow();
    /// ||(I - Q Q^T) A G||_F / sqrt(columns): an estimate of ||A - Q Q^T A||_F without cancellation.
    [[nodiscard]] double sampled_rest() const;

private:
    status append(matrix<S> y);

    const char* function_;
    sketched_operator<S>& a_;
    matrix<S> q_;
    matrix<S> w_;
    matrix<S> samples_ = {};
    index dimension_ = 0;
    index last_ = 0;
    index block_ = 1;
    std::uint64_t seed_ = 0;
    std::uint64_t restarts_ = 0;
    bool exhausted_ = false;
};

}  // namespace lowrank::inline LOWRANK_ABI::detail

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/factor/sketched/detail/krylov_space.ipp>
#endif

#endif  // LOWRANK_FACTOR_SKETCHED_DETAIL_KRYLOV_SPACE_HPP
