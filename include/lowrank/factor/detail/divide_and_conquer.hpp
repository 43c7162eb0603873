// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_DETAIL_DIVIDE_AND_CONQUER_HPP
#define LOWRANK_FACTOR_DETAIL_DIVIDE_AND_CONQUER_HPP

/// \file
/// Eigenvalues and eigenvectors of a symmetric tridiagonal matrix, ascending, by divide and conquer.
///
///     bool done = divide_and_conquer<double>(d, e, q).run();   // T = Q diag(d) Q^T
///     bool values = ql_iteration<double>(d, e, 0, n, nullptr); // values alone
///
/// T is two halves and a rank-one matrix between them. With the halves diagonal, the eigenvalues of diagonal + rank one
/// are the roots of a rational function, and the vectors follow from the roots. Vectors are orthogonal because the
/// rank-one matrix is changed, within rounding, to the one whose eigenvalues the computed roots are exactly.
///
/// Cuppen, Numer. Math. 36 (1981). Gu, Eisenstat, SIAM J. Matrix Anal. Appl. 16 (1995). Li, LAPACK Working Note 89
/// (1993), the "middle way" iteration for the roots.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/detail/secular.hpp>

namespace lowrank::inline LOWRANK_ABI::detail {

/// Eigenvalues of the tridiagonal matrix in entries [first, first + size), unsorted, by the QL iteration with implicit
/// shifts; the rotations are applied to columns of the same numbers of `q` (rows of the same numbers) if not null.
/// False if an eigenvalue needs more than 80 steps.
template <real S>
bool ql_iteration(vector<S>& d, vector<S>& e, index first, index size, matrix<S>* q) {
    const S eps = std::numeric_limits<S>::epsilon();
    const S safe = std::sqrt(std::numeric_limits<S>::min()) / eps;  // squares of less lose digits
    const auto length = [&](S x, S y) {
        const S square = x * x + y * y;
        return square > safe ? std::sqrt(square) : std::hypot(x, y);
    };
    const index end = first + size;
    // What couples less than rounding of the largest entry counts as zero.
    const dense_view<const S> diagonal(d), off(e);
    const S negligible =
        size > 1 ? eps * std::max(max_abs(diagonal.middle_rows(first, size)), max_abs(off.middle_rows(first, size - 1)))
                 : S(0);
    for (index at = first; at < end; ++at) {
        for (int steps = 0;; ++steps) {
            index m = at;
            while (m + 1 < end && std::abs(e(m)) > negligible) {
                ++m;
            }
            if (m == at) {
                break;
            }
            if (steps == 80) {
                return false;
            }
            S g = (d(at + 1) - d(at)) / (S(2) * e(at));
            S r = std::hypot(g, S(1));
            g = d(m) - d(at) + e(at) / (g + std::copysign(r, g));
            S s = S(1);
            S c = S(1);
            S p = S(0);
            index i = m - 1;
            for (; i >= at; --i) {
                S f = s * e(i);
                const S b = c * e(i);
                r = length(f, g);
                e(i + 1) = r;
                if (r == S(0)) {
                    d(i + 1) -= p;
                    e(m) = S(0);
                    break;
                }
                s = f / r;
                c = g / r;
                g = d(i + 1) - p;
                r = (d(i) - g) * s + S(2) * c * b;
                p = s * r;
                d(i + 1) = g + p;
                g = c * r - b;
                if (q != nullptr) {
                    S* x = &(*q)(first, i);
                    S* y = &(*q)(first, i + 1);
                    for (index row = 0; row < size; ++row) {
                        f = y[row];
                        y[row] = s * x[row] + c * f;
                        x[row] = c * x[row] - s * f;
                    }
                }
            }
            if (i >= at) {
                continue;
            }
            d(at) -= p;
            e(at) = g;
            e(m) = S(0);
        }
    }
    return true;
}

/// Sorts entries [first, first + size) of d in ascending order, and the columns and rows of q of the same numbers.
template <real S>
void sort_columns(vector<S>& d, matrix<S>& q, index first, index size) {
    for (index i = first; i < first + size; ++i) {  // by selection, so that each column moves once
        index least = i;
        for (index j = i + 1; j < first + size; ++j) {
            least = d(j) < d(least) ? j : least;
        }
        if (least != i) {
            std::swap(d(i), d(least));
            std::swap_ranges(&q.coeffRef(first, i), &q.coeffRef(first, i) + size, &q.coeffRef(first, least));
        }
    }
}

/// One root of 1 / rho + sum_j z_j^2 / (d_j - x) between d_i and d_{i+1}, or above the last d.
template <real S>
class secular_equation {
public:
    /// \pre d ascends strictly, rho > 0; the arrays live as long as this.
    secular_equation(const vector<S>& d, const vector<S>& z, S rho)
        : d_(d), z_(z), rho_(rho), norm2_(dot_of(z.data(), z.data(), z.size())), base_(d.size()) {}

