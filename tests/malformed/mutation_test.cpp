// SPDX-License-Identifier: MIT
// Small valid files, cut at every length and with every byte changed: each reader answers with a value or a sentence,
// and asks for no more memory than the file justifies.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/containers/detail/json.hpp>
#include <lowrank/io/containers/safetensors.hpp>
#include <lowrank/io/formats/adapter_files.hpp>
#include <lowrank/io/formats/gguf_lora.hpp>
#include <lowrank/io/peft.hpp>

#include "allocation_meter.hpp"
#include "io/io_support.hpp"

using namespace lowrank;
using lowrank_tests::allocation_meter;
using lowrank_tests::bytes_of;
using lowrank_tests::justified;
using lowrank_tests::safetensors_text;
using lowrank_tests::temporary_folder;
using lowrank_tests::text_of;

namespace {

/// True if the bytes were accepted. A refusal must say something.
using reader = std::function<bool(std::span<const std::byte>)>;

bool told(const status& why) {
    CHECK(why.message.size() > 10);
    CHECK(why.message.size() < 1000);
    return false;
}

/// Cuts and changes `valid` everywhere. `cut_is_error`: no proper beginning of the file is a valid file. `fixed`: what
/// the reader may use beyond that, whatever the size of the file.
void mutate(const std::string& valid, bool cut_is_error, const reader& read, std::size_t fixed = 0) {
    const auto accepted = [&](const std::vector<std::byte>& bytes) {
        const allocation_meter meter;
        const bool yes = read(bytes);
        CHECK(meter.bytes() <= justified(bytes.size()) + fixed);
        return yes;
    };
    const std::vector<std::byte> whole = bytes_of(valid);
    REQUIRE(accepted(whole));
    for (std::size_t length = 0; length < whole.size(); ++length) {
        const std::vector<std::byte> part(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length));
        const bool yes = accepted(part);
        CHECK_MESSAGE((!cut_is_error || !yes), "cut at ", length);
    }
    for (std::size_t at = 0; at < whole.size(); ++at) {
        std::vector<std::byte> changed = whole;
        for (unsigned bit = 0; bit < 9; ++bit) {
            changed[at] = whole[at] ^ static_cast<std::byte>(bit < 8 ? 1U << bit : 0xffU);
            (void)accepted(changed);
        }
        changed[at] = std::byte{0};
        (void)accepted(changed);
        changed = whole;
        changed.insert(changed.begin() + static_cast<std::ptrdiff_t>(at), std::byte{'9'});  // grows numbers
        (void)accepted(changed);
        changed.erase(changed.begin() + static_cast<std::ptrdiff_t>(at),
                      changed.begin() + static_cast<std::ptrdiff_t>(at) + 2);
        (void)accepted(changed);
    }
}

bool read_tensors(std::span<const std::byte> bytes) {
    const auto file = safetensors_file::from_bytes({bytes.begin(), bytes.end()});
    if (!file) {
        return told(file.error());
    }
    for (const tensor_info& t : file->tensors()) {
        (void)file->matrix<float>(t.name);
        (void)file->view<half>(t.name);
        (void)file->vector<double>(t.name);
    }
    return true;
}

/// Not atomic and not durable, so soon.
void write_plainly(const std::filesystem::path& path, const std::string& text) {
    std::ofstream file(path, std::ios::binary);
    file << text;
    REQUIRE(file.flush());
}

}  // namespace

TEST_CASE("safetensors files that are cut or changed anywhere") {
    const std::string header = R"({"__metadata__":{"format":"pt","a\u00e9":""},"w":{"dtype":"F32","shape":[2,3],)"
                               R"("data_offsets":[0,24]},"h":{"dtype":"F16","shape":[4],"data_offsets":[24,32]},)"
                               R"("e":{"dtype":"BF16","shape":[0,7],"data_offsets":[32,32],"x":[1,{"y":null}]},)"
                               R"("s":{"dtype":"F4","shape":[2],"data_offsets":[32,33]}}   )";
    mutate(safetensors_text(header, std::string(33, '\x11')), true, read_tensors);
}

