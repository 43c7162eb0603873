// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_PARTITION_HPP
#define LOWRANK_FACTOR_PARTITION_HPP

/// \file
/// A weight whose rows fall into groups, each with a low-rank factor of its own: blocks, heads, or found subspaces.
///
///     auto labels = lowrank::cluster_rows(w, 4, 12, {.restarts = 5});
///     auto f = lowrank::factor_partition(w, labels->labels, 12);
///     log(f->relative, f->plain_relative);             // at equal parameters: the partition, the plain SVD
///
/// Rows of a group lie near a subspace; a matrix of K groups can need K times the rank of each. Contiguous blocks win
/// only where row order means something, clustering finds groups in any order, and where there are none the plain SVD
/// wins at equal parameters: every result says which.
///
/// Maalouf, Lang, Rus, Feldman, ICLR 2021 (projective clustering of weights, EM with restarts).

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/factor/spectrum.hpp>
#include <lowrank/factor/svd.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Row i belongs to group labels[i], numbered from 0.
using row_labels = std::vector<index>;

/// `groups` contiguous blocks of rows whose sizes differ by at most one. \pre rows >= 0, groups >= 1
[[nodiscard]] inline row_labels contiguous_blocks(index rows, index groups) {
    detail::expects(rows >= 0 && groups >= 1, "contiguous_blocks: needs at least one group");
    row_labels labels(static_cast<std::size_t>(rows));
    for (index i = 0; i < rows; ++i) {
        labels[static_cast<std::size_t>(i)] = i * groups / rows;
    }
    return labels;
}

/// Blocks of `head_size` rows, the heads of an attention projection. \pre head_size divides rows.
[[nodiscard]] inline row_labels head_blocks(index rows, index head_size) {
    detail::expects(head_size >= 1 && rows >= 0 && rows % head_size == 0,
                    "head_blocks: the head size must divide the number of rows");
    row_labels labels(static_cast<std::size_t>(rows));
    for (index i = 0; i < rows; ++i) {
        labels[static_cast<std::size_t>(i)] = i / head_size;
    }
    return labels;
}

/// A matrix of row groups, each the product of two factors. A linear operator.
template <real S>
class partitioned_low_rank {
public:
    using scalar = S;
    struct group {
        std::vector<index> rows = {};  ///< Where the rows of `part` go.
        low_rank<S> part = {};
    };

    partitioned_low_rank() = default;
    /// \pre Every row in [0, rows) is in one group at most; parts have as many rows as listed and `cols` columns.
    partitioned_low_rank(index rows, index cols, std::vector<group> groups)
        : rows_(rows), cols_(cols), groups_(std::move(groups)) {
        for (const auto& g : groups_) {
            detail::expects_shape("partitioned_low_rank", "part", g.part.rows(), g.part.cols(),
                                  static_cast<index>(g.rows.size()), cols_);
            for (const index i : g.rows) {
                detail::expects_in_range("partitioned_low_rank", "row", i, index{0}, rows_ - 1);
            }
        }
    }

    [[nodiscard]] index rows() const noexcept { return rows_; }
    [[nodiscard]] index cols() const noexcept { return cols_; }
    [[nodiscard]] const std::vector<group>& groups() const noexcept { return groups_; }
    /// Numbers stored in the factors, sum over groups of k (rows + cols); labels not counted.
    [[nodiscard]] index parameters() const noexcept {
        index sum = 0;
        for (const auto& g : groups_) {
            sum += g.part.rank() * (g.part.rows() + cols_);
        }
        return sum;
    }

