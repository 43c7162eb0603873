// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_FORMATS_KOHYA_HPP
#define LOWRANK_IO_FORMATS_KOHYA_HPP

/// \file
/// Adapters of kohya's tools, ComfyUI and LyCORIS: M_with_underscores.lora_down.weight, .lora_up.weight, .alpha, and
/// LyCORIS's names for DoRA, convolutions, LoHa, LoKr and OFT.
///
///     auto path = lowrank::unflatten_kohya_name("lora_unet_a_to_k", {"to_k", "a.to_k"});      // "a.to_k"
///
/// kohya-ss/sd-scripts, KohakuBlueleaf/LyCORIS. The alpha says the scaling (rsLoRA included) exactly where r times it is a
/// float; one of 0 means the rank.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/io/formats/adapter_format.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_API [[nodiscard]] adapter_format kohya_format();

/// The module of `paths` whose dots turned to underscores give a kohya name after its prefix ("lora_unet_"), if exactly
/// one does.
LOWRANK_API [[nodiscard]] std::optional<std::string> unflatten_kohya_name(std::string_view kohya,
                                                                          const std::vector<std::string>& paths);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/io/formats/kohya.ipp>
#endif

#endif  // LOWRANK_IO_FORMATS_KOHYA_HPP
