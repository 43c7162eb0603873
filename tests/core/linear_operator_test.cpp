// SPDX-License-Identifier: MIT
#include <lowrank/core/linear_operator.hpp>

#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include <lowrank/core/check.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/workspace.hpp>

using namespace lowrank;

namespace {

/// Small integers: every product and sum below is exact in float, so results can be compared bit by bit.
template <class M>
M integers(lowrank::index rows, lowrank::index cols, std::uint64_t stream) {
    const philox rng(31, stream);
    return M::NullaryExpr(rows, cols, [&](lowrank::index i, lowrank::index j) {
        const auto at = static_cast<std::uint64_t>(i * cols + j);
        return typename M::Scalar(static_cast<float>(rng.below(9, at)) - 4.0F);
    });
}

// A borrowed matrix must outlive its map.
template <class D>
concept can_be_mapped = requires(D&& d) {
    as_operator(std::forward<D>(d));
};
static_assert(can_be_mapped<row_matrix<float>&> && can_be_mapped<const matrix<half>&> &&
              can_be_mapped<const_weight_view<float>>);
static_assert(!can_be_mapped<row_matrix<float>> && !can_be_mapped<int>);
static_assert(linear_operator<any_operator<float>> && linear_operator<operator_sum<double>> &&
              linear_operator<dense_operator<half, 0>> && linear_operator<owned_operator<bfloat16>> &&
              !linear_operator<matrix<float>> && operator_like<matrix<float>>);
static_assert(std::is_same_v<operator_scalar<row_matrix<bfloat16>>, float> &&
              std::is_same_v<operator_scalar<any_operator<double>>, double>);

template <class M, class S = operator_scalar<M>>
void check_against(const M& m, const matrix<S>& dense, std::uint64_t stream) {
    for (const lowrank::index k : {0, 1, 2, 5}) {
        const matrix<S> x = integers<matrix<S>>(dense.cols(), k, stream);
        const matrix<S> z = integers<matrix<S>>(dense.rows(), k, stream + 1);
        CHECK(apply(m, x) == matrix<S>(dense * x));
        CHECK(apply_transposed(m, z) == matrix<S>(dense.transpose() * z));
        matrix<S> y = integers<matrix<S>>(dense.rows(), k, stream + 2);
        const matrix<S> expected = y + S(3) * (dense * x);
        workspace ws;
        as_operator(m).add_product(S(3), x, y, ws);
        CHECK(y == expected);
    }
}

}  // namespace

TEST_CASE_TEMPLATE("dense matrices of every storage type and order are maps", T, float, double, half, bfloat16) {
    using S = compute_t<T>;
    for (const auto& [rows, cols] :
         std::vector<std::pair<lowrank::index, lowrank::index>>{{1, 1}, {5, 3}, {3, 70}, {70, 33}, {0, 4}, {4, 0}}) {
        const row_matrix<T> r = integers<row_matrix<T>>(rows, cols, 1);
        const matrix<T> c = r;
        const matrix<S> dense = c.template cast<S>();
        check_against(r, dense, 2);
        check_against(c, dense, 2);
        check_against(as_operator(r), dense, 2);
        check_against(owned_operator<T>(r), dense, 2);
        check_against(any_operator<S>(as_operator(c)), dense, 2);
        check_against(any_operator<S>(owned_operator<T>(r)), dense, 2);
    }
}

TEST_CASE("blocks and transposes are borrowed as they lie") {
    const row_matrix<float> w = integers<row_matrix<float>>(20, 30, 1);
    const matrix<float> dense = w;
    check_against(as_operator(w.block(3, 4, 9, 11)), matrix<float>(dense.block(3, 4, 9, 11)), 2);
    check_against(as_operator(w.transpose()), matrix<float>(dense.transpose()), 2);
    const vector<float> v = integers<vector<float>>(12, 1, 3);
    check_against(v, matrix<float>(v), 2);
    const Eigen::RowVectorXf row = v.transpose();
    check_against(row, matrix<float>(row), 2);
}

TEST_CASE("a sum of maps adds each with its factor") {
    const row_matrix<float> a = integers<row_matrix<float>>(6, 8, 1);
    const matrix<float> b = integers<matrix<float>>(6, 8, 2);
    const row_matrix<bfloat16> c = integers<row_matrix<bfloat16>>(6, 8, 3);
    const operator_sum<float> sum({{as_operator(a)}, {as_operator(b), -2.0F}, {owned_operator<bfloat16>(c), 0.5F}});
    CHECK(sum.terms().size() == 3);
    check_against(sum, matrix<float>(matrix<float>(a) - 2.0F * b + 0.5F * c.cast<float>()), 4);
    check_against(any_operator<float>(sum), matrix<float>(matrix<float>(a) - 2.0F * b + 0.5F * c.cast<float>()), 4);

    CHECK_THROWS_AS(operator_sum<float>(std::vector<operator_sum<float>::term>{}), contract_violation);
    const row_matrix<float> other = integers<row_matrix<float>>(6, 7, 1);
    CHECK_THROWS_WITH_AS(operator_sum<float>({{as_operator(a)}, {as_operator(other)}}),
                         "operator_sum: every term must be 6 x 8, got 6 x 7", contract_violation);
}

TEST_CASE("copies of an erased map share it") {
    any_operator<float> a = owned_operator<float>(integers<row_matrix<float>>(4, 5, 1));
    const matrix<float> x = integers<matrix<float>>(5, 2, 2);
    const matrix<float> y = apply(a, x);
    const any_operator<float> b = a;
    a = owned_operator<float>(row_matrix<float>::Zero(4, 5));
    CHECK(apply(b, x) == y);
    CHECK(apply(a, x).isZero(0));
}

TEST_CASE("a wrong shape is named and changes nothing") {
    const row_matrix<float> w = integers<row_matrix<float>>(6, 8, 1);
    const matrix<float> x = integers<matrix<float>>(7, 2, 2);
    CHECK_THROWS_WITH_AS((void)apply(w, x), "add_product: x must be 8 x 2, got 7 x 2", contract_violation);
    CHECK_THROWS_WITH_AS((void)apply_transposed(w, x), "add_transposed_product: x must be 6 x 2, got 7 x 2",
                         contract_violation);
    const matrix<float> good = integers<matrix<float>>(8, 2, 2);
    matrix<float> y = matrix<float>::Constant(5, 2, 1.0F);
    workspace ws;
    CHECK_THROWS_WITH_AS(as_operator(w).add_product(1.0F, good, y, ws), "add_product: y must be 6 x 2, got 5 x 2",
                         contract_violation);
    CHECK((y.array() == 1.0F).all());
}
