// SPDX-License-Identifier: MIT
// Any tensors under the names of quantized weights: refused with a sentence, or decoded without a crash, to the shape
// that was promised. Writes its files to /dev/shm where that is.
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <set>
#include <span>
#include <string>
#include <vector>

#include <lowrank/io/containers/atomic_file.hpp>
#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/containers/safetensors_writer.hpp>
#include <lowrank/io/quantized/dequantize_checkpoint.hpp>

#include "quantized_script.hpp"

namespace {

namespace fs = std::filesystem;
using namespace lowrank;

struct folder {
    fs::path path = (fs::exists("/dev/shm") ? "/dev/shm" : fs::temp_directory_path()) /
                    fs::path("lowrank-fuzz-quantized-" + std::to_string(::getpid()));
    folder() {
        fs::remove_all(path);
        fs::create_directories(path / "base");
    }
    ~folder() { fs::remove_all(path); }
};

void require(bool holds) {
    if (!holds) {
        std::abort();
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const folder home;
    const auto made = fuzzing::parse_quantized(std::span(data, size));
    std::vector<tensor_to_write> tensors;
    std::set<std::string> names;
    for (const auto& t : made.tensors) {
        if (names.insert(t.name).second) {
            tensors.push_back({t.name, t.type, t.shape, t.bytes});
        }
    }
    if (!write_safetensors(home.path / "base/model.safetensors", std::move(tensors))) {
        return 0;
    }
    fs::remove(home.path / "base/config.json");
    if (!made.config.empty()) {
        require(static_cast<bool>(write_file(home.path / "base/config.json", made.config)));
    }
    const auto base = checkpoint::open(home.path / "base", {.map = false});  // on the heap, where every byte is watched
    require(base.has_value());
    const auto found = quantized_weights(*base);
    if (!found) {
        require(!found.error().message.empty());
        return 0;
    }
    for (const quantized_weight& w : *found) {
        std::vector<float> values(static_cast<std::size_t>(w.rows() * w.cols()));
        w.decode(0, w.rows(), values.data());
        if (w.encode) {
            const encoded_weight again = w.encode(values.data());
            require(again.codes.size() == base->bytes(w.parts.front())->size());
            require(w.scales.empty() ? again.scales.empty() : again.scales.size() == base->bytes(w.scales)->size());
        }
    }
    const auto report = dequantize_checkpoint(*base, home.path / "out", {.type = dtype::f32});
    require(report.has_value() ? report->weights.size() == found->size() : !report.error().message.empty());
    if (report) {
        const auto decoded = checkpoint::open(home.path / "out");
        require(decoded.has_value());
        for (const quantized_weight& w : *found) {
            const tensor_info* t = decoded->find(w.name);
            require(t != nullptr && t->shape == w.shape);
        }
    }
    fs::remove_all(home.path / "out");
    return 0;
}
