// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/laser/evidence/evaluation.hpp>

#include <atomic>
#include <limits>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

using namespace lowrank;

namespace {

sample_scores by_number(sample_range r) {
    sample_scores s;
    for (lowrank::index i = r.begin; i < r.end; ++i) {
        s.add(i % 3 == 0, 0.25 * static_cast<double>(i));
    }
    return s;
}

}  // namespace

TEST_CASE("a better score has more right, or as many right and a smaller loss") {
    const score base{.samples = 10, .correct = 5, .log_loss = 1.0};
    CHECK(better({.samples = 10, .correct = 6, .log_loss = 9.0}, base));
    CHECK(better({.samples = 10, .correct = 5, .log_loss = 0.9}, base));
    CHECK_FALSE(better(base, base));
    CHECK_FALSE(better({.samples = 10, .correct = 4, .log_loss = 0.1}, base));
    CHECK_THROWS_AS((void)better({.samples = 9}, base), contract_violation);
    CHECK(base.accuracy() == 0.5);
    CHECK(score{}.accuracy() == 0);
}

TEST_CASE("samples arrive in order, each once, whatever the cut and the executor") {
    const executor two_threads = [](lowrank::index n, const task& body) {
        std::atomic<lowrank::index> next{0};
        const auto work = [&] {
            for (lowrank::index i = next++; i < n; i = next++) {
                body(i);
            }
        };
        std::thread other(work);
        work();
        other.join();
    };
    const auto want = by_number({7, 107});
    for (const lowrank::index cut : {1, 3, 64, 100, 1000}) {
        for (const auto& exec : {executor{}, two_threads}) {
            const auto got = evaluate_samples(by_number, {7, 107}, {.samples_per_call = cut, .exec = exec});
            REQUIRE(got);
            CHECK(got->correct == want.correct);
            CHECK(got->log_loss == want.log_loss);
        }
    }
    CHECK(evaluate_samples(by_number, {5, 5}).value().size() == 0);

    const auto s = summarize(want);
    CHECK(s.samples == 100);
    CHECK(s.correct == 33);  // 9, 12, .., 105
    CHECK(s.log_loss == doctest::Approx(0.25 * (7 + 106) / 2));
}

TEST_CASE("what an evaluator gets wrong is said") {
    const auto refuses = [](sample_range r) -> result<sample_scores> {
        if (r.begin >= 128) {
            return status{errc::io_failure, "sample file went away"};
        }
        return by_number(r);
    };
    CHECK(evaluate_samples(refuses, {0, 128}));
    CHECK(evaluate_samples(refuses, {0, 129}).error().message == "sample file went away");

    for (const double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
        const auto not_finite = [bad](sample_range r) {
            auto s = by_number(r);
            if (r.begin <= 70 && 70 < r.end) {
                s.log_loss[static_cast<std::size_t>(70 - r.begin)] = bad;
            }
            return s;
        };
        const auto got = evaluate_samples(not_finite, {0, 100});
        REQUIRE_FALSE(got);
        CHECK(got.error().code == errc::non_finite);
        CHECK(got.error().message.find("sample 70") != std::string::npos);
    }
    CHECK_THROWS_AS((void)evaluate_samples([](sample_range) { return sample_scores{}; }, {0, 3}), contract_violation);
    CHECK_THROWS_AS((void)evaluate_samples(evaluator{}, {0, 3}), contract_violation);
    CHECK_THROWS_AS((void)evaluate_samples(by_number, {3, 0}), contract_violation);
    CHECK_THROWS_AS((void)evaluate_samples(by_number, {0, 3}, {.samples_per_call = 0}), contract_violation);
}
