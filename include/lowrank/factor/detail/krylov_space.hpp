// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_DETAIL_KRYLOV_SPACE_HPP
#define LOWRANK_FACTOR_DETAIL_KRYLOV_SPACE_HPP

/// \file
/// The growing block Krylov space of A A^T behind `krylov_svd` and `adaptive_svd`: an orthonormal Q and W = A^T Q.
///
///     krylov_space<S> space(rows, cols, capacity, seed);
///     space.start(a, block, samples, ws);              // Q spans A Omega
///     space.grow(a, ws);                               // Q spans A Omega, (A A^T) A Omega
///
/// Columns that the space already holds are dropped, and when a block has nothing new left it is replaced by a fresh
/// random one; values repeated more often than a block is wide are found that way.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>

#include <lowrank/core/config.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/orthonormalize.hpp>
#include <lowrank/factor/sketched/randomized_svd.hpp>
#include <lowrank/factor/sketched/sketch.hpp>
#include <lowrank/factor/symmetric_eigen.hpp>

namespace lowrank::inline LOWRANK_ABI::detail {

/// Columns with the same range, orthonormal to the accuracy of one Cholesky pass where that is possible: enough for
/// what is only multiplied and made orthogonal afterwards.
template <real S>
void condition_columns(matrix<S>& x) {
    matrix<double> gram;
    scale_columns(x);
    gram_lower(x, gram);
    if (x.size() > 0 && !cholesky_pass(x, gram)) {
        orthonormalize(x);
    }
}

/// y -= q (q^T y).
template <real S>
void project_out(const_column_view<S> q, matrix<S>& y, workspace& ws) {
    if (q.cols() > 0 && y.cols() > 0) {
        matrix<S> inside = matrix<S>::Zero(q.cols(), y.cols());
        add_transposed_product<S, 0>(S(1), q, const_column_view<S>(y), column_view<S>(inside), ws);
        add_product<S, 0>(S(-1), q, const_column_view<S>(inside), column_view<S>(y), ws);
    }
}

/// An orthonormal basis of what the columns of `y` add to the orthonormal `q`; directions at rounding level are left
/// out, so the result may have fewer columns than y, or none.
template <real S>
[[nodiscard]] matrix<S> orthonormal_remainder(const_column_view<S> q, matrix<S> y, workspace& ws) {
    for (index j = 0; j < y.cols(); ++j) {
        const S size = y.col(j).stableNorm();
        if (size > S(0)) {
            y.col(j) /= size;
        }
    }
    matrix<S> basis(y.rows(), 0);
    const auto project = [&](matrix<S>& x) {
        project_out<S>(q, x, ws);
        project_out<S>(const_column_view<S>(basis), x, ws);
    };
    const double floor = 200.0 * static_cast<double>(std::numeric_limits<S>::epsilon());
    // What of the directions a Gram matrix in double tells from its own rounding; the smaller ones, in another turn.
    constexpr double resolution = 1e-12;
    for (int turn = 0; turn < 4 && y.cols() > 0; ++turn) {
        project(y);
        matrix<double> gram;
        gram_lower(y, gram);
        const double before = gram.diagonal().minCoeff();
        if (before < 0.01) {  // little is left of a column, and less of its digits
            project(y);
            gram_lower(y, gram);
        }
        const auto eigen = symmetric_eigen_of<double>(gram, true);
        if (!eigen || !(eigen.values(0) > floor * floor)) {
            break;
        }
        const double least = std::max(floor * floor, resolution * eigen.values(0));
        index kept = 0;
        while (kept < eigen.values.size() && eigen.values(kept) > least) {
            ++kept;
        }
        matrix<S> fresh =
            y * (eigen.vectors.leftCols(kept) * eigen.values.head(kept).cwiseSqrt().cwiseInverse().asDiagonal())
                    .template cast<S>();
        // Dividing by a small remainder magnifies what was left inside.
        if (eigen.values(kept - 1) < 0.1) {
            project(fresh);
        }
        orthonormalize(fresh);
        basis.conservativeResize(Eigen::NoChange, basis.cols() + kept);
        basis.rightCols(kept) = fresh;
        if (least <= floor * floor) {
            break;
        }
        y = (y * eigen.vectors.rightCols(eigen.values.size() - kept).template cast<S>()).eval();
    }
    return basis;
}

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
    [[nodiscard]] bool settled(const Eigen::Ref<const matrix<S>>& w) {
        constexpr index panel = 512;
        const double eps = static_cast<double>(std::numeric_limits<S>::epsilon());
        const index before = gram_.cols(), now = w.cols(), fresh = now - before;
        matrix<double> rows = matrix<double>::Zero(fresh, now);
        for (index top = 0; top < w.rows(); top += panel) {
            const matrix<double> wide = w.middleRows(top, std::min(panel, w.rows() - top)).template cast<double>();
            rows.noalias() += wide.rightCols(fresh).transpose() * wide;
        }
        gram_.conservativeResize(now, now);  // the lower triangle counts
        gram_.bottomRows(fresh) = rows;
        if (now < k_) {
            return false;
        }
        const auto eigen = symmetric_eigen_of<double>(gram_, false);
        if (!eigen) {
            return false;
        }
        const vector<double> least = vector<double>::Constant(now, eps * eps * eigen.values(0));
        const vector<double> squares = eigen.values.cwiseMax(least);
        const double rest = std::max(squares.tail(now - k_).sum(), least(0));
        bool done = false;
        double growth = 0.0, relative = 0.0;
        if (squares_.size() > 0) {
            const auto change = (squares.head(k_) - squares_).cwiseMax(0.0);
            growth = change.sum();
            relative = 0.5 * change.cwiseQuotient(squares.head(k_)).maxCoeff();
            const double share = std::max(growth / growth_, 1e-3);  // no shrinking is trusted to go on faster than that
            const double still = share / (1.0 - share);
            done = share < 0.1 && growth * still <= 8.0 * eps * rest && relative * still <= 4.0 * eps;
            for (index i = 0; done && i < k_ && i + block_ - 1 < now; ++i) {
                done = squares(i + block_ - 1) < 0.98 * squares(i);
            }
        }
        squares_ = squares.head(k_);
        growth_ = growth;
        return done;
    }

private:
    index k_;
    index block_;
    matrix<double> gram_ = {};
    vector<double> squares_ = {};  ///< Of the leading k values, at the last call.
    double growth_ = 0.0;          ///< Of their sum, at the last call.
};

