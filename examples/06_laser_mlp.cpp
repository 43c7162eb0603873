// SPDX-License-Identifier: MIT
// The smallest model a search can work on: two weights and a function that scores samples. A classifier is trained on
// noisy labels; one truncation takes back much of what it memorized, and the gain is shown on samples it never saw.
#include <cmath>
#include <cstdio>
#include <vector>

#include <lowrank/core/philox.hpp>
#include <lowrank/laser/search/halving_search.hpp>
#include <lowrank/laser/search/search.hpp>

namespace {

using lowrank::matrix;
constexpr lowrank::index inputs = 40, hidden = 128, classes = 10, lessons = 2000, samples = 5000;

struct classifier {
    lowrank::row_matrix<float> w1 = lowrank::row_matrix<float>(hidden, inputs);
    lowrank::row_matrix<float> w2 = lowrank::row_matrix<float>(classes, hidden);

    [[nodiscard]] matrix<float> activations(const matrix<float>& x) const { return (w1 * x).cwiseMax(0.0F); }
    [[nodiscard]] matrix<float> probabilities(const matrix<float>& h) const {
        matrix<float> p = w2 * h;
        for (lowrank::index i = 0; i < p.cols(); ++i) {
            p.col(i) = (p.col(i).array() - p.col(i).maxCoeff()).exp().matrix().eval();
            p.col(i) /= p.col(i).sum();
        }
        return p;
    }
    void learn(const matrix<float>& x, const matrix<float>& target, float rate) {
        const matrix<float> h = activations(x), dz = (probabilities(h) - target) / static_cast<float>(x.cols());
        const matrix<float> dh = (w2.transpose() * dz).cwiseProduct((h.array() > 0).cast<float>().matrix());
        w2 -= rate * dz * h.transpose();
        w1 -= rate * dh * x.transpose();
    }
};

}  // namespace

int main() {
    // Only three directions of the input decide the class; half of the labels to learn from are drawn by lot.
    matrix<float> x(inputs, samples), teacher(classes, 3);
    lowrank::fill_normal(x, 1.0F, lowrank::philox(1));
    lowrank::fill_normal(teacher, 1.0F, lowrank::philox(2));
    const matrix<float> truth = teacher * x.topRows(3);
    std::vector<lowrank::index> label(samples);
    matrix<float> target = matrix<float>::Zero(classes, lessons);
    const lowrank::philox lot(3);
    for (lowrank::index i = 0; i < samples; ++i) {
        auto& right = label[static_cast<std::size_t>(i)];
        truth.col(i).maxCoeff(&right);
        if (i < lessons) {
            const auto at = static_cast<std::uint64_t>(2 * i);
            const bool drawn = lot.uniform<double>(at) < 0.5;
            target(drawn ? static_cast<lowrank::index>(lot.uniform<double>(at + 1) * classes) : right, i) = 1;
        }
    }
    classifier net;
    lowrank::fill_normal(net.w1, 0.05F, lowrank::philox(4));
    lowrank::fill_normal(net.w2, 0.05F, lowrank::philox(5));
    for (int step = 0; step < 600; ++step) {
        net.learn(x.leftCols(lessons), target, 0.5F);
    }

    // What the search needs to know of it.
    const lowrank::evaluator evaluate = [&](lowrank::sample_range r) -> lowrank::result<lowrank::sample_scores> {
        const auto p = net.probabilities(net.activations(x.middleCols(r.begin, r.size())));
        lowrank::sample_scores scores;
        for (lowrank::index i = 0; i < r.size(); ++i) {
            const auto right = label[static_cast<std::size_t>(r.begin + i)];
            lowrank::index said = 0;
            p.col(i).maxCoeff(&said);
            scores.add(said == right, -std::log(static_cast<double>(p(right, i)) + 1e-30));
        }
        return scores;
    };
    const lowrank::search_model<float> model{.weights = {{"w1", net.w1}, {"w2", net.w2}}, .evaluate = evaluate};

    lowrank::search_options how{.validation = {lessons, lessons + 1000}, .held_out = {lessons + 1000, samples}};
    how.fractions = {0.9, 0.75, 0.5, 0.4, 0.3, 0.2, 0.1, 0.075, 0.05, 0.025};
    const auto all = lowrank::exhaustive_search(model, how);
    const auto found = lowrank::halving_search(model, how);
    if (!found || !found.winner) {
        std::puts(found ? "no truncation helps" : found.why.message.c_str());
        return 1;
    }
    const auto& e = *found.evidence;
    std::printf("%s\nheld out: %.1f %% right before, %.1f %% after, gain %+.1f points [%+.1f, %+.1f]\n",
                lowrank::to_text(found.edits().front()).c_str(), 100 * found.held_out_before.accuracy(),
                100 * found.held_out_after.accuracy(), 100 * e.accuracy_gain, 100 * e.accuracy_interval.low,
                100 * e.accuracy_interval.high);
    std::printf("%td samples scored; trying every edit on every sample finds %s with %td\n", found.evaluated_samples,
                all.edits() == found.edits() ? "the same" : "another", all.evaluated_samples);
    return e.gain_is_significant() ? 0 : 1;
}
