// SPDX-License-Identifier: MIT
#include <lowrank/laser/scores/sigma_gradient.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include <doctest/doctest.h>

#include <lowrank/core/check.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/svd.hpp>

using namespace lowrank;

namespace {

/// A small nonlinear model: loss of sample j = sum over its columns of sum_i log cosh(a_i (W x)_i - b_i).
struct toy {
    matrix<double> w, x;
    vector<double> a, b;
    std::vector<lowrank::index> starts = {0, 3, 4, 9, 12};

    toy(lowrank::index out, lowrank::index in, std::uint64_t seed) : w(out, in), x(in, 12), a(out), b(out) {
        fill_normal(w, 1.0, philox(seed, 1));
        fill_normal(x, 1.0, philox(seed, 2));
        fill_normal(a, 1.0, philox(seed, 3));
        fill_normal(b, 1.0, philox(seed, 4));
    }

    [[nodiscard]] lowrank::index samples() const { return static_cast<lowrank::index>(starts.size()) - 1; }
    [[nodiscard]] double mean_loss(const matrix<double>& weight) const {
        const matrix<double> z = (a.asDiagonal() * (weight * x)).colwise() - b;
        return z.array().cosh().log().sum() / static_cast<double>(samples());
    }
    [[nodiscard]] matrix<double> output_gradient() const {
        const matrix<double> z = (a.asDiagonal() * (w * x)).colwise() - b;
        return a.asDiagonal() * matrix<double>(z.array().tanh());
    }
};

}  // namespace

TEST_CASE("gradients of singular values agree with central differences") {
    for (const auto& shape : std::vector<std::pair<lowrank::index, lowrank::index>>{{7, 5}, {5, 8}, {6, 6}}) {
        const toy t(shape.first, shape.second, 3);
        const auto s = svd(t.w).value();
        sigma_gradient<double> g(s);
        workspace ws;
        const matrix<double> dy = t.output_gradient();
        REQUIRE(g.add(t.x, dy, t.starts, ws));
        const auto scores = g.scores();
        CHECK(scores.samples == 4);

        constexpr double h = 1e-5;
        for (lowrank::index i = 0; i < s.size(); ++i) {
            const matrix<double> direction = s.u.col(i) * s.v.col(i).transpose();
            const double numeric = (t.mean_loss(t.w + h * direction) - t.mean_loss(t.w - h * direction)) / (2 * h);
            CHECK(std::abs(scores.gradient(i) - numeric) < 1e-8);
        }

        // sum_i s_i g_i = <G, W>, and the streamed gradient is diag(U^T G V).
        const matrix<double> big = dy * t.x.transpose() / 4.0;
        CHECK(scores.sigma.dot(scores.gradient) == doctest::Approx(big.cwiseProduct(t.w).sum()).epsilon(1e-12));
        const vector<double> direct = (s.u.transpose() * big * s.v).diagonal();
        CHECK((scores.gradient - direct).cwiseAbs().maxCoeff() < 1e-13);
    }
}

TEST_CASE("spread, Fisher and predicted changes are those of the samples") {
    const toy t(6, 9, 5);
    const auto s = svd(t.w).value();
    const matrix<double> dy = t.output_gradient();
    std::vector<vector<double>> g;
    for (std::size_t j = 0; j + 1 < t.starts.size(); ++j) {
        const auto first = t.starts[j], count = t.starts[j + 1] - t.starts[j];
        const matrix<double> one = dy.middleCols(first, count) * t.x.middleCols(first, count).transpose();
        g.emplace_back((s.u.transpose() * one * s.v).diagonal());
    }
    sigma_gradient<double> all(s);
    workspace ws;
    REQUIRE(all.add(t.x, dy, t.starts, ws));
    const auto scores = all.scores();
    for (lowrank::index i = 0; i < s.size(); ++i) {
        double mean = 0, square = 0, variance = 0;
        for (const auto& one : g) {
            mean += one(i) / 4;
            square += one(i) * one(i) / 4;
        }
        for (const auto& one : g) {
            variance += (one(i) - mean) * (one(i) - mean) / 3;
        }
        CHECK(scores.gradient(i) == doctest::Approx(mean).epsilon(1e-11));
        CHECK(scores.fisher(i) == doctest::Approx(square).epsilon(1e-11));
        CHECK(scores.variance(i) == doctest::Approx(variance).epsilon(1e-11));
        CHECK(scores.t_statistic(i) == doctest::Approx(mean / std::sqrt(variance / 4)).epsilon(1e-10));
    }
    for (lowrank::index k = 0; k <= s.size(); ++k) {
        double want = 0, curvature = 0;
        for (lowrank::index i = k; i < s.size(); ++i) {
            want -= s.s(i) * scores.gradient(i);
            curvature += 0.5 * s.s(i) * s.s(i) * scores.fisher(i);
        }
        CHECK(scores.loss_change(k) == doctest::Approx(want).epsilon(1e-11));
        CHECK(scores.loss_change(k, true) == doctest::Approx(want + curvature).epsilon(1e-11));
    }
    CHECK(scores.loss_change(s.size()) == 0);
    CHECK(scores.change_error(s.size()) == 0);
    CHECK(scores.loss_change(scores.best_rank()) <= 0);
    CHECK_THROWS_AS((void)scores.loss_change(7), contract_violation);
}

