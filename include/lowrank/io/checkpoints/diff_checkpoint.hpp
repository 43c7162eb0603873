// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CHECKPOINTS_DIFF_CHECKPOINT_HPP
#define LOWRANK_IO_CHECKPOINTS_DIFF_CHECKPOINT_HPP

/// \file
/// What differs between two checkpoints of any size, tensor by tensor, in bounded memory.
///
///     auto diff = lowrank::diff_checkpoints(*before, *after);
///     for (const auto& t : diff->tensors)
///         if (t.kind != lowrank::difference_kind::same) std::printf("%s %g\n", t.name.c_str(), t.relative());

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/progress.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/containers/dtype.hpp>

namespace lowrank::inline LOWRANK_ABI {

enum class difference_kind {
    same,         ///< The same bytes.
    values,       ///< Some elements differ.
    type,         ///< Another dtype; the elements are compared where both are numbers.
    shape,        ///< Another shape; nothing is compared.
    only_first,   ///< The second has no such tensor.
    only_second,  ///< The first has no such tensor.
};

[[nodiscard]] inline const char* to_string(difference_kind kind) noexcept {
    constexpr const char* names[] = {"same", "values", "type", "shape", "only in the first", "only in the second"};
    return names[static_cast<std::size_t>(kind)];
}

/// One tensor of the two.
struct tensor_difference {
    std::string name = {};
    difference_kind kind = difference_kind::same;
    std::uint64_t elements = 0;
    /// Elements whose values differ, of types without values (F4, F6, complex) whose bits do; a NaN differs from
    /// everything but its own bits.
    std::uint64_t changed = 0;
    double largest = 0;            ///< max |second - first| over finite elements.
    double norm = 0;               ///< ||second - first||_F over finite elements.
    double first_norm = 0;         ///< ||first||_F over finite elements.
    std::uint64_t not_finite = 0;  ///< Elements that are NaN or infinite in either.
    bool has_values = true;        ///< False for types without values: the three norms are 0 for want of numbers.
    bool is_broken = false;        ///< A finite element became NaN or infinite, or the other way round.

    /// ||second - first||_F / ||first||_F; infinity if `first` is zero, NaN where that is no number.
    [[nodiscard]] double relative() const noexcept {
        return is_broken || (!has_values && changed != 0) ? NAN
               : norm == 0                                ? 0.0
               : first_norm > 0                           ? norm / first_norm
                                                          : INFINITY;
    }
};

struct checkpoint_difference {
    std::vector<tensor_difference> tensors = {};  ///< Of both, sorted by name.
    std::uint64_t differing = 0;                  ///< Tensors that are not the same.
};

struct diff_options {
    progress_callback on_progress = {};  ///< Bytes of both; false stops with `cancelled`.
};

/// Compares all tensors of two checkpoints.
///
/// \return `cancelled`.
/// \cost   One pass over both; memory for a few thousand elements.
LOWRANK_API [[nodiscard]] result<checkpoint_difference> diff_checkpoints(const checkpoint& first,
                                                                         const checkpoint& second,
                                                                         const diff_options& opt = {});

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/io/checkpoints/diff_checkpoint.ipp>
#endif

#endif  // LOWRANK_IO_CHECKPOINTS_DIFF_CHECKPOINT_HPP
