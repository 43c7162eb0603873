// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_SKETCHED_DETAIL_KRYLOV_SPACE_IPP
#define LOWRANK_FACTOR_SKETCHED_DETAIL_KRYLOV_SPACE_IPP

#include <lowrank/factor/sketched/detail/krylov_space.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include <lowrank/core/finite.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/skinny_product.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/orthonormalize.hpp>
#include <lowrank/factor/sketched/sketch.hpp>
#include <lowrank/factor/symmetric_eigen.hpp>

namespace lowrank::inline LOWRANK_ABI::detail {

/// Columns with the same range, orthonormal to the accuracy of one Cholesky pass where that is possible: enough for
/// what is only multiplied and made orthogonal afterwards.
template <real S>
void condition_columns(matrix<S>& x) {
    scale_columns(x);
    matrix<double> g = gram(x);
    if (x.size() > 0 && !cholesky_pass(x, g)) {
        orthonormalize(x);
    }
}

/// y -= q (q^T y).
template <real S>
void project_out(const dense_view<const S>& q, matrix<S>& y, workspace& ws) {
    if (q.cols() > 0 && y.cols() > 0) {
        const const_column_view<S> basis(q.data(), q.rows(), q.cols());
        matrix<S> inside;
        inside.setZero(q.cols(), y.cols());
        add_transposed_product<S, 0>(S(1), basis, const_column_view<S>(y), column_view<S>(inside), ws);
        add_product<S, 0>(S(-1), basis, const_column_view<S>(inside), column_view<S>(y), ws);
    }
}

/// An orthonormal basis of what the columns of `y` add to the orthonormal `q`; directions at rounding level are left
/// out, so the result may have fewer columns than y, or none.
template <real S>
[[nodiscard]] matrix<S> orthonormal_remainder(const dense_view<const S>& q, matrix<S> y, workspace& ws) {
    for (index j = 0; j < y.cols(); ++j) {
        const double size = norm_of(y.col(j));
        if (size > 0.0) {
            for (index i = 0; i < y.rows(); ++i) {
                y(i, j) = static_cast<S>(static_cast<double>(y(i, j)) / size);
            }
        }
    }
    matrix<S> basis(y.rows(), 0);
    const auto project = [&](matrix<S>& x) {
        project_out<S>(q, x, ws);
        project_out<S>(basis, x, ws);
    };
    const double floor = 200.0 * static_cast<double>(std::numeric_limits<S>::epsilon());
    // The Gram matrix in double resolves eigenvalues above 1e-12 of the largest; smaller ones wait for the next pass.
    constexpr double resolution = 1e-12;
    for (int pass = 0; pass < 4 && y.cols() > 0; ++pass) {
        project(y);
        matrix<double> g = gram(y);
        double smallest = g(0, 0);
        for (index j = 1; j < g.cols(); ++j) {
            smallest = std::min(smallest, g(j, j));
        }
        if (smallest < 0.5) {  // a column that loses more than that loses digits
            project(y);
            g = gram(y);
        }
        const auto eigen = symmetric_eigen(g);
        if (!eigen || !(eigen.values(0) > floor * floor)) {
            break;
        }
        const double least = std::max(floor * floor, resolution * eigen.values(0));
        index kept = 0;
        while (kept < eigen.values.size() && eigen.values(kept) > least) {
            ++kept;
        }
        matrix<double> turn = columns_of(eigen.vectors, 0, kept);  // V diag(lambda)^-1/2
        for (index j = 0; j < kept; ++j) {
            turn.col(j) /= std::sqrt(eigen.values(j));
        }
        matrix<S> fresh = product(y, copy_in<S>(turn));
        // Dividing by a small remainder magnifies what was left inside.
        if (eigen.values(kept - 1) < 0.1) {
            project(fresh);
        }
        orthonormalize(fresh);
        matrix<S> grown(y.rows(), basis.cols() + kept);
        grown.leftCols(basis.cols()) = basis;
        grown.rightCols(kept) = fresh;
        basis.swap(grown);
        if (least <= floor * floor) {
            break;
        }
        const matrix<double> rest = columns_of(eigen.vectors, kept, eigen.values.size() - kept);
        y = product(y, copy_in<S>(rest));
    }
    return basis;
}

template <real S>
bool settling_values<S>::settled(const dense_view<const S>& w) {
    const double eps = static_cast<double>(std::numeric_limits<S>::epsilon());
    const index before = gram_.cols(), now = w.cols(), fresh = now - before;
    matrix<double> grown;
    grown.setZero(now, now);
    grown.topLeftCorner(before, before) = gram_;
    gram_.swap(grown);
    add_product(1.0, transposed(w.middle_cols(before, fresh)), w, dense_view<double>(gram_).middle_rows(before, fresh));
    if (now < k_) {
        return false;
    }
    const auto eigen = symmetric_eigen(gram_, false);
    if (!eigen) {
        return false;
    }
    const double least = eps * eps * eigen.values(0);
    vector<double> squares(k_);
    const auto square = [&](index i) { return std::max(eigen.values(i), least); };
    double rest = 0.0;
    for (index i = 0; i < now; ++i) {
        if (i < k_) {
            squares(i) = square(i);
        } else {
            rest += square(i);
        }
    }
    rest = std::max(rest, least);
    bool done = false;
    double growth = 0.0, relative = 0.0;
    if (squares_.size() > 0) {
        for (index i = 0; i < k_; ++i) {
            const double change = std::max(squares(i) - squares_(i), 0.0);
            growth += change;
            relative = std::max(relative, 0.5 * change / squares(i));
        }
        const double share = std::max(growth / growth_, 1e-3);  // no shrinking is trusted to go on faster than that
        const double still = share / (1.0 - share);
        done = share < 0.1 && growth * still <= 8.0 * eps * rest && relative * still <= 4.0 * eps;
        for (index i = 0; done && i < k_ && i + block_ - 1 < now; ++i) {
            done = square(i + block_ - 1) < 0.98 * square(i);
        }
    }
    squares_.swap(squares);
    growth_ = growth;
    return done;
}

template <real S>
status krylov_space<S>::start(index block, index samples) {
    block_ = std::min(block, capacity());
    matrix<S> y = a_.times(sign_sketch<S>(a_.cols(), block_ + samples, philox(seed_)));
    if (!all_finite(y)) {
        return non_finite_operator(function_);
    }
    samples_ = columns_of(y, block_, samples);
    return append(columns_of(y, 0, block_));
}

template <real S>
status krylov_space<S>::grow() {
    if (exhausted_ || dimension_ == capacity()) {
        return {};
    }
    matrix<S> x = columns_of(w_, dimension_ - last_, last_);
    condition_columns(x);
    return append(a_.times(x));
}

template <real S>
double krylov_space<S>::sampled_rest() const {
    if (samples_.cols() == 0) {
        return 0.0;
    }
    matrix<S> rest = samples_;
    add_product(S(-1), q(), product(transposed(q()), samples_), rest);
    return norm_of(rest) / std::sqrt(static_cast<double>(samples_.cols()));
}

template <real S>
status krylov_space<S>::append(matrix<S> y) {
    if (!all_finite(y)) {
        return non_finite_operator(function_);
    }
    workspace& ws = a_.scratch();
    matrix<S> fresh = orthonormal_remainder<S>(q(), std::move(y), ws);
    if (2 * fresh.cols() < std::min(block_, capacity() - dimension_)) {
        // Most of the block is in the space already: a start in new random directions. Not signs: of few of them,
        // two columns may well be the same.
        matrix<S> directions(a_.cols(), block_);
        fill_uniform(directions, S(-1), S(1), philox(seed_, ++restarts_));
        matrix<S> both(a_.rows(), fresh.cols() + block_);
        both.leftCols(fresh.cols()) = fresh;
        both.rightCols(block_) = a_.times(directions);
        fresh = orthonormal_remainder<S>(q(), std::move(both), ws);
    }
    last_ = std::min(fresh.cols(), capacity() - dimension_);
    if (last_ == 0) {
        exhausted_ = true;
        return {};
    }
    fresh = columns_of(fresh, 0, last_);
    const matrix<S> w = a_.transposed_times(fresh);
    if (!all_finite(w)) {
        return non_finite_operator(function_);
    }
    q_.middleCols(dimension_, last_) = fresh;
    w_.middleCols(dimension_, last_) = w;
    dimension_ += last_;
    return {};
}

#ifdef LOWRANK_COMPILED
template class settling_values<float>;
template class settling_values<double>;
template class krylov_space<float>;
template class krylov_space<double>;
#endif

}  // namespace lowrank::inline LOWRANK_ABI::detail

#endif  // LOWRANK_FACTOR_SKETCHED_DETAIL_KRYLOV_SPACE_IPP
