// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_FORMATS_ADAPTER_PROGRAMS_HPP
#define LOWRANK_IO_FORMATS_ADAPTER_PROGRAMS_HPP

/// \file
/// What other programs can hold of an adapter, module by module, before it is handed to them.
///
///     for (const lowrank::adapter_program& program : lowrank::adapter_programs()) {
///         const auto support = lowrank::support_by(program, *poet, {.model = &config});
///         for (const auto& [module, why] : support.lost) log(why.message);
///     }

#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/io/formats/adapter_files.hpp>
#include <lowrank/io/formats/adapter_format.hpp>
#include <lowrank/io/peft/peft_adapter.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A program that reads adapters.
struct adapter_program {
    std::string_view name = {};
    std::string_view format = {};  ///< Of the adapters it reads.
    /// Why it does not apply a module that its format holds; null: it applies all.
    status (*applies)(const peft_adapter& adapter, const std::string& path, const peft_module& module) = nullptr;
};

/// PEFT, llama.cpp, vLLM, kohya (and ComfyUI, which reads its files), MLX.
LOWRANK_API [[nodiscard]] std::span<const adapter_program> adapter_programs();

/// How much of an adapter a program can hold.
struct program_support {
    std::size_t held = 0;                                   ///< Modules and saved tensors.
    std::vector<std::pair<std::string, status>> lost = {};  ///< The others by path, and why.
};

/// Asks the format of the program and the program itself about every module. Formats that depend on the architecture
/// (GGUF) need `opt.model`; without it they hold nothing.
/// \pre the format of the program is one of `among`.
LOWRANK_API [[nodiscard]] program_support support_by(const adapter_program& program, const peft_adapter& adapter,
                                                     const adapter_write_options& opt = {},
                                                     std::span<const adapter_format> among = adapter_formats());

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/io/formats/adapter_programs.ipp>
#endif

#endif  // LOWRANK_IO_FORMATS_ADAPTER_PROGRAMS_HPP
