// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/detail/pattern.hpp>

#include <regex>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <lowrank/core/philox.hpp>

using namespace lowrank;
using detail::pattern;

TEST_CASE("patterns match whole texts as std::regex does") {
    const std::vector<std::string> patterns = {
        "",
        "a",
        "abc",
        "a*",
        "a+b",
        "a?b?",
        "a|b",
        "ab|cd|",
        "(ab)*",
        "(a|b)*c",
        "(?:a|bc)+",
        "a{3}",
        "a{2,3}b",
        "a{2,}",
        "(ab){1,2}c",
        "[abc]+",
        "[^a]b",
        "[a-c]{2}",
        "a.c",
        ".*b.*",
        "a\\.b",
        "\\d+",
        "\\w*\\d",
        "a\\s?b",
        "^ab$",
        "(^a|b)c",
        "((a*)*)*b",
        "(a|)(b|)c",
        "[]a]+",
        "[a\\-c]+",
        "a{0}b",
        "(a{0,2}){2}",
        "a*?b",
        "a??",
        "x{,2}",
        "\\W+",
        "(a|b|c)(a|b|c)",
        "(.*c)?(ab)",
        "()",
        "(a)(b)(c)",
    };
    const std::vector<std::string> texts = {"",      "a",      "b",    "c",     "ab",   "abc", "aaa", "aab",
                                            "ba",    "abab",   "ac",   "bc",    "abc1", "a.b", "a b", "cd",
                                            "aaaab", "ababab", "-a-c", "]a]",   "12",   "x_9", "\n",  "aa",
                                            "bcabc", "cab",    "xcab", "ababc", "..",   "xx"};
    for (const std::string& p : patterns) {
        const auto ours = pattern::compile(p);
        REQUIRE_MESSAGE(ours, p);
        if (p == "x{,2}" || p == "[]a]+") {
            continue;  // Python reads these otherwise than ECMAScript; below
        }
        const std::regex theirs(p);
        for (const std::string& t : texts) {
            CHECK_MESSAGE(ours->matches(t) == std::regex_match(t, theirs), p, " on ", t);
        }
    }
    CHECK(pattern::compile("x{,2}")->matches("xx"));
    CHECK_FALSE(pattern::compile("x{,2}")->matches("xxx"));
    CHECK(pattern::compile("[]a]+")->matches("]a]"));
    CHECK(pattern::compile("a{b}")->matches("a{b}"));
    CHECK(pattern::compile("\xC3\xA9.")->matches("\xC3\xA9x"));
}

TEST_CASE("random patterns agree with std::regex on random texts") {
    const philox random(7, 1);
    std::uint64_t at = 0;
    const auto draw = [&](unsigned n) { return static_cast<unsigned>(random.below(n, at++)); };
    for (int round = 0; round < 400; ++round) {
        std::string p;
        int open = 0;
        for (unsigned i = 0, n = 1 + draw(10); i < n; ++i) {
            switch (draw(8)) {
                case 0:
                    p += '(';
                    ++open;
                    p += 'a';
                    break;
                case 1:
                    if (open > 0) {
                        p += ')';
                        --open;
                    }
                    break;
                case 2: p += '|'; break;
                case 3:
                    if (!p.empty() && (p.back() == 'a' || p.back() == 'b' || p.back() == ')')) {
                        p += "*+?"[draw(3)];
                    }
                    break;
                case 4: p += "[ab]"; break;
                case 5: p += '.'; break;
                default: p += "ab"[draw(2)];
            }
        }
        p.append(static_cast<std::size_t>(open), ')');
        const auto ours = pattern::compile(p);
        REQUIRE_MESSAGE(ours, p);
        const std::regex theirs(p);
        for (int k = 0; k < 20; ++k) {
            std::string t;
            for (unsigned i = 0, n = draw(7); i < n; ++i) {
                t += "abc"[draw(3)];
            }
            CHECK_MESSAGE(ours->matches(t) == std::regex_match(t, theirs), p, " on ", t);
        }
    }
}

TEST_CASE("what is broken or not supported is refused with a sentence") {
    for (const char* broken : {"(", ")", "a)", "(a", "*", "a**", "a{2}{3}", "+a", "(|*)", "[a", "[]", "a\\", "[b-a]",
                               "a{3,2}", "^*", "[\\d-z]"}) {
        const auto p = pattern::compile(broken);
        REQUIRE_MESSAGE(!p, broken);
        CHECK_MESSAGE(p.error().code == errc::invalid_format, broken, p.error().message);
        CHECK(p.error().message.starts_with("the pattern \""));
    }
    for (const char* refused : {"(a)\\1", "(?=a)", "(?!a)b", "(?<=a)", "(?P<n>a)", "(?i)a", "a\\b", "\\p", "a*+",
                                "[\xC3\xA9]", "\xC3\xA9*", "(((((a{99}){99}){99}){99}){99}){99}"}) {
        const auto p = pattern::compile(refused);
        REQUIRE_MESSAGE(!p, refused);
        CHECK_MESSAGE(p.error().code == errc::unsupported, refused, p.error().message);
    }
    CHECK_FALSE(pattern::compile(std::string(100000, 'a')));
    CHECK_FALSE(pattern::compile(std::string(100000, '(')));
}

TEST_CASE("patterns that explode a backtracking matcher stay linear") {
    const std::string text = std::string(20000, 'a') + "!";
    for (const char* evil : {"(a+)+", "(a*)*b", "(a|a)*", "(a|aa)+b", "(.*)*x", "([a-z]+)*x", "a*a*a*a*a*a*a*a*b"}) {
        CHECK_FALSE(pattern::compile(evil)->matches(text));
    }
}
