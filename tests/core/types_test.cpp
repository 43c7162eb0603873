// SPDX-License-Identifier: MIT
#include <lowrank/core/types.hpp>

#include <type_traits>

#include <doctest/doctest.h>

using namespace lowrank;

namespace {

using mf = matrix<float>;
using rf = row_matrix<float>;
using row_vector = Eigen::RowVectorXf;

template <class From, class To>
constexpr bool borrows = std::is_convertible_v<From, To>;

// The order must match, the scalar must match, the memory must exist, and const stays const.
static_assert(borrows<mf&, column_view<float>> && borrows<const mf&, const_column_view<float>>);
static_assert(borrows<rf&, weight_view<float>> && borrows<const rf&, const_weight_view<float>>);
static_assert(!borrows<rf&, column_view<float>> && !borrows<mf&, weight_view<float>>);
static_assert(!borrows<const mf&, column_view<float>> && !borrows<const rf&, weight_view<float>>);
static_assert(!borrows<matrix<double>&, column_view<float>> && !borrows<mf&, const_column_view<double>>);
static_assert(borrows<column_view<float>, const_column_view<float>> &&
              !borrows<const_column_view<float>, column_view<float>>);
static_assert(!borrows<decltype(std::declval<mf&>() + std::declval<mf&>()), const_column_view<float>>);
static_assert(!borrows<decltype(std::declval<mf&>() * std::declval<mf&>()), const_column_view<float>>);
static_assert(borrows<decltype(std::declval<mf&>().transpose()), weight_view<float>> &&
              borrows<decltype(std::declval<rf&>().transpose()), column_view<float>> &&
              !borrows<decltype(std::declval<mf&>().transpose()), column_view<float>>);

// Vectors lie either way; a row of a column-major matrix has holes and is refused.
static_assert(borrows<vector<float>&, column_view<float>> && borrows<vector<float>&, weight_view<float>>);
static_assert(borrows<row_vector&, column_view<float>> && borrows<row_vector&, weight_view<float>>);
static_assert(!borrows<decltype(std::declval<mf&>().row(0)), column_view<float>> &&
              !borrows<decltype(std::declval<mf&>().row(0)), weight_view<float>>);
static_assert(!borrows<decltype(std::declval<rf&>().col(0)), column_view<float>>);
static_assert(borrows<decltype(std::declval<mf&>().col(0)), column_view<float>>);
static_assert(!borrows<Eigen::Map<vector<float>, 0, Eigen::InnerStride<>>&, column_view<float>>);

// 16-bit weights are views too, and compute in float.
static_assert(borrows<row_matrix<bfloat16>&, weight_view<bfloat16>> &&
              borrows<row_matrix<half>&, const_weight_view<half>>);
static_assert(std::is_same_v<compute_t<half>, float> && std::is_same_v<compute_t<bfloat16>, float> &&
              std::is_same_v<compute_t<float>, float> && std::is_same_v<compute_t<double>, double>);
static_assert(!real<half> && storage<half> && !storage<int> && !storage<const float>);

template <class V>
mf copy(const V& v) {
    return v;
}

}  // namespace

TEST_CASE("a view shows the same entries as what it borrows") {
    mf a = mf::NullaryExpr(6, 5, [](lowrank::index i, lowrank::index j) { return static_cast<float>(10 * i + j); });
    const rf b = a;
    CHECK(copy(column_view<float>(a)) == a);
    CHECK(copy(const_weight_view<float>(b)) == a);
    CHECK(copy(const_column_view<float>(a.block(1, 2, 3, 2))) == a.block(1, 2, 3, 2));
    CHECK(copy(const_weight_view<float>(b.block(1, 2, 3, 2))) == a.block(1, 2, 3, 2));
    CHECK(copy(const_column_view<float>(a.middleCols(1, 3))) == a.middleCols(1, 3));
    CHECK(copy(const_weight_view<float>(a.transpose())) == mf(a.transpose()));
    CHECK(copy(const_column_view<float>(a.col(3))) == a.col(3));
    CHECK(copy(const_weight_view<float>(b.row(2))) == a.row(2));
    CHECK(column_view<float>(a).data() == a.data());
}

TEST_CASE("vectors become one column or one row, with strides a kernel may trust") {
    vector<float> v = vector<float>::LinSpaced(7, 0.0F, 6.0F);
    row_vector r = v.transpose();
    const column_view<float> vc = v;
    const weight_view<float> vw = v;
    const column_view<float> rc = r;
    const weight_view<float> rw = r;
    CHECK(vc.rows() == 7);
    CHECK(vc.cols() == 1);
    CHECK(vc.outerStride() >= vc.rows());
    CHECK(vw.rows() == 7);
    CHECK(vw.outerStride() == 1);
    CHECK(rc.cols() == 7);
    CHECK(rc.outerStride() == 1);
    CHECK(rw.rows() == 1);
    CHECK(rw.outerStride() >= rw.cols());
    CHECK(copy(vc) == v);
    CHECK(copy(vw) == v);
    CHECK(copy(rc) == r);
    CHECK(copy(rw) == r);
    CHECK(copy(const_column_view<float>(v.segment(2, 3))) == v.segment(2, 3));
    CHECK(copy(const_weight_view<float>(r.segment(2, 3))) == r.segment(2, 3));
}

TEST_CASE("a writable view writes through, and assignment copies entries") {
    mf a = mf::Zero(4, 3);
    mf b = mf::Constant(4, 3, 2.0F);
    column_view<float> va = a;
    const column_view<float> vb = b;
    va = vb;
    CHECK(a == b);
    va.setConstant(5.0F);
    CHECK((a.array() == 5.0F).all());
    CHECK((b.array() == 2.0F).all());
    weight_view<float>(a.transpose())(1, 2) = 9.0F;
    CHECK(a(2, 1) == 9.0F);
}

TEST_CASE("empty shapes are views") {
    mf a(0, 4), b(4, 0);
    CHECK(column_view<float>(a).cols() == 4);
    CHECK(column_view<float>(b).rows() == 4);
    CHECK(column_view<float>(nullptr, 0, 3).size() == 0);
}
