// SPDX-License-Identifier: MIT
// Laws of the forward pass on random models, and one plain re-computation, entry by entry, of the whole architecture.

#include <llama/backward.hpp>
#include <llama/forward.hpp>
#include <llama/generate.hpp>

#include <cmath>
#include <limits>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include "tiny_models.hpp"

namespace {

using grid = std::vector<std::vector<double>>;

/// The logits of the last token, straight from the definition: one sequence, loops and doubles only.
std::vector<double> plain_logits(const llama::model<double>& m, const std::vector<int>& tokens) {
    const auto& c = m.shape;
    const auto at = [](llama::index i) { return static_cast<std::size_t>(i); };
    const auto linear = [&](const llama::projection<double>& p, const std::vector<double>& x) {
        std::vector<double> y(at(p.weight.rows()), 0.0);
        for (llama::index o = 0; o < p.weight.rows(); ++o) {
            for (llama::index i = 0; i < p.weight.cols(); ++i) {
                y[at(o)] += p.weight(o, i) * x[at(i)];
            }
            y[at(o)] += p.bias.size() > 0 ? p.bias(o) : 0.0;
        }
        return y;
    };
    const auto norm = [&](const std::vector<double>& x, const lowrank::vector<double>& w) {
        double square = 0;
        for (const double v : x) {
            square += v * v;
        }
        std::vector<double> y(x.size());
        for (std::size_t i = 0; i < x.size(); ++i) {
            y[i] = x[i] / std::sqrt(square / static_cast<double>(x.size()) + c.rms_norm_eps) *
                   w(static_cast<llama::index>(i));
        }
        return y;
    };
    const auto rotated = [&](std::vector<double> x, std::size_t position) {
        const auto half = at(c.head_dim / 2);
        for (std::size_t h = 0; h < x.size(); h += 2 * half) {
            for (std::size_t i = 0; i < half; ++i) {
                const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(c.head_dim);
                const double angle = static_cast<double>(position) * std::pow(c.rope_theta, exponent);
                const double a = x[h + i];
                const double b = x[h + half + i];
                x[h + i] = a * std::cos(angle) - b * std::sin(angle);
                x[h + half + i] = b * std::cos(angle) + a * std::sin(angle);
            }
        }
        return x;
    };
    grid x;
    for (const int t : tokens) {
        const auto row = m.embed_tokens.row(t);
        x.emplace_back(row.begin(), row.end());
    }
    const auto hd = at(c.head_dim);
    const auto group = at(c.num_attention_heads / c.num_key_value_heads);
    for (const auto& l : m.layers) {
        grid q, k, v;
        for (std::size_t t = 0; t < x.size(); ++t) {
            const auto a = norm(x[t], l.input_layernorm);
            q.push_back(rotated(linear(l.q_proj, a), t));
            k.push_back(rotated(linear(l.k_proj, a), t));
            v.push_back(linear(l.v_proj, a));
        }
        for (std::size_t t = 0; t < x.size(); ++t) {
            std::vector<double> attended(at(c.query_size()), 0.0);
            for (std::size_t h = 0; h < at(c.num_attention_heads); ++h) {
                const std::size_t kv = h / group * hd;
                std::vector<double> p(t + 1);
                double sum = 0;
                for (std::size_t u = 0; u <= t; ++u) {
                    double dot = 0;
                    for (std::size_t i = 0; i < hd; ++i) {
                        dot += q[t][h * hd + i] * k[u][kv + i];
                    }
                    sum += p[u] = std::exp(dot / std::sqrt(static_cast<double>(hd)));
                }
                for (std::size_t u = 0; u <= t; ++u) {
                    for (std::size_t i = 0; i < hd; ++i) {
                        attended[h * hd + i] += p[u] / sum * v[u][kv + i];
                    }
                }
            }
            const auto o = linear(l.o_proj, attended);
            for (std::size_t i = 0; i < o.size(); ++i) {
                x[t][i] += o[i];
            }
            const auto b = norm(x[t], l.post_attention_layernorm);
            auto inner = linear(l.gate_proj, b);
            const auto up = linear(l.up_proj, b);
            for (std::size_t i = 0; i < inner.size(); ++i) {
                inner[i] = inner[i] / (1 + std::exp(-inner[i])) * up[i];
            }
            const auto down = linear(l.down_proj, inner);
            for (std::size_t i = 0; i < down.size(); ++i) {
                x[t][i] += down[i];
            }
        }
    }
    const auto last = norm(x.back(), m.norm);
    std::vector<double> logits;
    const auto& head = c.tie_word_embeddings ? m.embed_tokens : m.lm_head.weight;
    for (llama::index o = 0; o < head.rows(); ++o) {
        double sum = 0;
        for (std::size_t i = 0; i < last.size(); ++i) {
            sum += head(o, static_cast<llama::index>(i)) * last[i];
        }
        logits.push_back(sum);
    }
    return logits;
}

}  // namespace

