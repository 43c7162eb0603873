// SPDX-License-Identifier: MIT
// Only this header: what it says must hold before Eigen is seen.
#include <lowrank/core/scalar.hpp>

template <class T>
inline constexpr bool stored_but_not_computed = lowrank::storage<T> && !lowrank::real<T>;
static_assert(lowrank::real<float> && lowrank::real<double>);
static_assert(!lowrank::storage<int> && !lowrank::storage<long double>);
static_assert(stored_but_not_computed<lowrank::half> && stored_but_not_computed<lowrank::bfloat16>);

using matrix_before_eigen = lowrank::matrix<double>;

#include <doctest/doctest.h>
#include <Eigen/Core>

#include <lowrank/core/types.hpp>

TEST_CASE("scalar: names declared before Eigen are Eigen's own types") {
    static_assert(std::same_as<matrix_before_eigen, Eigen::MatrixXd>);
    static_assert(std::same_as<lowrank::vector<float>, Eigen::VectorXf>);
    matrix_before_eigen m = matrix_before_eigen::Identity(2, 3);
    CHECK(m.sum() == 2.0);
    const lowrank::row_matrix<lowrank::bfloat16> w = m.cast<lowrank::bfloat16>();
    CHECK(static_cast<float>(w(1, 1)) == 1.0F);
}

TEST_CASE("scalar: 16-bit storage computes in float") {
    static_assert(std::same_as<lowrank::compute_t<lowrank::half>, float>);
    static_assert(std::same_as<lowrank::compute_t<lowrank::bfloat16>, float>);
    static_assert(std::same_as<lowrank::compute_t<double>, double>);
    CHECK(sizeof(lowrank::half) == 2);
    CHECK(sizeof(lowrank::bfloat16) == 2);
}
