// SPDX-License-Identifier: MIT
// Any bytes as a GGUF file: refused with a sentence, or every tensor decodes and an adapter in it is consistent.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include <lowrank/io/formats/gguf_lora.hpp>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace lowrank;
    const auto bytes = std::as_bytes(std::span(data, size));
    const auto file = gguf_file::from_bytes({bytes.begin(), bytes.end()});
    if (!file) {
        if (file.error().message.empty()) {
            std::abort();
        }
        return 0;
    }
    for (const gguf_tensor& t : file->tensors()) {
        if (file->bytes(t).size() != t.bytes || file->find(t.name) != &t) {
            std::abort();
        }
        (void)file->matrix<float>(t);
        (void)file->matrix<double>(t);
    }
    if (const auto adapter = read_gguf_lora(*file)) {
        for (const auto& [tensor, lora] : adapter->tensors) {
            if (lora.lora_B.cols() != lora.rank()) {
                std::abort();
            }
        }
        (void)check_gguf_base(*adapter, *file);
        model_config model;
        model.num_attention_heads = 2;
        model.num_key_value_heads = 1;
        (void)peft_from_gguf(*adapter, model);
    }
    return 0;
}
