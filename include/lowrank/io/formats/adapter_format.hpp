// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_FORMATS_ADAPTER_FORMAT_HPP
#define LOWRANK_IO_FORMATS_ADAPTER_FORMAT_HPP

/// \file
/// A file format of adapters as a value: how it is recognized, what its names mean, how it is written, what it can hold.
///
///     std::vector<lowrank::adapter_format> formats;                    // and those of lowrank::adapter_formats()
///     formats.push_back({.name = "mine", .parse = parse_my_name, .emit = emit_my_tensors});
///     auto file = lowrank::read_adapter("x.safetensors", {}, formats);
///
/// A format of one safetensors file gives `parse` and `emit`; any other gives `recognizes`, `read` and `write`.

#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/io/containers/atomic_file.hpp>
#include <lowrank/io/containers/safetensors_writer.hpp>
#include <lowrank/io/models/architecture.hpp>
#include <lowrank/io/peft/peft_adapter.hpp>
#include <lowrank/quant/formats/ggml_type.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Whose names the modules of an image model have: of the code that published it, of diffusers, or of kohya's tools.
enum class image_naming { original, diffusers, kohya };

/// What a tensor's name in a file says.
struct lora_name {
    /// A core is LoCon's lora_mid, the kernel between the two factors of a convolution.
    enum class part { none, a, b, alpha, magnitude, bias, core, other, unsupported } what = part::none;
    std::string module = {};
    std::string_view leaf = {};  ///< Of a part of another kind than LoRA: the last part of the name.
    const char* why = nullptr;   ///< Of an unsupported part: why its module cannot be read.
    bool is_table = false;       ///< A factor of an embedding table: A is r x tokens, B is dim x r.
};

/// Tensors of a file to be written.
struct lora_tensors {
    std::vector<tensor_to_write> tensors = {};
    std::map<std::string, std::string> metadata = {};
};

struct lora_write_options {
    std::string format = "kohya";
    std::string kohya_prefix = "lora_unet_";  ///< Put before names that have no such prefix yet.
    std::optional<double> mlx_scale =
        std::nullopt;                            ///< The scale beside an MLX file; lora_b carries the rest. None: 1.
    std::span<const tensor_to_write> more = {};  ///< Tensors beside those of the modules.
    write_options write = {};
};

struct adapter_read_options {
    /// Module paths of the base model: kohya's names have lost their dots and find them again here.
    std::vector<std::string> modules = {};
    /// Of the base model; GGUF needs it.
    const model_config* model = nullptr;
    /// Numerator of the scaling, alpha / r, where no tensor says it; goes before the header of a file and the
    /// adapter_config.json beside it. Where nothing says one it is r, and a warning says so.
    std::optional<double> lora_alpha = std::nullopt;
    peft_read_options peft = {};
    std::span<const architecture> architectures = known_architectures();
};

struct adapter_write_options {
    const model_config* model = nullptr;      ///< Of the base model; GGUF needs it.
    std::string kohya_prefix = "lora_unet_";  ///< "lora_te_" for text encoders.
    ggml_type type = ggml_type::f32;          ///< Of the factors in GGUF.
    std::string name = "lowrank";             ///< general.name in GGUF.
    write_options write = {};
    std::span<const architecture> architectures = known_architectures();
};

/// An adapter of any format. The name of a PEFT adapter's module is that in the base.
struct adapter_file {
    std::string format = "peft";
    peft_adapter adapter = {};
    std::vector<std::string> unmapped = {};                         ///< Tensors that are left out, and why.
    std::vector<std::pair<std::string, std::string>> renamed = {};  ///< Names of the file and the modules they became.
};

/// What is known of a path before it is read.
struct adapter_source {
    std::filesystem::path path = {};
    bool is_folder = false;
    std::string_view head = {};  ///< The first bytes of a file.
};

struct adapter_format {
    std::string_view name = {};
    bool is_folder = false;
    bool needs_model = false;  ///< `model` of the options must be set.

    /// What it can hold besides plain LoRA of layers; null: no other module.
    bool (*holds)(const peft_module& module) = nullptr;
    bool holds_tables = false;
    bool holds_whole_tensors = false;  ///< Tensors that replace ones of the base, and rows of tables.
    bool holds_invocation_tokens = false;
    /// Of a format whose names are those of an architecture: why a module has no place in a file for `opt.model`.
    status (*fits)(const std::string& path, const peft_module& module, const adapter_write_options& opt) = nullptr;

    /// What a tensor's name says; null if the format is no single file of safetensors.
    lora_name (*parse)(std::string_view tensor) = nullptr;
    bool is_transposed = false;          ///< A is in x r and B is r x out.
    bool has_scaling_elsewhere = false;  ///< The file says no scaling.
    /// The parts of a module that is no LoRA; null if there are none.
    result<peft_module> (*join)(peft_parts& parts, std::optional<double> alpha) = nullptr;
    /// The names of the experts that factors with a third dimension in front are of, by the module's name and their number;
    /// null if the format has no such stacks.
    std::vector<std::string> (*experts_of)(const std::string& module, std::uint64_t count) = nullptr;
    std::optional<image_naming> names_of_images = std::nullopt;  ///< Nothing: those of the base.
    bool has_flat_names = false;                                 ///< Underscores stand for the dots of module names.
    bool holds_scaling_in_header = false;  ///< Written without alphas: one alpha and rank for all go into the header.
    /// The header of a file with these modules; null: what `emit` leaves.
    std::map<std::string, std::string> (*header)(const std::map<std::string, peft_module>& modules) = nullptr;
    status (*emit)(lora_tensors& out, const std::string& module, const lora_adapter<float>& lora,
                   const lora_write_options& opt) = nullptr;
    /// \pre `holds(module)`
    status (*emit_other)(lora_tensors& out, const std::string& name, const peft_module& module,
                         const lora_write_options& opt) = nullptr;

    /// The first format of a list that recognizes a path reads it.
    bool (*recognizes)(const adapter_source& source) = nullptr;
    result<adapter_file> (*read)(const std::filesystem::path& path, const adapter_read_options& opt) = nullptr;
    /// \pre `can_hold` of the format and the adapter.
    status (*write)(const std::filesystem::path& path, const peft_adapter& adapter,
                    const adapter_write_options& opt) = nullptr;
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_FORMATS_ADAPTER_FORMAT_HPP
