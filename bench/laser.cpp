// SPDX-License-Identifier: MIT

/// \file
/// Four ways to find the best edit of a deep network, and the procedure of the LASER reference code, in one run.
///
///     bench_laser
///
/// The network: 12 residual layers x := x + W_l relu(x), 128 wide, whose labels are its own answers before noise of
/// full rank was added to the weight of layer 9. The reference procedure as its code does it: for each setting a
/// randomized SVD with no oversampling and two power iterations, a dense rebuild, and a pass over ALL samples.
/// Counters: `x_reference` the reference's CPU time over this one's, `sample_layers` layers that samples went through,
/// `same_edit` 1 if the search ends with the exhaustive search's edit, `gain` points of accuracy on held-out samples.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <ctime>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/factor/sketched/randomized_svd.hpp>
#include <lowrank/laser/edits/nested_ranks.hpp>
#include <lowrank/laser/search/gradient_search.hpp>
#include <lowrank/laser/search/halving_search.hpp>
#include <lowrank/laser/search/search.hpp>

namespace {

using lowrank::matrix;
using lowrank::row_matrix;
using idx = lowrank::index;

constexpr idx width = 128, depth = 12, classes = 10, validation = 512, held_out = 2048, noisy_layer = 9;

struct network {
    std::vector<row_matrix<float>> w = std::vector<row_matrix<float>>(depth, row_matrix<float>(width, width));
    matrix<float> head = matrix<float>(classes, width), x = matrix<float>(width, validation + held_out);
    std::vector<idx> labels = {};
    std::vector<matrix<float>> inputs = {};  ///< Of each layer, unedited: 128 x 2560 x 4 bytes = 1.3 MB each.

    network() {
        lowrank::fill_normal(head, 1.0F, lowrank::philox(1));
        lowrank::fill_normal(x, 1.0F, lowrank::philox(2));
        for (idx l = 0; l < depth; ++l) {  // rank 16 each
            matrix<float> a(width, 16), b(16, width);
            lowrank::fill_normal(a, 0.12F, lowrank::philox(3, static_cast<std::uint64_t>(l)));
            lowrank::fill_normal(b, 0.12F, lowrank::philox(4, static_cast<std::uint64_t>(l)));
            w[static_cast<std::size_t>(l)] = a * b;
        }
        const matrix<float> logits = head * run(0, x);
        for (idx i = 0; i < logits.cols(); ++i) {
            idx label = 0;
            logits.col(i).maxCoeff(&label);
            labels.push_back(label);
        }
        matrix<float> noise(width, width);
        lowrank::fill_normal(noise, 0.05F, lowrank::philox(5));
        w[noisy_layer] += noise;
        matrix<float> at = x;
        for (idx l = 0; l < depth; ++l) {
            inputs.push_back(at);
            at = run(l, std::move(at), l + 1);
        }
        inputs.push_back(std::move(at));
    }

