// SPDX-License-Identifier: MIT
#ifndef LOWRANK_CORE_SCALAR_HPP
#define LOWRANK_CORE_SCALAR_HPP

/// \file
/// The scalars everything is computed and stored in, and the matrix types, without including Eigen.
///
///     static_assert(lowrank::storage<lowrank::bfloat16> && !lowrank::real<lowrank::bfloat16>);
///     static_assert(std::same_as<lowrank::compute_t<lowrank::half>, float>);
///
/// Eigen's own names are declared, not defined, so that fwd.hpp costs next to nothing. types.hpp completes them.

#include <concepts>
#include <type_traits>

#include <lowrank/core/config.hpp>

namespace Eigen {
struct half;
struct bfloat16;
template <typename, int, int, int, int, int>
class Matrix;
}  // namespace Eigen

namespace lowrank::inline LOWRANK_ABI {

/// Scalars arithmetic is done in.
template <class S>
concept real = std::same_as<S, float> || std::same_as<S, double>;

using half = Eigen::half;
using bfloat16 = Eigen::bfloat16;

/// Scalars a weight may be stored in.
template <class T>
concept storage = real<T> || std::same_as<T, half> || std::same_as<T, bfloat16>;

/// The scalar a stored type computes in: itself, or float for the 16-bit types.
template <storage T>
using compute_t = std::conditional_t<real<T>, T, float>;

// -1 is Eigen::Dynamic, 0 Eigen::ColMajor, 1 Eigen::RowMajor; types.hpp checks that.

/// Column-major: activations, factors, everything computed.
template <class S>
using matrix = Eigen::Matrix<S, -1, -1, 0, -1, -1>;

/// Row-major: a weight `out x in`, as every checkpoint stores it.
template <class S>
using row_matrix = Eigen::Matrix<S, -1, -1, 1, -1, -1>;

/// One column.
template <class S>
using vector = Eigen::Matrix<S, -1, 1, 0, -1, 1>;

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_CORE_SCALAR_HPP
