// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/factor/partition.hpp>
#include <lowrank/factor/svd.hpp>

#include <limits>

#include <support/matrices.hpp>

#include <doctest/doctest.h>

using namespace lowrank;
using namespace lowrank_tests;

static_assert(linear_operator<partitioned_low_rank<float>>);

namespace {

/// Rows near `groups` random subspaces of dimension `rank`, in order of group, plus noise.
template <class S>
matrix<S> planted(idx rows, idx cols, idx groups, idx rank, double noise, std::uint64_t stream) {
    matrix<S> w(rows, cols);
    for (idx g = 0; g < groups; ++g) {
        const idx first = g * rows / groups;
        const idx count = (g + 1) * rows / groups - first;
        const auto id = stream + static_cast<std::uint64_t>(10 * g);
        w.middleRows(first, count) = gaussian<S>(count, rank, id) * gaussian<S>(rank, cols, id + 1);
    }
    return w + static_cast<S>(noise) * gaussian<S>(rows, cols, stream + 5);
}

template <class S>
matrix<S> shuffled_rows(const matrix<S>& w, const philox& rng) {
    matrix<S> out = w;
    for (idx i = w.rows() - 1; i > 0; --i) {
        const auto j = static_cast<idx>(rng.below(static_cast<std::uint64_t>(i + 1), static_cast<std::uint64_t>(i)));
        out.row(i).swap(out.row(j));
    }
    return out;
}

template <class S>
matrix<double> dense_of(const partitioned_low_rank<S>& map) {
    return apply(map, matrix<S>(matrix<S>::Identity(map.cols(), map.cols()))).template cast<double>();
}

}  // namespace

TEST_CASE("blocks and heads") {
    CHECK(contiguous_blocks(7, 3) == row_labels{0, 0, 0, 1, 1, 2, 2});
    const auto few = factor_partition(gaussian<double>(2, 4, 3), contiguous_blocks(2, 5), 1);  // more blocks than rows
    REQUIRE(few);
    CHECK(few.map.groups().size() == 2);
    CHECK(few.relative < 1e-14);
    CHECK(contiguous_blocks(2, 5).size() == 2);
    CHECK(head_blocks(6, 2) == row_labels{0, 0, 1, 1, 2, 2});
    CHECK_THROWS_AS((void)head_blocks(7, 2), contract_violation);
    CHECK_THROWS_AS((void)contiguous_blocks(7, 0), contract_violation);
}

TEST_CASE_TEMPLATE("the map is the matrix of its parts, its error the distance", S, float, double) {
    const auto w = gaussian<S>(21, 16, 1);
    row_labels labels(21);
    for (std::size_t i = 0; i < labels.size(); ++i) {
        labels[i] = static_cast<idx>(i * i % 4);  // rows of a group are not adjacent, and one group is empty
    }
    const auto f = factor_partition(w, labels, 3);
    REQUIRE(f);
    const matrix<double> dense = dense_of(f.map);
    CHECK(f.error == doctest::Approx((w.template cast<double>() - dense).norm()).epsilon(1e-5));
    CHECK(f.relative == doctest::Approx(f.error / w.template cast<double>().norm()).epsilon(1e-5));
    const auto x = gaussian<S>(16, 4, 2);
    const auto z = gaussian<S>(21, 4, 3);
    CHECK(relative_difference(apply(f.map, x), (dense * x.template cast<double>()).eval()) < 50 * eps<S>);
    CHECK(relative_difference(apply_transposed(f.map, z), (dense.transpose() * z.template cast<double>()).eval()) <
          50 * eps<S>);
    CHECK(f.parameters <= 3 * 21 + 2 * 3 * 16 + 3 * 16);
    CHECK(f.plain_rank == f.parameters / 37);
    CHECK(f.plain_relative == doctest::Approx(svd(w).relative_error(f.plain_rank)));
    // Every group at full rank: exact.
    CHECK(factor_partition(w, labels, 99).relative < 50 * eps<S>);
}

