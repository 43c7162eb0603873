// SPDX-License-Identifier: MIT
// Any bytes as a safetensors file: refused with a sentence, or readable to the last tensor and equal when written
// again.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <vector>

#include <lowrank/io/containers/safetensors.hpp>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace lowrank;
    const auto bytes = std::as_bytes(std::span(data, size));
    const auto file = safetensors_file::from_bytes({bytes.begin(), bytes.end()});
    if (!file) {
        if (file.error().message.empty()) {
            std::abort();
        }
        return 0;
    }
    std::vector<tensor_info> again;
    std::uint64_t covered = 0;
    for (const tensor_info& t : file->tensors()) {
        covered += file->bytes(t).size();
        if (file->find(t.name) != &t) {
            std::abort();
        }
        (void)file->matrix<float>(t.name);
        (void)file->view<bfloat16>(t.name);
        (void)file->vector<double>(t.name);
        again.push_back(t);
    }
    // What was read can be described again, and reads as the same tensors.
    const auto preamble = detail::safetensors_preamble(again, file->metadata());
    if (!preamble) {
        std::abort();
    }
    std::vector<std::byte> copy(preamble->size() + covered);
    std::memcpy(copy.data(), preamble->data(), preamble->size());
    const auto second = safetensors_file::from_bytes(std::move(copy));
    if (!second || second->tensors().size() != file->tensors().size() || second->metadata() != file->metadata()) {
        std::abort();
    }
    return 0;
}
