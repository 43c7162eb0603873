// SPDX-License-Identifier: MIT
#include <lowrank/io/containers/detail/safetensors_header.hpp>

#include <string>
#include <string_view>

#include <doctest/doctest.h>

#include "io_support.hpp"

using namespace lowrank;
using lowrank_tests::bytes_of;
using lowrank_tests::safetensors_text;

namespace {

status header_verdict(std::string_view header, std::string_view data = {}) {
    const auto bytes = bytes_of(safetensors_text(header, data));
    const auto read = detail::read_safetensors_header(bytes);
    return read ? status{} : read.error();
}

}  // namespace

TEST_CASE("what the reference implementation accepts is accepted") {
    for (const char* header : {
             "{}",
             "  {}\t\r\n ",
             R"({"__metadata__":{}})",
             R"({"__metadata__":null})",
             R"({"__metadata__":{"format":"pt","a":""}})",
             R"({"x":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}})",
             R"({"x":{"data_offsets":[0,0],"shape":[0,18446744073709551615,18446744073709551615],"dtype":"U8"}})",
             R"({"":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})",
             R"({"\u0000":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})",
             // Unknown fields are skipped whatever they hold.
             R"({"x":{"dtype":"F32","more":{"shape":[[{"a":[1.5e3,-1,null,true,"s"]}]],"dtype":{}},"shape":[0],)"
             R"("data_offsets":[0,0],"z":-0.5}})",
         }) {
        const status why = header_verdict(header);
        CHECK_MESSAGE(why, header, ": ", why.message);
    }
    CHECK(header_verdict(R"({"x":{"dtype":"F32","shape":[],"data_offsets":[0,4]}})", "abcd"));
    CHECK(header_verdict(R"({"x":{"dtype":"F4","shape":[2,2],"data_offsets":[0,2]}})", "ab"));
    CHECK(header_verdict(R"({"x":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[0,3]}})", "abc"));
}

TEST_CASE("tensors come in the order of their data, empty ones before what shares their place") {
    const auto bytes = bytes_of(safetensors_text(
        R"({"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]},"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
        R"("z":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"y":{"dtype":"U8","shape":[0],"data_offsets":[4,4]}})",
        "abcd"));
    const auto header = detail::read_safetensors_header(bytes);
    REQUIRE(header);
    std::string order;
    for (const auto& t : header->tensors) {
        order += t.name;
    }
    CHECK(order == "zaby");
}

