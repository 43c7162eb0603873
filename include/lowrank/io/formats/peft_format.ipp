// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_FORMATS_PEFT_FORMAT_IPP
#define LOWRANK_IO_FORMATS_PEFT_FORMAT_IPP

#include <lowrank/io/formats/peft_format.hpp>

#include <string>
#include <string_view>
#include <utility>

#include <lowrank/io/formats/detail/lora_tensors.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/io/peft/detail/peft_reader.hpp>
#include <lowrank/io/peft/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// Names in a single file: those of a folder, with ".magnitude" for DoRA's lengths as ai-toolkit writes them. The module
/// keeps its prefix.
LOWRANK_API [[nodiscard]] lora_name parse_peft_file_name(std::string_view name) {
    using part = lora_name::part;
    static const peft_type lora = peft_kind<lora_adapter<float>>::types().front();
    constexpr std::pair<std::string_view, part> parts[] = {{"lora_A.weight", part::a},
                                                           {"lora_B.weight", part::b},
                                                           {"lora_embedding_A", part::a},
                                                           {"lora_embedding_B", part::b},
                                                           {magnitude_names::peft, part::magnitude},
                                                           {"lora_B.bias", part::bias}};
    if (auto out = parse_ending(name, {{".magnitude", part::magnitude}}); out.what != part::none) {
        return out;
    }
    const auto found = parse_peft_name(name, lora);
    if (!found || found->module.empty()) {
        return {};
    }
    lora_name out{.module = std::string(name.starts_with(peft_prefix) ? peft_prefix : "").append(found->module)};
    out.is_table = found->leaf.starts_with("lora_embedding_");
    for (const auto& [leaf, what] : parts) {
        out.what = leaf == found->leaf ? what : out.what;
    }
    return out;
}

}  // namespace detail

LOWRANK_BODY adapter_format peft_format() {
    return {.name = "peft",
            .is_folder = true,
            .holds = [](const peft_module& module) { return !type_of(module).empty(); },
            .holds_tables = true,
            .holds_whole_tensors = true,
            .holds_invocation_tokens = true,
            .parse = &detail::parse_peft_file_name,
            .has_scaling_elsewhere = true,
            .holds_scaling_in_header = true,
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
