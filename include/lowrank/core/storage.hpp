// SPDX-License-Identifier: MIT
#ifndef LOWRANK_CORE_STORAGE_HPP
#define LOWRANK_CORE_STORAGE_HPP

/// \file
/// The one rounding rule between stored weights and arithmetic, for every storage type.
///
///     lowrank::row_matrix<lowrank::bfloat16> stored(out, in);
///     const double exact = lowrank::to_double(stored(0, 0)) + 0.001;
///     stored(0, 0) = lowrank::to_storage<lowrank::bfloat16>(exact);      // to float, then to the nearest bfloat16

#include <lowrank/core/config.hpp>
#include <lowrank/core/detail/widen.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The value of a stored entry, exactly.
template <storage T>
[[nodiscard]] double to_double(T x) noexcept {
    if constexpr (real<T>) {
        return static_cast<double>(x);
    } else {
        return static_cast<double>(detail::widened(x));
    }
}

/// Rounds to the compute type of T, then to T, each to the nearest, ties to even; infinity beyond its range.
template <storage T>
[[nodiscard]] T to_storage(double x) noexcept {
    if constexpr (real<T>) {
        return static_cast<T>(x);
    } else {
        return detail::narrowed<T>(static_cast<float>(x));
    }
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_CORE_STORAGE_HPP
