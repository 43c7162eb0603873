// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_FORMATS_MLX_HPP
#define LOWRANK_IO_FORMATS_MLX_HPP

/// \file
/// Adapters of MLX: a folder with adapter_config.json, where the one scale is, and adapters.safetensors with M.lora_a
/// (in x r), M.lora_b (r x out) and, for DoRA, M.m. Of a layer of experts, `switch_mlp`, they are experts x r x in and
/// experts x out x r; here each expert is a module, `experts.7.up_proj`.
///
///     auto why = lowrank::write_adapter("folder", *poet, "mlx");
///
/// ml-explore/mlx-lm.

#include <lowrank/core/config.hpp>
#include <lowrank/io/formats/adapter_format.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_API [[nodiscard]] adapter_format mlx_format();

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/io/formats/mlx.ipp>
#endif

#endif  // LOWRANK_IO_FORMATS_MLX_HPP
