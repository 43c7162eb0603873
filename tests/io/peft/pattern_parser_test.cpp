// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/detail/pattern_parser.hpp>

#include <string>
#include <string_view>

#include <doctest/doctest.h>

using namespace lowrank;
using detail::pattern_parser;

namespace {

/// Postfix as text: a set as its least character, anchors ^ $, empty e, join &, alternative |, repetitions * ?.
std::string postfix(std::string_view text) {
    pattern_parser parser(text);
    if (!parser.run()) {
        return "refused";
    }
    std::string out;
    for (const auto& item : parser.postfix) {
        if (item.what == detail::pattern_item::kind::set) {
            std::size_t c = 0;
            while (!parser.sets[item.set][c]) {
                ++c;
            }
            out += static_cast<char>(c);
        } else {
            out += " ^$e&|*?("[static_cast<std::size_t>(item.what)];
        }
    }
    return out;
}

}  // namespace

TEST_CASE("joining binds stronger than alternatives, repetition strongest") {
    CHECK(postfix("abc") == "ab&c&");
    CHECK(postfix("a|bc|d") == "abc&|d|");
    CHECK(postfix("ab*") == "ab*&");
    CHECK(postfix("(ab)*c") == "ab&*c&");
    CHECK(postfix("a(b|c)") == "abc|&");
    CHECK(postfix("") == "e");
    CHECK(postfix("a|") == "ae|");
    CHECK(postfix("^a$") == "^a&$&");
}

TEST_CASE("counts are expanded") {
    CHECK(postfix("a{3}") == "aa&a&");
    CHECK(postfix("a{1,3}") == "aa?&a?&");
    CHECK(postfix("a{2,}") == "aa&a*&");
    CHECK(postfix("a+") == "aa*&");
    CHECK(postfix("a{0}") == "e");
    CHECK(postfix("x(ab){2}") == "xab&ab&&&");
}
