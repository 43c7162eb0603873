// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_INIT_INIT_HPP
#define LOWRANK_LORA_INIT_INIT_HPP

/// \file
/// Random initializations of a LoRA adapter that do not depend on the weight: PEFT's four, by name.
///
///     auto a = lowrank::make_lora<float>(out, in, {.r = 8, .seed = 1}, lowrank::random_init::gaussian);
///
/// Initializations from the weight are in spectral_init.hpp and loftq.hpp, those from data in data_init.hpp.
/// Distributions are PEFT's (`init_lora_weights` True, "gaussian", "orthogonal", False); numbers are the library's own,
/// equal on every machine (normals to about one unit in the last place).

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/lora/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// How A and B are initialized.
enum class random_init {
    kaiming,     ///< A uniform in +-1/sqrt(in), B zero: PEFT's True, loralib, kohya.
    gaussian,    ///< A normal with deviation 1/r, B zero: PEFT's "gaussian".
    orthogonal,  ///< Both not zero, B A = 0 to rounding: PEFT's "orthogonal". r must be even.
    nonzero,     ///< A uniform in +-1/sqrt(in), B in +-1/sqrt(r): PEFT's False, for tests. Changes the model at once.
};

/// A new adapter for an out x in weight with the given initialization.
///
/// \pre  As the `make_lora` of two sizes; an even r for `orthogonal`.
/// \note With `kaiming`, bit-equal to `make_lora` without an init.
template <real S>
[[nodiscard]] lora_adapter<S> make_lora(index out, index in, const lora_options& options, random_init init);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/init/init.ipp>
#endif

#endif  // LOWRANK_LORA_INIT_INIT_HPP
