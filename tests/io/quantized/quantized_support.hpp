// SPDX-License-Identifier: MIT
#ifndef LOWRANK_TESTS_IO_QUANTIZED_SUPPORT_HPP
#define LOWRANK_TESTS_IO_QUANTIZED_SUPPORT_HPP

/// \file
/// Quantized checkpoints that tests write, in the layouts of their programs.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <lowrank/core/philox.hpp>
#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/containers/safetensors_writer.hpp>
#include <lowrank/io/quantized/quantized_weight.hpp>

#include "io_support.hpp"

namespace lowrank_tests {

/// A tensor of any type from numbers that lie in memory as the file has them.
template <class T>
lowrank::tensor_to_write raw_tensor(std::string name, lowrank::dtype type, std::vector<std::uint64_t> shape,
                                    const std::vector<T>& values) {
    auto bytes = std::make_shared<std::vector<std::byte>>(values.size() * sizeof(T));
    if (!values.empty()) {
        std::memcpy(bytes->data(), values.data(), bytes->size());
    }
    return {.name = std::move(name), .type = type, .shape = std::move(shape), .bytes = *bytes, .owned = bytes};
}

/// `count` random codes below `limit`.
template <class T>
std::vector<T> random_codes(std::size_t count, std::uint64_t seed, unsigned limit) {
    const lowrank::philox random(seed);
    std::vector<T> out(count);
    for (std::size_t i = 0; i < count; ++i) {
        out[i] = static_cast<T>(random.bits64(i) % limit);
    }
    return out;
}
inline std::vector<float> random_scales(std::size_t count, std::uint64_t seed) {
    const lowrank::philox random(seed);
    std::vector<float> out(count);
    for (std::size_t i = 0; i < count; ++i) {
        out[i] = 0.01F + 0.001F * static_cast<float>(random.bits64(i) % 64);
    }
    return out;
}

/// Writes model.safetensors and, unless it is empty, config.json.
inline lowrank::checkpoint quantized_checkpoint(const std::filesystem::path& folder,
                                                std::vector<lowrank::tensor_to_write> tensors,
                                                const std::string& config = "") {
    std::filesystem::create_directories(folder);
    REQUIRE(lowrank::write_safetensors(folder / "model.safetensors", std::move(tensors)));
    if (!config.empty()) {
        REQUIRE(lowrank::write_file(folder / "config.json", config));
    }
    auto base = lowrank::checkpoint::open(folder);
    REQUIRE(base);
    return *base;
}

/// All elements; decoded row by row, and the same at once.
inline std::vector<float> decoded(const lowrank::quantized_weight& w) {
    const auto cols = static_cast<std::size_t>(w.cols());
    std::vector<float> by_row(static_cast<std::size_t>(w.rows()) * cols);
    for (Eigen::Index r = 0; r < w.rows(); ++r) {
        w.decode(r, 1, by_row.data() + static_cast<std::size_t>(r) * cols);
    }
    std::vector<float> at_once(by_row.size());
    w.decode(0, w.rows(), at_once.data());
    CHECK(std::memcmp(by_row.data(), at_once.data(), by_row.size() * sizeof(float)) == 0);
    return at_once;
}

}  // namespace lowrank_tests

#endif  // LOWRANK_TESTS_IO_QUANTIZED_SUPPORT_HPP
