// SPDX-License-Identifier: MIT
#ifndef LOWRANK_TESTS_SUPPORT_SKINNY_HPP
#define LOWRANK_TESTS_SUPPORT_SKINNY_HPP

/// \file
/// What the tests of the skinny product share.

#include <cstdint>
#include <limits>

#include <lowrank/core/philox.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank_tests {

template <class M>
M normal(lowrank::index rows, lowrank::index cols, std::uint64_t stream) {
    lowrank::matrix<lowrank::compute_t<typename M::Scalar>> a(rows, cols);
    lowrank::fill_normal(a, lowrank::compute_t<typename M::Scalar>(1), lowrank::philox(51, stream));
    return a.template cast<typename M::Scalar>();
}

/// max |a - b| over what rounding in S makes of sums of n products of standard normals: partial sums grow like
/// sqrt(p), their rounding errors add up like a random walk to about eps n / 5; the worst of 10^5 entries
/// and the order of summation that a machine's vector width gives make that up to some ten times as much.
template <class S>
double rounding(const lowrank::matrix<S>& a, const lowrank::matrix<double>& b, lowrank::index n) {
    const double unit = static_cast<double>(std::numeric_limits<S>::epsilon());
    return (a.template cast<double>() - b).cwiseAbs().maxCoeff() / (unit * (6 * static_cast<double>(n) + 200));
}

struct shape {
    lowrank::index rows, cols, k;
};

}  // namespace lowrank_tests

#endif  // LOWRANK_TESTS_SUPPORT_SKINNY_HPP