    void add_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
        detail::expects_shape("partitioned_low_rank::add_product", "x", x.rows(), x.cols(), cols_, y.cols());
        detail::expects_shape("partitioned_low_rank::add_product", "y", y.rows(), y.cols(), rows_, x.cols());
        for (const auto& g : groups_) {
            workspace::frame scope(ws);
            column_view<S> part = ws.take<S>(g.part.rows(), x.cols());
            part.setZero();
            g.part.add_product(alpha, x, part, ws);
            for (index j = 0; j < x.cols(); ++j) {
                for (index i = 0; i < part.rows(); ++i) {
                    y(g.rows[static_cast<std::size_t>(i)], j) += part(i, j);
                }
            }
        }
    }
    void add_transposed_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
        detail::expects_shape("partitioned_low_rank::add_transposed_product", "x", x.rows(), x.cols(), rows_, y.cols());
        detail::expects_shape("partitioned_low_rank::add_transposed_product", "y", y.rows(), y.cols(), cols_, x.cols());
        for (const auto& g : groups_) {
            workspace::frame scope(ws);
            column_view<S> part = ws.take<S>(g.part.rows(), x.cols());
            for (index j = 0; j < x.cols(); ++j) {
                for (index i = 0; i < part.rows(); ++i) {
                    part(i, j) = x(g.rows[static_cast<std::size_t>(i)], j);
                }
            }
            g.part.add_transposed_product(alpha, part, y, ws);
        }
    }

private:
    index rows_ = 0;
    index cols_ = 0;
    std::vector<group> groups_ = {};
};

struct cluster_options {
    int restarts = 4;        ///< Independent random starts; the best is returned.
    int iterations = 50;     ///< Rounds of each at most.
    std::uint64_t seed = 0;  ///< Same seed, same clusters for one binary and CPU.
};

/// Groups of rows near subspaces, and the objective after each round of the best start.
struct cluster_result {
    row_labels labels = {};
    std::vector<double> objective = {};  ///< sum of squared distances to the nearest subspace; never increases.
};

namespace detail {

[[nodiscard]] inline std::vector<std::vector<index>> rows_by_label(std::span<const index> labels, index groups) {
    std::vector<std::vector<index>> rows(static_cast<std::size_t>(groups));
    for (std::size_t i = 0; i < labels.size(); ++i) {
        rows[static_cast<std::size_t>(labels[i])].push_back(static_cast<index>(i));
    }
    return rows;
}

[[nodiscard]] inline matrix<double> gather_rows(const matrix<double>& a, const std::vector<index>& rows) {
    matrix<double> out(static_cast<index>(rows.size()), a.cols());
    for (std::size_t i = 0; i < rows.size(); ++i) {
        out.row(static_cast<index>(i)) = a.row(rows[i]);
    }
    return out;
}

/// First labels: a subspace grown around each of `groups` seed rows. A seed is drawn with probability proportional to
/// its squared distance from the subspaces there are; its subspace is that of the rows at the smallest angles to it.
/// Random labels instead would give every group the same mixture, a start that EM seldom leaves.
template <std::same_as<double> S>
[[nodiscard]] status seed_labels(const matrix<S>& a, const vector<S>& lengths, index groups, index rank,
                                 const philox& rng, row_labels& labels) {
    const index m = a.rows();
    vector<S> nearest = lengths;
    for (index g = 0; g < groups && m > 0; ++g) {
        double target = rng.uniform<double>(static_cast<std::uint64_t>(g)) * nearest.sum();
        index seed = 0;
        while (seed + 1 < m && target >= nearest(seed)) {
            target -= nearest(seed++);
        }
        // Squared cosines; rows of zero length belong anywhere.
        const vector<S> along = (a * a.row(seed).transpose())
                                    .cwiseAbs2()
                                    .cwiseQuotient(lengths.cwiseMax(std::numeric_limits<double>::min()));
        std::vector<index> order(static_cast<std::size_t>(m));
        std::iota(order.begin(), order.end(), index{0});
        std::stable_sort(order.begin(), order.end(), [&](index x, index y) { return along(x) > along(y); });
        order.resize(static_cast<std::size_t>(std::min(m, std::max<index>(2 * rank, 1))));
        const auto f = svd(gather_rows(a, order));
        if (!f) {
            return f.why;
        }
        vector<S> distance = lengths;
        if (const index j = std::min(rank, f.s.size()); j > 0) {
            distance -= (a * f.v.leftCols(j)).eval().rowwise().squaredNorm();
        }
        for (index i = 0; i < m; ++i) {
            if (g == 0 || distance(i) < nearest(i)) {
                labels[static_cast<std::size_t>(i)] = g;
                nearest(i) = std::max(distance(i), 0.0);
            }
        }
    }
    return {};
}

/// Gives each empty group the worst row of a group that keeps others: its distance becomes zero, nobody else's grows.
[[nodiscard]] inline bool fill_empty_groups(const matrix<double>& distance, const vector<double>& lengths,
                                            row_labels& labels) {
    std::vector<index> sizes(static_cast<std::size_t>(distance.cols()), 0);
    for (const index label : labels) {
        ++sizes[static_cast<std::size_t>(label)];
    }
    bool moved = false;
    for (std::size_t g = 0; g < sizes.size(); ++g) {
        if (sizes[g] > 0) {
            continue;
        }
        std::size_t worst = labels.size();
        double most = 0.0;
        for (std::size_t i = 0; i < labels.size(); ++i) {
            const double d = distance(static_cast<index>(i), labels[i]);
            const bool alone = sizes[static_cast<std::size_t>(labels[i])] == 1;
            if (!alone && d > most && d > 1e-14 * lengths(static_cast<index>(i))) {
                worst = i;
                most = d;
            }
        }
        if (worst == labels.size()) {
            break;
        }
        --sizes[static_cast<std::size_t>(labels[worst])];
        ++sizes[g];
        labels[worst] = static_cast<index>(g);
        moved = true;
    }
    return moved;
}

}  // namespace detail

