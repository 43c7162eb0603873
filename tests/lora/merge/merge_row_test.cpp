// SPDX-License-Identifier: MIT
#include <lowrank/lora/merge/detail/merge_row.hpp>

#include <cmath>
#include <limits>
#include <vector>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE_TEMPLATE("a stretch of a row is merged, summed up and taken back, whatever its length", T, float, double,
                   half, bfloat16) {
    using S = compute_t<T>;
    for (const lowrank::index count : {1, 7, 32, 33, 100}) {
        CAPTURE(count);
        const auto original = random_weight<T>(1, count, 1, 0.02);
        const auto d = random_matrix<double>(1, count, 2, 1e-3);
        const auto c = random_matrix<S>(1, count, 3);
        for (const bool scaled : {false, true}) {
            detail::merge_scales<S> scales;
            if (scaled) {
                scales = {.row = 0.5, .columns = c.data(), .any = true};
            }
            auto w = original;
            detail::merge_row<T> row(count);
            detail::merge_sums sums;
            REQUIRE(row.compute(w.data(), d.data(), scales, sums));
            CHECK(same_bits(w, original));
            detail::ulp_encoder code;
            row.commit(w.data(), 0, code);
            const auto bytes = code.finish(static_cast<std::uint64_t>(count));

            double error2 = 0;
            std::uint64_t touched = 0;
            for (lowrank::index j = 0; j < count; ++j) {
                const double old = double(S(original(0, j))), factor = scaled ? 0.5 * double(c(0, j)) : 1.0;
                const double want = factor * (old + d(0, j));
                CHECK(double(S(w(0, j))) == double(S(static_cast<T>(static_cast<S>(want)))));
                error2 += std::pow(double(S(w(0, j))) - want, 2);
                ++touched;
            }
            double sum = 0;
            std::uint64_t seen = 0;
            for (int lane = 0; lane < detail::merge_sums::lanes; ++lane) {
                sum += sums.error_norm2[lane];
                seen += sums.touched[lane];
            }
            CHECK(seen == touched);
            CHECK(sum == doctest::Approx(error2).epsilon(1e-6).scale(1e-12));

            row.estimate(w.data(), d.data(), scales);
            detail::ulp_decoder next(bytes, static_cast<std::uint64_t>(count));
            for (; next.position() < static_cast<std::uint64_t>(count); next.next()) {
                T& value = w(0, static_cast<lowrank::index>(next.position()));
                value = detail::ulp_shift(value, next.correction());
            }
            CHECK(same_bits(w, original));
        }
    }
}

TEST_CASE("the first value that is not finite is named") {
    std::vector<float> w(50, 1.0F);
    const std::vector<double> d(50, 1.0);
    w[41] = std::numeric_limits<float>::infinity();
    w[45] = std::numeric_limits<float>::quiet_NaN();
    detail::merge_row<float> row(50);
    detail::merge_sums sums;
    CHECK_FALSE(row.compute(w.data(), d.data(), {}, sums));
    CHECK(row.first_bad() == 41);
}
