// SPDX-License-Identifier: MIT
#include <lowrank/core/operator_reference.hpp>

#include <doctest/doctest.h>

#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/low_rank.hpp>

using namespace lowrank;

namespace {

template <class S>
matrix<S> through_reference(operator_reference<S> map, const matrix<S>& x, bool transposed) {
    workspace ws;
    matrix<S> y = matrix<S>::Zero(transposed ? map.cols() : map.rows(), x.cols());
    transposed ? map.add_transposed_product(S(2), x, y, ws) : map.add_product(S(2), x, y, ws);
    return y;
}

}  // namespace

TEST_CASE_TEMPLATE("a reference multiplies as its map does, bit for bit", S, float, double) {
    static_assert(linear_operator<operator_reference<S>>);
    row_matrix<S> w(5, 7);
    fill_normal(w, S(1), philox(1));
    matrix<S> x(7, 3);
    fill_normal(x, S(1), philox(2));
    matrix<S> z(5, 3);
    fill_normal(z, S(1), philox(3));
    const low_rank<S> factors{.left = z, .right = x.transpose()};
    CHECK(through_reference<S>(as_operator(w), x, false) == S(2) * apply(w, x));
    CHECK(through_reference<S>(as_operator(w), z, true) == S(2) * apply_transposed(w, z));
    CHECK(through_reference<S>(factors, x, false).isApprox(S(2) * apply(factors, x)));
    const any_operator<S> erased = factors;
    CHECK(through_reference<S>(erased, z, true).isApprox(S(2) * apply_transposed(factors, z)));
}
