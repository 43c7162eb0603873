// SPDX-License-Identifier: MIT
// Training: it learns, it is reproducible, and a failure leaves the model as it was.

#include <llama/train.hpp>

#include <cmath>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include "tiny_models.hpp"

namespace {

/// A stream with a rule to learn: after token t comes (5 t + 3) mod 19, mostly.
std::vector<int> rule_stream(std::size_t n) {
    const lowrank::philox rng(8);
    std::vector<int> stream{4};
    while (stream.size() < n) {
        const bool noise = rng.below(10, stream.size()) == 0;
        stream.push_back(noise ? static_cast<int>(rng.below(19, 100000 + stream.size()))
                               : (5 * stream.back() + 3) % 19);
    }
    return stream;
}

double nll(const llama::model<float>& m, std::span<const int> stream) {
    return llama::evaluate(m, llama::windows(stream, 32, 1))->mean_nll();
}

template <class S>
bool same_weights(const llama::model<S>& a, const llama::model<S>& b) {
    bool same = true;
    for (const auto& name : llama::weight_names(a)) {
        same = same && *llama::find_weight(a, name) == *llama::find_weight(b, name);
    }
    return same;
}

llama::index adapters_on(const llama::model<float>& m) {
    llama::index n = 0;
    llama::for_each_projection(
        m, [&](const llama::projection<float>& p) { n += static_cast<llama::index>(p.adapters.size()); });
    return n;
}

}  // namespace

TEST_CASE("a model trained from scratch learns a rule, and an adapter then learns another") {
    const auto stream = rule_stream(4000);
    const auto held_out = std::span(stream).last(600);
    auto m = llama::random_model<float>(tiny::shape({.hidden = 16}), 1);
    const double before = nll(m, held_out);
    const auto next = llama::random_windows(std::span(stream).first(3400), 32, 8, 1, 0);
    llama::index calls = 0;
    const auto report = llama::train_weights(
        m, next,
        {.steps = 150, .learning_rate = 1e-2, .group_tokens = 100, .on_progress = [&](const lowrank::progress& p) {
             ++calls;
             return p.done == calls && p.total == 150 && !p.what.empty();
         }});
    REQUIRE_MESSAGE(report.has_value(), report.error().message);
    CHECK(calls == 150);
    CHECK(report->loss.size() == 150);
    CHECK(report->tokens == 150 * 8 * 32);
    const double after = nll(m, held_out);
    CHECK(before > 2.5);
    CHECK(after < 1.0);  // the rule and its noise leave about 0.6

    // The same tokens backwards: another rule.
    std::vector<int> reversed(stream.rbegin(), stream.rend());
    const auto frozen = m;
    const double shifted = nll(m, std::span(reversed).last(600));
    const auto tuned =
        llama::finetune(m, std::span<const int>(reversed).first(3400),
                        {.lora = {.r = 4, .lora_alpha = 8}, .window = 32, .sequences = 8, .training = {.steps = 100}});
    REQUIRE_MESSAGE(tuned.has_value(), tuned.error().message);
    CHECK(tuned->adapters.size() == 14);
    CHECK(adapters_on(m) == 14);
    CHECK(same_weights(m, frozen));
    CHECK(nll(m, std::span(reversed).last(600)) < shifted - 1.0);
    for (const auto& [name, adapter] : tuned->adapters) {
        const auto* p = llama::find_projection(m, name);
        CHECK(adapter.lora_B == p->adapters.front().adapter->get<lowrank::lora_adapter<float>>()->lora_B);
        CHECK(adapter.rank() == 4);
    }
}

TEST_CASE("training is a function of data, options and seed, not of the executor") {
    const auto stream = rule_stream(500);
    const auto run = [&](std::uint64_t seed, const lowrank::executor& on) {
        auto m = llama::random_model<float>(tiny::shape(), 1);
        auto out = llama::finetune(m, std::span<const int>(stream),
                                   {.lora = {.r = 2, .lora_dropout = 0.2},
                                    .target_modules = {"q_proj", "model.layers.1.mlp.up_proj"},
                                    .window = 20,
                                    .sequences = 5,
                                    .training = {.steps = 6, .group_tokens = 40, .seed = seed, .run = on}});
        REQUIRE(out.has_value());
        return out->adapters;
    };
    const lowrank::executor backwards = [](llama::index n, const lowrank::task& body) {
        std::thread other([&] {
            for (llama::index i = n - 1; i >= 0; --i) {
                body(i);
            }
        });
        other.join();
    };
    const auto one = run(1, {});
    const auto same = run(1, backwards);
    const auto two = run(2, {});
    REQUIRE(one.size() == 3);
    for (const auto& [name, adapter] : one) {
        CHECK(adapter.lora_A == same.at(name).lora_A);
        CHECK(adapter.lora_B == same.at(name).lora_B);
        CHECK(adapter.lora_A != two.at(name).lora_A);
        CHECK(adapter.lora_B.cwiseAbs().maxCoeff() > 0);
    }
}