    /// The root number i; `delta` becomes d_j - root, each to full relative accuracy. False if it did not converge.
    bool solve(index i, S* delta, S& root) {
        const index k = d_.size();
        if (k == 1) {
            delta[0] = -rho_ * norm2_;
            root = d_(0) - delta[0];
            return true;
        }
        const bool last = i == k - 1;
        index origin = i;
        S low = S(0);
        S high = S(0);
        S tau = S(0);
        if (last) {
            rebase(i);
            high = rho_ * norm2_ * (S(1) + S(4) * eps);
            tau = S(0.5) * high;
        } else {
            const S gap = d_(i + 1) - d_(i);
            const S half = S(0.5) * gap;
            rebase(i);
            evaluate(i, half, delta);
            const S a2 = z_(i) * z_(i);
            const S b2 = z_(i + 1) * z_(i + 1);
            const S c = value_ - a2 / delta[i] - b2 / delta[i + 1];
            // The two nearest poles with the others frozen in the middle give the first guess.
            if (value_ > S(0)) {
                high = half;
                const S a = c * gap + a2 + b2;
                const S b = a2 * gap;
                const S root_of = std::sqrt(std::abs(a * a - S(4) * b * c));
                tau = a > S(0) ? S(2) * b / (a + root_of) : (a - root_of) / (S(2) * c);
            } else {
                origin = i + 1;
                rebase(origin);
                low = -half;
                const S a = c * gap - a2 - b2;
                const S b = b2 * gap;
                const S root_of = std::sqrt(std::abs(a * a + S(4) * b * c));
                tau = a < S(0) ? S(2) * b / (a - root_of) : -(a + root_of) / (S(2) * c);
            }
            if (!(tau > low && tau < high)) {
                tau = S(0.5) * (low + high);
            }
        }
        const index split = last ? i - 1 : i;  // the left one of the two poles of the model
        for (int step = 0; step < 200; ++step) {
            evaluate(split, tau, delta);
            if (std::abs(value_) <= eps * (S(8) * (std::abs(left_) + std::abs(right_)) + S(2) / rho_ +
                                           std::abs(tau) * (left_slope_ + right_slope_))) {
                root = d_(origin) + tau;
                return true;
            }
            (value_ < S(0) ? low : high) = tau;
            const S p = delta[split];
            const S q = delta[split + 1];
            const S slope = left_slope_ + right_slope_;
            const S a = (p + q) * value_ - p * q * slope;
            const S b = p * q * value_;
            S c = value_ - p * left_slope_ - q * right_slope_;
            S eta = S(0);
            if (last) {
                c = std::abs(c);
                const S root_of = std::sqrt(std::abs(a * a - S(4) * b * c));
                eta = c == S(0) ? high - tau : a >= S(0) ? (a + root_of) / (S(2) * c) : S(2) * b / (a - root_of);
            } else {
                const S root_of = std::sqrt(std::abs(a * a - S(4) * b * c));
                eta = c == S(0) ? b / a : a <= S(0) ? (a - root_of) / (S(2) * c) : S(2) * b / (a + root_of);
            }
            if (!(value_ * eta < S(0))) {
                eta = -value_ / slope;
            }
            S next = tau + eta;
            if (!(next > low && next < high)) {
                next = S(0.5) * (low + high);
            }
            if (next == tau || next == low || next == high) {  // the interval holds no other number
                root = d_(origin) + tau;
                return true;
            }
            tau = next;
        }
        return false;
    }

private:
    static constexpr S eps = std::numeric_limits<S>::epsilon();

    /// Distances from pole `origin`.
    void rebase(index origin) {
        for (index j = 0; j < d_.size(); ++j) {
            base_(j) = d_(j) - d_(origin);
        }
    }

    /// delta, the function at base + tau in its parts up to and after pole `split`, and their slopes.
    void evaluate(index split, S tau, S* delta) {
        const index k = d_.size(), right = k - split - 1;
        secular_sums(base_.data(), z_.data(), tau, delta, split + 1, left_, left_slope_);
        secular_sums(base_.data() + split + 1, z_.data() + split + 1, tau, delta + split + 1, right, right_,
                     right_slope_);
        value_ = S(1) / rho_ + left_ + right_;
    }

