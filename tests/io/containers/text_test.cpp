// SPDX-License-Identifier: MIT
#include <lowrank/io/containers/detail/text.hpp>

#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

using namespace lowrank;
using namespace lowrank::detail;

TEST_CASE("names from files are safe to print and bounded") {
    CHECK(in_quotes("a.b") == "\"a.b\"");
    CHECK(in_quotes(std::string_view("a\0\n\"\\", 5)) == "\"a\\x00\\x0a\\\"\\\\\"");
    CHECK(in_quotes(std::string(100000, 'x')).size() == 96 + 5);
}

TEST_CASE("UTF-8 is recognised as RFC 3629 defines it") {
    for (const char* good : {"", "plain", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80",
                             "\xEF\xBF\xBF", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"}) {
        CHECK(is_utf8(good));
    }
    // A continuation byte alone, overlong forms, surrogates, beyond U+10FFFF, cut short, a wrong continuation.
    for (const char* bad : {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xF0\x8F\xBF\xBF", "\xED\xA0\x80",
                            "\xED\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "\xC2", "\xE1\x80",
                            "\xF1\x80\x80", "\xC2\x41", "\xE1\x80\x41", "a\xFE"}) {
        CHECK_FALSE(is_utf8(bad));
    }
    CHECK(is_utf8(std::string_view("\0", 1)));
}

TEST_CASE("JSON strings are escaped as serde_json does and read back the same") {
    std::string all;
    for (int c = 0; c < 0x80; ++c) {
        all += static_cast<char>(c);
    }
    all += "\xC3\xA9\xF0\x9F\x98\x80";
    std::string text;
    append_json_string(text, all);
    CHECK(nlohmann::json::parse(text).get<std::string>() == all);
    CHECK(text.substr(0, 7) == "\"\\u0000");
    CHECK(text.find("\\b\\t\\n\\u000b\\f\\r\\u000e") != std::string::npos);
    CHECK(text.find("\\u001f !\\\"#") != std::string::npos);
    CHECK(text.find("/0123") != std::string::npos);
    CHECK(text.find("~\x7f\xC3\xA9\xF0\x9F\x98\x80") != std::string::npos);
}

TEST_CASE("checked arithmetic finds every overflow") {
    std::uint64_t x = 7;
    CHECK(checked_multiply(1ULL << 32, (1ULL << 32) - 1, x));
    CHECK(x == 0xffffffff00000000ULL);
    CHECK_FALSE(checked_multiply(1ULL << 32, 1ULL << 32, x));
    CHECK(checked_multiply(UINT64_MAX, 1, x));
    CHECK(checked_multiply(UINT64_MAX, 0, x));
    CHECK(x == 0);
    CHECK(checked_multiply(0, UINT64_MAX, x));
    CHECK(checked_add(UINT64_MAX, 0, x));
    CHECK(x == UINT64_MAX);
    CHECK_FALSE(checked_add(UINT64_MAX, 1, x));
}

TEST_CASE("what the system refuses is one sentence with advice") {
    const status missing = system_failure("cannot open", "a/b", ENOENT);
    CHECK(missing.code == errc::not_found);
    CHECK(missing.message == "cannot open \"a/b\": no such file or folder");
    for (const int error : {EACCES, ENOSPC, EROFS, EFBIG, EISDIR, EIO}) {
        const status why = system_failure("cannot write", "out", error);
        CHECK(why.code == errc::io_failure);
        CHECK(why.message.starts_with("cannot write \"out\": "));
        CHECK(why.message.size() > 24);
    }
    CHECK(in_file("f.bin", {errc::mismatch, "wrong"}).message == "f.bin: wrong");
}

TEST_CASE("the nearest name is the one of the fewest changed letters, dots and underscores being one") {
    const std::vector<std::string> known = {"model.layers.0.q_proj", "model.layers.0.k_proj", "lm_head"};
    CHECK(nearest_name("model_layers_0_k_proj", known) == "model.layers.0.k_proj");
    CHECK(nearest_name("model.layers.0.v_proj", known) == "model.layers.0.q_proj");
    CHECK(nearest_name("lm_haed", known) == "lm_head");
    CHECK(nearest_name("zzz", known).empty());
    CHECK(nearest_in_words("zzz", known) == "; there are names like \"model.layers.0.q_proj\"");
    CHECK(nearest_in_words("lm_heads", known) == "; the nearest name there is \"lm_head\"");
    CHECK(nearest_in_words("x", std::vector<std::string>()) == "; there is none at all");
}
