// SPDX-License-Identifier: MIT
#include <lowrank/laser/edits/nested_ranks.hpp>

#include <limits>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include <lowrank/core/check.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/laser/edits/edit.hpp>

using namespace lowrank;

TEST_CASE_TEMPLATE("all ranks from one product are what each truncated weight says", S, float, double) {
    const S eps = std::numeric_limits<S>::epsilon();
    for (const auto& shape : {std::pair<lowrank::index, lowrank::index>{20, 13}, {9, 31}, {70, 64}}) {
        row_matrix<S> w(shape.first, shape.second);
        fill_normal(w, S(1), philox(3));
        matrix<S> x(shape.second, 7);
        fill_normal(x, S(1), philox(4));
        const auto s = svd(w).value();
        const lowrank::index r = s.size();
        for (const std::vector<lowrank::index>& ranks :
             {std::vector<lowrank::index>{0, 1, 3, r / 2, r - 2, r}, {2}, {r - 1}, {r}, {0}, {}}) {
            const nested_ranks<S> nested(s, ranks);
            workspace ws;
            int asked = 0;
            matrix<S> full;
            std::vector<int> seen(ranks.size(), 0);
            nested.for_each(
                x,
                [&](column_view<S> y) {
                    ++asked;
                    as_operator(w).add_product(S(1), x, y, ws);
                    full = y;
                },
                ws,
                [&](lowrank::index i, const_column_view<S> y) {
                    ++seen[static_cast<std::size_t>(i)];
                    const lowrank::index k = ranks[static_cast<std::size_t>(i)];
                    row_matrix<S> edited = w;
                    const auto receipt = truncate_weight<S>(weight_view<S>(edited), s, k);
                    REQUIRE(receipt);
                    const matrix<S> want = edited * x;
                    CHECK((y - want).norm() <= 200 * eps * (w.norm() * x.norm()));
                    if (k == r && i >= nested.built_up()) {
                        CHECK(y == full);
                    }
                    if (k == 0) {
                        CHECK(y.isZero(0));
                    }
                });
            for (const int times : seen) {
                CHECK(times == 1);
            }
            CHECK(asked == (nested.built_up() < static_cast<lowrank::index>(ranks.size()) ? 1 : 0));
        }
    }
}

TEST_CASE("low ranks are built up, high ones come down, and the count of flops says which is cheaper") {
    row_matrix<float> w(40, 40);
    fill_normal(w, 1.0F, philox(5));
    const auto s = svd(w).value();
    CHECK(nested_ranks<float>(s, {1, 4, 8}).built_up() == 3);
    CHECK(nested_ranks<float>(s, {1, 4, 8}).flops_per_column() == 2 * 8 * 80);
    const nested_ranks<float> both(s, {2, 38});
    CHECK(both.built_up() == 1);
    CHECK(both.flops_per_column() == 2 * (2 * 80 + 1600 + 2 * 80));
    CHECK(nested_ranks<float>(s, {40}).flops_per_column() == 2 * 1600);
    CHECK(nested_ranks<float>(s, {}).flops_per_column() == 0);
    const std::vector<lowrank::index> falling = {4, 2}, too_high = {41};
    CHECK_THROWS_AS(nested_ranks<float>(s, falling), contract_violation);
    CHECK_THROWS_AS(nested_ranks<float>(s, too_high), contract_violation);
}

TEST_CASE("empty weights and no columns") {
    const auto s = svd(row_matrix<float>(0, 5)).value();
    const nested_ranks<float> nested(s, {0});
    workspace ws;
    const matrix<float> x = matrix<float>::Ones(5, 3);
    int calls = 0;
    nested.for_each(
        x, [](column_view<float>) {}, ws,
        [&](lowrank::index, const_column_view<float> y) {
            ++calls;
            CHECK(y.rows() == 0);
            CHECK(y.cols() == 3);
        });
    CHECK(calls == 1);
    row_matrix<float> w = row_matrix<float>::Identity(4, 4);
    const auto t = svd(w).value();
    nested_ranks<float>(t, {1, 3}).for_each(
        matrix<float>(4, 0), [](column_view<float>) {}, ws,
        [](lowrank::index, const_column_view<float> y) { CHECK(y.size() == 0); });
}
