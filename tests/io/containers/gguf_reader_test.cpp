// SPDX-License-Identifier: MIT
#include <lowrank/io/containers/detail/gguf_reader.hpp>

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "io_support.hpp"

using namespace lowrank;
using lowrank_tests::bytes_of;

namespace {

template <class T>
std::string raw(T value) {
    std::string out(sizeof(T), '\0');
    std::memcpy(out.data(), &value, sizeof(T));
    return out;
}
std::string text(std::string_view t) { return raw<std::uint64_t>(t.size()) + std::string(t); }
std::string key(std::string_view name, std::int32_t type, const std::string& value) {
    return text(name) + raw(type) + value;
}
std::string tensor(std::string_view name, std::initializer_list<std::uint64_t> ne, std::int32_t type,
                   std::uint64_t offset) {
    std::string out = text(name) + raw(static_cast<std::uint32_t>(ne.size()));
    for (const std::uint64_t n : ne) {
        out += raw(n);
    }
    return out + raw(type) + raw(offset);
}
std::string file(std::uint64_t tensors, std::uint64_t keys, const std::string& body, const std::string& data = {}) {
    std::string out = "GGUF" + raw<std::uint32_t>(3) + raw(tensors) + raw(keys) + body;
    if (tensors != 0) {
        out.append((32 - out.size() % 32) % 32, '\0');
    }
    return out + data;
}

status verdict(const std::string& bytes) {
    const auto read = detail::read_gguf_header(bytes_of(bytes));
    return read ? status{} : read.error();
}

}  // namespace

TEST_CASE("keys, arrays and tensors are read") {
    const std::string body = key("a", 8, text("x")) + key("b", 9, raw(4) + raw<std::uint64_t>(2) + raw(1) + raw(2)) +
                             key("c", 9, raw(8) + raw<std::uint64_t>(2) + text("") + text("yz")) +
                             key("d", 7, raw<std::uint8_t>(1)) + tensor("t", {2, 3}, 0, 0) + tensor("s", {}, 0, 32);
    const auto header = detail::read_gguf_header(bytes_of(file(2, 4, body, std::string(36, '\0'))));
    REQUIRE_MESSAGE(header, (header ? std::string() : header.error().message));
    CHECK(header->entries[0].value == gguf_value::of("x"));
    CHECK(header->entries[1].value.elements.size() == 8);
    CHECK(header->entries[2].value.texts[1] == "yz");
    CHECK(header->tensors[0].bytes == 24);
    CHECK(header->tensors[1].ne.empty());
    CHECK(header->data_begin % 32 == 0);
    CHECK(verdict(file(0, 0, "")));
    CHECK(verdict(file(2, 4, body, std::string(64, '\0'))));  // with the last padding
}

TEST_CASE("every broken rule is named") {
    struct broken {
        std::string bytes;
        const char* says;
    };
    const std::string four(4, '\0');
    const broken cases[] = {
        {"", "cut short"},
        {"GGU", "cut short"},
        {"GGML" + file(0, 0, "").substr(4), "GGUF"},
        {"GGUF" + raw<std::uint32_t>(1) + file(0, 0, "").substr(8), "version 1"},
        {"GGUF" + raw<std::uint32_t>(0x03000000) + file(0, 0, "").substr(8), "big-endian"},
        {file(0, UINT64_MAX, ""), "more than it can hold"},
        {file(std::uint64_t{1} << 40, 0, ""), "more than it can hold"},
        {file(0, 1, key("", 4, four)), "empty, too long"},
        {file(0, 1, key(std::string_view("a\0b", 3), 4, four)), "not text"},
        {file(0, 1, key("\xFF", 4, four)), "not text"},
        {file(0, 1, key(std::string(65536, 'k'), 4, four)), "too long"},
        {file(0, 1, key("a", 13, four)), "unknown type 13"},
        {file(0, 1, key("a", -1, four)), "unknown type -1"},
        {file(0, 1, key("a", 7, raw<std::uint8_t>(2))), "neither 0 nor 1"},
        {file(0, 1, key("a", 8, raw<std::uint64_t>(UINT64_MAX))), "claims 18446744073709551615 bytes"},
        {file(0, 1, key("a", 9, raw(9) + raw<std::uint64_t>(1) + four)), "array of arrays"},
        {file(0, 1, key("a", 9, raw(10) + raw<std::uint64_t>(1ULL << 61) + four)), "more than the file can hold"},
        {file(0, 1, key("a", 9, raw(7) + raw<std::uint64_t>(1) + "\2")), "neither 0 nor 1"},
        {file(0, 2, key("a", 4, four) + key("a", 4, four)), "\"a\" appears twice"},
        {file(0, 1, key("general.alignment", 4, raw<std::uint32_t>(0))), "power of two"},
        {file(0, 1, key("general.alignment", 5, raw(32))), "of type u32"},
        {file(0, 0, std::string(40, '\0')), "no tensors"},
        {file(1, 0, tensor("", {1}, 0, 0), four), "empty, longer"},
        {file(1, 0, tensor(std::string(64, 'n'), {1}, 0, 0), four), "longer than 63"},
        {file(1, 0, tensor("t", {1, 1, 1, 1, 1}, 0, 0), four), "at most 4"},
        {file(1, 0, tensor("t", {0}, 0, 0), four), "dimension that is 0"},
        {file(1, 0, tensor("t", {UINT64_MAX}, 0, 0), four), "dimension that is 0, negative"},
        {file(1, 0, tensor("t", {1ULL << 40, 1ULL << 40}, 0, 0), four), "too large"},
        {file(1, 0, tensor("t", {1ULL << 62}, 0, 0), four), "larger than 2^64"},
        {file(1, 0, tensor("t", {1ULL << 61}, 0, 0), four), "past the end"},
        {file(1, 0, tensor("t", {1}, 4, 0), four), "removed or unknown"},
        {file(1, 0, tensor("t", {33}, 8, 0), four), "not a multiple of the 32"},
        {file(1, 0, tensor("t", {1}, 0, 32), four), "expected 0"},
        {file(1, 0, tensor("t", {1}, 0, 0), "abc"), "past the end"},
        {file(1, 0, tensor("t", {1}, 0, 0), std::string(33, 'x')), "belong to no tensor"},
        {file(2, 0, tensor("t", {1}, 0, 0) + tensor("t", {1}, 0, 32), std::string(36, 'x')), "\"t\" appears twice"},
        {file(2, 0, tensor("t", {1}, 0, 0) + tensor("u", {1}, 0, 0), std::string(36, 'x')), "expected 32"},
        {"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"},
    };
    for (const broken& c : cases) {
        const status why = verdict(c.bytes);
        CHECK_MESSAGE(!why, c.says);
        CHECK_MESSAGE(why.message.find(c.says) != std::string::npos, c.says, " / ", why.message);
    }
}
