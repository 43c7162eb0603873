// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_SCORES_SIGMA_GRADIENT_HPP
#define LOWRANK_LASER_SCORES_SIGMA_GRADIENT_HPP

/// \file
/// The change of the loss by every truncation of a weight, to first order, from one backward pass.
///
///     lowrank::sigma_gradient<float> g(spec);                // of W, y = W x
///     const std::vector<lowrank::index> starts = {0, 64, 128};      // samples are columns [0, 64) and [64, 128)
///     lowrank::throw_if_failed(g.add(x, dy, starts, ws));    // the layer's input, the gradient of its output
///     auto scores = g.scores();
///     log(scores.loss_change(5));                            // predicted change of the mean loss at rank 5
///
/// With G = dL/dW = D X^T the derivative by a singular value is dL/ds_i = u_i^T G v_i. Its share from one sample is
/// rowsum((U^T D) o (V^T X)) over the sample's columns, so neither G nor a gradient per sample is ever formed.
/// The gradient screen of Sreeram, Maalouf, Sharma, Rus: Compress to Impress, arXiv 2510.20800; derivation in
/// docs/laser.md.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

#include <Eigen/Core>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/skinny_product.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/decomposition.hpp>
#include <lowrank/factor/ranks/rank_rules.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Mean, spread and curvature of the loss along each singular value, over samples.
struct sigma_scores {
    index samples = 0;
    vector<double> sigma = {};         ///< s_i, descending.
    vector<double> gradient = {};      ///< Mean over samples of dL/ds_i. Positive: shrinking s_i lowers the loss.
    vector<double> variance = {};      ///< Over samples, of dL/ds_i; 0 for fewer than two samples.
    vector<double> fisher = {};        ///< Mean over samples of (dL/ds_i)^2: the diagonal Fisher information.
    vector<double> change = {};        ///< change[k]: predicted change of the mean loss if only the first k stay.
    vector<double> change_error = {};  ///< Its standard error over samples.
    /// removed[k]: the share of the layer's output that rank k takes away, ||(W - W_k) x||^2 / ||W x||^2, mean over all
    /// columns x. How far the edit is from where the gradient was taken, as the data see it.
    vector<double> removed = {};

    [[nodiscard]] index size() const noexcept { return sigma.size(); }

    /// First-order change of the mean loss at rank k: - sum_{i>=k} s_i g_i; with `curvature`, plus
    /// 1/2 sum_{i>=k} s_i^2 F_i. A signal for ranking candidates; far from k = size() not a forecast.
    /// \pre 0 <= k <= size()
    [[nodiscard]] double loss_change(index k, bool curvature = false) const {
        detail::expects_in_range("sigma_scores::loss_change", "k", k, index{0}, size());
        const index dropped = size() - k;
        return change(k) + (curvature ? 0.5 * sigma.tail(dropped).cwiseAbs2().dot(fisher.tail(dropped)) : 0.0);
    }

    /// Mean of dL/ds_i in units of its standard error; 0 where there is no spread to measure with.
    [[nodiscard]] double t_statistic(index i) const {
        detail::expects_in_range("sigma_scores::t_statistic", "i", i, index{0}, size() - 1);
        const double error = samples > 1 ? std::sqrt(variance(i) / static_cast<double>(samples)) : 0.0;
        return error > 0 ? gradient(i) / error : 0.0;
    }

    /// The rank in [0, size()] with the lowest predicted loss; the largest of equals. Only ranks that take away at most
    /// the share `trust` of the output are considered, and of these only `ranks` unless the list is empty. Full rank,
    /// where nothing changes, always is.
    [[nodiscard]] index best_rank(bool curvature = false, double trust = 1, std::span<const index> ranks = {}) const {
        index best = size();
        for (index k = size(); k-- > 0;) {
            if ((trust >= 1 || removed(k) <= trust) &&
                (ranks.empty() || std::find(ranks.begin(), ranks.end(), k) != ranks.end())) {
                best = loss_change(k, curvature) < loss_change(best, curvature) ? k : best;
            }
        }
        return best;
    }
};

/// How promising the truncation of a matrix is: larger is better.
enum class screening_policy {
    trusted_tail,       ///< Largest predicted fall over the ranks that leave half of the layer's output or more.
    best_tail,          ///< Largest predicted fall of the loss over all ranks.
    positive_part,      ///< sum_i max(0, s_i g_i): all that first order could gain with any index set.
    fisher_tail,        ///< As best_tail, with the Fisher diagonal as curvature.
    best_tail_z_score,  ///< Largest predicted fall in units of its standard error.
    taylor,             ///< sum_i |s_i g_i|, the importance GRASP sums.
    gradient,           ///< sum_i |g_i|.
};