TEST_CASE("a step's gradient does not depend on how its batch is grouped") {
    const auto stream = rule_stream(300);
    const auto run = [&](llama::index group_tokens) {
        auto m = llama::random_model<double>(tiny::shape(), 1);
        const auto out = llama::train_weights(
            m, llama::random_windows(stream, 20, 5, 1, 0),
            {.steps = 3, .learning_rate = 1e-3, .weight_decay = 0.1, .group_tokens = group_tokens});
        REQUIRE(out.has_value());
        return m;
    };
    const auto whole = run(1000);
    const auto parts = run(20);
    for (const auto& name : llama::weight_names(whole)) {
        CAPTURE(name);
        CHECK((*llama::find_weight(whole, name) - *llama::find_weight(parts, name)).cwiseAbs().maxCoeff() < 1e-7);
    }
}

TEST_CASE("the learning rate rises and falls as described") {
    const llama::training_options o{.steps = 101, .learning_rate = 2, .warmup_share = 0.1, .final_share = 0.25};
    CHECK(llama::learning_rate_at(o, 0) > 0);
    CHECK(llama::learning_rate_at(o, 0) < 0.2);
    CHECK(llama::learning_rate_at(o, 100) == doctest::Approx(0.5));
    double top = 0;
    for (llama::index s = 0; s < 100; ++s) {
        const double now = llama::learning_rate_at(o, s);
        const double then = llama::learning_rate_at(o, s + 1);
        top = std::max(top, now);
        CHECK((s < 10 ? then > now : then < now));
    }
    CHECK(top <= 2);
    CHECK(top > 1.95);
    CHECK(llama::learning_rate_at({.steps = 1}, 0) > 0);
}

TEST_CASE("a failed or cancelled training leaves the model as it was and says why") {
    const auto stream = rule_stream(300);
    const std::span<const int> tokens = stream;
    auto m = llama::random_model<float>(tiny::shape(), 1);
    const auto before = m;
    const auto code = [](const auto& outcome) {
        REQUIRE(!outcome.has_value());
        return outcome.error().code;
    };
    const lowrank::progress_callback stop = [](const lowrank::progress& p) { return p.done < 3; };
    const auto windows = llama::random_windows(tokens, 20, 5, 1, 0);
    CHECK(code(llama::finetune(m, tokens, {.window = 20, .training = {.on_progress = stop}})) ==
          lowrank::errc::cancelled);
    CHECK(code(llama::train_weights(m, windows, {.on_progress = stop})) == lowrank::errc::cancelled);
    CHECK(code(llama::finetune(m, tokens, {.target_modules = {"q_proj", "query"}, .window = 20})) ==
          lowrank::errc::not_found);
    CHECK(code(llama::finetune(m, tokens, {.target_modules = {}, .window = 20})) == lowrank::errc::not_found);
    CHECK(code(llama::finetune(m, tokens, {.lora = {.r = 0}, .window = 20})) == lowrank::errc::mismatch);
    CHECK(code(llama::finetune(m, tokens, {.window = 129})) == lowrank::errc::mismatch);
    CHECK(code(llama::finetune(m, tokens, {.window = 0})) == lowrank::errc::mismatch);
    CHECK(code(llama::finetune(m, {}, {.window = 20})) == lowrank::errc::mismatch);
    CHECK(code(llama::train_weights(m, windows, {.steps = 0})) == lowrank::errc::mismatch);
    CHECK(code(llama::train_weights(m, windows, {.learning_rate = std::numeric_limits<double>::quiet_NaN()})) ==
          lowrank::errc::mismatch);
    CHECK(code(llama::train_weights(m,
                                    [](llama::index) {
                                        return llama::prompt(std::vector<int>{1, 2});
                                    },
                                    {})) == lowrank::errc::mismatch);
    const std::vector<int> unknown(100, 23);
    CHECK(code(llama::finetune(m, std::span<const int>(unknown), {.window = 20})) == lowrank::errc::mismatch);
    auto broken = m;
    broken.norm(0) = std::numeric_limits<float>::infinity();
    CHECK(code(llama::train_weights(broken, windows, {})) == lowrank::errc::non_finite);
    CHECK(code(llama::finetune(broken, tokens, {.window = 20})) == lowrank::errc::non_finite);
    CHECK(adapters_on(broken) == 0);
    CHECK(same_weights(m, before));
    CHECK(adapters_on(m) == 0);

    REQUIRE(llama::finetune(m, tokens, {.window = 20, .training = {.steps = 1}}).has_value());
    CHECK(code(llama::train_weights(m, windows, {})) == lowrank::errc::mismatch);
}

