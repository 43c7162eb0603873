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

#include <span>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/decomposition.hpp>

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
    LOWRANK_API [[nodiscard]] double loss_change(index k, bool curvature = false) const;

    /// Mean of dL/ds_i in units of its standard error; 0 where there is no spread to measure with.
    LOWRANK_API [[nodiscard]] double t_statistic(index i) const;

    /// The rank in [0, size()] with the lowest predicted loss; the largest of equals. Only ranks that take away at most
    /// the share `trust` of the output are considered, and of these only `ranks` unless the list is empty. Full rank,
    /// where nothing changes, always is.
    LOWRANK_API [[nodiscard]] index best_rank(bool curvature = false, double trust = 1,
                                              std::span<const index> ranks = {}) const;
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
LOWRANK_API [[nodiscard]] double screening_score(const sigma_scores& s, screening_policy policy,
                                                 std::span<const index> ranks = {});

/// Matrices in falling order of their score; equal scores keep their order. Only truncations to these fractions of the
/// full rank count, or all if the list is empty.
LOWRANK_API [[nodiscard]] std::vector<index> screen(std::span<const sigma_scores> matrices, screening_policy policy,
                                                    std::span<const double> fractions = {});

/// Accumulates the gradient of one weight's singular values over samples.
template <real S>
class sigma_gradient {
public:
    /// `s` is the weight's spectrum and must outlive the accumulator.
    explicit sigma_gradient(const decomposition<S>&&) = delete;
    explicit sigma_gradient(const decomposition<S>& s);

    /// Adds samples: `x` (n x N) is the layer's input, `dy` (m x N) the gradient of each sample's own loss at its
    /// output, and sample j is the columns [starts[j], starts[j + 1]).
    ///
    /// \pre    shapes fit the weight; starts rises from 0 to N.
    /// \return `non_finite`, with nothing added, if x or dy holds NaN or infinity.
    /// \cost   2 N r (m + n) flops, r = min(m, n); scratch 2 r N.
    status add(const_column_view<S> x, const_column_view<S> dy, std::span<const index> starts, workspace& ws);

    /// The same for one sample that is all columns.
    status add(const_column_view<S> x, const_column_view<S> dy, workspace& ws);

    /// Adds what another accumulator of the same spectrum has seen, of another thread or shard.
    void merge(const sigma_gradient& other);

    [[nodiscard]] index samples() const noexcept { return samples_; }

    /// Statistics of the samples so far.
    [[nodiscard]] sigma_scores scores() const;

private:
    /// The share of one column's output in each tail, from v = V^T x: the output is U diag(s) v, and U has orthonormal
    /// columns. A column without output counts for none.
    void add_output(const S* v);

    /// Welford's update, for the derivatives and for what each rank drops of them.
    void add_sample(const vector<double>& g);

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

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/laser/scores/sigma_gradient.ipp>
#endif

#endif  // LOWRANK_LASER_SCORES_SIGMA_GRADIENT_HPP
