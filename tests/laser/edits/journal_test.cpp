// SPDX-License-Identifier: MIT
#include <lowrank/laser/edits/journal.hpp>

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include <doctest/doctest.h>

#include <lowrank/core/check.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/laser/search/greedy_search.hpp>
#include <lowrank/laser/search/search.hpp>

#include "laser/planted_model.hpp"

using namespace lowrank;

namespace {

search_journal::sink append_to(std::string& text) {
    return [&text](std::string_view line) {
        text += line;
        return status{};
    };
}

bool same_score(const score& a, const score& b) {
    return a.samples == b.samples && a.correct == b.correct && a.log_loss == b.log_loss;
}

}  // namespace

TEST_CASE("scores come back bit for bit, whatever they are") {
    std::string text;
    search_journal log(append_to(text), "questions of seed 7");
    REQUIRE(log.begin(0x0123456789abcdefU));
    CHECK(text == "lowrank-journal 1 0123456789abcdef questions of seed 7\n");
    sample_scores odd;
    for (const double x :
         {0.0, -0.0, 1.0 / 3, 1e-310, std::numeric_limits<double>::max(), std::numeric_limits<double>::infinity()}) {
        odd.add(x > 0.5, x);
    }
    REQUIRE(log.add({10, 16}, "keep 0-2 of 64 in a weight\tkeep none of 3 in b", odd));
    REQUIRE(log.add({0, 0}, "", {}));

    auto back = search_journal::read(text, {}, "questions of seed 7").value();
    CHECK(back.size() == 2);
    CHECK(back.accepted_bytes() == text.size());
    REQUIRE(back.begin(0x0123456789abcdefU));
    const auto* found = back.find({10, 16}, "keep 0-2 of 64 in a weight\tkeep none of 3 in b");
    REQUIRE(found != nullptr);
    CHECK(found->correct == odd.correct);
    for (std::size_t i = 0; i < odd.log_loss.size(); ++i) {
        CHECK(std::bit_cast<std::uint64_t>(found->log_loss[i]) == std::bit_cast<std::uint64_t>(odd.log_loss[i]));
    }
    CHECK(back.find({0, 0}, "") != nullptr);
    CHECK(back.find({10, 16}, "") == nullptr);
    const std::string old = "lowrank-journal 1 0000000000000001 a\nscored 0 1 1 3ff0000000000000 keep 0 of 3 in a\t\n";
    CHECK(search_journal::read(old, {}, "a").value().find({0, 1}, "keep 0 of 3 in a") != nullptr);  // as 0.1 wrote it
    CHECK(back.find({10, 15}, "keep 0-2 of 64 in a weight\tkeep none of 3 in b") == nullptr);
}

TEST_CASE("a journal of something else is refused") {
    std::string text;
    search_journal log(append_to(text), "a");
    REQUIRE(log.begin(1));
    CHECK(search_journal::read(text, {}, "a").value().begin(2).code == errc::mismatch);
    CHECK(search_journal::read(text, {}, "b").value().begin(1).code == errc::mismatch);
    CHECK(search_journal::read(text, {}, "a").value().begin(1));
    CHECK(search_journal::read("", {}, "a").value().begin(5));
    CHECK_THROWS_AS(search_journal({}, "two\nlines"), contract_violation);
    CHECK_THROWS_AS((void)log.add({0, 2}, "", {}), contract_violation);
}

