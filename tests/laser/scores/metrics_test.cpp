// SPDX-License-Identifier: MIT
#include <lowrank/laser/scores/metrics.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include <lowrank/core/finite.hpp>
#include <lowrank/core/philox.hpp>

using namespace lowrank;

TEST_CASE_TEMPLATE("log-probabilities of tokens are those of the softmax", S, float, double) {
    matrix<S> logits(7, 5);
    fill_uniform(logits, S(-3), S(3), philox(4));
    const std::vector<lowrank::index> targets = {0, 6, 3, 3, 1};
    const vector<double> p = token_log_probabilities<S>(logits, targets);
    for (lowrank::index i = 0; i < 5; ++i) {
        const vector<double> z = logits.col(i).template cast<double>();
        const double expected = std::log(std::exp(z(targets[static_cast<std::size_t>(i)])) / z.array().exp().sum());
        CHECK(p(i) == doctest::Approx(expected).epsilon(1e-12));
    }
    // Logits of any size: shifting a column changes nothing, and nothing overflows.
    matrix<S> far = logits;
    far.array() += S(1000);
    const vector<double> q = token_log_probabilities<S>(far, targets);
    CHECK((p - q).cwiseAbs().maxCoeff() < (sizeof(S) == 4 ? 2e-4 : 1e-11));
    // The probabilities of all tokens sum to one.
    double sum = 0;
    for (lowrank::index v = 0; v < 7; ++v) {
        sum += std::exp(token_log_probabilities<S>(logits.col(2), std::vector<lowrank::index>{v})(0));
    }
    CHECK(sum == doctest::Approx(1).epsilon(1e-12));
}

TEST_CASE("right among the k most probable tokens") {
    matrix<float> logits(4, 3);
    logits << 3, 1, 2,  //
        2, 1, 5,        //
        1, 1, 4,        //
        0, 1, 3;
    const std::vector<lowrank::index> targets = {1, 2, 3};  // second; third of equals; third
    const std::vector<std::vector<std::uint8_t>> expected = {{0, 0, 0}, {1, 0, 0}, {1, 1, 1}, {1, 1, 1}};
    for (lowrank::index k = 1; k <= 4; ++k) {
        CAPTURE(k);
        const sample_scores s = score_tokens<float>(logits, targets, k);
        CHECK(s.correct == expected[static_cast<std::size_t>(k - 1)]);
        CHECK(s.log_loss[1] == doctest::Approx(std::log(4.0)));
    }
    const score all = summarize(score_tokens<float>(logits.col(1), std::vector<lowrank::index>{0}));
    CHECK(all.correct == 1);
    CHECK(all.perplexity() == doctest::Approx(4.0));

    logits(0, 0) = std::numeric_limits<float>::quiet_NaN();
    const sample_scores broken = score_tokens<float>(logits, targets, 4);
    CHECK(broken.correct[0] == 0);
    CHECK(!is_finite(broken.log_loss[0]));
    CHECK(score_tokens<float>(logits.leftCols(0), std::vector<lowrank::index>{}).size() == 0);
}

TEST_CASE("the most probable label is the answer, the first one of equals") {
    matrix<double> p(2, 3);
    p << -0.1, -2.0, -0.7,  //
        -2.4, -0.2, -0.7;
    const sample_scores s = score_labels(p, std::vector<lowrank::index>{0, 0, 1});
    CHECK(s.correct == std::vector<std::uint8_t>{1, 0, 0});
    CHECK(s.log_loss == std::vector<double>{0.1, 2.0, 0.7});
    CHECK(score_labels(p.rightCols(1), std::vector<lowrank::index>{0}).correct == std::vector<std::uint8_t>{1});
}

TEST_CASE("right by generation: the answer occurs, whatever its case") {
    CHECK(answer_in_text("It is PARIS, in France", " paris\n"));
    CHECK(answer_in_text("new york", "New York"));
    CHECK_FALSE(answer_in_text("It is Par is", "paris"));
    CHECK_FALSE(answer_in_text("", "a"));
    CHECK(answer_in_text("", "  "));
}
