// SPDX-License-Identifier: MIT
// Any bytes as a llama2.c tokenizer: refused with a sentence, or it encodes and decodes any text back.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <vector>

#include "llama/tokenizer.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto tokenizer = llama::tokenizer::parse(std::as_bytes(std::span(data, size)));
    if (!tokenizer) {
        if (tokenizer.error().message.empty()) {
            std::abort();
        }
        return 0;
    }
    const std::string text(reinterpret_cast<const char*>(data), size < 64 ? size : 64);
    for (const int id : tokenizer->encode(text, {.bos = true, .eos = true})) {
        if (id < 0 || id >= tokenizer->size()) {
            std::abort();
        }
        (void)tokenizer->decode(llama::tokenizer::bos_id, id);
    }
    (void)tokenizer->decode(tokenizer->encode(text));
    return 0;
}
