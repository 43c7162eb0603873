// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_FORMATS_LORALIB_IPP
#define LOWRANK_IO_FORMATS_LORALIB_IPP

#include <lowrank/io/formats/loralib.hpp>

#include <string>
#include <string_view>

#include <lowrank/io/formats/detail/lora_tensors.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_BODY adapter_format loralib_format() {
    return {
        .name = "loralib",
        .parse =
            [](std::string_view name) {
                return detail::parse_ending(name, {{".lora_A", lora_name::part::a}, {".lora_B", lora_name::part::b}});
            },
        .has_scaling_elsewhere = true,
        .holds_scaling_in_header = true,
        .emit =
            [](lora_tensors& out, const std::string& module, const lora_adapter<float>& lora,
               const lora_write_options&) {
                out.tensors.push_back(tensor_of(module + ".lora_A", lora.lora_A));
                out.tensors.push_back(tensor_of(module + ".lora_B", lora.lora_B));
                return status{};
            }};
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_FORMATS_LORALIB_IPP
