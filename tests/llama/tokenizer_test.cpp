// SPDX-License-Identifier: MIT
// The tokenizer on a small vocabulary made here: merges by score, ties from the left, bytes, broken files.

#include <llama/tokenizer.hpp>

#include <cstddef>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include <lowrank/core/check.hpp>
#include <lowrank/core/philox.hpp>

namespace {

using pieces = std::vector<std::pair<std::string, float>>;

std::vector<std::byte> file_of(const pieces& list) {
    std::vector<std::byte> out;
    const auto put = [&](const void* data, std::size_t n) {
        const auto* bytes = static_cast<const std::byte*>(data);
        out.insert(out.end(), bytes, bytes + n);
    };
    const std::int32_t longest = 16;
    put(&longest, 4);
    for (const auto& [text, score] : list) {
        const auto length = static_cast<std::int32_t>(text.size());
        put(&score, 4);
        put(&length, 4);
        put(text.data(), text.size());
    }
    return out;
}

pieces vocabulary(const pieces& more) {
    pieces list{{"<unk>", 0.F}, {"\n<s>\n", 0.F}, {"\n</s>\n", 0.F}};
    for (int b = 0; b < 256; ++b) {
        char text[8];
        std::snprintf(text, sizeof text, "<0x%02X>", static_cast<unsigned>(b));
        list.emplace_back(text, 0.F);
    }
    list.insert(list.end(), more.begin(), more.end());
    return list;
}

/// The merging of llama2.c's run.c as it is written there: the best pair, again and again.
std::vector<int> encode_slowly(const llama::tokenizer& t, const std::string& text) {
    const auto find = [&](const std::string& piece) {
        for (std::size_t i = 0; i < t.pieces().size(); ++i) {
            if (t.pieces()[i].text == piece) {
                return static_cast<int>(i);
            }
        }
        return -1;
    };
    std::vector<int> ids;
    for (const char c : " " + text) {
        ids.push_back(find(std::string(1, c)));
    }
    while (true) {
        float best_score = -1e10F;
        int best = -1;
        std::size_t at = 0;
        for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
            const int id = find(t.pieces()[static_cast<std::size_t>(ids[i])].text +
                                t.pieces()[static_cast<std::size_t>(ids[i + 1])].text);
            if (id >= 0 && t.pieces()[static_cast<std::size_t>(id)].score > best_score) {
                best_score = t.pieces()[static_cast<std::size_t>(id)].score;
                best = id;
                at = i;
            }
        }
        if (best < 0) {
            return ids;
        }
        ids[at] = best;
        ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(at) + 1);
    }
}

}  // namespace

TEST_CASE("merging gives what the quadratic algorithm gives") {
    pieces more{{" ", -1.F}, {"a", -1.F}, {"b", -1.F}, {"c", -1.F}};
    // Every string of two or three letters may be a piece; scores have ties on purpose.
    const lowrank::philox rng(3);
    std::uint64_t at = 0;
    const std::string letters = " abc";
    for (const char x : letters) {
        for (const char y : letters) {
            more.emplace_back(std::string{x, y}, -static_cast<float>(rng.below(4, at++)));
            for (const char z : letters) {
                if (rng.below(3, at++) == 0) {
                    more.emplace_back(std::string{x, y, z}, -static_cast<float>(rng.below(4, at++)));
                }
            }
        }
    }
    const auto bytes = file_of(vocabulary(more));
    const auto t = llama::tokenizer::parse(bytes);
    REQUIRE(t.has_value());
    for (std::uint64_t n = 1; n < 120; ++n) {
        std::string text;
        for (std::uint64_t i = 0; i < n; ++i) {
            text += letters[rng.below(4, at++)];
        }
        CHECK(t->encode(text) == encode_slowly(*t, text));
        CHECK(t->decode(t->encode(text, {.bos = true, .eos = true})) == text);
    }
}

TEST_CASE("unknown characters become their bytes and come back") {
    const auto bytes = file_of(vocabulary({{" ", 0.F}, {"h", 0.F}, {"é", 0.F}}));
    const auto t = *llama::tokenizer::parse(bytes);
    const int space = 259, h = 260, e_acute = 261;
    CHECK(t.encode("") == std::vector<int>{});
    CHECK(t.encode("", {.bos = true, .eos = true}) == std::vector<int>{1, 2});
    CHECK(t.encode("hé") == std::vector<int>{space, h, e_acute});
    CHECK(t.encode("\xE2\x82\xAC") == std::vector<int>{space, 3 + 0xE2, 3 + 0x82, 3 + 0xAC});  // the euro sign
    for (const std::string& text :
         std::vector<std::string>{"h\xC3", "\xFF\xFE", "\x80\x80\x80\x80\x80\x80", "€h\n\t", std::string(1, '\0')}) {
        CHECK(t.decode(t.encode(text, {.bos = true})) == text);
    }
    CHECK(t.decode(std::vector<int>{h, space, h}) == "h h");
    CHECK_THROWS_AS((void)t.decode(0, 262), lowrank::contract_violation);
}

TEST_CASE("a broken file is refused, wherever it is cut") {
    const auto bytes = file_of(vocabulary({{" ", 0.F}}));
    REQUIRE(llama::tokenizer::parse(bytes).has_value());
    llama::index whole = 0;
    for (std::size_t n = 0; n < bytes.size(); ++n) {
        const auto cut = llama::tokenizer::parse(std::span(bytes).first(n));
        whole += cut.has_value() ? 1 : 0;
        if (!cut) {
            CHECK(cut.error().code == lowrank::errc::invalid_format);
        }
    }
    CHECK(whole == 1);  // without the last piece it is a smaller tokenizer
    const auto with = [&](std::size_t at, std::int32_t value) {
        auto broken = bytes;
        std::memcpy(broken.data() + at, &value, 4);
        return llama::tokenizer::parse(broken).has_value();
    };
    CHECK(!with(0, 0));
    CHECK(!with(0, -5));
    CHECK(!with(8, -1));
    CHECK(!with(8, 0x7fffffff));
    CHECK(!with(4, 0x7fc00000));  // a score that is not a number
    CHECK(llama::read_tokenizer("no such file").error().code == lowrank::errc::not_found);
}
