// SPDX-License-Identifier: MIT
#ifndef LOWRANK_CORE_PACKETS_HPP
#define LOWRANK_CORE_PACKETS_HPP

/// \file
/// Eigen's packets under names of ours: the one place that an upgrade of Eigen may touch. For kernels of this library.
///
///     using P = lowrank::detail::packet_of<float>;                  // lanes<float> scalars
///     lowrank::detail::unroll<4>([&](auto i) { log(i + 1); });      // i is a constant

#include <cstddef>
#include <type_traits>
#include <utility>

#include <Eigen/Core>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI::detail {

template <real S>
using packet_of = typename Eigen::internal::packet_traits<S>::type;

/// Scalars in one packet.
template <real S>
inline constexpr index lanes = static_cast<index>(Eigen::internal::unpacket_traits<packet_of<S>>::size);

/// Calls f(0), .., f(N - 1) with the index as a constant: arrays of packets stay in registers at every level of
/// optimization.
template <int N, class F>
EIGEN_ALWAYS_INLINE void unroll(F&& f) {
    [&]<int... I>(std::integer_sequence<int, I...>) LOWRANK_FORCE_INLINE { (f(std::integral_constant<int, I>()), ...); }
    (std::make_integer_sequence<int, N>());
}

/// The size of an array, of a template parameter that counts.
template <int N>
inline constexpr std::size_t array_extent = static_cast<std::size_t>(N);

}  // namespace lowrank::inline LOWRANK_ABI::detail

#endif  // LOWRANK_CORE_PACKETS_HPP
