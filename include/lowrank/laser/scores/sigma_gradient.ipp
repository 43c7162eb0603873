// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_SCORES_SIGMA_GRADIENT_IPP
#define LOWRANK_LASER_SCORES_SIGMA_GRADIENT_IPP

#include <lowrank/laser/scores/sigma_gradient.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/skinny_product.hpp>
#include <lowrank/factor/ranks/rank_rules.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_BODY double sigma_scores::loss_change(index k, bool curvature) const {
    detail::expects_in_range("sigma_scores::loss_change", "k", k, index{0}, size());
    double second = 0;
    for (index i = k; curvature && i < size(); ++i) {
        second += sigma(i) * sigma(i) * fisher(i);
    }
    return change(k) + 0.5 * second;
}

LOWRANK_BODY double sigma_scores::t_statistic(index i) const {
    detail::expects_in_range("sigma_scores::t_statistic", "i", i, index{0}, size() - 1);
    const double error = samples > 1 ? std::sqrt(variance(i) / static_cast<double>(samples)) : 0.0;
    return error > 0 ? gradient(i) / error : 0.0;
}

LOWRANK_BODY index sigma_scores::best_rank(bool curvature, double trust, std::span<const index> ranks) const {
    index best = size();
    for (index k = size(); k-- > 0;) {
        if ((trust >= 1 || removed(k) <= trust) &&
            (ranks.empty() || std::find(ranks.begin(), ranks.end(), k) != ranks.end())) {
            best = loss_change(k, curvature) < loss_change(best, curvature) ? k : best;
        }
    }
    return best;
}

LOWRANK_BODY double screening_score(const sigma_scores& s, screening_policy policy, std::span<const index> ranks) {
    // The sum of what `of` makes of s_i dL/ds_i.
    const auto sum = [&](bool weighted, auto&& of) {
        double total = 0;
        for (index i = 0; i < s.size(); ++i) {
            total += of(weighted ? s.sigma(i) * s.gradient(i) : s.gradient(i));
        }
        return total;
    };
    const auto magnitude = [](double x) { return std::abs(x); };
    switch (policy) {
        case screening_policy::trusted_tail: return -s.loss_change(s.best_rank(false, 0.5, ranks));
        case screening_policy::best_tail: return -s.loss_change(s.best_rank(false, 1, ranks));
        case screening_policy::positive_part: return sum(true, [](double x) { return std::max(x, 0.0); });
        case screening_policy::fisher_tail: return -s.loss_change(s.best_rank(true, 1, ranks), true);
        case screening_policy::best_tail_z_score: {
            double best = 0;
            for (index k = 0; k < s.size(); ++k) {
                const bool listed = ranks.empty() || std::find(ranks.begin(), ranks.end(), k) != ranks.end();
                best = listed && s.change_error(k) > 0 ? std::max(best, -s.change(k) / s.change_error(k)) : best;
            }
            return best;
        }
        case screening_policy::taylor: return sum(true, magnitude);
        case screening_policy::gradient: return sum(false, magnitude);
    }
    return 0;
}

LOWRANK_BODY std::vector<index> screen(std::span<const sigma_scores> matrices, screening_policy policy,
                                       std::span<const double> fractions) {
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

template <real S>
sigma_gradient<S>::sigma_gradient(const decomposition<S>& s) : spectrum_(&s) {
    mean_.setZero(s.size());
    m2_ = mean_;
    tail_mean_.setZero(s.size() + 1);
    tail_m2_ = removed_ = tail_mean_;
}

template <real S>
status sigma_gradient<S>::add(const_column_view<S> x, const_column_view<S> dy, std::span<const index> starts,
                              workspace& ws) {
    const index r = spectrum_->size(), columns = x.cols();
    detail::expects_shape("sigma_gradient::add", "x", x.rows(), columns, spectrum_->cols(), columns);
    detail::expects_shape("sigma_gradient::add", "dy", dy.rows(), dy.cols(), spectrum_->rows(), columns);
    detail::expects(!starts.empty() && starts.front() == 0 && starts.back() == columns &&
                        std::is_sorted(starts.begin(), starts.end()),
                    "sigma_gradient::add: starts must rise from 0 to the number of columns");
    if (!all_finite(x) || !all_finite(dy)) {
        return {errc::non_finite, "sigma_gradient::add: an input or a gradient holds NaN or infinity; skip the batch"};
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
            for (index i = 0; i < r; ++i) {
                one(i) += static_cast<double>(left(i, c) * right(i, c));
            }
            add_output(right.data() + c * right.outerStride());
        }
        add_sample(one);
    }
    return {};
}

template <real S>
status sigma_gradient<S>::add(const_column_view<S> x, const_column_view<S> dy, workspace& ws) {
    const index starts[2] = {0, x.cols()};
    return add(x, dy, starts, ws);
}

template <real S>
void sigma_gradient<S>::merge(const sigma_gradient& other) {
    detail::expects(other.spectrum_ == spectrum_, "sigma_gradient::merge: both must be of the same spectrum");
    if (other.samples_ == 0) {
        return;
    }
    const double a = static_cast<double>(samples_), b = static_cast<double>(other.samples_);
    const auto join = [&](vector<double>& mean, vector<double>& spread, const vector<double>& mean_b,
                          const vector<double>& m2_b) {
        for (index i = 0; i < mean.size(); ++i) {
            const double step = mean_b(i) - mean(i);
            spread(i) += m2_b(i) + step * step * (a * b / (a + b));
            mean(i) += step * (b / (a + b));
        }
    };
    join(mean_, m2_, other.mean_, other.m2_);
    join(tail_mean_, tail_m2_, other.tail_mean_, other.tail_m2_);
    for (index k = 0; k < removed_.size(); ++k) {
        removed_(k) += other.removed_(k);
    }
    columns_ += other.columns_;
    samples_ += other.samples_;
}

template <real S>
sigma_scores sigma_gradient<S>::scores() const {
    const double n = static_cast<double>(std::max<index>(samples_, 1));
    const double degrees = static_cast<double>(std::max<index>(samples_ - 1, 1));
    sigma_scores out{.samples = samples_};
    out.sigma = head_in<double>(spectrum_->s, spectrum_->size());
    out.gradient = mean_;
    out.variance = out.fisher = m2_;
    for (index i = 0; i < mean_.size(); ++i) {
        out.variance(i) /= degrees;
        out.fisher(i) = m2_(i) / n + mean_(i) * mean_(i);
    }
    out.change = out.change_error = tail_m2_;
    out.removed = removed_;
    for (index k = 0; k < removed_.size(); ++k) {
        out.change(k) = -tail_mean_(k);
        out.change_error(k) = std::sqrt(tail_m2_(k) / (degrees * n));
        out.removed(k) /= static_cast<double>(std::max<index>(columns_, 1));
    }
    return out;
}

template <real S>
void sigma_gradient<S>::add_output(const S* v) {
    vector<double> tail(removed_.size());
    tail(tail.size() - 1) = 0;
    for (index i = tail.size() - 1; i-- > 0;) {
        const double y = static_cast<double>(spectrum_->s(i)) * static_cast<double>(v[i]);
        tail(i) = tail(i + 1) + y * y;
    }
    if (tail(0) > 0) {
        for (index k = 0; k < tail.size(); ++k) {
            removed_(k) += tail(k) / tail(0);
        }
        ++columns_;
    }
}

template <real S>
void sigma_gradient<S>::add_sample(const vector<double>& g) {
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

#ifdef LOWRANK_COMPILED
template class sigma_gradient<float>;
template class sigma_gradient<double>;
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_SCORES_SIGMA_GRADIENT_IPP
