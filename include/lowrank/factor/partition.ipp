// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_PARTITION_IPP
#define LOWRANK_FACTOR_PARTITION_IPP

#include <lowrank/factor/partition.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <numeric>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/factor/orthonormalize.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_BODY row_labels contiguous_blocks(index rows, index groups) {
    detail::expects(rows >= 0 && groups >= 1, "contiguous_blocks: needs at least one group");
    row_labels labels(static_cast<std::size_t>(rows));
    for (index i = 0; i < rows; ++i) {
        labels[static_cast<std::size_t>(i)] = i * groups / rows;
    }
    return labels;
}

LOWRANK_BODY row_labels head_blocks(index rows, index head_size) {
    detail::expects(head_size >= 1 && rows >= 0 && rows % head_size == 0,
                    "head_blocks: the head size must divide the number of rows");
    row_labels labels(static_cast<std::size_t>(rows));
    for (index i = 0; i < rows; ++i) {
        labels[static_cast<std::size_t>(i)] = i / head_size;
    }
    return labels;
}

template <real S>
partitioned_low_rank<S>::partitioned_low_rank(index rows, index cols, std::vector<group> groups)
    : rows_(rows), cols_(cols), groups_(std::move(groups)) {
    for (const auto& g : groups_) {
        detail::expects_shape("partitioned_low_rank", "part", g.part.rows(), g.part.cols(),
                              static_cast<index>(g.rows.size()), cols_);
        for (const index i : g.rows) {
            detail::expects_in_range("partitioned_low_rank", "row", i, index{0}, rows_ - 1);
        }
    }
}

template <real S>
index partitioned_low_rank<S>::parameters() const noexcept {
    index sum = 0;
    for (const auto& g : groups_) {
        sum += g.part.rank() * (g.part.rows() + cols_);
    }
    return sum;
}

template <real S>
void partitioned_low_rank<S>::add_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
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

