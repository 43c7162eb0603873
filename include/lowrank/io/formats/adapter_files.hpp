// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_FORMATS_ADAPTER_FILES_HPP
#define LOWRANK_IO_FORMATS_ADAPTER_FILES_HPP

/// \file
/// Adapters of every tool, read whatever they are and written as any of them.
///
///     auto source = lowrank::read_adapter("style.safetensors");           // its format is detected
///     for (const std::string& line : source->unmapped) log(line);         // what was not understood
///     auto why = lowrank::write_adapter("style.gguf", source->adapter, "gguf", {.model = &config});
///
/// A PEFT adapter is the hub: names become those of its modules. `read_lora_file` stays with the names of the file.
/// The formats are a list (adapter_format.hpp); a program adds one by passing a list of its own.

#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/io/formats/adapter_format.hpp>
#include <lowrank/lora/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Those this library knows: mlx, peft, gguf, kohya, diffusers, diffusers_old, diffusers_peft, loralib. The first that recognizes a file
/// or folder reads it.
LOWRANK_API [[nodiscard]] std::span<const adapter_format> adapter_formats();

/// The format of a name.
/// \return `unsupported` with the names of those that are known.
LOWRANK_API [[nodiscard]] result<const adapter_format*> find_adapter_format(
    std::string_view name, std::span<const adapter_format> among = adapter_formats());

/// Whether a format can represent a module (or a tensor that replaces one of the base), and, where `opt.model` is set,
/// has a place for it in a file for that model.
/// \return `unsupported` with the reason; what `fits` of the format says.
LOWRANK_API [[nodiscard]] status can_hold(const adapter_format& format, const std::string& path,
                                          const peft_module& module, const adapter_write_options& opt = {});

/// Whether a format can represent all of an adapter (`to_plain_lora` helps where it cannot represent modules).
/// \return As above, of the first module that it cannot.
LOWRANK_API [[nodiscard]] status can_hold(const adapter_format& format, const peft_adapter& adapter,
                                          const adapter_write_options& opt = {});

/// Reads an adapter folder or file of any of the formats; which one is detected from its content.
///
/// \return As the reader of the format; `unsupported` for a GGUF without a model.
LOWRANK_API [[nodiscard]] result<adapter_file> read_adapter(const std::filesystem::path& path,
                                                            const adapter_read_options& opt = {},
                                                            std::span<const adapter_format> among = adapter_formats());

/// Writes an adapter in the format of a name: a folder for PEFT and MLX, a file for the others.
///
/// \return As `can_hold` and the writer of the format; `unsupported` for a format that is not in the list.
LOWRANK_API [[nodiscard]] status write_adapter(const std::filesystem::path& path, const peft_adapter& adapter,
                                               std::string_view format, const adapter_write_options& opt = {},
                                               std::span<const adapter_format> among = adapter_formats());

/// A LoRA file as modules, with a report of what it held.
struct lora_file {
    std::string format = "peft";
    std::map<std::string, peft_module> modules = {};  ///< By the name the file uses, without suffix.
    /// Tensors that are left out, and why. A module with a part that is not known is left out whole.
    std::vector<std::string> unmapped = {};
    std::vector<std::string> warnings = {};  ///< Where a scaling was found, or that one was assumed.
    std::map<std::string, std::string> metadata = {};
};

struct lora_file_options {
    /// As `adapter_read_options::lora_alpha`.
    std::optional<double> lora_alpha = std::nullopt;
    /// The same as a scaling (MLX's scale).
    std::optional<double> scaling = std::nullopt;
    peft_read_options peft = {};  ///< For a configuration in the header or beside the file.
};

/// Reads a LoRA file of safetensors, of any of the formats; shapes are those of the tensors. The scaling of a module is
/// what its alpha says, else the options, else the header (diffusers' lora_adapter_metadata, alpha and rank), else the
/// adapter_config.json beside the file, else 1. What is not understood (norms, full differences) is listed in
/// `unmapped` with the reason.
///
/// \return `not_found`; `invalid_format` for a broken file, names of two formats in one file, a factor without its
///         partner, a file without LoRA; `mismatch` for factors of different rank or another rank than the file says;
///         `unsupported` if no module can be read; `non_finite`.
LOWRANK_API [[nodiscard]] result<lora_file> read_lora_file(const std::filesystem::path& path,
                                                           const lora_file_options& opt = {},
                                                           std::span<const adapter_format> among = adapter_formats());

/// Writes modules under the names of a format, in one file of safetensors. Kohya's alpha says the scaling; diffusers has
/// scaling 1, so lora_B is multiplied by it, as it is for MLX and its scale; diffusers_peft has a configuration of PEFT in the header; PEFT and loralib have no place for a scaling,
/// so one alpha and r of all modules go into the header, and where modules differ lora_B is multiplied.
///
/// \return `unsupported` for a format that is not in the list and a module that it cannot represent; as
///         `write_safetensors`.
LOWRANK_API [[nodiscard]] status write_lora_file(const std::filesystem::path& path,
                                                 const std::map<std::string, peft_module>& modules,
                                                 const lora_write_options& opt = {},
                                                 std::span<const adapter_format> among = adapter_formats());

namespace detail {

/// `unsupported` for an adapter with invocation tokens (aLoRA) and a format without a place for them.
LOWRANK_API [[nodiscard]] status check_invocation_tokens(const adapter_format& format, const peft_lora_config& config);

/// A file under the names of the base, as a PEFT adapter.
LOWRANK_API [[nodiscard]] result<adapter_file> adapter_of(lora_file file, const adapter_read_options& opt,
                                                          const adapter_format& format);

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/io/formats/adapter_files.ipp>
#endif

#endif  // LOWRANK_IO_FORMATS_ADAPTER_FILES_HPP
