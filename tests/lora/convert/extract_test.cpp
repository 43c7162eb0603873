// SPDX-License-Identifier: MIT
#include <lowrank/factor/decomposition.hpp>
#include <lowrank/lora/convert/extract.hpp>

#include <cmath>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

namespace {

/// W and W + B A for a random B A of rank 3.
template <class T>
struct tuned_pair {
    row_matrix<T> base = random_weight<T>(20, 16, 1, 0.1);
    matrix<double> change = random_matrix<double>(20, 3, 2) * random_matrix<double>(3, 16, 3);
    row_matrix<T> tuned = (base.template cast<double>() + change).template cast<compute_t<T>>().template cast<T>();
    matrix<double> difference = tuned.template cast<double>() - base.template cast<double>();
};

template <class S>
lowrank::matrix<double> extracted_delta(const lora_extraction<S>& e) {
    return double(e.adapter.scaling()) *
           (e.adapter.lora_B.template cast<double>() * e.adapter.lora_A.template cast<double>());
}

}  // namespace

TEST_CASE_TEMPLATE("extraction finds the change between two weights, of any stored type", T, float, double, half,
                   bfloat16) {
    const tuned_pair<T> p;
    const auto e = extract_lora(p.base, p.tuned, {.rank = fixed_rank(3)});
    REQUIRE(e);
    CHECK(e.changed);
    CHECK(e.adapter.rank() == 3);
    const double missed = (extracted_delta(e) - p.difference).norm();
    CHECK(std::abs(missed - e.error) < 0.01 * e.error + 1e-5);
    CHECK(e.relative < (sizeof(T) == 2 ? 0.02 : 1e-6));
    const auto all = extract_lora(p.base, p.tuned, full_extraction());
    CHECK((extracted_delta(all) - p.difference).norm() < 100 * epsilon<compute_t<T>> * p.difference.norm());
}

TEST_CASE("transposed storage gives the adapter of out x in") {
    const tuned_pair<double> p;
    const row_matrix<double> base = p.base.transpose();
    const row_matrix<double> tuned = p.tuned.transpose();
    const auto e = extract_lora(base, tuned, {.rank = fixed_rank(3), .fan_in_fan_out = true});
    CHECK(e.adapter.rows() == 20);
    CHECK(max_abs_diff(extracted_delta(e), p.difference) < 1e-12);
}

TEST_CASE("the selectors of LyCORIS, kohya and mergekit") {
    matrix<double> d = matrix<double>::Zero(10, 8);
    for (lowrank::index i = 0; i < 8; ++i) {
        d(i, i) = std::ldexp(1.0, 3 - static_cast<int>(i));
    }
    const auto rank = [&](const extraction_options& o) { return extract_lora(d, o).adapter.rank(); };
    CHECK(rank(lycoris_extraction(rank_rule::ratio, 0.1)) == 4);
    CHECK(rank(lycoris_extraction(rank_rule::quantile, 0.9)) == 3);
    CHECK(rank(lycoris_extraction(rank_rule::threshold, 1)) == 3);
    CHECK(rank(lycoris_extraction(rank_rule::threshold, 100)) == 1);
    CHECK(rank(lycoris_extraction(rank_rule::fixed, 6)) == 6);
    CHECK(rank(full_extraction()) == 8);
    CHECK(rank(mergekit_extraction(128, 0.3)) == 5);
    CHECK(rank(mergekit_extraction(2)) == 2);
    CHECK(extract_lora(matrix<double>(1e-4 * d), kohya_extraction(4))
              .changed);  // a typical fine-tune moves by less than 0.01
    const auto by_kohya = extract_lora(d, kohya_extraction(4));
    CHECK(by_kohya.adapter.rank() == 4);
    CHECK(by_kohya.adapter.lora_alpha == 4);
    // [B; A] has 72 entries, four of A are 1 and four of B are 8, 4, 2, 1: the 0.99 quantile lies between 4 and 8.
    CHECK(by_kohya.adapter.lora_B.maxCoeff() == doctest::Approx(4 + 4 * (0.99 * 71 - 70)));
    const matrix<double> a = extract_lora(d, mergekit_extraction(4, 0, false)).adapter.lora_A;
    CHECK(a.row(0).norm() == doctest::Approx(8));
}

TEST_CASE("unchanged and barely changed weights, fast extraction, NaN") {
    const tuned_pair<float> p;
    const auto same = extract_lora(p.base, p.base);
    CHECK_FALSE(same.changed);
    CHECK(same.adapter.rank() == 0);
    CHECK(same.adapter.rows() == 20);
    CHECK(same.adapter.delta().dense().isZero());
    row_matrix<float> near = p.base;
    near(3, 4) += 0.005F;
    CHECK(extract_lora(p.base, near, kohya_extraction(4)).changed);
    auto options = kohya_extraction(4);
    options.min_difference = 0.01;
    const auto below = extract_lora(p.base, near, options);
    CHECK_FALSE(below.changed);
    CHECK(below.relative == 1);
    CHECK(below.error == doctest::Approx(0.005).epsilon(1e-3));
    for (const auto split : {sigma_split::square, sigma_split::left}) {
        const auto fast = extract_lora(p.base, p.tuned, {.rank = fixed_rank(3), .split = split, .fast = true});
        CHECK(max_abs_diff(extracted_delta(fast), p.difference) < 1e-4);
    }
    near(0, 0) = std::nanf("");
    CHECK(extract_lora(p.base, near).why.code == errc::non_finite);
}