    const vector<S>& d_;
    const vector<S>& z_;
    S rho_;
    S norm2_;
    vector<S> base_;
    S value_ = S(0);
    S left_ = S(0);
    S right_ = S(0);
    S left_slope_ = S(0);
    S right_slope_ = S(0);
};

/// T = Q diag(d) Q^T, in place: d and e hold the tridiagonal matrix of magnitude about one, then d the eigenvalues.
template <real S>
class divide_and_conquer {
public:
    /// e has as many entries as d; the last is not used. q is overwritten.
    divide_and_conquer(vector<S>& d, vector<S>& e, matrix<S>& q) : d_(d), e_(e), q_(q) {
        const index n = d.size();
        q_.setZero(n, n);
        if (n > leaf) {
            columns_.resize(n * n);
            inner_.resize(n * n);
        }
    }

    /// False if an iteration did not converge; then d, e and q hold nothing of use.
    [[nodiscard]] bool run() { return solve(0, d_.size()); }

private:
    static constexpr index leaf = 32;
    enum kind : unsigned char { upper, both, lower };  ///< Where a column of Q has entries.

    static std::size_t at(index i) { return static_cast<std::size_t>(i); }

    bool solve(index first, index size) {
        if (size <= leaf) {
            return small(first, size);
        }
        const index half = size / 2;
        const S coupling = e_(first + half - 1);
        d_(first + half - 1) -= std::abs(coupling);
        d_(first + half) -= std::abs(coupling);
        return solve(first, half) && solve(first + half, size - half) && merge(first, half, size, coupling);
    }

    bool small(index first, index size) {
        for (index i = first; i < first + size; ++i) {
            q_(i, i) = S(1);
        }
        if (size > 0 && !ql_iteration<S>(d_, e_, first, size, &q_)) {
            return false;
        }
        sort_columns<S>(d_, q_, first, size);
        return true;
    }

    /// The eigenvectors of diag(d) + |coupling| v v^T for the v = (0, .., 1, +-1, .., 0) between the halves.
    bool merge(index first, index half, index size, S coupling) {
        const dense_view<S> q = dense_view<S>(q_).block(first, first, size, size);
        vector<S> d(size);
        vector<S> z(size);
        const S above_weight = std::sqrt(S(0.5)), below_weight = coupling < S(0) ? -above_weight : above_weight;
        for (index i = 0; i < size; ++i) {
            d(i) = d_(first + i);
            z(i) = i < half ? above_weight * q(half - 1, i) : below_weight * q(half, i);
        }
        const S rho = S(2) * std::abs(coupling);

        deflate(q, d, z, rho, half);
        const index k = static_cast<index>(kept_.size());

        // The roots, and the vectors of the inner problem, in columns of `inner`.
        vector<S> poles(k);
        vector<S> weights(k);
        for (index i = 0; i < k; ++i) {
            poles(i) = d(kept_[at(i)]);
            weights(i) = z(kept_[at(i)]);
        }
        vector<S> roots(k);
        const dense_view<S> inner(inner_.data(), k, k, 1, k);
        secular_equation<S> equation(poles, weights, rho);
        for (index i = 0; i < k; ++i) {
            if (!equation.solve(i, inner.column(i), roots(i))) {
                return false;
            }
        }
        vector<S> exact(k);  // the weights for which these roots are exact
        std::fill(exact.data(), exact.data() + k, S(1));
        for (index i = 0; i < k; ++i) {
            const S* difference = inner.column(i);
            multiply_by_ratios(exact.data(), difference, poles.data(), poles(i), i);
            exact(i) *= difference[i];
            multiply_by_ratios(exact.data() + i + 1, difference + i + 1, poles.data() + i + 1, poles(i), k - i - 1);
        }
        for (index i = 0; i < k; ++i) {
            exact(i) = std::copysign(std::sqrt(std::max(-exact(i), S(0))), weights(i));
        }
        // Columns of Q with entries above only, in both halves, below only: two products skip the zeros.
        std::vector<index> grouped(at(k));
        std::iota(grouped.begin(), grouped.end(), index{0});
        std::stable_sort(grouped.begin(), grouped.end(),
                         [&](index x, index y) { return kinds_[at(kept_[at(x)])] < kinds_[at(kept_[at(y)])]; });
        index uppers = 0;
        index boths = 0;
        for (const index i : kept_) {
            uppers += kinds_[at(i)] == upper ? 1 : 0;
            boths += kinds_[at(i)] == both ? 1 : 0;
        }
        vector<S> column(k);
        for (index i = 0; i < k; ++i) {
            const S length = std::sqrt(divide(exact.data(), inner.column(i), column.data(), k));
            for (index j = 0; j < k; ++j) {
                inner(j, i) = column(grouped[at(j)]) / length;
            }
        }
        const index above = uppers + boths;
        const index below = k - uppers;
        const dense_view<S> top(columns_.data(), half, above, 1, half);
        const dense_view<S> bottom(top.data() + half * above, size - half, below, 1, size - half);
        const dense_view<S> rest(bottom.data() + (size - half) * below, size, size - k, 1, size);
        for (index j = 0; j < k; ++j) {
            const index from = kept_[at(grouped[at(j)])];
            if (j < above) {
                std::copy_n(q.column(from), half, top.column(j));
            }
            if (j >= uppers) {
                std::copy_n(q.column(from) + half, size - half, bottom.column(j - uppers));
            }
        }
        std::sort(deflated_.begin(), deflated_.end(), [&](index x, index y) { return d(x) < d(y); });
        for (index j = 0; j < size - k; ++j) {
            std::copy_n(q.column(deflated_[at(j)]), size, rest.column(j));
        }
        for (index j = 0; j < k; ++j) {
            std::fill_n(q.column(j), size, S(0));
        }
        add_product(S(1), top, inner.middle_rows(0, above), q.block(0, 0, half, k));
        add_product(S(1), bottom, inner.middle_rows(uppers, below), q.block(half, 0, size - half, k));

        // Merge the two ascending lists from the far end, so that no column is overwritten before it has moved.
        index i = k;
        index j = size - k;
        for (index to = size; to-- > 0;) {
            if (j == 0 || (i > 0 && roots(i - 1) > d(deflated_[at(j - 1)]))) {
                --i;
                d_(first + to) = roots(i);
                if (to != i) {
                    std::copy_n(q.column(i), size, q.column(to));
                }
            } else {
                --j;
                d_(first + to) = d(deflated_[at(j)]);
                std::copy_n(rest.column(j), size, q.column(to));
            }
        }
        return true;
    }