/// Divides the rows of W into `groups` sets, each near a subspace of dimension `rank`, by EM with restarts: from
/// subspaces around random rows, assign every row to the nearest subspace, refit each subspace by SVD, until nothing
/// moves.
///
/// \pre    groups >= 1, rank >= 0, restarts >= 1, iterations >= 1; W has a row.
/// \return `non_finite` if W holds NaN or infinity. A local optimum: the problem is NP-hard, restarts help.
/// \cost   Per round one SVD of each group and 2 m n groups rank flops, in double.
template <detail::dense_weight W>
[[nodiscard]] result<cluster_result> cluster_rows(const W& w, index groups, index rank,
                                                  const cluster_options& options = {}) {
    detail::expects(groups >= 1 && rank >= 0 && options.restarts >= 1 && options.iterations >= 1,
                    "cluster_rows: groups, restarts and iterations must be at least 1, rank not negative");
    if (!all_finite(w)) {
        return status{errc::non_finite, "cluster_rows: the matrix holds NaN or infinity; repair or exclude the weight"};
    }
    matrix<double> a = w.template cast<double>();
    const double unit = a.size() == 0 ? 1.0 : detail::power_of_two_scale(a.cwiseAbs().maxCoeff());
    a *= unit;
    const vector<double> lengths = a.rowwise().squaredNorm();
    cluster_result best;
    for (int start = 0; start < options.restarts; ++start) {
        const philox rng(options.seed, static_cast<std::uint64_t>(start));
        cluster_result now;
        now.labels.resize(static_cast<std::size_t>(a.rows()));
        const status why = detail::seed_labels(a, lengths, groups, rank, rng, now.labels);
        if (!why) {
            return why;
        }
        matrix<double> distance(a.rows(), groups);
        for (int round = 0; round < options.iterations; ++round) {
            const auto members = detail::rows_by_label(now.labels, groups);
            for (index g = 0; g < groups; ++g) {
                const auto f = svd(detail::gather_rows(a, members[static_cast<std::size_t>(g)]));
                if (!f) {
                    return f.why;
                }
                const index j = std::min(rank, f.s.size());
                distance.col(g) = lengths;
                if (j > 0) {
                    distance.col(g) -= (a * f.v.leftCols(j)).eval().rowwise().squaredNorm();
                }
            }
            bool moved = false;
            double sum = 0.0;
            for (index i = 0; i < a.rows(); ++i) {
                index& label = now.labels[static_cast<std::size_t>(i)];
                index nearest = 0;
                distance.row(i).minCoeff(&nearest);
                // Only for a gain above rounding, so that ties do not move rows around for ever.
                if (distance(i, nearest) < distance(i, label) - 1e-14 * lengths(i)) {
                    label = nearest;
                    moved = true;
                }
                sum += std::max(distance(i, label), 0.0);
            }
            now.objective.push_back(sum / (unit * unit));
            moved = detail::fill_empty_groups(distance, lengths, now.labels) || moved;
            if (!moved) {
                break;
            }
        }
        if (best.objective.empty() || now.objective.back() < best.objective.back()) {
            best = std::move(now);
        }
    }
    return best;
}

