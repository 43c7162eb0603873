// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_MODELS_IMAGE_MODEL_HPP
#define LOWRANK_IO_MODELS_IMAGE_MODEL_HPP

/// \file
/// The modules of image and video models under the two names that each has: those of the code that published the model
/// (`original`), and those of diffusers.
///
///     const auto* flux = lowrank::find_image_model("flux").value();
///     const auto place = lowrank::find_image_module(*flux, "lora_unet_double_blocks_3_img_attn_qkv");
///     log(lowrank::numbered(place->module->diffusers[0], place->numbers));     // "transformer_blocks.3.attn.to_q"
///
/// A module of the original may stand for several of diffusers, whose rows lie below one another in it. Names are patterns in which {} is
/// the number of a block, so a model with more or fewer blocks is the same entry.
///
/// black-forest-labs/flux, Stability-AI/{generative-models, sd3-ref}, Wan-Video/Wan2.1, huggingface/diffusers, kohya-ss/sd-scripts.

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// How the rows of a module of the original become those of the modules of diffusers.
enum class image_rows {
    same,            ///< One module, the same rows.
    swapped_halves,  ///< One module, the second half of the rows first.
    equal_parts,     ///< Several of the same number of rows.
    rest_is_last,    ///< Several with as many rows as the module has inputs; the last takes what is left.
};

/// A module under both names.
struct image_module {
    std::string original = {};                ///< "double_blocks.{}.img_attn.qkv"
    std::vector<std::string> diffusers = {};  ///< "transformer_blocks.{}.attn.to_q", ...to_k, ...to_v
    image_rows rows = image_rows::same;
    /// Names that some tools have for the first of several parts together, and of how many.
    std::string leading_parts = {};
    std::size_t leading_count = 0;
};

/// A part of a pipeline that adapters have modules of.
enum class image_component { backbone, text_encoder, text_encoder_2, text_encoder_3 };

/// An image or video model.
struct image_model {
    std::string_view name = {};                 ///< "flux"
    std::string_view title = {};                ///< "FLUX.1"
    std::string_view backbone = "transformer";  ///< What diffusers calls it: "transformer" or "unet".
    bool is_trained_on_original = true;         ///< kohya's tools have the original names of its backbone.
    std::string_view kohya_text_encoder = "lora_te1_";
    image_component t5 = image_component::text_encoder_3;  ///< kohya's tools always call it the third.
    std::span<const image_module> modules = {};
};

/// sdxl, sd15, flux, sd3, wan, qwen_image.
LOWRANK_API [[nodiscard]] std::span<const image_model> image_models();

/// The model of a name. \return `unsupported` with the names that are known.
LOWRANK_API [[nodiscard]] result<const image_model*> find_image_model(std::string_view name);

/// What a name of an adapter means in an image model.
struct image_place {
    const image_module* module = nullptr;
    image_component component = image_component::backbone;
    std::vector<std::string> numbers = {};  ///< Of the blocks.
    bool is_t5 = false;                     ///< Kohya's tools call this text encoder the third.
    bool is_original = false;               ///< The name is that of the original; false if both have this name.
    std::size_t first = 0;                  ///< The parts it means: all, of the original's name.
    std::size_t count = 1;
};

/// The module that a name means, after any known prefix; a name without dots has underscores for them.
LOWRANK_API [[nodiscard]] std::optional<image_place> find_image_module(const image_model& model, std::string_view name);

/// A pattern with its numbers in place.
LOWRANK_API [[nodiscard]] std::string numbered(std::string_view pattern, std::span<const std::string> numbers);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/io/models/image_model.ipp>
#endif

#endif  // LOWRANK_IO_MODELS_IMAGE_MODEL_HPP
