// SPDX-License-Identifier: MIT
#include <lowrank/lora/init/loftq.hpp>

#include <cmath>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

namespace {

/// ||W - Q - C|| / ||W||.
template <class W, class C>
double loftq_missed(const W& w, const W& base, const C& correction) {
    return (w.template cast<double>() - base.template cast<double>() - correction.template cast<double>()).norm() /
           w.template cast<double>().norm();
}

}  // namespace

TEST_CASE("LoftQ is closer than quantizing alone, and its numbers are true, after any number of turns") {
    const auto w = random_weight<float>(48, 64, 1, 0.1);
    const lora_options options{.r = 8, .lora_alpha = 4};
    for (const int iterations : {1, 3, 5}) {
        const auto start =
            loftq(w, normal_float_quantizer{.options = {.bits = 2}}, options, {.iterations = iterations});
        REQUIRE(start);
        CHECK(start.relative < start.relative_without);
        CHECK(start.relative ==
              doctest::Approx(loftq_missed(w, start.base, start.adapter.delta().dense())).epsilon(1e-4));
    }
    const auto peft = loftq(w, normal_float_quantizer{}, options, {.scaling = init_scaling::peft});
    const auto exact = loftq(w, normal_float_quantizer{}, options);
    CHECK(max_abs_diff((peft.adapter.lora_B * peft.adapter.lora_A), exact.adapter.delta().dense()) < 1e-6);
    CHECK(peft.relative == exact.relative);
}

TEST_CASE("any quantizer serves: ggml blocks, a lambda, and one that changes nothing") {
    const auto w = random_weight<double>(10, 64, 2);
    for (const auto type : {ggml_type::q8_0, ggml_type::q4_0}) {
        const auto start = loftq(w, ggml_quantizer{type}, {.r = 4});
        CHECK(start.relative < start.relative_without);
        CHECK(start.relative_without < (type == ggml_type::q8_0 ? 0.01 : 0.15));
    }
    const auto rounded =
        loftq(w, [](const row_matrix<float>& x) { return row_matrix<float>(x.array().round()); }, {.r = 2});
    CHECK((rounded.base.array() == rounded.base.array().round()).all());
    const auto exact = loftq(
        w, [](const row_matrix<double>& x) { return row_matrix<double>((16 * x).array().round() / 16); }, {.r = 2});
    CHECK(exact.base == row_matrix<double>((16 * w).array().round() / 16));  // in double, rounded to no float
    const auto same = loftq(matrix<float>(w.cast<float>()), [](const row_matrix<float>& x) { return x; }, {.r = 2});
    CHECK(same.relative_without == 0);
    CHECK(same.adapter.delta().dense().isZero());
    auto bad = w;
    bad(0, 0) = std::nan("");
    CHECK(loftq(bad, normal_float_quantizer{}, {.r = 2}).why.code == errc::non_finite);
}