TEST_CASE("every broken rule is named") {
    struct broken {
        const char* header;
        const char* data;
        const char* says;
    };
    const broken cases[] = {
        {"", "", "JSON"},
        {"[]", "", "must be a JSON object, not an array"},
        {"null", "", "not null"},
        {"7", "", "not a number"},
        {"{}x", "", "JSON"},
        {"{},", "", "JSON"},
        {"{", "", "JSON"},
        {"{'a':1}", "", "JSON"},
        {"\xEF\xBB\xBF{}", "", "byte order mark"},
        {"{\"a\xFF\":{}}", "", "UTF-8"},
        {"{\"a\nb\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", "", "JSON"},
        {R"({"\ud800":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})", "", "JSON"},
        {R"({"__metadata__":{"a":1}})", "", "metadata value of \"a\" must be a string"},
        {R"({"__metadata__":{"a":{}}})", "", "metadata value of \"a\" must be a string"},
        {R"({"__metadata__":{"a":null}})", "", "metadata value of \"a\" must be a string"},
        {R"({"__metadata__":[]})", "", "__metadata__ must be an object"},
        {R"({"__metadata__":{},"__metadata__":{}})", "", "__metadata__ appears twice"},
        {R"({"__metadata__":{"a":"1","a":"2"}})", "", "key \"a\" appears twice"},
        {R"({"x":[]})", "", "entry of tensor \"x\" must be an object, not an array"},
        {R"({"x":"F32"})", "", "entry of tensor \"x\" must be an object"},
        {R"({"x":{}})", "", "tensor \"x\" has no dtype"},
        {R"({"x":{"dtype":"U8","data_offsets":[0,0]}})", "", "has no shape"},
        {R"({"x":{"dtype":"U8","shape":[0]}})", "", "has no data_offsets"},
        {R"({"x":{"dtype":"u8","shape":[0],"data_offsets":[0,0]}})", "", "unknown dtype \"u8\""},
        {R"({"x":{"dtype":null,"shape":[0],"data_offsets":[0,0]}})", "", "dtype of tensor \"x\" must be a string"},
        {R"({"x":{"dtype":["U8"],"shape":[0],"data_offsets":[0,0]}})", "", "dtype of tensor \"x\" must be a string"},
        {R"({"x":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}})", "", "field \"dtype\" twice"},
        {R"({"x":{"dtype":"U8","shape":[0],"shape":[0],"data_offsets":[0,0]}})", "", "field \"shape\" twice"},
        {R"({"x":{"dtype":"U8","shape":0,"data_offsets":[0,0]}})", "", "shape of tensor \"x\" must be an array"},
        {R"({"x":{"dtype":"U8","shape":{},"data_offsets":[0,0]}})", "", "shape of tensor \"x\" must be an array"},
        {R"({"x":{"dtype":"U8","shape":[[0]],"data_offsets":[0,0]}})", "", "got an array"},
        {R"({"x":{"dtype":"U8","shape":[-1],"data_offsets":[0,0]}})", "", "got a negative number"},
        {R"({"x":{"dtype":"U8","shape":[-0],"data_offsets":[0,0]}})", "", "got a negative number"},
        {R"({"x":{"dtype":"U8","shape":[0.0],"data_offsets":[0,0]}})", "", "not a 64-bit integer"},
        {R"({"x":{"dtype":"U8","shape":[0e0],"data_offsets":[0,0]}})", "", "not a 64-bit integer"},
        {R"({"x":{"dtype":"U8","shape":[00],"data_offsets":[0,0]}})", "", "JSON"},
        {R"({"x":{"dtype":"U8","shape":["0"],"data_offsets":[0,0]}})", "", "got a string"},
        {R"({"x":{"dtype":"U8","shape":[10000000000000000000000000],"data_offsets":[0,0]}})", "", "64-bit"},
        {R"({"x":{"dtype":"U8","shape":[0],"data_offsets":[]}})", "", "two numbers, got 0"},
        {R"({"x":{"dtype":"U8","shape":[0],"data_offsets":[0]}})", "", "two numbers, got 1"},
        {R"({"x":{"dtype":"U8","shape":[0],"data_offsets":[0,0,0]}})", "", "two numbers, got 3"},
        {R"({"x":{"dtype":"U8","shape":[0],"data_offsets":"00"}})", "", "got a string"},
        {R"({"x":{"dtype":"U8","shape":[0],"data_offsets":[0,true]}})", "", "got a boolean"},
        {R"({"x":{"dtype":"U8","shape":[4],"data_offsets":[4,0]}})", "abcd", "data_offsets [4, 0]"},
        {R"({"x":{"dtype":"U8","shape":[4],"data_offsets":[1,5]}})", "abcde", "expected them to start at 0"},
        {R"({"x":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", "abcde", "1 bytes that belong to no tensor"},
        {R"({"x":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", "abc", "cut short"},
        {R"({"x":{"dtype":"F32","shape":[4],"data_offsets":[0,4]}})", "abcd", "need 16"},
        {R"({"x":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}})", "ab", "whole byte"},
        {R"({"x":{"dtype":"U8","shape":[18446744073709551615,18446744073709551615,0],"data_offsets":[0,0]}})", "",
         "overflows"},
        {R"({"x":{"dtype":"F32","shape":[4611686018427387908],"data_offsets":[0,16]}})", "0123456789abcdef",
         "overflows"},
        {R"({"x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})",
         "", "\"x\" appears twice"},
        {R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})",
         "abcdef", "without holes"},
        {R"({"x":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"n":1e999}})", "", "JSON"},
    };
    for (const broken& c : cases) {
        const status why = header_verdict(c.header, c.data);
        CHECK_MESSAGE(!why, c.header);
        CHECK(why.code == errc::invalid_format);
        CHECK_MESSAGE(why.message.find(c.says) != std::string::npos, c.header, ": ", why.message);
    }
    CHECK(header_verdict(std::string("{}\0", 3)).message.find("NUL") != std::string::npos);
    CHECK(header_verdict(std::string("{}\0{", 4)).message.find("NUL") != std::string::npos);
}

TEST_CASE("the length before the header is checked against the file") {
    const auto says = [](const std::string& text) {
        const auto bytes = bytes_of(text);
        const auto read = detail::read_safetensors_header(bytes);
        REQUIRE_FALSE(read);
        return read.error().message;
    };
    CHECK(says("").find("0 bytes") != std::string::npos);
    CHECK(says("1234567").find("7 bytes") != std::string::npos);
    CHECK(says(std::string("\x05\0\0\0\0\0\0\0{}", 10)).find("claims 5") != std::string::npos);
    CHECK(says(std::string("\x01\xe1\xf5\x05\0\0\0\0{}", 10)).find("claims 100000001") != std::string::npos);
    CHECK(says(std::string(8, '\xff') + "{}").find("18446744073709551615") != std::string::npos);
    CHECK(says(std::string("\xf8\xff\xff\xff\xff\xff\xff\xff{}", 10)).find("100000000") != std::string::npos);
    CHECK(says("PK\x03\x04\x14 data.pkl and more").find("is a pickle") != std::string::npos);
    CHECK(says("\x80\x02}q archive and more").find("is a pickle") != std::string::npos);
    CHECK(says("GGUF\x03 and more of it").find("is a GGUF file") != std::string::npos);
    CHECK(says("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n").find("git lfs pull") !=
          std::string::npos);
}

TEST_CASE("deep nesting is refused without recursion") {
    const std::string deep(200000, '[');
    CHECK_FALSE(header_verdict(deep));
    CHECK(header_verdict(R"({"x":{"a":)" + deep).message.find("127 levels") != std::string::npos);
    std::string objects;
    for (int i = 0; i < 20000; ++i) {
        objects += R"({"x":)";
    }
    CHECK_FALSE(header_verdict(objects));
    // 125 levels inside an unknown field are fine: with the tensor and the root 127.
    const std::string fine = R"({"x":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"a":)" + std::string(125, '[') +
                             std::string(125, ']') + "}}";
    CHECK(header_verdict(fine));
    const std::string one_more = R"({"x":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"a":)" + std::string(126, '[') +
                                 std::string(126, ']') + "}}";
    CHECK_FALSE(header_verdict(one_more));
}
