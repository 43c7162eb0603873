// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/lora/merge/merge_change.hpp>

#include "some_adapters.hpp"

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE_TEMPLATE("merged equals unmerged at any strength, and unmerge gives the same bits back", S, float, double) {
    const row_matrix<S> w = random_weight<S>(some_out, some_in, 1, 0.4);
    for (const auto& a : some_adapters<S>(w)) {
        CAPTURE(a.kind());
        if (!a.not_merged().empty()) {
            row_matrix<S> merged = w;
            const auto receipt = merge(weight_view<S>(merged), a, S(1));
            REQUIRE_FALSE(receipt.has_value());
            CHECK(receipt.error().code == errc::unsupported);
            CHECK(receipt.error().message == a.not_merged());
            CHECK(same_bits(merged, w));
            CHECK_THROWS_AS((void)a.change(), contract_violation);
            continue;
        }
        for (const S t : {S(1), S(0.5), S(-0.25)}) {
            CAPTURE(t);
            row_matrix<S> merged = w;
            const auto receipt = merge(weight_view<S>(merged), a, t);
            REQUIRE(receipt.has_value());
            CHECK(relative_diff(matrix<double>(merged.template cast<double>()), adapted_weight(a, w, t)) <
                  50 * epsilon<S>);
            REQUIRE(unmerge(weight_view<S>(merged), *receipt, a, t));
            CHECK(same_bits(merged, w));
        }
    }
}

TEST_CASE("every alternative of a change merges as what it says, and unmerges") {
    const row_matrix<float> w = random_weight<float>(some_out, some_in, 1, 0.4);
    const matrix<double> dense = w.cast<double>();
    const low_rank<float> d{random_matrix<float>(some_out, 2, 5, 0.3F), random_matrix<float>(2, some_in, 6, 0.3F)};
    const matrix<double> sum = dense + d.dense().cast<double>();
    const vector<float> rows = random_matrix<float>(some_out, 1, 7);
    const vector<float> columns = random_matrix<float>(some_in, 1, 8);
    const matrix<float> other = random_matrix<float>(some_out, some_in, 9);
    struct one {
        weight_change<float> change;
        matrix<double> wanted;
    };
    const matrix<double> scaled = rows.cast<double>().asDiagonal() * sum * columns.cast<double>().asDiagonal();
    const magnitude_change<float> lengths{.delta = d, .magnitude = rows.cwiseAbs()};
    const vector<double> n = sum.rowwise().norm();
    const matrix<double> with_lengths = lengths.magnitude.cast<double>().cwiseQuotient(n).asDiagonal() * sum;
    const added_rows_change added{added_rows(product_rows<float>{d.left, d.right})};
    for (const auto& each :
         {one{d, sum}, one{scaled_change<float>{d, rows, columns}, scaled}, one{resolved(lengths, n), with_lengths},
          one{added, sum}, one{replacement<float>{other}, other.cast<double>()}}) {
        const auto& change = each.change;
        const auto& wanted = each.wanted;
        for (const double t : {1.0, 0.5, -0.25, 0.0}) {
            CAPTURE(change.index());
            CAPTURE(t);
            row_matrix<float> merged = w;
            const auto used = at_strength(change, t);
            const auto receipt = merge(weight_view<float>(merged), used);
            REQUIRE(receipt.has_value());
            const matrix<double> at_t = dense + t * (wanted - dense);
            CHECK(relative_diff(matrix<double>(merged.cast<double>()), at_t) < 1e-6);
            REQUIRE(unmerge(weight_view<float>(merged), *receipt, used));
            CHECK(same_bits(merged, w));
            if (t == 0.5) {
                row_matrix<float> flipped = w.transpose();
                const auto turned = transposed(used);
                if (std::holds_alternative<row_change>(turned)) {
                    continue;  // shown below for added rows
                }
                REQUIRE(merge(weight_view<float>(flipped), turned));
                CHECK(relative_diff(matrix<double>(flipped.transpose().cast<double>()), at_t) < 1e-6);
            }
        }
    }
    CHECK_THROWS_AS((void)merge(weight_view<float>(row_matrix<float>(w)), lengths), contract_violation);
}