TEST_CASE("forward is the architecture written out in loops") {
    for (const auto& o : {tiny::options{}, tiny::options{.tied = false, .bias = true}, tiny::options{.key_heads = 4},
                          tiny::options{.heads = 2, .key_heads = 1, .head_dim = 2, .hidden = 5},
                          tiny::options{.heads = 1, .key_heads = 1, .head_dim = 8, .layers = 1}}) {
        const auto m = tiny::model<double>(o);
        const auto b = tiny::batch(m.shape, {9});
        lowrank::workspace ws;
        const auto z = llama::logits(m, llama::forward(m, b, ws), ws);
        const auto want = plain_logits(m, b.tokens);
        for (std::size_t i = 0; i < want.size(); ++i) {
            CHECK(z(static_cast<llama::index>(i), 8) == doctest::Approx(want[i]).epsilon(1e-10));
        }
    }
}

TEST_CASE_TEMPLATE("a batch gives what its sequences give one by one", S, float, double) {
    const double tolerance = std::is_same_v<S, float> ? 2e-5 : 1e-12;
    const auto m = tiny::model<S>({.tied = false});
    const auto b = tiny::batch(m.shape, {5, 1, 71, 128});  // longer than a block of queries
    lowrank::workspace ws;
    const auto together = llama::logits(m, llama::forward(m, b, ws), ws);
    const auto scores = llama::score(m, b, llama::forward(m, b, ws), ws);
    for (llama::index s = 0; s < b.sequences(); ++s) {
        const std::vector<llama::index> one{s};
        const auto alone = llama::select(b, one);
        const auto hidden = llama::forward(m, alone, ws);
        const auto z = llama::logits(m, hidden, ws);
        CHECK(static_cast<double>((z - together.middleCols(b.first(s), b.length(s))).cwiseAbs().maxCoeff()) <
              tolerance);
        const auto at = static_cast<std::size_t>(s);
        CHECK(scores.sequence_nll[at] ==
              doctest::Approx(llama::score(m, alone, hidden, ws).total_nll()).epsilon(tolerance));
    }
    CHECK(scores.targets() == b.target_count());
}

TEST_CASE("score is the log-softmax of the logits at the targets") {
    const auto m = tiny::model<double>();
    const auto b = tiny::batch(m.shape, {40, 3});
    lowrank::workspace ws;
    const auto hidden = llama::forward(m, b, ws);
    const auto z = llama::logits(m, hidden, ws);
    const auto scores = llama::score(m, b, hidden, ws);
    double total = 0;
    for (llama::index i = 0; i < b.size(); ++i) {
        const auto at = static_cast<std::size_t>(i);
        if (b.targets[at] < 0) {
            CHECK(scores.log_probability[at] == 0);
            continue;
        }
        const double want = z(b.targets[at], i) - std::log(z.col(i).array().exp().sum());
        CHECK(scores.log_probability[at] == doctest::Approx(want).epsilon(1e-12));
        CHECK(scores.top1[at] == (z(b.targets[at], i) == z.col(i).maxCoeff()));
        total -= want;
    }
    CHECK(scores.total_nll() == doctest::Approx(total).epsilon(1e-12));
    CHECK(scores.mean_nll() == doctest::Approx(total / static_cast<double>(b.target_count())).epsilon(1e-12));
}