/// The score of one matrix under a policy. The policies that look for the best rank look among `ranks`, or among all
/// if the list is empty.
[[nodiscard]] inline double screening_score(const sigma_scores& s, screening_policy policy,
                                            std::span<const index> ranks = {}) {
    switch (policy) {
        case screening_policy::trusted_tail: return -s.loss_change(s.best_rank(false, 0.5, ranks));
        case screening_policy::best_tail: return -s.loss_change(s.best_rank(false, 1, ranks));
        case screening_policy::positive_part: return s.sigma.cwiseProduct(s.gradient).cwiseMax(0.0).sum();
        case screening_policy::fisher_tail: return -s.loss_change(s.best_rank(true, 1, ranks), true);
        case screening_policy::best_tail_z_score: {
            double best = 0;
            for (index k = 0; k < s.size(); ++k) {
                const bool listed = ranks.empty() || std::find(ranks.begin(), ranks.end(), k) != ranks.end();
                best = listed && s.change_error(k) > 0 ? std::max(best, -s.change(k) / s.change_error(k)) : best;
            }
            return best;
        }
        case screening_policy::taylor: return s.sigma.cwiseProduct(s.gradient).cwiseAbs().sum();
        case screening_policy::gradient: return s.gradient.cwiseAbs().sum();
    }
    return 0;
}

/// Matrices in falling order of their score; equal scores keep their order. Only truncations to these fractions of the
/// full rank count, or all if the list is empty.
[[nodiscard]] inline std::vector<index> screen(std::span<const sigma_scores> matrices, screening_policy policy,
                                               std::span<const double> fractions = {}) {
    std::vector<double> score;
    std::vector<index> order;
    for (const auto& s : matrices) {
        std::vector<index> ranks;
        for (const double f : fractions) {
            ranks.push_back(rank_from_fraction(f, s.size(), s.size()));
        }
        order.push_back(static_cast<index>(order.size()));
        score.push_back(screening_score(s, policy, ranks));
    }
    std::stable_sort(order.begin(), order.end(), [&](index a, index b) {
        return score[static_cast<std::size_t>(a)] > score[static_cast<std::size_t>(b)];
    });
    return order;
}

/// Accumulates the gradient of one weight's singular values over samples.
template <real S>
class sigma_gradient {
public:
    /// `s` is the weight's spectrum and must outlive the accumulator.
    explicit sigma_gradient(const decomposition<S>&&) = delete;
    explicit sigma_gradient(const decomposition<S>& s)
        : spectrum_(&s),
          mean_(vector<double>::Zero(s.size())),
          m2_(mean_),
          tail_mean_(vector<double>::Zero(s.size() + 1)),
          tail_m2_(tail_mean_),
          removed_(tail_mean_) {}

    /// Adds samples: `x` (n x N) is the layer's input, `dy` (m x N) the gradient of each sample's own loss at its
    /// output, and sample j is the columns [starts[j], starts[j + 1]).
    ///
    /// \pre    shapes fit the weight; starts rises from 0 to N.
    /// \return `non_finite`, with nothing added, if x or dy holds NaN or infinity.
    /// \cost   2 N r (m + n) flops, r = min(m, n); scratch 2 r N.
    status add(const_column_view<S> x, const_column_view<S> dy, std::span<const index> starts, workspace& ws) {
        const index r = spectrum_->size(), columns = x.cols();
        detail::expects_shape("sigma_gradient::add", "x", x.rows(), columns, spectrum_->cols(), columns);
        detail::expects_shape("sigma_gradient::add", "dy", dy.rows(), dy.cols(), spectrum_->rows(), columns);
        detail::expects(!starts.empty() && starts.front() == 0 && starts.back() == columns &&
                            std::is_sorted(starts.begin(), starts.end()),
                        "sigma_gradient::add: starts must rise from 0 to the number of columns");
        if (!all_finite(x) || !all_finite(dy)) {
            return {errc::non_finite,
                    "sigma_gradient::add: an input or a gradient holds NaN or infinity; skip the batch"};
        }
        const workspace::frame scope(ws);
        column_view<S> left = ws.take<S>(r, columns), right = ws.take<S>(r, columns);
        left.setZero();
        right.setZero();
        add_transposed_product<S, 0>(S(1), const_column_view<S>(spectrum_->u), dy, left, ws);
        add_transposed_product<S, 0>(S(1), const_column_view<S>(spectrum_->v), x, right, ws);
        vector<double> one(r);
        for (std::size_t j = 0; j + 1 < starts.size(); ++j) {
            const index first = starts[j], count = starts[j + 1] - first;
            one.setZero();
            for (index c = first; c < first + count; ++c) {
                one += left.col(c).cwiseProduct(right.col(c)).template cast<double>();
                add_output(right.col(c).template cast<double>());
            }
            add_sample(one);
        }
        return {};
    }

