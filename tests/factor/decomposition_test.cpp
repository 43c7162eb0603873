// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/factor/decomposition.hpp>
#include <lowrank/factor/sketched/krylov_svd.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/factor/truncated_svd.hpp>

#include <array>
#include <vector>

#include <support/matrices.hpp>

#include <doctest/doctest.h>

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE_TEMPLATE("Eckart-Young: the error of each truncation is the tail, and parts add up", S, float, double) {
    for (const auto& [m, n] : {std::pair<idx, idx>{40, 25}, {25, 40}}) {
        const row_matrix<S> w = with_values<S>(m, n, power_law(25, 0.7), 1);
        const auto spec = svd(w);
        REQUIRE(spec);
        CHECK(spec.rows() == m);
        CHECK(spec.cols() == n);
        CHECK(spec.size() == 25);
        const matrix<double> wide = w.template cast<double>();
        CHECK(spec.norm() == doctest::Approx(wide.norm()).epsilon(10 * eps<S>));
        for (idx k = 0; k <= 25; ++k) {
            const auto kept = spec.truncate(k);
            const auto gone = spec.dropped(k);
            CHECK(kept.rank() == k);
            CHECK(gone.rank() == 25 - k);
            const matrix<double> rest = wide - kept.dense().template cast<double>();
            CHECK(std::abs(rest.norm() - spec.error_at(k)) < 40 * eps<S> * wide.norm());
            CHECK(std::abs(frobenius_norm(gone) - spec.error_at(k)) < 40 * eps<S> * wide.norm());
            CHECK(spec.relative_error(k) == doctest::Approx(spec.error_at(k) / wide.norm()).epsilon(1e-4));
            CHECK((rest - gone.dense().template cast<double>()).norm() < 40 * eps<S> * wide.norm());
        }
        CHECK(spec.error_at(25) == 0.0);
    }
}

TEST_CASE_TEMPLATE("no random candidate of the same rank comes closer", S, float, double) {
    const auto w = gaussian<S>(20, 15, 2);
    const auto spec = svd(w);
    REQUIRE(spec);
    const auto best = spec.truncate(4);
    for (std::uint64_t trial = 0; trial < 20; ++trial) {
        const double step = std::pow(10.0, -static_cast<double>(trial % 5));
        const matrix<S> l = best.left + S(step) * gaussian<S>(20, 4, 100 + trial);
        const matrix<S> r = best.right + S(step) * gaussian<S>(4, 15, 200 + trial);
        const matrix<double> rest = w.template cast<double>() - l.template cast<double>() * r.template cast<double>();
        CHECK(rest.norm() >= spec.error_at(4) * (1 - 10 * eps<S>));
    }
}

TEST_CASE_TEMPLATE("truncations are nested: the first columns of a larger one", S, float, double) {
    const auto spec = svd(gaussian<S>(30, 18, 3));
    REQUIRE(spec);
    const auto large = spec.truncate(12);
    const auto small = spec.truncate(5);
    CHECK(small.left == large.left.leftCols(5));
    CHECK(small.right == large.right.topRows(5));
}

TEST_CASE_TEMPLATE("bands and index sets", S, float, double) {
    const auto spec = svd(gaussian<S>(14, 10, 4));
    REQUIRE(spec);
    const auto band = spec.band(3, 7);
    const std::array<idx, 4> same{3, 4, 5, 6};
    const auto chosen = spec.select(same);
    CHECK(band.left == chosen.left);
    CHECK(band.right == chosen.right);
    const matrix<S> by_difference = spec.truncate(7).dense() - spec.truncate(3).dense();
    CHECK(relative_difference(band.dense(), by_difference) < 100 * eps<S>);

    const std::array<idx, 3> odd{8, 0, 2};
    const matrix<double> rest =
        spec.truncate(10).dense().template cast<double>() - spec.select(odd).dense().template cast<double>();
    CHECK(spec.error_at(odd) == doctest::Approx(rest.norm()).epsilon(100 * eps<S>));
    const std::vector<idx> prefix{0, 1, 2, 3};
    CHECK(spec.error_at(prefix) == doctest::Approx(spec.error_at(4)).epsilon(1e-14));
    CHECK(spec.error_at(std::vector<idx>{}) == doctest::Approx(spec.norm()).epsilon(1e-14));
}

TEST_CASE_TEMPLATE("where the values go does not change the product", S, float, double) {
    const auto spec = svd(gaussian<S>(12, 9, 5));
    REQUIRE(spec);
    const auto left = spec.truncate(6, sigma_split::left);
    const auto right = spec.truncate(6, sigma_split::right);
    const auto square = spec.truncate(6, sigma_split::square);
    CHECK(relative_difference(right.dense(), left.dense()) < 50 * eps<S>);
    CHECK(relative_difference(square.dense(), left.dense()) < 50 * eps<S>);
    CHECK(orthogonality_defect(left.right.transpose()) < 100 * eps<S>);
    CHECK(orthogonality_defect(right.left) < 100 * eps<S>);
    CHECK(square.left.norm() == doctest::Approx(square.right.norm()).epsilon(100 * eps<S>));
}

TEST_CASE_TEMPLATE("a tail far below the head is exact", S, float, double) {
    vector<S> s(4);
    s << S(1), S(1e-12), S(3e-13), S(4e-13) / S(1);
    s(3) = S(1e-13);
    matrix<S> eye = matrix<S>::Identity(4, 4);
    const decomposition<S> spec(eye, s, eye);
    CHECK(spec.error_at(1) == doctest::Approx(std::sqrt(1e-24 + 9e-26 + 1e-26)).epsilon(10 * eps<S>));
    CHECK(spec.spectral_error(1) == doctest::Approx(1e-12).epsilon(10 * eps<S>));
    CHECK(spec.spectral_error(4) == 0.0);
}