TEST_CASE("an index that is cut or changed anywhere") {
    mutate(R"({"metadata":{"total_size":12.5,"x":[{}]},"weight_map":{"a.weight":"model-00001-of-00002.safetensors",)"
           R"("b.weight":"model-00002-of-00002.safetensors"}})",
           true, [](std::span<const std::byte> bytes) {
               const auto entries = detail::read_index(bytes);
               return entries ? true : told(entries.error());
           });
}

TEST_CASE("a configuration that is cut or changed anywhere") {
    mutate(
        R"x({"peft_type":"LORA","r":4,"lora_alpha":8.5,"lora_dropout":0.1,"rank_pattern":{"layers\\.[0-3]\\.(q|k)":2},)x"
        R"x("alpha_pattern":{"^up{1,2}$":1e1},"target_modules":["q","k"],"bias":"none","use_dora":false,"z":{}})x",
        true,
        [](std::span<const std::byte> bytes) {
            std::vector<std::string> warnings;
            const auto config = parse_peft_config(bytes, warnings);
            if (!config) {
                return told(config.error());
            }
            (void)config->r_for("model.layers.2.q");
            (void)config->alpha_for("model.layers.2.q");
            std::vector<std::string> again;
            const std::string text = format_peft_config(*config);
            CHECK(parse_peft_config(std::as_bytes(std::span(text)), again));
            return true;
        },
        std::size_t{4} << 20);  // a short pattern with counts may expand to a bounded automaton
}

TEST_CASE("an adapter whose tensors are cut or changed anywhere") {
    temporary_folder folder;
    peft_adapter adapter;
    adapter.modules["l"] = make_lora<float>(2, 3, {.r = 1});
    adapter.config = peft_config_for(adapter.modules);
    REQUIRE(write_peft(folder.path(), adapter));
    const std::string whole = text_of(folder / "adapter_model.safetensors");
    int accepted = 0;
    for (std::size_t at = 0; at < whole.size(); ++at) {
        std::string changed = whole;
        changed[at] = static_cast<char>(changed[at] ^ 0x20);
        // In place: the reader must not depend on how the file came to be.
        REQUIRE(write_file(folder / "adapter_model.safetensors", changed));
        const auto read = read_peft(folder.path());
        accepted += read ? 1 : 0;
        if (!read) {
            (void)told(read.error());
        }
        if (at % 7 == 0) {
            REQUIRE(write_file(folder / "adapter_model.safetensors", whole.substr(0, at)));
            CHECK_FALSE(read_peft(folder.path()));
        }
    }
    CHECK(accepted > 0);  // a changed weight is still a weight
}