TEST_CASE("the prediction is the derivative of the loss along the truncation") {
    // Shrinking the tail by a small factor h changes the loss by h times the prediction.
    const toy t(8, 7, 6);
    const auto s = svd(t.w).value();
    sigma_gradient<double> g(s);
    workspace ws;
    const matrix<double> dy = t.output_gradient();
    REQUIRE(g.add(t.x, dy, t.starts, ws));
    const auto scores = g.scores();
    constexpr double h = 1e-5;
    for (lowrank::index k = 0; k <= s.size(); ++k) {
        const matrix<double> tail = s.dropped(k).dense();
        const double numeric = (t.mean_loss(t.w - h * tail) - t.mean_loss(t.w + h * tail)) / (2 * h);
        CHECK(std::abs(scores.loss_change(k) - numeric) < 1e-8);
    }
}

TEST_CASE_TEMPLATE("batches, shards and threads add up to the same scores", S, float, double) {
    const toy t(10, 6, 7);
    const matrix<S> w = t.w.cast<S>(), x = t.x.cast<S>(), dy = t.output_gradient().cast<S>();
    const auto s = svd(w).value();
    workspace ws;
    sigma_gradient<S> whole(s), first(s), second(s), empty(s);
    REQUIRE(whole.add(x, dy, t.starts, ws));
    const std::vector<lowrank::index> two = {0, 3, 4}, rest = {0, 5, 8};
    REQUIRE(first.add(x.leftCols(4), dy.leftCols(4), two, ws));
    REQUIRE(second.add(x.rightCols(8), dy.rightCols(8), rest, ws));
    first.merge(second);
    first.merge(empty);
    empty.merge(first);
    const auto a = whole.scores();
    for (const auto& b : {first.scores(), empty.scores()}) {
        CHECK(b.samples == 4);
        const double tolerance = std::is_same_v<S, double> ? 1e-11 : 1e-4;
        CHECK((a.gradient - b.gradient).norm() <= tolerance * a.gradient.norm());
        CHECK((a.variance - b.variance).norm() <= tolerance * a.variance.norm());
        CHECK((a.change - b.change).norm() <= tolerance * a.change.norm());
        CHECK((a.change_error - b.change_error).norm() <= tolerance * a.change_error.norm());
        CHECK((a.removed - b.removed).norm() <= tolerance * a.removed.norm());
    }
    // The share of the output each rank removes, against the products themselves.
    REQUIRE(a.removed.size() == s.size() + 1);
    for (lowrank::index k = 0; k <= s.size(); ++k) {
        const matrix<S> gone = s.dropped(k).dense() * x, all = s.dropped(0).dense() * x;
        const auto share = gone.colwise().squaredNorm().array() / all.colwise().squaredNorm().array();
        CHECK(std::abs(a.removed(k) - static_cast<double>(share.mean())) <= (std::is_same_v<S, double> ? 1e-12 : 1e-5));
    }
    sigma_gradient<S> single(s);
    REQUIRE(single.add(x, dy, ws));
    CHECK(single.samples() == 1);
    CHECK((single.scores().gradient / 4 - a.gradient).norm() <=
          (std::is_same_v<S, double> ? 1e-12 : 1e-4) * a.gradient.norm());
    CHECK(single.scores().t_statistic(0) == 0);

    matrix<S> broken = dy;
    broken(0, 2) = std::numeric_limits<S>::quiet_NaN();
    CHECK(whole.add(x, broken, ws).code == errc::non_finite);
    CHECK(whole.samples() == 4);
    CHECK(whole.scores().change == a.change);
    CHECK_THROWS_AS((void)whole.add(x, dy.leftCols(3), ws), contract_violation);
    CHECK_THROWS_AS((void)whole.add(x, dy, std::vector<lowrank::index>{0, 5}, ws), contract_violation);
    CHECK_THROWS_AS((void)whole.add(x, dy, std::vector<lowrank::index>{0, 5, 4, 12}, ws), contract_violation);
    const auto other = svd(w).value();
    CHECK_THROWS_AS(whole.merge(sigma_gradient<S>(other)), contract_violation);
}