TEST_CASE("running from any layer on its kept input gives the bits of the whole pass") {
    const auto m = tiny::model<float>({.layers = 3});
    const auto b = tiny::batch(m.shape, {12, 7});
    lowrank::workspace ws;
    const auto whole = llama::forward(m, b, ws);
    const auto inputs = llama::layer_inputs(m, b, ws);
    REQUIRE(inputs.size() == 4);
    for (llama::index l = 0; l <= 3; ++l) {
        CHECK(llama::forward_from(m, b, l, inputs[static_cast<std::size_t>(l)], ws) == whole);
    }
    llama::tape<float> record;
    CHECK(llama::forward(m, b, ws, {.record = &record}) == whole);
    CHECK(record.last == whole);
    CHECK(record.layers[1].x == inputs[1]);
}

TEST_CASE_TEMPLATE("generation with the cache gives the tokens and logits of the uncached pass", S, float, double) {
    for (const auto& o :
         {tiny::options{.tied = false, .seed = 3}, tiny::options{.bias = true, .heads = 2, .key_heads = 2}}) {
        const auto m = tiny::model<S>(o);
        const std::vector<int> start{1, 7, 3};
        const auto fast = llama::generate(m, start, {.max_new_tokens = 90, .stop_at_end = false});
        REQUIRE(fast.has_value());
        CHECK(fast->size() == 93);
        lowrank::workspace ws;
        const auto z = llama::logits(m, llama::forward(m, llama::prompt(*fast), ws), ws);
        for (std::size_t i = start.size(); i < fast->size(); ++i) {
            const auto column = z.col(static_cast<llama::index>(i) - 1);
            CHECK(column.maxCoeff() - column((*fast)[i]) < S(1e-4));
        }
        llama::kv_cache<S> cache(m.shape, 93);
        (void)cache.extend(m, std::span<const int>(*fast).first(50), ws);
        cache.truncate(40);
        const auto tail = llama::logits(m, cache.extend(m, std::span<const int>(*fast).subspan(40), ws), ws);
        CHECK((tail - z.rightCols(53)).cwiseAbs().maxCoeff() < (std::is_same_v<S, float> ? S(2e-5) : S(1e-12)));
    }
}

TEST_CASE("generation stops where it is told to") {
    auto m = tiny::model<float>();
    const auto all = *llama::generate(m, {1, 2}, {.max_new_tokens = 1000, .stop_at_end = false});
    CHECK(all.size() == 128);  // the model's positions
    llama::index calls = 0;
    const auto some = *llama::generate(
        m, {1, 2}, {.max_new_tokens = 1000, .stop_at_end = false, .on_token = [&](int) { return ++calls < 4; }});
    CHECK(some == std::vector<int>(all.begin(), all.begin() + 6));
    m.shape.eos_token_id = all[5];
    m.shape.bos_token_id = 22;
    const auto ended = *llama::generate(m, {1, 2}, {.max_new_tokens = 1000});
    CHECK(ended.size() <= 5);
    CHECK(llama::generate(m, {}, {}).error().code == lowrank::errc::mismatch);
    CHECK(llama::generate(m, {23}, {}).error().code == lowrank::errc::mismatch);
    CHECK(llama::generate(m, std::vector<int>(129, 1), {}).error().code == lowrank::errc::mismatch);
    CHECK(*llama::generate(m, {4}, {.max_new_tokens = 0}) == std::vector<int>{4});
}

TEST_CASE_TEMPLATE("any linear operator in the place of a weight, and adapters beside it, act as the merged weight", S,
                   float, double) {
    const double tolerance = std::is_same_v<S, float> ? 1e-4 : 1e-12;
    for (const bool tied : {true, false}) {
        auto m = tiny::model<S>({.tied = tied, .bias = true});
        auto merged = m;
        const auto b = tiny::batch(m.shape, {9, 4});
        lowrank::workspace ws;
        llama::for_each_projection(m, [&](llama::projection<S>& p) {
            const auto one = tiny::adapter(p, {.r = 2, .lora_alpha = 3, .seed = 1});
            const auto two = tiny::adapter(p, {.r = 3, .lora_alpha = 4, .use_rslora = true, .seed = 2});
            p.adapters = {{.adapter = std::make_shared<const lowrank::any_adapter<S>>(*one), .strength = S(0.5)},
                          {.adapter = std::make_shared<const lowrank::any_adapter<S>>(*two), .strength = S(-0.25)}};
            llama::find_projection(merged, p.name)->weight +=
                S(0.5) * one->delta().dense() - S(0.25) * two->delta().dense();
        });
        const auto want = llama::logits(merged, llama::forward(merged, b, ws), ws);
        const auto have = llama::logits(m, llama::forward(m, b, ws), ws);
        CHECK(static_cast<double>((want - have).cwiseAbs().maxCoeff()) < tolerance);
        CHECK((want - llama::logits(m, llama::forward(tiny::model<S>({.tied = tied, .bias = true}), b, ws), ws))
                  .cwiseAbs()
                  .maxCoeff() > S(1e-3));

        llama::for_each_projection(m, [&](llama::projection<S>& p) {
            auto whole =
                lowrank::any_operator<S>(lowrank::owned_operator<S>(llama::find_projection(merged, p.name)->weight));
            p.base = whole;
            p.weight.setConstant(std::numeric_limits<S>::quiet_NaN());  // no longer read
            p.adapters.clear();
        });
        CHECK(llama::logits(m, llama::forward(m, b, ws), ws) == want);
    }
}

