// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_FORMATS_IMAGE_NAMES_HPP
#define LOWRANK_IO_FORMATS_IMAGE_NAMES_HPP

/// \file
/// Adapters of image and video models under the names of the published code, of diffusers and of kohya's tools, which keep
/// q, k and v in one module or in three.
///
///     auto file = lowrank::read_lora_file("flux.safetensors");
///     const auto* flux = lowrank::find_image_model("flux").value();
///     auto moved = lowrank::rename_image_modules(file->modules, *flux, lowrank::image_naming::diffusers);
///     for (const std::string& line : moved->unmapped) log(line);         // no modules of Flux
///
/// A module that is split gives each part its rows of B, and A; columns of B that one part alone uses go to that part
/// with their rows of A. Modules that are fused lie below one another: with the same A and scaling their rows of B do, else
/// B is block-diagonal and A has all their rows. Both are exact, and each undoes the other bit for bit.
///
/// Names and fusions as in huggingface/diffusers and kohya-ss/sd-scripts.

#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/io/formats/adapter_format.hpp>
#include <lowrank/io/models/image_model.hpp>
#include <lowrank/io/models/module_names.hpp>
#include <lowrank/io/peft/peft_kind.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Modules under other names.
struct renamed_modules {
    std::map<std::string, peft_module> modules = {};
    std::vector<std::string> unmapped =
        {};  ///< Names that are no module of the model; they keep their place in `modules`.
    std::vector<std::pair<std::string, std::string>> renamed = {};  ///< Names that were, and are.
};

/// The image models that have most of the modules, one or several; none if no model has half of them.
LOWRANK_API [[nodiscard]] std::vector<const image_model*> image_models_of(std::span<const std::string> names);

/// Modules of an adapter under the names of a tool, with the component of the pipeline before them: "transformer." and
/// "text_encoder." of diffusers, "diffusion_model." of the original, "lora_unet_" and "lora_te1_" of kohya.
///
/// \return `unsupported` for a module that would have to be split or fused and is no LoRA of a linear layer;
///         `mismatch` for one whose rows cannot be split; `invalid_format` for two modules with one meaning.
/// \cost   A copy of the factors that are split or fused.
LOWRANK_API [[nodiscard]] result<renamed_modules> rename_image_modules(std::map<std::string, peft_module> modules,
                                                                       const image_model& model, image_naming to);

/// Modules that a base has under other names, under its own: split or fused as they are there. All others stay.
/// \return As `rename_image_modules`.
LOWRANK_API [[nodiscard]] result<renamed_modules> fit_image_modules(std::map<std::string, peft_module> modules,
                                                                    const module_names& base);

/// An adapter of an image model, named as the tools of a format name its modules; any other adapter, as it is.
/// `model` may be null: then the names say which one it is.
/// \return As `rename_image_modules`; `unsupported` if the names may be those of several models and it matters.
LOWRANK_API [[nodiscard]] result<adapter_file> with_image_names(adapter_file file, const adapter_format& format,
                                                                const image_model* model = nullptr);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/io/formats/image_names.ipp>
#endif

#endif  // LOWRANK_IO_FORMATS_IMAGE_NAMES_HPP