TEST_CASE("files in the names of LyCORIS that are cut or changed anywhere") {
    temporary_folder folder;
    const auto shaped = [](const char* name, std::vector<std::uint64_t> shape) {
        std::uint64_t size = 1;
        for (const std::uint64_t n : shape) {
            size *= n;
        }
        auto t = tensor_of(name, vector<float>(vector<float>::LinSpaced(static_cast<Eigen::Index>(size), 1, 2)));
        t.shape = std::move(shape);
        return t;
    };
    const std::vector<tensor_to_write> files[] = {
        {shaped("a.oft_blocks", {2, 2, 2}), shaped("a.alpha", {}), shaped("a.rescale", {4, 1}),
         shaped("b.oft_blocks", {2, 2, 2, 2})},
        {shaped("d.lora_down.weight", {1, 3}), shaped("d.lora_up.weight", {2, 1}), shaped("d.dora_scale", {1, 3}),
         shaped("e.lora_down.weight", {1, 3}), shaped("e.lora_up.weight", {2, 1})},
        {shaped("h.hada_w1_a", {3, 1}), shaped("h.hada_w1_b", {1, 2}), shaped("h.hada_w2_a", {3, 1}),
         shaped("h.hada_w2_b", {1, 2}), shaped("k.lokr_w1", {2, 2}), shaped("k.lokr_w2_a", {2, 1}),
         shaped("k.lokr_w2_b", {1, 2})}};
    for (const auto& tensors : files) {
        REQUIRE(write_safetensors(folder / "whole", tensors));
        const std::string whole = text_of(folder / "whole");
        int accepted = 0;
        for (std::size_t at = 0; at < whole.size(); ++at) {
            std::string changed = whole;
            changed[at] = static_cast<char>(changed[at] ^ (at % 3 == 0 ? 0x20 : 0x03));  // other letters, other digits
            write_plainly(folder / "f", changed);
            if (const auto read = read_lora_file(folder / "f"); !read) {
                (void)told(read.error());
            } else {
                for (const auto& [name, module] : read->modules) {
                    (void)change_of(module);
                }
            }
            const auto adapter = read_adapter(folder / "f");
            if (!adapter) {
                (void)told(adapter.error());
                continue;
            }
            ++accepted;
            (void)write_adapter(folder / "again", adapter->adapter, "kohya");
            (void)write_adapter(folder / "peft", adapter->adapter, "peft");
        }
        if (&tensors == &files[0]) {  // the others are of two types, which have no hub
            CHECK(accepted > 10);     // a changed number is still a number
        }
    }
}

TEST_CASE("GGUF files that are cut or changed anywhere") {
    temporary_folder folder;
    peft_adapter adapter;
    adapter.modules["model.layers.0.mlp.up_proj"] = make_lora<float>(2, 3, {.r = 1});
    adapter.config = peft_config_for(adapter.modules);
    REQUIRE(write_gguf_lora(folder / "a.gguf", adapter, {.num_attention_heads = 1, .num_key_value_heads = 1}));
    std::string whole = text_of(folder / "a.gguf");
    whole.resize(whole.size() - 24);  // without the padding after the last tensor, which readers may miss
    mutate(whole, true, [](std::span<const std::byte> bytes) {
        const auto file = gguf_file::from_bytes({bytes.begin(), bytes.end()});
        if (!file) {
            return told(file.error());
        }
        const auto read = read_gguf_lora(*file);
        return read ? true : told(read.error());
    });
}

TEST_CASE("documents that are large or deep in one dimension") {
    const auto justified_read = [](const std::string& text, const reader& read) {
        const auto bytes = bytes_of(text);
        const allocation_meter meter;
        (void)read(bytes);
        CHECK(meter.bytes() <= justified(bytes.size()));
    };
    std::string many = "{";
    std::string names = R"({"__metadata__":{)";
    for (int i = 0; i < 20000; ++i) {
        const std::string n = std::to_string(i);
        many += (i == 0 ? "\"" : ",\"") + n + R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
        names += (i == 0 ? "\"" : ",\"") + n + "\":\"\"";
    }
    justified_read(safetensors_text(many + "}"), read_tensors);
    justified_read(safetensors_text(names + "}}"), read_tensors);
    for (const char* unit : {"[", "{\"a\":", "[[],", "0,", "\"\\u0000", "-", "1e", "9"}) {
        std::string text = R"({"x":{"z":)";
        for (int i = 0; i < 20000; ++i) {
            text += unit;
        }
        justified_read(safetensors_text(text), read_tensors);
        justified_read(text, [](auto bytes) { return static_cast<bool>(detail::read_json(bytes)); });
        justified_read(text, [](auto bytes) { return static_cast<bool>(detail::read_index(bytes)); });
    }
    std::string shape = R"({"x":{"dtype":"U8","shape":[0)";
    for (int i = 0; i < 50000; ++i) {
        shape += ",0";
    }
    justified_read(safetensors_text(shape + R"(],"data_offsets":[0,0]}})"), read_tensors);
}