TEST_CASE("every policy puts a matrix whose tail harms before one whose tail helps") {
    // y = W x, loss = 1/2 ||y - T x||^2 per sample. Harmful: W has a tail T lacks. Helpful: T has it as well.
    constexpr lowrank::index size = 8, samples = 200;
    matrix<double> noise(size, size), x(size, samples);
    fill_normal(noise, 1.0, philox(9, 1));
    fill_normal(x, 1.0, philox(9, 2));
    const auto basis = svd(noise);
    vector<double> sigma(size);
    sigma << 8, 7, 6, 0.2, 0.2, 0.2, 0.2, 0.2;
    const matrix<double> w = basis.u * sigma.asDiagonal() * basis.v.transpose();
    sigma.tail(5).setZero();
    const matrix<double> truth = basis.u * sigma.asDiagonal() * basis.v.transpose();
    const auto s = svd(w).value();
    std::vector<lowrank::index> starts;
    for (lowrank::index i = 0; i <= samples; ++i) {
        starts.push_back(i);
    }
    workspace ws;
    std::vector<sigma_scores> scores;
    for (const bool harmful : {false, true}) {
        sigma_gradient<double> g(s);
        matrix<double> dy(size, samples);
        fill_normal(dy, 1e-3, philox(9, 3));  // helpful: nothing to gain, whatever is done to W
        if (harmful) {
            dy = (w - truth) * x;
        }
        REQUIRE(g.add(x, dy, starts, ws));
        scores.push_back(g.scores());
    }
    for (const auto policy :
         {screening_policy::trusted_tail, screening_policy::best_tail, screening_policy::positive_part,
          screening_policy::fisher_tail, screening_policy::best_tail_z_score, screening_policy::taylor,
          screening_policy::gradient}) {
        CHECK(screen(scores, policy) == std::vector<lowrank::index>{1, 0});
    }
    // The three directions of the signal have no gradient but rounding: the best rank is 3, or as good as 3.
    CHECK(scores[1].best_rank() <= 3);
    CHECK(scores[1].loss_change(3) == doctest::Approx(scores[1].loss_change(scores[1].best_rank())).epsilon(1e-12));
    CHECK(scores[1].change(3) < -10 * scores[1].change_error(3));
    // Within a trust region the best rank leaves enough of the output, and full rank always does.
    for (const double trust : {0.0, 0.2, 0.5, 1.0}) {
        const auto best = scores[1].best_rank(false, trust);
        CHECK(scores[1].removed(best) <= trust);
        CHECK(scores[1].loss_change(best) <= 0);
    }
    CHECK(scores[1].best_rank(false, 0) == s.size());
    const std::vector<lowrank::index> few = {7, 5};
    CHECK(scores[1].best_rank(false, 1, few) == 5);
    CHECK(screening_score(scores[1], screening_policy::best_tail, few) == -scores[1].loss_change(5));
    CHECK(screening_score(scores[1], screening_policy::best_tail_z_score, few) <=
          screening_score(scores[1], screening_policy::best_tail_z_score));
    const std::vector<double> none = {1.0};  // no truncation: nothing to tell them apart
    CHECK(screen(scores, screening_policy::trusted_tail, none) == std::vector<lowrank::index>{0, 1});
}