    [[nodiscard]] matrix<float> run(idx first, matrix<float> at, idx last = depth) const {
        for (idx l = first; l < last; ++l) {
            at += w[static_cast<std::size_t>(l)] * at.cwiseMax(0.0F).eval();
        }
        return at;
    }
    [[nodiscard]] matrix<float> softmax(const matrix<float>& last) const {
        matrix<float> z = head * last;
        for (idx i = 0; i < z.cols(); ++i) {
            z.col(i) = (z.col(i).array() - z.col(i).maxCoeff()).exp().matrix().eval();
            z.col(i) /= z.col(i).sum();
        }
        return z;
    }
    [[nodiscard]] lowrank::sample_scores score(lowrank::sample_range r, idx first) const {
        return score_last(r, run(first, inputs[static_cast<std::size_t>(first)].middleCols(r.begin, r.size())));
    }
    [[nodiscard]] lowrank::sample_scores score_last(lowrank::sample_range r, const matrix<float>& last) const {
        const auto p = softmax(last);
        lowrank::sample_scores out;
        for (idx i = 0; i < r.size(); ++i) {
            idx said = 0;
            p.col(i).maxCoeff(&said);
            const idx right = labels[static_cast<std::size_t>(r.begin + i)];
            out.add(said == right, -std::log(std::max(static_cast<double>(p(right, i)), 1e-12)));
        }
        return out;
    }
    /// All ranks of one weight: x + W_r relu(x) for each r, then the layers above.
    [[nodiscard]] std::vector<lowrank::sample_scores> score_ranks(lowrank::sample_range r, idx l,
                                                                  const lowrank::nested_ranks<float>& nested) const {
        const matrix<float> in = inputs[static_cast<std::size_t>(l)].middleCols(r.begin, r.size());
        const matrix<float> active = in.cwiseMax(0.0F);
        std::vector<lowrank::sample_scores> out(nested.ranks().size());
        lowrank::workspace ws;
        nested.for_each(
            active, [&](lowrank::column_view<float> y) { y.noalias() = w[static_cast<std::size_t>(l)] * active; }, ws,
            [&](idx i, lowrank::const_column_view<float> y) {
                out[static_cast<std::size_t>(i)] = score_last(r, run(l + 1, in + y));
            });
        return out;
    }
    [[nodiscard]] lowrank::status gradients(lowrank::sample_range r, const lowrank::gradient_sink<float>& sink) const {
        std::vector<matrix<float>> at = {x.middleCols(r.begin, r.size())};
        std::vector<idx> starts = {0};
        for (idx l = 0; l < depth; ++l) {
            at.push_back(run(l, at.back(), l + 1));
        }
        matrix<float> p = softmax(at.back());
        for (idx i = 0; i < r.size(); ++i) {
            p(labels[static_cast<std::size_t>(r.begin + i)], i) -= 1.0F;
            starts.push_back(i + 1);
        }
        matrix<float> dx = head.transpose() * p;
        for (idx l = depth; l-- > 0;) {
            const auto& in = at[static_cast<std::size_t>(l)];
            const matrix<float> active = in.cwiseMax(0.0F);
            sink(l, active, dx, starts);
            const matrix<float> back = w[static_cast<std::size_t>(l)].transpose() * dx;
            dx += back.cwiseProduct((in.array() > 0).cast<float>().matrix());
        }
        return {};
    }
    [[nodiscard]] lowrank::search_model<float> model() {
        lowrank::search_model<float> out{.layers = depth};
        for (idx l = 0; l < depth; ++l) {
            out.weights.push_back({"layer " + std::to_string(l), w[static_cast<std::size_t>(l)]});
            out.layer_of.push_back(l);
        }
        out.evaluate = [this](lowrank::sample_range r) { return score(r, 0); };
        out.evaluate_from_layer = [this](lowrank::sample_range r, idx first) { return score(r, first); };
        out.gradients = [this](lowrank::sample_range r, const auto& sink) { return gradients(r, sink); };
        return out;
    }
};

network& net() {
    static network one;
    return one;
}

const lowrank::search_options& how() {
    static const lowrank::search_options options{.validation = {0, validation},
                                                 .held_out = {validation, validation + held_out},
                                                 .samples_per_call = validation + held_out};
    return options;
}

struct outcome {
    std::string edit;
    double gain = 0;
    double sample_layers = 0;
};

/// The reference's procedure: nothing is shared between settings, everything is evaluated for each.
outcome reference_procedure() {
    auto& n = net();
    const lowrank::sample_range all{0, validation + held_out};
    const auto split = [](const lowrank::sample_scores& s, idx begin, idx end) {
        lowrank::sample_scores part;
        for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
            part.add(s.correct[i] != 0, s.log_loss[i]);
        }
        return lowrank::summarize(part);
    };
    const auto base = n.score(all, 0);
    auto best = split(base, 0, validation), report = split(base, validation, all.end);
    const double before = report.accuracy();
    outcome out{.edit = "none", .sample_layers = static_cast<double>(all.size() * depth)};
    std::uint64_t seed = 0;
    for (idx l = 0; l < depth; ++l) {
        for (const double rho : how().fractions) {
            auto& w = n.w[static_cast<std::size_t>(l)];
            const row_matrix<float> original = w;
            const idx k = lowrank::rank_from_fraction(rho, width, width);
            const auto f = lowrank::randomized_svd(w, k, {.oversample = 0, .power_iterations = 2, .seed = ++seed});
            w = f.u * f.s.asDiagonal() * f.v.transpose();
            const auto scores = n.score(all, 0);
            w = original;
            out.sample_layers += static_cast<double>(all.size() * depth);
            if (const auto now = split(scores, 0, validation); lowrank::better(now, best)) {
                best = now;
                report = split(scores, validation, all.end);
                out.edit = lowrank::to_text(
                    {"layer " + std::to_string(l), lowrank::kept_components{lowrank::component_set::first(k), width}});
            }
        }
    }
    out.gain = 100 * (report.accuracy() - before);
    return out;
}

outcome outcome_of(const lowrank::search_result& found) {
    return {found.winner ? lowrank::to_text(found.edits().front()) : "none",
            100 * (found.held_out_after.accuracy() - found.held_out_before.accuracy()),
            static_cast<double>(found.evaluated_sample_layers)};
}

double cpu_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

/// The exhaustive search's edit, and the CPU seconds of the reference procedure (median of three).
const std::string& best_edit() {
    static const std::string best = outcome_of(lowrank::exhaustive_search(net().model(), how())).edit;
    return best;
}
double reference_seconds() {
    static const double seconds = [] {
        std::vector<double> all;
        for (int i = 0; i < 3; ++i) {
            const double start = cpu_seconds();
            (void)reference_procedure();
            all.push_back(cpu_seconds() - start);
        }
        std::sort(all.begin(), all.end());
        return all[1];
    }();
    return seconds;
}

