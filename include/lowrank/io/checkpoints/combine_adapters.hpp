// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CHECKPOINTS_COMBINE_ADAPTERS_HPP
#define LOWRANK_IO_CHECKPOINTS_COMBINE_ADAPTERS_HPP

/// \file
/// Whole adapters into one, module by module: the eleven combination types of PEFT's `add_weighted_adapter`.
///
///     const lowrank::adapter_to_combine parts[] = {{&*poet, 0.7}, {&*coder, 0.3}};
///     auto both = lowrank::combine_adapters(parts, {.type = lowrank::combination_type::cat});
///     if (!both) return log(both.error().message);
///     auto why = lowrank::write_peft("both", both->adapter);
///
/// As in PEFT, a module that only some adapters have is made of those, with their weights as given. The report says of
/// each module how far the result is from the weighted sum of the changes, which only `cat` and `svd` of a high enough
/// rank (rule `fixed`) reach: the other types combine A and B apart or prune.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/factored_algebra.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/io/formats/plain_lora.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/lora/combine/weighted_adapter.hpp>
#include <lowrank/lora/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// One of several adapters, and its factor.
struct adapter_to_combine {
    const peft_adapter* adapter = nullptr;
    double weight = 1;
};

/// What became of one module.
struct combined_module {
    std::size_t parts = 0;  ///< How many of the adapters have it.
    index rank = 0;
    double norm = 0;      ///< ||change||_F of the result.
    double distance = 0;  ///< ||change - sum w_i change_i||_F / ||sum w_i change_i||_F; infinity where the sum is zero.
};

struct combined_adapters {
    peft_adapter adapter = {};
    std::map<std::string, combined_module> modules = {};
};

/// The combination of adapters, each with its weight. `svd_rank` 0 is the largest rank of any module, and a larger one
/// than a weight's is that weight's. Adapters whose changes are products of factors are taken as
/// these, or by an SVD that loses nothing where the factors are of full rank.
///
/// \pre    At least one adapter, none null.
/// \return `mismatch` for a module of different shapes, or of different ranks where the type needs one, and for
/// adapters
///         that disagree on fan_in_fan_out; `unsupported` for DoRA and other types whose change depends on the weight,
///         and for tensors that several adapters replace (modules_to_save); `non_finite`.
/// \cost   That of `weighted_adapter` per module; the memory of all adapters.
LOWRANK_API [[nodiscard]] result<combined_adapters> combine_adapters(std::span<const adapter_to_combine> parts,
                                                                     const weighted_options& opt = {});

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/io/checkpoints/combine_adapters.ipp>
#endif

#endif  // LOWRANK_IO_CHECKPOINTS_COMBINE_ADAPTERS_HPP