TEST_CASE_TEMPLATE("extreme scales, zero and empty weights", S, float, double) {
    for (const S scale : {S(1e-30), S(1e30)}) {
        const matrix<S> w = gaussian<S>(8, 6, 6) * scale;
        const auto spec = svd(w);
        REQUIRE(spec);
        CHECK(spec.norm() == doctest::Approx(w.template cast<double>().norm()).epsilon(10 * eps<S>));
        CHECK(spec.relative_error(3) > 0.1);
    }
    const auto zero = svd(matrix<S>(matrix<S>::Zero(3, 4)));
    REQUIRE(zero);
    CHECK(zero.error_at(0) == 0.0);
    CHECK(zero.relative_error(2) == 0.0);
    CHECK(zero.truncate(2).dense() == matrix<S>::Zero(3, 4));

    const auto empty = svd(matrix<S>(0, 4));
    REQUIRE(empty);
    CHECK(empty.size() == 0);
    CHECK(empty.error_at(0) == 0.0);
    CHECK(empty.truncate(0).dense().cols() == 4);
    CHECK(decomposition<S>().error_at(0) == 0.0);
}

TEST_CASE("a weight with NaN has no spectrum; a rank out of range is a broken contract") {
    matrix<float> w = gaussian<float>(4, 3, 7);
    w(1, 1) = std::numeric_limits<float>::quiet_NaN();
    const auto none = svd(w);
    CHECK_FALSE(none);
    CHECK(none.why.code == errc::non_finite);
    CHECK(none.why.message == "svd: the matrix holds NaN or infinity; repair or exclude the weight");
    CHECK(truncated_svd(w, 2).why.message.starts_with("truncated_svd: "));
    CHECK(singular_values(w).why.message.starts_with("singular_values: "));
    CHECK_THROWS_AS((void)none.value(), failure);
    CHECK_THROWS_AS((void)svd(w).value(), failure);
    CHECK_THROWS_WITH_AS(
        (void)none.relative_error(0),
        "decomposition::evidence_at: there is no decomposition; svd: the matrix holds NaN or infinity; "
        "repair or exclude the weight",
        contract_violation);

    const auto spec = svd(gaussian<float>(4, 3, 7));
    REQUIRE(spec);
    CHECK_THROWS_WITH_AS((void)spec.truncate(4), "decomposition::truncate: k must be in [0, 3], got 4",
                         contract_violation);
    CHECK_THROWS_AS((void)spec.dropped(-1), contract_violation);
    CHECK_THROWS_AS((void)spec.band(2, 1), contract_violation);
    CHECK_THROWS_AS((void)spec.error_at(4), contract_violation);
    const std::array<idx, 2> twice{1, 1};
    CHECK_THROWS_AS((void)spec.select(twice), contract_violation);
    const std::array<idx, 1> outside{3};
    CHECK_THROWS_AS((void)spec.select(outside), contract_violation);
    CHECK_THROWS_AS((void)decomposition<float>(status{}), contract_violation);
    CHECK_THROWS_AS((void)decomposition<float>(spec.u, spec.s.head(2), spec.v), contract_violation);
}

TEST_CASE_TEMPLATE("a partial decomposition says what it lacks, at every rank", S, float, double) {
    const auto w = gaussian<S>(30, 20, 8);
    const matrix<double> wide = w.template cast<double>();
    const auto all = svd(w);
    CHECK(all.complete());
    const auto part = all.leading(9);
    CHECK_FALSE(part.complete());
    CHECK(part.size() == 9);
    CHECK(part.norm() == doctest::Approx(wide.norm()).epsilon(10 * eps<S>));
    for (const idx k : {idx{0}, idx{4}, idx{9}}) {
        const double error = (wide - part.truncate(k).dense().template cast<double>()).norm();
        CHECK(part.error_at(k) == doctest::Approx(error).epsilon(100 * eps<S>));
        CHECK(part.error_at(k) == doctest::Approx(all.error_at(k)).epsilon(10 * eps<S>));
        CHECK(part.relative_error(k) == doctest::Approx(all.relative_error(k)).epsilon(10 * eps<S>));
        CHECK(part.evidence_at(k).how == error_source::exact);
        CHECK(part.evidence_at(k).deviation > 0.0);
    }
    const std::array<idx, 2> some{1, 5};
    CHECK(part.error_at(some) == doctest::Approx(all.error_at(some)).epsilon(10 * eps<S>));
    CHECK(part.leading(4).error.frobenius == doctest::Approx(all.error_at(4)).epsilon(10 * eps<S>));
    CHECK(all.leading(20).complete());
    CHECK(part.spectral_error(8) == static_cast<double>(all.s(8)));
    CHECK_THROWS_AS((void)part.spectral_error(9), contract_violation);
    CHECK_THROWS_WITH_AS((void)part.dropped(4),
                         "decomposition::dropped: only the leading 9 components are here, and not what they leave out; "
                         "decompose with svd",
                         contract_violation);

    // What a sketch does not see stays an estimate, and is said to be one.
    const auto sampled = krylov_svd(any_operator<S>(as_operator(w)), 9);
    REQUIRE(sampled);
    CHECK(sampled.evidence_at(4).how == error_source::sampled);
    CHECK(sampled.evidence_at(4).deviation >= sampled.error.deviation);
    CHECK(std::abs(sampled.error_at(4) - all.error_at(4)) < 0.2 * all.error_at(4));
}
