// SPDX-License-Identifier: MIT
// Runs every golden case of a folder in float and in double.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <sstream>

#include <doctest/doctest.h>

#include <lowrank/io/peft.hpp>

#include "golden_case.hpp"
#include "support/shared.hpp"
#include "unsupported.hpp"

namespace {

using namespace lowrank_tests;

/// Every reason why a run does not reproduce the case; empty if it does.
template <class S>
std::vector<std::string> disagreements(const golden_case& c, void (*run)(const golden_case&, computed<S>&)) {
    const char* precision = sizeof(S) == 4 ? "f32" : "f64";
    std::vector<std::string> why;
    const auto say = [&](const auto&... parts) {
        std::ostringstream text;
        text << precision << ": ";
        (text << ... << parts);
        why.push_back(text.str());
    };
    computed<S> out;
    try {
        run(c, out);
    } catch (const std::exception& e) {
        say(e.what());
    }
    for (const auto& failure : out.failures()) {
        say(failure);
    }
    for (const auto& check : c.info.at("checks")) {
        if (check.at("tensor").is_null()) {
            if (const std::string kind = check.at("kind"); !out.has_checked(kind)) {
                say("the check of kind ", kind, " was not made");
            }
            continue;
        }
        const std::string name = check.at("tensor");
        const auto want = c.expected.find(name);
        if (want == c.expected.end()) {
            say(name, " is not in expected.safetensors");
            continue;
        }
        const auto got = out.values().find(name);
        if (got == out.values().end()) {
            say(name, " was not computed");
            continue;
        }
        if (got->second.size() != want->second.values.size()) {
            say(name, " has ", got->second.size(), " elements, expected ", want->second.values.size());
            continue;
        }
        const char* key = sizeof(S) == 4 ? "atol_f32" : "atol_f64";
        double tolerance = 0;
        if (check.contains(key)) {
            tolerance = check[key];
        } else if (!check.value("exact", false)) {
            say(name, " has neither ", key, " nor exact");
            continue;
        }
        double worst = 0;
        for (std::size_t i = 0; i < got->second.size(); ++i) {
            const double error = std::abs(got->second[i] - want->second.values[i]);
            worst = error <= worst ? worst : error;  // NaN stays
        }
        if (!(worst <= tolerance)) {
            say(name, " is off by ", worst, ", allowed ", tolerance);
        }
    }
    return why;
}

std::vector<std::string> disagreements(const golden_case& c) {
    if (c.info.at("checks").empty()) {
        return {"no checks"};
    }
    const auto family = families().find(c.info.at("family"));
    if (family == families().end()) {
        return {"no computation for family " + c.info.at("family").get<std::string>()};
    }
    auto why = disagreements<float>(c, family->second.run_f32);
    for (auto& reason : disagreements<double>(c, family->second.run_f64)) {
        why.push_back(std::move(reason));
    }
    return why;
}

}  // namespace

TEST_CASE("golden cases agree with the established implementations") {
    if (golden_folders().empty()) {
        MESSAGE("LOWRANK_SHARED is not set: skipped");
        return;
    }
    const auto folders = golden_cases();
    CHECK_FALSE(folders.empty());
    int passed = 0;
    int failed = 0;
    int unsupported = 0;
    for (const auto& path : folders) {
        const auto c = read_case(path);
        const std::string name = c.info.at("family");
        if (std::find(unsupported_families.begin(), unsupported_families.end(), name) != unsupported_families.end()) {
            std::printf("not supported      %s\n", c.id.c_str());
            ++unsupported;
            CHECK_MESSAGE(!families().contains(name), name, " is computed: take it off the list in unsupported.hpp");
            for (const auto& a : c.info.at("adapters")) {
                const auto read = lowrank::read_peft(path / a.at("path").get<std::string>());
                CHECK_MESSAGE(!read, c.id,
                              " is read: add its family here, and take it off the list in unsupported.hpp");
            }
            continue;
        }
        const auto why = disagreements(c);
        std::printf("%s             %s\n", why.empty() ? "passed" : "failed", c.id.c_str());
        ++(why.empty() ? passed : failed);
        for (const auto& reason : why) {
            FAIL_CHECK(c.id << ": " << reason);
        }
    }
    std::printf("%d passed, %d failed, %d not supported\n", passed, failed, unsupported);
}