    /// The same for one sample that is all columns.
    status add(const_column_view<S> x, const_column_view<S> dy, workspace& ws) {
        const index starts[2] = {0, x.cols()};
        return add(x, dy, starts, ws);
    }

    /// Adds what another accumulator of the same spectrum has seen, of another thread or shard.
    void merge(const sigma_gradient& other) {
        detail::expects(other.spectrum_ == spectrum_, "sigma_gradient::merge: both must be of the same spectrum");
        if (other.samples_ == 0) {
            return;
        }
        const double a = static_cast<double>(samples_), b = static_cast<double>(other.samples_);
        const auto join = [&](vector<double>& mean, vector<double>& spread, const vector<double>& mean_b,
                              const vector<double>& m2_b) {
            const vector<double> step = mean_b - mean;
            spread += m2_b + step.cwiseAbs2() * (a * b / (a + b));
            mean += step * (b / (a + b));
        };
        join(mean_, m2_, other.mean_, other.m2_);
        join(tail_mean_, tail_m2_, other.tail_mean_, other.tail_m2_);
        removed_ += other.removed_;
        columns_ += other.columns_;
        samples_ += other.samples_;
    }

    [[nodiscard]] index samples() const noexcept { return samples_; }

    /// Statistics of the samples so far.
    [[nodiscard]] sigma_scores scores() const {
        const double n = static_cast<double>(std::max<index>(samples_, 1));
        const double degrees = static_cast<double>(std::max<index>(samples_ - 1, 1));
        sigma_scores out{.samples = samples_};
        out.sigma = spectrum_->s.template cast<double>();
        out.gradient = mean_;
        out.variance = m2_ / degrees;
        out.fisher = m2_ / n + mean_.cwiseAbs2();
        out.change = -tail_mean_;
        out.change_error = (tail_m2_ / (degrees * n)).cwiseSqrt();
        out.removed = removed_ / static_cast<double>(std::max<index>(columns_, 1));
        return out;
    }

private:
    /// The share of one column's output in each tail, from v = V^T x: the output is U diag(s) v, and U has orthonormal
    /// columns. A column without output counts for none.
    template <class V>
    void add_output(const V& v) {
        vector<double> tail(removed_.size());
        tail(v.size()) = 0;
        for (index i = v.size(); i-- > 0;) {
            const double y = static_cast<double>(spectrum_->s(i)) * v(i);
            tail(i) = tail(i + 1) + y * y;
        }
        if (tail(0) > 0) {
            removed_ += tail / tail(0);
            ++columns_;
        }
    }

    /// Welford's update, for the derivatives and for what each rank drops of them.
    void add_sample(const vector<double>& g) {
        ++samples_;
        const double n = static_cast<double>(samples_);
        const auto update = [n](double value, double& mean, double& spread) {
            const double step = value - mean;
            mean += step / n;
            spread += step * (value - mean);
        };
        double tail = 0;
        update(tail, tail_mean_(g.size()), tail_m2_(g.size()));
        for (index i = g.size(); i-- > 0;) {
            update(g(i), mean_(i), m2_(i));
            tail += static_cast<double>(spectrum_->s(i)) * g(i);
            update(tail, tail_mean_(i), tail_m2_(i));
        }
    }

    const decomposition<S>* spectrum_;
    index samples_ = 0;
    vector<double> mean_;       ///< Of dL/ds_i,
    vector<double> m2_;         ///< and the sum of squared deviations from it.
    vector<double> tail_mean_;  ///< Of sum_{i>=k} s_i dL/ds_i,
    vector<double> tail_m2_;    ///< likewise.
    vector<double> removed_;    ///< Sum over columns of the share of the output in each tail,
    index columns_ = 0;         ///< and how many they are.
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_SCORES_SIGMA_GRADIENT_HPP
