// SPDX-License-Identifier: MIT
// Any bytes as an adapter_config.json: refused with a sentence, or usable and stable when written and read again.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <vector>

#include <lowrank/io/peft/detail/peft_types.hpp>
#include <lowrank/io/peft/peft_config.hpp>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace lowrank;
    std::vector<std::string> warnings;
    const auto config = parse_peft_config(std::as_bytes(std::span(data, size)), warnings);
    if (!config) {
        if (config.error().message.empty()) {
            std::abort();
        }
        return 0;
    }
    const std::string& type = config->peft_type;
    const auto of = detail::find_type(peft_kinds(), type);
    if (!of) {
        std::abort();
    }
    const bool has_rank = !of->type.r_key.empty() && type != "OFT" && type != "BOFT";  // their blocks may say it
    if (has_rank && (config->r < 1 || config->r_for("model.layers.0.self_attn.q_proj") < 1)) {
        std::abort();
    }
    (void)config->alpha_for("model.layers.11.mlp.up_proj");
    const std::string text = format_peft_config(*config);
    const auto again = parse_peft_config(std::as_bytes(std::span(text)), warnings);
    if (!again || format_peft_config(*again) != text || again->rank_pattern != config->rank_pattern) {
        std::abort();
    }
    return 0;
}