TEST_CASE("evaluate does not depend on the executor, little on the grouping, and refuses what does not fit") {
    auto m = tiny::model<float>();
    const auto b = tiny::batch(m.shape, {30, 20, 40, 10, 5});
    const auto one = *llama::evaluate(m, b, {}, 50);
    const lowrank::executor two_threads = [](llama::index n, const lowrank::task& body) {
        std::thread other([&] {
            for (llama::index i = 0; i < n; i += 2) {
                body(i);
            }
        });
        for (llama::index i = 1; i < n; i += 2) {
            body(i);
        }
        other.join();
    };
    const auto two = *llama::evaluate(m, b, two_threads, 50);
    CHECK(one.log_probability == two.log_probability);
    CHECK(one.sequence_nll == two.sequence_nll);
    CHECK(one.sequence_nll.size() == 5);
    CHECK(llama::evaluate(m, b, {}, 1)->mean_nll() == doctest::Approx(one.mean_nll()).epsilon(1e-5));

    llama::batch unknown = b;
    unknown.tokens[3] = 23;
    CHECK(llama::evaluate(m, unknown).error().message == "token id 23 is not in the vocabulary of 23 tokens");
    unknown = b;
    unknown.targets[3] = -2;
    CHECK(llama::evaluate(m, unknown).error().code == lowrank::errc::mismatch);
    CHECK(llama::evaluate(m, tiny::batch(m.shape, {129})).error().code == lowrank::errc::mismatch);
    m.norm(2) = std::numeric_limits<float>::quiet_NaN();
    CHECK(llama::evaluate(m, b).error().code == lowrank::errc::non_finite);
}

TEST_CASE("windows ask for every token of a stream once") {
    const std::vector<int> stream{5, 6, 7, 8, 9, 10, 11};
    const auto b = llama::windows(stream, 3, 1);
    CHECK(b.tokens == std::vector<int>{1, 5, 6, 1, 8, 9, 1});
    CHECK(b.targets == stream);
    CHECK(b.starts == std::vector<llama::index>{0, 3, 6, 7});
    CHECK(llama::windows({}, 3, 1).sequences() == 0);
    const auto parts = llama::split(b, 4);
    REQUIRE(parts.size() == 2);
    CHECK(parts[0].size() == 3);
    CHECK(parts[1].targets == std::vector<int>{8, 9, 10, 11});
    CHECK(llama::split(b, 1).size() == 3);
}

TEST_CASE("a broken contract says which") {
    const auto m = tiny::model<float>();
    lowrank::workspace ws;
    auto b = tiny::batch(m.shape, {4});
    b.tokens[1] = 99;
    CHECK_THROWS_WITH_AS((void)llama::forward(m, b, ws), "llama::embed: token must be in [0, 22], got 99",
                         lowrank::contract_violation);
    b = tiny::batch(m.shape, {4});
    CHECK_THROWS_AS((void)llama::forward_from(m, b, 3, llama::embed(m, b), ws), lowrank::contract_violation);
    CHECK_THROWS_AS((void)llama::forward_from(m, b, 0, lowrank::matrix<float>(12, 4), ws), lowrank::contract_violation);
    b.starts = {0, 3};
    CHECK_THROWS_AS((void)llama::embed(m, b), lowrank::contract_violation);
}