TEST_CASE("every variant lowers the loss of a model that knows another rule, and its merged weights agree") {
    const auto stream = rule_stream(1500);
    auto base = llama::random_model<float>(tiny::shape({.hidden = 16, .between = 18}), 1);  // pairs, for rotations
    REQUIRE(llama::train_weights(base, llama::random_windows(stream, 24, 6, 1, 0), {.steps = 40}));
    const std::vector<int> reversed(stream.rbegin(), stream.rend());
    const auto held_out = std::span<const int>(reversed).last(200);
    const double before = nll(base, held_out);
    for (const auto named : llama::variant_names()) {
        const std::string name(named);
        CAPTURE(name);
        auto m = base;
        const auto tuned = llama::finetune(m, std::span<const int>(reversed).first(1300),
                                           {.kind = name,
                                            .lora = {.r = 4, .lora_alpha = 8},
                                            .window = 24,
                                            .sequences = 6,
                                            .training = {.steps = 12, .learning_rate = name == "vera" ? 5e-2 : 2e-2}});
        REQUIRE_MESSAGE(tuned.has_value(), tuned.error().message);
        CHECK(tuned->modules.size() == 14);
        CHECK(tuned->adapters.empty() == (name != "lora" && name != "rslora"));
        const double after = nll(m, held_out);
        CHECK(after < before - 0.03);
        // What was learned, put on a fresh copy, and merged.
        auto again = base;
        REQUIRE(llama::attach(again, tuned->modules));
        CHECK(nll(again, held_out) == doctest::Approx(after).epsilon(1e-6));
        REQUIRE(llama::merge_adapters(again));
        CHECK(adapters_on(again) == 0);
        CHECK(nll(again, held_out) == doctest::Approx(after).epsilon(1e-4));
    }
}

TEST_CASE("LoRA+, LoRA-FA and Riemannian preconditioning train through the engine; what makes no sense is refused") {
    const auto stream = rule_stream(600);
    const auto first_and_last = [&](llama::training_options o) {
        auto m = llama::random_model<float>(tiny::shape(), 1);
        o.steps = 15;
        const auto out =
            llama::finetune(m, std::span<const int>(stream), {.window = 20, .sequences = 4, .training = o});
        REQUIRE_MESSAGE(out.has_value(), out.error().message);
        return std::pair(out->report.loss.front(), out->report.loss.back());
    };
    for (const auto& o : {llama::training_options{.lora_plus_ratio = 4}, llama::training_options{.freeze_lora_A = true},
                          llama::training_options{.riemannian_delta = 1e-2}}) {
        const auto [first, last] = first_and_last(o);
        CHECK(last < first);
    }
    auto m = llama::random_model<float>(tiny::shape(), 1);
    const auto refused = [&](llama::finetune_options o) {
        const auto out = llama::finetune(m, std::span<const int>(stream), o);
        return !out && (out.error().code == lowrank::errc::mismatch || out.error().code == lowrank::errc::unsupported);
    };
    CHECK(refused({.kind = "oft", .lora = {.r = 4, .lora_dropout = 0.1}, .window = 20}));
    CHECK(refused({.window = 20, .training = {.freeze_lora_A = true, .riemannian_delta = 1}}));
    CHECK(adapters_on(m) == 0);
}