    /// Sorts the columns into `kept_`, with distinct poles in ascending order and weights above rounding, and
    /// `deflated_`, which are eigenvectors already or after a rotation with a neighbor.
    void deflate(const dense_view<S>& q, vector<S>& d, vector<S>& z, S rho, index half) {
        const index size = d.size();
        std::vector<index> order(at(size));
        std::iota(order.begin(), order.end(), index{0});
        std::inplace_merge(order.begin(), order.begin() + half, order.end(),
                           [&](index x, index y) { return d(x) < d(y); });
        kinds_.assign(at(size), upper);
        std::fill(kinds_.begin() + half, kinds_.end(), lower);
        kept_.clear();
        deflated_.clear();
        const S tolerance = S(8) * std::numeric_limits<S>::epsilon() * std::max(max_abs(d), max_abs(z));
        index previous = -1;
        for (const index i : order) {
            if (rho * std::abs(z(i)) <= tolerance) {
                deflated_.push_back(i);
                continue;
            }
            if (previous >= 0) {
                const S size_of = std::hypot(z(i), z(previous));
                const S c = z(i) / size_of;
                const S s = -z(previous) / size_of;
                if (std::abs((d(i) - d(previous)) * c * s) <= tolerance) {
                    z(i) = size_of;
                    z(previous) = S(0);
                    if (kinds_[at(i)] != kinds_[at(previous)]) {
                        kinds_[at(i)] = both;
                    }
                    rotate(q.column(i), q.column(previous), size, c, s);
                    const S first = d(previous) * c * c + d(i) * s * s;
                    d(i) = d(previous) * s * s + d(i) * c * c;
                    d(previous) = first;
                    deflated_.push_back(previous);
                } else {
                    kept_.push_back(previous);
                }
            }
            previous = i;
        }
        if (previous >= 0) {
            kept_.push_back(previous);
        }
    }

    vector<S>& d_;
    vector<S>& e_;
    matrix<S>& q_;
    vector<S> columns_ = {};
    vector<S> inner_ = {};
    std::vector<kind> kinds_ = {};
    std::vector<index> kept_ = {};
    std::vector<index> deflated_ = {};
};

}  // namespace lowrank::inline LOWRANK_ABI::detail

#endif  // LOWRANK_FACTOR_DETAIL_DIVIDE_AND_CONQUER_HPP
