// SPDX-License-Identifier: MIT
#ifndef LOWRANK_TESTS_CONFIG_TWO_ABIS_SEE_HPP
#define LOWRANK_TESTS_CONFIG_TWO_ABIS_SEE_HPP

#include <bit>
#include <cstdint>

#include <lowrank/core/check.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/linear_operator.hpp>

#include "shared.hpp"

namespace {

inline seen see() {
    lowrank::row_matrix<float> w = lowrank::row_matrix<float>::Constant(3, 300, 0.5F);
    const lowrank::matrix<float> x = lowrank::matrix<float>::Constant(300, 2, 2.0F);
    seen s{};
    s.exceptions = LOWRANK_EXCEPTIONS != 0;
    s.product = static_cast<double>(lowrank::apply(w, x)(2, 1));
    w(2, 299) = std::bit_cast<float>(std::uint32_t{0x7fc00000});
    s.nan_is_finite = lowrank::all_finite(w);
    s.fail_place = reinterpret_cast<const void*>(&lowrank::detail::fail_contract);
    return s;
}

}  // namespace

#endif  // LOWRANK_TESTS_CONFIG_TWO_ABIS_SEE_HPP
