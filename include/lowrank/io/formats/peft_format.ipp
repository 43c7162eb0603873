// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_FORMATS_PEFT_FORMAT_IPP
#define LOWRANK_IO_FORMATS_PEFT_FORMAT_IPP

#include <string>
#include <string_view>
#include <utility>

#include <lowrank/io/formats/detail/lora_tensors.hpp>
#include <lowrank/io/formats/peft_format.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/io/peft/detail/peft_reader.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_BODY adapter_format peft_format() {
    using part = lora_name::part;
    return {.name = "peft",
            .is_folder = true,
            .holds = [](const peft_module& module) { return !type_of(module).empty(); },
            .holds_tables = true,
            .holds_whole_tensors = true,
            .holds_invocation_tokens = true,
            .parse =
                [](std::string_view name) {
                    return detail::parse_ending(name, {{".lora_A.weight", part::a},
                                                       {".lora_B.weight", part::b},
                                                       {"." + std::string(magnitude_names::peft), part::magnitude}});
                },
            .has_scaling_elsewhere = true,
            .emit =
                [](lora_tensors& out, const std::string& module, const lora_adapter<float>& lora,
                   const lora_write_options&) {
                    const std::string path = std::string(detail::peft_prefix) + module;
                    out.tensors.push_back(tensor_of(path + ".lora_A.weight", lora.lora_A));
                    out.tensors.push_back(tensor_of(path + ".lora_B.weight", lora.lora_B));
                    out.metadata = {{"format", "pt"}};
                    return status{};
                },
            .recognizes = [](const adapter_source& source) { return source.is_folder; },
            .read =
                [](const std::filesystem::path& path, const adapter_read_options& opt) {
                    auto adapter = read_peft(path, opt.peft);
                    return adapter ? result<adapter_file>(adapter_file{.adapter = std::move(*adapter)})
                                   : result<adapter_file>(adapter.error());
                },
            .write = [](const std::filesystem::path& path, const peft_adapter& adapter,
                        const adapter_write_options& opt) { return write_peft(path, adapter, opt.write); }};
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_FORMATS_PEFT_FORMAT_IPP
