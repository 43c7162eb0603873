// SPDX-License-Identifier: MIT
#include <lowrank/lora/layers/embedding.hpp>

#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/factored_algebra.hpp>
#include <lowrank/lora/merge/merge.hpp>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

namespace {

const std::vector<std::int64_t> ids{3, 0, 3, 7, 1};

}  // namespace

TEST_CASE_TEMPLATE("lookup plus change equals lookup in the merged table", T, float, double, half, bfloat16) {
    using S = compute_t<T>;
    auto table = random_weight<T>(8, 6, 1);
    const auto adapter = random_adapter<S>(6, 8, {.r = 2, .lora_alpha = 3, .seed = 1});
    workspace ws;
    matrix<S> y(6, 5);
    embedding_lookup<T>(table, ids, y);
    for (std::size_t j = 0; j < ids.size(); ++j) {
        CHECK((y.col(std::ptrdiff_t(j)).array() == table.row(ids[j]).transpose().template cast<S>().array()).all());
    }
    embedding_forward(adapter, S(1), ids, y, ws);
    REQUIRE(merge(weight_view<T>(table), transpose(adapter.delta())));
    matrix<S> merged(6, 5);
    embedding_lookup<T>(table, ids, merged);
    const double tolerance = real<T> ? 100 * epsilon<S> : 1e-2;
    CHECK(relative_diff(merged, matrix<double>(y.template cast<double>())) < tolerance);
}

TEST_CASE("gradients agree with finite differences, the padding row gets none") {
    auto adapter = random_adapter<double>(6, 8, {.r = 2, .lora_alpha = 3, .seed = 1});
    const auto dy = random_matrix<double>(6, 5, 2);
    workspace ws;
    const auto loss = [&] {
        matrix<double> y = matrix<double>::Zero(6, 5);
        embedding_forward(adapter, 0.5, ids, y, ws);
        return y.cwiseProduct(dy).sum();
    };
    auto gradient = zero_gradient(adapter);
    embedding_backward(adapter, 0.5, ids, dy, gradient, ws);
    CHECK(relative_diff(gradient.lora_A, numeric_gradient(adapter.lora_A, loss)) < 1e-7);
    CHECK(relative_diff(gradient.lora_B, numeric_gradient(adapter.lora_B, loss)) < 1e-7);

    auto padded = zero_gradient(adapter);
    embedding_backward(adapter, 0.5, ids, dy, padded, ws, {.padding_index = 3});
    gradient.lora_A.col(3).setZero();
    CHECK(same_bits(padded.lora_A, gradient.lora_A));
    CHECK(same_bits(padded.lora_B, gradient.lora_B));
}

TEST_CASE("a new one has a zero A and a normal B; ids and shapes are checked") {
    const auto a = make_embedding_lora<double>(50, 40, {.r = 20, .seed = 3});
    CHECK(a.lora_A.isZero(0));
    CHECK(a.lora_B.rows() == 40);
    CHECK(std::abs(a.lora_B.squaredNorm() / 800 - 1) < 0.25);  // five standard deviations of a chi-square
    workspace ws;
    matrix<double> y(40, 1);
    CHECK_THROWS_AS(embedding_forward(a, 1, std::vector<std::int64_t>{50}, y, ws), contract_violation);
    CHECK_THROWS_AS(embedding_forward(a, 1, std::vector<std::int64_t>{-1}, y, ws), contract_violation);
    CHECK_THROWS_AS(embedding_forward(a, 1, std::vector<std::int64_t>{1, 2}, y, ws), contract_violation);
}
