// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_PARTITION_HPP
#define LOWRANK_FACTOR_PARTITION_HPP

/// \file
/// A weight whose rows fall into groups, each with a low-rank factor of its own: blocks, heads, or found subspaces.
///
///     auto labels = lowrank::cluster_rows(w, 4, 12, {.restarts = 5});
///     auto f = lowrank::factor_partition(w, labels.labels, 12);
///     log(f.relative, f.plain_relative);             // at equal parameters: the partition, the plain SVD
///
/// Rows of a group lie near a subspace; a matrix of K groups can need K times the rank of each. Contiguous blocks win
/// only where row order means something, clustering finds groups in any order, and where there are none the plain SVD
/// wins at equal parameters: every result says which.
///
/// Maalouf, Lang, Rus, Feldman, ICLR 2021 (projective clustering of weights). Assignment is hard: k-subspaces.

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/decomposition.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/factor/svd.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Row i belongs to group labels[i], numbered from 0.
using row_labels = std::vector<index>;

/// `groups` contiguous blocks of rows whose sizes differ by at most one. \pre rows >= 0, groups >= 1
LOWRANK_API [[nodiscard]] row_labels contiguous_blocks(index rows, index groups);

/// Blocks of `head_size` rows, the heads of an attention projection. \pre head_size divides rows.
LOWRANK_API [[nodiscard]] row_labels head_blocks(index rows, index head_size);

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
    partitioned_low_rank(index rows, index cols, std::vector<group> groups);

    [[nodiscard]] index rows() const noexcept { return rows_; }
    [[nodiscard]] index cols() const noexcept { return cols_; }
    [[nodiscard]] const std::vector<group>& groups() const noexcept { return groups_; }
    /// Numbers stored in the factors, sum over groups of k (rows + cols); labels not counted.
    [[nodiscard]] index parameters() const noexcept;

    void add_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const;
    void add_transposed_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const;

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
struct cluster_result : fallible {
    row_labels labels = {};
    std::vector<double> objective = {};  ///< sum of squared distances to the nearest subspace; never increases.
};

namespace detail {

LOWRANK_API [[nodiscard]] cluster_result cluster_rows_of(matrix<double> a, index groups, index rank,
                                                         const cluster_options& options);

}  // namespace detail

/// Divides the rows of W into `groups` sets, each near a subspace of dimension `rank`, by k-subspaces with
/// restarts: from subspaces around random rows, assign every row to the nearest subspace, refit each subspace by SVD, until nothing
/// moves.
///
/// \pre    groups >= 1, rank >= 0, restarts >= 1, iterations >= 1; W has a row.
/// \return `non_finite` if W holds NaN or infinity. A local optimum: the problem is NP-hard, restarts help.
/// \cost   Per round one SVD of each group and 2 m n groups rank flops, in double.
template <detail::dense_expression W>
[[nodiscard]] cluster_result cluster_rows(const W& w, index groups, index rank, const cluster_options& options = {}) {
    return detail::cluster_rows_of(copy_in<double>(detail::evaluated(w)), groups, rank, options);
}

/// A partitioned factorization, its error, and what the plain SVD reaches with no more parameters.
template <real S>
struct partition_result : fallible {
    partitioned_low_rank<S> map = {};
    double error = 0.0;           ///< ||W - map||_F, exact.
    double relative = 0.0;        ///< The same over ||W||_F.
    index parameters = 0;         ///< Of the map.
    index plain_rank = 0;         ///< floor(parameters / (m + n)): the rank the plain SVD affords.
    double plain_relative = 0.0;  ///< Its relative error.
};

/// Some rows of a matrix, and the decomposition of what is in them.
template <real S>
struct row_group {
    std::vector<index> rows = {};
    decomposition<S> factors = {};
};

namespace detail {

template <real S>
[[nodiscard]] result<std::vector<row_group<S>>> svd_of_groups(const char* function, const matrix<S>& a,
                                                              std::span<const index> labels);
template <real S>
[[nodiscard]] partition_result<S> factor_partition_of(const matrix<S>& a, std::span<const index> labels, index rank);

}  // namespace detail

/// The SVD of each group of rows that has any, in the order of their labels.
///
/// \pre    One label per row, none negative.
/// \return `non_finite` if W holds NaN or infinity.
/// \cost   One SVD per group.
template <detail::dense_expression W>
[[nodiscard]] result<std::vector<row_group<weight_scalar<W>>>> svd_by_rows(const W& w, std::span<const index> labels) {
    using S = weight_scalar<W>;
    return detail::svd_of_groups<S>("svd_by_rows", copy_in<S>(detail::evaluated(w)), labels);
}

/// The best rank-`rank` factors for each group of rows.
///
/// \pre    One label per row, none negative; rank >= 0.
/// \return `non_finite` if W holds NaN or infinity.
/// \cost   One SVD per group and one of W for the comparison.
template <detail::dense_expression W>
[[nodiscard]] partition_result<weight_scalar<W>> factor_partition(const W& w, std::span<const index> labels,
                                                                  index rank) {
    using S = weight_scalar<W>;
    return detail::factor_partition_of<S>(copy_in<S>(detail::evaluated(w)), labels, rank);
}

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/factor/partition.ipp>
#endif

#endif  // LOWRANK_FACTOR_PARTITION_HPP