/// A partitioned factorization, its error, and what the plain SVD reaches with no more parameters.
template <real S>
struct partition_result {
    partitioned_low_rank<S> map = {};
    double error = 0.0;           ///< ||W - map||_F, exact.
    double relative = 0.0;        ///< The same over ||W||_F.
    index parameters = 0;         ///< Of the map.
    index plain_rank = 0;         ///< floor(parameters / (m + n)): the rank the plain SVD affords.
    double plain_relative = 0.0;  ///< Its relative error.
};

/// The best rank-`rank` factors for each group of rows.
///
/// \pre    One label per row, each in [0, number of rows); rank >= 0.
/// \return `non_finite` if W holds NaN or infinity.
/// \cost   One SVD per group and one of W for the comparison.
template <detail::dense_weight W>
[[nodiscard]] result<partition_result<weight_scalar<W>>> factor_partition(const W& w, std::span<const index> labels,
                                                                          index rank) {
    using S = weight_scalar<W>;
    detail::expects(static_cast<index>(labels.size()) == w.rows(), "factor_partition: needs one label per row");
    detail::expects(rank >= 0, "factor_partition: the rank must not be negative");
    index groups = 0;
    for (const index label : labels) {
        detail::expects_in_range("factor_partition", "label", label, index{0}, static_cast<index>(w.rows()) - 1);
        groups = std::max(groups, label + 1);
    }
    const auto whole = make_spectrum(w);
    if (!whole) {
        return whole.error();
    }
    const matrix<S> a = w.template cast<S>();
    partition_result<S> out;
    std::vector<typename partitioned_low_rank<S>::group> parts;
    double rest = 0.0;  // of the squared error, relative to ||W||_F^2
    for (auto& rows : detail::rows_by_label(labels, groups)) {
        matrix<S> block(static_cast<index>(rows.size()), a.cols());
        for (std::size_t i = 0; i < rows.size(); ++i) {
            block.row(static_cast<index>(i)) = a.row(rows[i]);
        }
        const auto spec = make_spectrum(block);
        if (!spec) {
            return spec.error();
        }
        const index k = std::min(rank, spec->size());
        const double share = whole->norm() > 0.0 ? spec->error(k) / whole->norm() : 0.0;
        rest += share * share;
        parts.push_back({.rows = std::move(rows), .part = spec->truncate(k)});
    }
    out.map = partitioned_low_rank<S>(w.rows(), w.cols(), std::move(parts));
    out.relative = std::sqrt(rest);
    out.error = out.relative * whole->norm();
    out.parameters = out.map.parameters();
    out.plain_rank = w.size() == 0 ? 0 : std::min<index>(out.parameters / (w.rows() + w.cols()), whole->size());
    out.plain_relative = whole->relative_error(out.plain_rank);
    return out;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_PARTITION_HPP
