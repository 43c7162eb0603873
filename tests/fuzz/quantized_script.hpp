// SPDX-License-Identifier: MIT
#pragma once
/// \file
/// Bytes as the tensors and the configuration of a quantized checkpoint, by the names that schemes know.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "adapter_script.hpp"

namespace fuzzing {

inline constexpr std::string_view parts_of_codes[] = {
    ".qweight",
    ".qzeros",
    ".scales",
    ".g_idx",
    ".weight",
    ".weight_scale",
    ".weight_scale_inv",
    ".weight_zero_point",
    ".weight_packed",
    ".weight_shape",
    ".weight_g_idx",
    ".weight_global_scale",
    ".weight_scale_2",
    ".input_scale",
    ".SCB",
    ".weight_format",
    ".weight.absmax",
    ".weight.quant_map",
    ".weight.nested_absmax",
    ".weight.nested_quant_map",
    ".weight.quant_state.bitsandbytes__nf4",
    "_blocks",
    "_scales",
    ".scale_weight",
};
inline constexpr lowrank::dtype types_of_codes[] = {
    lowrank::dtype::i32,     lowrank::dtype::u8,      lowrank::dtype::i8,      lowrank::dtype::f32, lowrank::dtype::f16,
    lowrank::dtype::f8_e4m3, lowrank::dtype::f8_e5m2, lowrank::dtype::f8_e8m0, lowrank::dtype::i64, lowrank::dtype::f4};
inline constexpr std::string_view quantization_configs[] = {
    "",
    R"({"quantization_config":{"quant_method":"gptq","bits":4,"checkpoint_format":"gptq_v2"}})",
    R"({"quantization_config":{"quant_method":"awq","version":"GEMM"}})",
    R"({"quantization_config":{"quant_method":"fp8","weight_block_size":[2,3]}})",
    R"({"quantization_config":{"config_groups":{"g":{"weights":{"num_bits":8}}}}})",
};

struct quantized {
    std::string_view config;
    std::vector<tensor> tensors;
};

inline quantized parse_quantized(std::span<const std::uint8_t> bytes) {
    script from(bytes);
    quantized out{from.one_of(quantization_configs), {}};
    while (!from.done() && out.tensors.size() < 12) {
        tensor t;
        t.name = std::string(from.below(4) == 0 ? "b" : "a") + std::string(from.one_of(parts_of_codes));
        t.type = from.one_of(types_of_codes);
        t.shape.resize(from.below(5));
        std::uint64_t elements = 1;
        for (std::uint64_t& n : t.shape) {
            n = from.one_of(extents);
            n = elements * n > 4096 ? 1 : n;
            elements *= n;
        }
        if (t.name.ends_with("nf4")) {  // a state, whose shape is that of another tensor or a wrong one
            constexpr std::string_view states[] = {
                R"({"quant_type":"nf4","blocksize":64,"shape":[4,16]})",
                R"({"blocksize":8,"nested_blocksize":2,"nested_offset":0.5,"shape":[2,8]})", R"({"shape":[0]})", "[]",
                "{"};
            const std::string_view text = from.one_of(states);
            t.type = lowrank::dtype::u8;
            t.shape = {text.size()};
            for (const char c : text) {
                t.bytes.push_back(static_cast<std::byte>(c));
            }
        } else {
            const std::size_t how = from.below(8);
            t.bytes.resize((elements * lowrank::bits_of(t.type) + 7) / 8);
            for (std::size_t i = 0; i < t.bytes.size(); ++i) {
                t.bytes[i] = how == 0  ? std::byte{0xff}
                             : how < 4 ? std::byte{0}
                                       : static_cast<std::byte>(i * 7 % (how * 5));
            }
            if (t.type == lowrank::dtype::i64 && how > 4) {  // a shape
                for (std::size_t i = 0; i < t.bytes.size(); i += 8) {
                    t.bytes[i] = static_cast<std::byte>(from.one_of(extents));
                }
            }
        }
        out.tensors.push_back(std::move(t));
    }
    return out;
}

}  // namespace fuzzing