template <real S>
class krylov_space {
public:
    krylov_space(index rows, index cols, index capacity, std::uint64_t seed)
        : q_(rows, capacity), w_(cols, capacity), seed_(seed) {}

    [[nodiscard]] index dimension() const noexcept { return dimension_; }
    [[nodiscard]] index capacity() const noexcept { return q_.cols(); }
    /// True once A has nothing outside the space.
    [[nodiscard]] bool exhausted() const noexcept { return exhausted_; }
    [[nodiscard]] const_column_view<S> q() const { return {q_.data(), q_.rows(), dimension_}; }
    [[nodiscard]] auto w() const { return w_.leftCols(dimension_); }
    /// A G for signs G that had no part in the space.
    [[nodiscard]] const matrix<S>& samples() const noexcept { return samples_; }

    /// The first block, and `samples` held-back columns from the same product.
    template <linear_operator M>
    [[nodiscard]] status start(const M& a, index block, index samples, workspace& ws) {
        block_ = std::min(block, capacity());
        matrix<S> y;
        product_into(a, sign_sketch<S>(a.cols(), block_ + samples, philox(seed_)), y, false, ws);
        if (!all_finite(y)) {
            return non_finite_operator("krylov_svd");
        }
        samples_ = y.rightCols(samples);
        y.conservativeResize(Eigen::NoChange, block_);
        return append(a, std::move(y), ws);
    }

    /// One more block: A orth(A^T Q_last), or fresh random columns when that adds nothing.
    template <linear_operator M>
    [[nodiscard]] status grow(const M& a, workspace& ws) {
        if (exhausted_ || dimension_ == capacity()) {
            return {};
        }
        matrix<S> x = w_.middleCols(dimension_ - last_, last_);
        condition_columns(x);
        matrix<S> y;
        product_into(a, x, y, false, ws);
        return append(a, std::move(y), ws);
    }

    /// ||(I - Q Q^T) A G||_F^2 / columns: an estimate of ||A - Q Q^T A||_F^2 without cancellation.
    [[nodiscard]] double sampled_rest() const {
        if (samples_.cols() == 0) {
            return 0.0;
        }
        matrix<S> rest = samples_;
        rest.noalias() -= q() * (q().transpose() * samples_);
        return rest.template cast<double>().squaredNorm() / static_cast<double>(samples_.cols());
    }

private:
    template <linear_operator M>
    status append(const M& a, matrix<S> y, workspace& ws) {
        if (!all_finite(y)) {
            return non_finite_operator("krylov_svd");
        }
        matrix<S> fresh = orthonormal_remainder<S>(q(), std::move(y), ws);
        if (2 * fresh.cols() < std::min(block_, capacity() - dimension_)) {
            // Most of the block is in the space already: a start in new random directions. Not signs: of few of them,
            // two columns may well be the same.
            matrix<S> directions(a.cols(), block_);
            fill_uniform(directions, S(-1), S(1), philox(seed_, ++restarts_));
            matrix<S> z;
            product_into(a, directions, z, false, ws);
            matrix<S> both(z.rows(), fresh.cols() + z.cols());
            both << fresh, z;
            fresh = orthonormal_remainder<S>(q(), std::move(both), ws);
        }
        last_ = std::min(fresh.cols(), capacity() - dimension_);
        if (last_ == 0) {
            exhausted_ = true;
            return {};
        }
        q_.middleCols(dimension_, last_) = fresh.leftCols(last_);
        matrix<S> w;
        product_into(a, matrix<S>(fresh.leftCols(last_)), w, true, ws);
        if (!all_finite(w)) {
            return non_finite_operator("krylov_svd");
        }
        w_.middleCols(dimension_, last_) = w;
        dimension_ += last_;
        return {};
    }

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

#ifdef LOWRANK_EXTERN_TEMPLATES
extern template matrix<float> orthonormal_remainder<float>(const_column_view<float>, matrix<float>, workspace&);
extern template matrix<double> orthonormal_remainder<double>(const_column_view<double>, matrix<double>, workspace&);
#endif

}  // namespace lowrank::inline LOWRANK_ABI::detail

#endif  // LOWRANK_FACTOR_DETAIL_KRYLOV_SPACE_HPP