TEST_CASE("every broken line is refused, a torn last line is forgotten") {
    const std::string head = "lowrank-journal 1 00000000000000ff \n";
    const std::string good = "scored 0 1 1 3ff0000000000000 \n";
    CHECK(search_journal::read(head + good).value().size() == 1);
    for (const char* bad :
         {"scored 0 1 1 3ff0000000000000\n", "scored 0 2 1 3ff0000000000000 \n", "scored 0 1 2 3ff0000000000000 \n",
          "scored 1 0  \n", "scored -1 0 1 3ff0000000000000 \n", "scored 0 1 1 3ff000000000000g \n",
          "scored 0 1 1 3ff000000000000 \n", "scored 0 99999999999999999999 1 3ff0000000000000 \n", "\n", "rubbish\n",
          "scored x 1 1 3ff0000000000000 \n", "scored 0 9000000000000000000 1 3ff0000000000000 \n"}) {
        CAPTURE(bad);
        CHECK(search_journal::read(head + good + bad).error().message.find("line 3") != std::string::npos);
    }
    CHECK_FALSE(search_journal::read(good));
    CHECK_FALSE(search_journal::read("lowrank-journal 2 00000000000000ff \n"));
    const std::string whole = head + good + good;
    for (std::size_t cut = 0; cut < whole.size(); ++cut) {
        const auto part = search_journal::read(std::string_view(whole).substr(0, cut));
        REQUIRE(part);
        CHECK(part->accepted_bytes() <= cut);
        CHECK((part->accepted_bytes() == 0 || whole[part->accepted_bytes() - 1] == '\n'));
    }
}

TEST_CASE("a search killed at any point resumes to the same result, and asks for nothing twice") {
    const std::vector<double> grid = {0.6, 0.25, 0.1};
    for (const bool greedy : {false, true}) {
        CAPTURE(greedy);
        lowrank_tests::planted_model<float> model(11, 120);
        search_options options{.validation = {0, 60}, .held_out = {60, 120}, .fractions = grid};
        struct summary {
            score best, after;
            std::string edits;
            lowrank::index evaluated = 0;
            status why;
        };
        const auto run = [&]() -> summary {
            if (greedy) {
                const auto r =
                    greedy_search<float>({.weights = model.weights(), .evaluate = model.evaluate()}, options);
                std::string edits;
                for (const auto& e : r.edits()) {
                    edits += to_text(e) + "\n";
                }
                return {r.best, r.held_out_after, edits, r.evaluated_samples, r.why};
            }
            const auto r =
                exhaustive_search<float>({.weights = model.weights(), .evaluate = model.evaluate()}, options);
            return {r.best, r.held_out_after, r.winner ? to_text(r.edits().front()) : "", r.evaluated_samples, r.why};
        };
        const auto whole = run();
        REQUIRE(whole.why);
        REQUIRE_FALSE(whole.edits.empty());

        for (std::uint64_t trial = 0; trial < 12; ++trial) {
            // Stop after some evaluations, then lose some of the last bytes as a crash would.
            std::string text;
            search_journal first(append_to(text));
            lowrank::index allowed = static_cast<lowrank::index>(philox(3).below(10, trial));
            options.log = &first;
            options.on_progress = [&](const progress&) { return allowed-- > 0; };
            const auto stopped = run();
            options.on_progress = {};
            text.erase(text.size() - std::min<std::size_t>(text.size(), philox(4).below(40, trial)));

            auto resumed = search_journal::read(text).value();
            text.resize(resumed.accepted_bytes());
            const auto known = resumed.size();
            options.log = &resumed;
            const auto rest = run();
            options.log = nullptr;
            REQUIRE(rest.why);
            CHECK(same_score(rest.best, whole.best));
            CHECK(same_score(rest.after, whole.after));
            CHECK(rest.edits == whole.edits);
            CHECK(rest.evaluated == whole.evaluated - 60 * static_cast<lowrank::index>(known));
            CHECK(rest.evaluated + stopped.evaluated >= whole.evaluated);
        }
    }
}

TEST_CASE("a journal that cannot be kept ends the search with the reason") {
    lowrank_tests::planted_model<float> model(12, 20);
    const lowrank_tests::untouched<float> before{model};
    int lines = 0;
    search_journal log([&](std::string_view) {
        return ++lines < 4 ? status{} : status{errc::io_failure, "disk full: free some space"};
    });
    const auto r = exhaustive_search<float>({.weights = model.weights(), .evaluate = model.evaluate()},
                                            {.validation = {0, 20}, .fractions = {0.6, 0.25, 0.1}, .log = &log});
    CHECK(r.why.message == "disk full: free some space");
    CHECK(r.candidates.size() == 1);
    CHECK(before.now());
}
