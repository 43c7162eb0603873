// SPDX-License-Identifier: MIT
// Any bytes as a model.safetensors.index.json: refused with a sentence, or every shard is a plain file name.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include <lowrank/io/containers/checkpoint.hpp>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto entries = lowrank::detail::read_index(std::as_bytes(std::span(data, size)));
    if (!entries) {
        if (entries.error().message.empty()) {
            std::abort();
        }
        return 0;
    }
    for (const auto& e : *entries) {
        if (!lowrank::detail::is_plain_name(e.file)) {
            std::abort();
        }
    }
    return 0;
}
