// SPDX-License-Identifier: MIT
// Every hostile and edge-case file of the reference data gets its verdict. Any folder of that layout serves:
// LOWRANK_SHARED/malformed/manifest_<format>.json and the files it lists.
#include <cstddef>
#include <cstdlib>
#include <new>
#include <string>

#include <nlohmann/json.hpp>

#include <lowrank/io/containers/safetensors.hpp>
#include <lowrank/io/formats/gguf_lora.hpp>

#include "allocation_meter.hpp"
#include "io/io_support.hpp"
#include "support/shared.hpp"

using namespace lowrank;
using lowrank_tests::allocation_meter;
using lowrank_tests::justified;
using lowrank_tests::text_of;

namespace {

std::size_t total = 0;

void* counted(std::size_t size) {
    total += size;
    if (void* p = std::malloc(size == 0 ? 1 : size)) {
        return p;
    }
    std::abort();
}

}  // namespace

namespace lowrank_tests {
std::size_t allocated_bytes() { return total; }
}  // namespace lowrank_tests

void* operator new(std::size_t size) { return counted(size); }
void* operator new[](std::size_t size) { return counted(size); }
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return counted(size); }
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept { return counted(size); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }

TEST_CASE("safetensors files get their verdict") {
    LOWRANK_NEEDS_SHARED(shared);
    const auto manifest = nlohmann::json::parse(text_of(shared / "malformed" / "manifest_safetensors.json"));
    REQUIRE(manifest.size() > 0);
    for (const auto& entry : manifest) {
        const auto name = entry.at("file").get<std::string>();
        const auto expect = entry.at("expect").get<std::string>();
        const auto path = shared / "malformed" / name;
        const auto size = static_cast<std::size_t>(std::filesystem::file_size(path));
        const allocation_meter meter;
        const auto file = safetensors_file::open(path);
        CHECK_MESSAGE(meter.bytes() <= justified(size), name);
        // Where the format leaves room we side with the reference implementation, so that what it writes can be read.
        const std::string reference = entry.value("reference_0_8_0_dev", "accepted");
        const bool accepts = expect == "accept" || (expect == "policy" && reference == "accepted");
        CHECK_MESSAGE(file.has_value() == accepts, name, ": ", file ? "accepted" : file.error().message);
        if (!file) {
            CHECK(file.error().message.size() > 10);
            continue;
        }
        for (const tensor_info& t : file->tensors()) {
            CHECK(file->find(t.name) == &t);
            CHECK(file->bytes(t).size() == t.end - t.begin);
            (void)file->matrix<float>(t.name);
            (void)file->view<float>(t.name);
        }
    }
}

TEST_CASE("GGUF adapters get their verdict") {
    LOWRANK_NEEDS_SHARED(shared);
    const auto base = gguf_file::open(shared / "models" / "gguf" / "stories260K-f32.gguf");
    REQUIRE(base);
    const auto manifest = nlohmann::json::parse(text_of(shared / "malformed" / "manifest_gguf.json"));
    REQUIRE(manifest.size() > 0);
    for (const auto& entry : manifest) {
        const auto name = entry.at("file").get<std::string>();
        const auto expect = entry.at("expect").get<std::string>();
        const auto path = shared / "malformed" / name;
        const allocation_meter meter;
        const auto adapter = read_gguf_lora(path);
        CHECK_MESSAGE(meter.bytes() <= justified(static_cast<std::size_t>(std::filesystem::file_size(path))), name);
        const status why = adapter ? check_gguf_base(*adapter, *base) : adapter.error();
        if (expect != "policy") {  // where the format leaves room, a value or a sentence
            CHECK_MESSAGE(static_cast<bool>(why) == (expect == "accept"), name, ": ", why ? "accepted" : why.message);
        }
        CHECK((why || why.message.size() > 10));
    }
}