template <real S>
void partitioned_low_rank<S>::add_transposed_product(S alpha, const_column_view<S> x, column_view<S> y,
                                                     workspace& ws) const {
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

namespace detail {

/// The given rows of A.
template <real S>
[[nodiscard]] matrix<S> gather_rows(const matrix<S>& a, const std::vector<index>& rows) {
    matrix<S> out(static_cast<index>(rows.size()), a.cols());
    for (index j = 0; j < a.cols(); ++j) {
        for (std::size_t i = 0; i < rows.size(); ++i) {
            out(static_cast<index>(i), j) = a(rows[i], j);
        }
    }
    return out;
}

/// The rows of each group, ascending.
LOWRANK_API [[nodiscard]] std::vector<std::vector<index>> rows_by_label(std::span<const index> labels, index groups);

LOWRANK_BODY std::vector<std::vector<index>> rows_by_label(std::span<const index> labels, index groups) {
    std::vector<std::vector<index>> rows(static_cast<std::size_t>(groups));
    for (std::size_t i = 0; i < labels.size(); ++i) {
        rows[static_cast<std::size_t>(labels[i])].push_back(static_cast<index>(i));
    }
    return rows;
}

/// lengths - squared lengths of the rows of A V_k: how far each row is from the span of the first k columns of V.
LOWRANK_API [[nodiscard]] vector<double> distances(const matrix<double>& a, const vector<double>& lengths,
                                                   const matrix<double>& v, index k);

LOWRANK_BODY vector<double> distances(const matrix<double>& a, const vector<double>& lengths, const matrix<double>& v,
                                      index k) {
    vector<double> out = lengths;
    const matrix<double> inside = product(a, dense_view<const double>(v).middle_cols(0, k));
    add_column_squares<double>(-1.0, transposed(inside), out.data());
    return out;
}

/// First labels: a subspace grown around each of `groups` seed rows. A seed is drawn with probability proportional to
/// its squared distance from the subspaces there are; its subspace is that of the rows at the smallest angles to it.
/// Random labels instead would give every group the same mixture, a start that the iteration seldom leaves.
LOWRANK_API [[nodiscard]] status seed_labels(const matrix<double>& a, const vector<double>& lengths, index groups,
                                             index rank, const philox& rng, row_labels& labels);

LOWRANK_BODY status seed_labels(const matrix<double>& a, const vector<double>& lengths, index groups, index rank,
                                const philox& rng, row_labels& labels) {
    const index m = a.rows();
    vector<double> nearest = lengths;
    for (index g = 0; g < groups && m > 0; ++g) {
        double total = 0.0;
        for (const double x : nearest) {
            total += x;
        }
        double target = rng.uniform<double>(static_cast<std::uint64_t>(g)) * total;
        index seed = 0;
        while (seed + 1 < m && target >= nearest(seed)) {
            target -= nearest(seed++);
        }
        // Squared cosines; rows of zero length belong anywhere.
        const matrix<double> cosines = product(a, transposed(dense_view<const double>(a).middle_rows(seed, 1)));
        vector<double> along(m);
        for (index i = 0; i < m; ++i) {
            along(i) = cosines(i, 0) * cosines(i, 0) / std::max(lengths(i), std::numeric_limits<double>::min());
        }
        std::vector<index> order(static_cast<std::size_t>(m));
        std::iota(order.begin(), order.end(), index{0});
        std::stable_sort(order.begin(), order.end(), [&](index x, index y) { return along(x) > along(y); });
        order.resize(static_cast<std::size_t>(std::min(m, std::max<index>(2 * rank, 1))));
        const auto f = svd_of_dense<double>("cluster_rows", gather_rows(a, order));
        if (!f) {
            return f.why;
        }
        const vector<double> distance = distances(a, lengths, f.v, std::min(rank, f.s.size()));
        for (index i = 0; i < m; ++i) {
            if (g == 0 || distance(i) < nearest(i)) {
                labels[static_cast<std::size_t>(i)] = g;
                nearest(i) = std::max(distance(i), 0.0);
            }
        }
    }
    return {};
}

/// Gives each empty group the worst row of a group that keeps others: its distance becomes zero, and no other grows.
LOWRANK_API [[nodiscard]] bool fill_empty_groups(const matrix<double>& distance, const vector<double>& lengths,
                                                 row_labels& labels);

LOWRANK_BODY bool fill_empty_groups(const matrix<double>& distance, const vector<double>& lengths, row_labels& labels) {
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
        double largest = 0.0;
        for (std::size_t i = 0; i < labels.size(); ++i) {
            const double d = distance(static_cast<index>(i), labels[i]);
            const bool alone = sizes[static_cast<std::size_t>(labels[i])] == 1;
            if (!alone && d > largest && d > 1e-14 * lengths(static_cast<index>(i))) {
                worst = i;
                largest = d;
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

LOWRANK_BODY cluster_result cluster_rows_of(matrix<double> a, index groups, index rank,
                                            const cluster_options& options) {
    expects(groups >= 1 && rank >= 0 && options.restarts >= 1 && options.iterations >= 1,
            "cluster_rows: groups, restarts and iterations must be at least 1, rank not negative");
    if (!all_finite(a)) {
        return {{.why = non_finite_matrix("cluster_rows")}};
    }
    const double unit = power_of_two_scale(max_abs(a));
    a *= unit;
    const vector<double> lengths = column_squares(transposed(a));
    cluster_result best;
    for (int start = 0; start < options.restarts; ++start) {
        const philox rng(options.seed, static_cast<std::uint64_t>(start));
        cluster_result now;
        now.labels.resize(static_cast<std::size_t>(a.rows()));
        now.why = seed_labels(a, lengths, groups, rank, rng, now.labels);
        if (!now) {
            return {{.why = now.why}};
        }
        matrix<double> distance(a.rows(), groups);
        for (int round = 0; round < options.iterations; ++round) {
            const auto members = rows_by_label(now.labels, groups);
            for (index g = 0; g < groups; ++g) {
                const auto f =
                    svd_of_dense<double>("cluster_rows", gather_rows(a, members[static_cast<std::size_t>(g)]));
                if (!f) {
                    return {{.why = f.why}};
                }
                distance.col(g) = distances(a, lengths, f.v, std::min(rank, f.s.size()));
            }
            bool moved = false;
            double sum = 0.0;
            for (index i = 0; i < a.rows(); ++i) {
                index& label = now.labels[static_cast<std::size_t>(i)];
                index nearest = 0;
                for (index g = 1; g < groups; ++g) {
                    nearest = distance(i, g) < distance(i, nearest) ? g : nearest;
                }
                // Only for a gain above rounding, so that ties do not move rows around for ever.
                if (distance(i, nearest) < distance(i, label) - 1e-14 * lengths(i)) {
                    label = nearest;
                    moved = true;
                }
                sum += std::max(distance(i, label), 0.0);
            }
            now.objective.push_back(sum / (unit * unit));
            moved = fill_empty_groups(distance, lengths, now.labels) || moved;
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

template <real S>
result<std::vector<row_group<S>>> svd_of_groups(const char* function, const matrix<S>& a,
                                                std::span<const index> labels) {
    if (static_cast<index>(labels.size()) != a.rows()) [[unlikely]] {
        fail_contract_with(function, ": needs one label per row, ", a.rows(), ", got ", labels.size());
    }
    std::map<index, std::vector<index>> members;  // labels of empty groups are no harm, however many there are
    for (std::size_t i = 0; i < labels.size(); ++i) {
        if (labels[i] < 0) [[unlikely]] {
            fail_contract_with(function, ": a label must not be negative, got ", labels[i]);
        }
        members[labels[i]].push_back(static_cast<index>(i));
    }
    std::vector<row_group<S>> groups;
    for (auto& [label, rows] : members) {
        auto f = svd_of_dense<S>(function, gather_rows(a, rows));
        if (!f) {
            return std::move(f.why);
        }
        groups.push_back({.rows = std::move(rows), .factors = std::move(f)});
    }
    return groups;
}

template <real S>
partition_result<S> factor_partition_of(const matrix<S>& a, std::span<const index> labels, index rank) {
    expects(rank >= 0, "factor_partition: the rank must not be negative");
    auto groups = svd_of_groups("factor_partition", a, labels);
    if (!groups) {
        return {{.why = groups.error()}};
    }
    const auto whole = svd_of_dense<S>("factor_partition", a);
    if (!whole) {
        return {{.why = whole.why}};
    }
    partition_result<S> out;
    std::vector<typename partitioned_low_rank<S>::group> parts;
    const double norm = whole.norm();
    double rest = 0.0;  // of the squared error, relative to ||W||_F^2
    for (auto& g : *groups) {
        const index k = std::min(rank, g.factors.size());
        const double share = norm > 0.0 ? g.factors.error_at(k) / norm : 0.0;
        rest += share * share;
        parts.push_back({.rows = std::move(g.rows), .part = g.factors.truncate(k)});
    }
    out.map = partitioned_low_rank<S>(a.rows(), a.cols(), std::move(parts));
    out.relative = std::sqrt(rest);
    out.error = out.relative * norm;
    out.parameters = out.map.parameters();
    out.plain_rank = a.size() == 0 ? 0 : std::min<index>(out.parameters / (a.rows() + a.cols()), whole.size());
    out.plain_relative = whole.relative_error(out.plain_rank);
    return out;
}

}  // namespace detail

#ifdef LOWRANK_COMPILED
template class partitioned_low_rank<float>;
template class partitioned_low_rank<double>;
template result<std::vector<row_group<float>>> detail::svd_of_groups(const char*, const matrix<float>&,
                                                                     std::span<const index>);
template result<std::vector<row_group<double>>> detail::svd_of_groups(const char*, const matrix<double>&,
                                                                      std::span<const index>);
template partition_result<float> detail::factor_partition_of(const matrix<float>&, std::span<const index>, index);
template partition_result<double> detail::factor_partition_of(const matrix<double>&, std::span<const index>, index);
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_PARTITION_IPP