template <class F>
void measure(benchmark::State& state, F&& search) {
    const auto& best = best_edit();
    const double peer = reference_seconds();
    outcome last;
    const double start = cpu_seconds();
    for (auto _ : state) {
        last = search();
    }
    const double seconds = (cpu_seconds() - start) / static_cast<double>(state.iterations());
    state.counters["x_reference"] = peer / seconds;
    state.counters["sample_layers"] = last.sample_layers;
    state.counters["same_edit"] = last.edit == best ? 1 : 0;
    state.counters["gain"] = last.gain;
    state.SetLabel(last.edit);
}

void reference(benchmark::State& state) {
    measure(state, [] { return reference_procedure(); });
}
void exhaustive_without_hooks(benchmark::State& state) {
    measure(state, [] {
        const auto m = net().model();
        return outcome_of(lowrank::exhaustive_search(
            lowrank::search_model<float>{.weights = m.weights, .evaluate = m.evaluate, .layers = depth}, how()));
    });
}
void exhaustive(benchmark::State& state) {
    measure(state, [] { return outcome_of(lowrank::exhaustive_search(net().model(), how())); });
}
void exhaustive_all_ranks(benchmark::State& state) {
    measure(state, [] {
        auto m = net().model();
        m.evaluate_ranks = [](lowrank::sample_range r, idx weight, const auto& nested, idx) {
            return lowrank::result<std::vector<lowrank::sample_scores>>(net().score_ranks(r, weight, nested));
        };
        return outcome_of(lowrank::exhaustive_search(m, how()));
    });
}
void halving(benchmark::State& state) {
    measure(state, [] { return outcome_of(lowrank::halving_search(net().model(), how(), {.first_samples = 64})); });
}
void gradient(benchmark::State& state) {
    measure(state, [] {
        return outcome_of(
            lowrank::gradient_search(net().model(), how(), {.matrices = 3, .scan = {.first_samples = 64}}));
    });
}

BENCHMARK(reference)->Unit(benchmark::kMillisecond);
BENCHMARK(exhaustive_without_hooks)->Unit(benchmark::kMillisecond);
BENCHMARK(exhaustive)->Unit(benchmark::kMillisecond);
BENCHMARK(exhaustive_all_ranks)->Unit(benchmark::kMillisecond);
BENCHMARK(halving)->Unit(benchmark::kMillisecond);
BENCHMARK(gradient)->Unit(benchmark::kMillisecond);

/// What a 1024 x 1024 weight says about `range(0)` columns at the eight ranks of the default grid.
struct scan {
    static constexpr idx n = 1024;
    row_matrix<float> w = row_matrix<float>(n, n);
    matrix<float> x;
    lowrank::decomposition<float> s = {};
    std::vector<idx> ranks = {};

    explicit scan(idx columns) : x(n, columns) {
        lowrank::fill_normal(w, 0.03F, lowrank::philox(8));
        lowrank::fill_normal(x, 1.0F, lowrank::philox(9));
        s = lowrank::svd(w).value();
        for (const double f : how().fractions) {
            ranks.push_back(lowrank::rank_from_fraction(f, n, n));
        }
        std::sort(ranks.begin(), ranks.end());
    }
};
void ranks_written_one_by_one(benchmark::State& state) {
    const scan on(state.range(0));
    row_matrix<float> edited = on.w;
    for (auto _ : state) {
        for (const idx k : on.ranks) {
            (void)lowrank::detail::write_components<float>(lowrank::const_weight_view<float>(on.w), on.s,
                                                           lowrank::component_set::first(k),
                                                           lowrank::weight_view<float>(edited));
            const matrix<float> y = lowrank::apply(edited, on.x);
            benchmark::DoNotOptimize(y.data());
        }
    }
}
void ranks_nested(benchmark::State& state) {
    const scan on(state.range(0));
    const lowrank::nested_ranks<float> nested(on.s, on.ranks);
    lowrank::workspace ws;
    for (auto _ : state) {
        nested.for_each(
            on.x, [&](lowrank::column_view<float> y) { lowrank::as_operator(on.w).add_product(1.0F, on.x, y, ws); }, ws,
            [](idx, lowrank::const_column_view<float> y) {
                const matrix<float> copy = y;
                benchmark::DoNotOptimize(copy.data());
            });
    }
    state.counters["flops_per_column"] = nested.flops_per_column();
}
BENCHMARK(ranks_written_one_by_one)->Arg(64)->Arg(512)->Unit(benchmark::kMillisecond);
BENCHMARK(ranks_nested)->Arg(64)->Arg(512)->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();