TEST_CASE("clustering finds shuffled subspaces, blocks need the order, the plain SVD has its own case") {
    const idx m = 160;
    const idx n = 48;
    const auto ordered = planted<double>(m, n, 4, 4, 0.05, 100);
    const auto shuffled = shuffled_rows(ordered, philox(3));
    const auto blocks = contiguous_blocks(m, 4);

    const auto in_order = factor_partition(ordered, blocks, 4);
    REQUIRE(in_order);
    CHECK(in_order.relative < 0.5 * in_order.plain_relative);

    const auto out_of_order = factor_partition(shuffled, blocks, 4);
    const auto found = cluster_rows(shuffled, 4, 4, {.restarts = 8});
    REQUIRE(out_of_order);
    REQUIRE(found);
    const auto clustered = factor_partition(shuffled, found.labels, 4);
    REQUIRE(clustered);
    CHECK(clustered.relative < 1.05 * in_order.relative);
    CHECK(clustered.relative < 0.5 * clustered.plain_relative);
    CHECK(out_of_order.relative > 5 * clustered.relative);
    CHECK(found.objective.back() == doctest::Approx(clustered.error * clustered.error).epsilon(1e-6));

    // One subspace with decaying values: at equal parameters the plain SVD wins, and the result says so.
    const auto plain = with_values<double>(m, n, power_law(n, 1.0), 9);
    const auto lost = factor_partition(plain, cluster_rows(plain, 4, 4).labels, 4);
    REQUIRE(lost);
    CHECK(lost.plain_relative < lost.relative);
}

TEST_CASE_TEMPLATE("the objective of EM never increases", S, float, double) {
    for (std::uint64_t t = 0; t < 6; ++t) {
        const auto w = t % 2 == 0 ? gaussian<S>(60, 20, 200 + t) : planted<S>(60, 20, 3, 3, 0.3, 200 + t);
        for (const idx rank : {idx{0}, idx{2}, idx{5}}) {
            const auto f = cluster_rows(w, 3 + static_cast<idx>(t % 3), rank, {.restarts = 2, .seed = t});
            REQUIRE(f);
            for (std::size_t i = 1; i < f.objective.size(); ++i) {
                CHECK(f.objective[i] <= f.objective[i - 1] * (1 + 1e-12));
            }
        }
    }
    const auto w = gaussian<S>(40, 12, 300);
    CHECK(cluster_rows(w, 3, 2, {.seed = 1}).labels == cluster_rows(w, 3, 2, {.seed = 1}).labels);
    CHECK(cluster_rows(w, 3, 2, {.restarts = 6}).objective.back() <=
          cluster_rows(w, 3, 2, {.restarts = 1}).objective.back());
}

TEST_CASE_TEMPLATE("scales, more groups than rows, NaN, contracts", S, float, double) {
    const auto w = gaussian<S>(30, 10, 400);
    const auto one = cluster_rows(w, 3, 2);
    REQUIRE(one);
    for (const int e : {-90, 90}) {
        CHECK(cluster_rows(matrix<S>(w * std::ldexp(S(1), e)), 3, 2).labels == one.labels);
    }
    const auto many = cluster_rows(matrix<S>(w.topRows(3)), 8, 1);
    REQUIRE(many);
    CHECK(many.objective.back() < 1e-8 * 30);
    const auto zero = factor_partition(matrix<S>(matrix<S>::Zero(4, 3)), contiguous_blocks(4, 2), 1);
    REQUIRE(zero);
    CHECK(zero.relative == 0.0);
    auto bad = w;
    bad(0, 0) = std::numeric_limits<S>::quiet_NaN();
    CHECK(cluster_rows(bad, 2, 1).why.code == errc::non_finite);
    CHECK(factor_partition(bad, contiguous_blocks(30, 2), 1).why.code == errc::non_finite);
    CHECK_THROWS_AS((void)factor_partition(w, contiguous_blocks(29, 2), 1), contract_violation);
    CHECK_THROWS_AS((void)factor_partition(w, row_labels(30, -1), 1), contract_violation);
    CHECK_THROWS_AS((void)cluster_rows(w, 0, 1), contract_violation);
}
