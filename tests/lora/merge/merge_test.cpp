// SPDX-License-Identifier: MIT
#include <lowrank/lora/merge/merge.hpp>

#include <algorithm>
#include <limits>

#include <lowrank/core/check.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/factor/factored_algebra.hpp>
#include <lowrank/factor/low_rank.hpp>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

namespace {

template <class T>
low_rank<compute_t<T>> random_change(lowrank::index rows, lowrank::index cols, lowrank::index k, double rms,
                                     std::uint64_t stream) {
    using S = compute_t<T>;
    const double scale = std::sqrt(rms / std::sqrt(static_cast<double>(k)));
    return {.left = random_matrix<S>(rows, k, stream, static_cast<S>(scale)),
            .right = random_matrix<S>(k, cols, stream + 1, static_cast<S>(scale))};
}

/// The rule, written down once more in the plainest way.
template <class T>
T merged_entry(T w, const low_rank<compute_t<T>>& d, lowrank::index i, lowrank::index j, double c = 1) {
    double sum = 0;
    for (lowrank::index k = 0; k < d.rank(); ++k) {
        sum += double(d.left(i, k)) * double(d.right(k, j));
    }
    return static_cast<T>(static_cast<compute_t<T>>(c * (double(static_cast<compute_t<T>>(w)) + sum)));
}

}  // namespace

TEST_CASE_TEMPLATE("merge rounds W + delta once and unmerge gives the bits back, 100 times", T, float, double, half,
                   bfloat16) {
    for (const double rms : {1e-5, 1e-3, 0.05, 3.0}) {
        CAPTURE(rms);
        const auto original = random_weight<T>(37, 600, 1, 0.02);
        const auto change = random_change<T>(37, 600, 5, rms, 2);
        auto w = original;
        for (int cycle = 0; cycle < 100; ++cycle) {
            const auto receipt = merge(weight_view<T>(w), change);
            REQUIRE(receipt);
            if (cycle == 0) {
                double worst = 0;
                for (lowrank::index i = 0; i < w.rows(); ++i) {
                    for (lowrank::index j = 0; j < w.cols(); ++j) {
                        const double want = double(compute_t<T>(merged_entry<T>(original(i, j), change, i, j)));
                        const double unit = std::is_same_v<T, double> ? 1e-15 : 0;  // a fused multiply-add may differ
                        worst = std::max(worst, std::abs(double(compute_t<T>(w(i, j))) - want) - unit);
                    }
                }
                CHECK(worst <= 0);
                CHECK_FALSE(same_bits(w, original));
            }
            REQUIRE(unmerge(weight_view<T>(w), *receipt, change));
            REQUIRE(same_bits(w, original));
        }
    }
}

TEST_CASE_TEMPLATE("corrections cost well under a bit per weight", T, float, half, bfloat16) {
    // The sizes of a real weight and a real adapter: W rms 0.02, delta rms 1e-5 to 1e-3.
    auto w = random_weight<T>(256, 1024, 1, 0.02);
    for (const auto& [rms, limit] : {std::pair{1e-5, 0.05}, {1e-4, 0.2}, {1e-3, 0.7}}) {
        const auto change = random_change<T>(256, 1024, 16, rms, 2);
        const auto receipt = merge(weight_view<T>(w), change);
        REQUIRE(receipt);
        CHECK(receipt->bits_per_weight() < limit);
        REQUIRE(unmerge(weight_view<T>(w), *receipt, change));
    }
}

TEST_CASE_TEMPLATE("the audit says what rounding did", T, float, double, half, bfloat16) {
    const auto original = random_weight<T>(21, 530, 1, 0.02);
    auto change = random_change<T>(21, 530, 3, 1e-4, 2);
    change.left.row(4).setZero();
    auto w = original;
    const auto receipt = merge(weight_view<T>(w), change);
    REQUIRE(receipt);
    const auto& audit = receipt->audit;
    double error2 = 0;
    double change2 = 0;
    double worst = 0;
    std::uint64_t unchanged = 0;
    for (lowrank::index i = 0; i < w.rows(); ++i) {
        for (lowrank::index j = 0; j < w.cols(); ++j) {
            const double exact =
                change.left.row(i).template cast<double>().dot(change.right.col(j).template cast<double>());
            const double realised = double(compute_t<T>(w(i, j))) - double(compute_t<T>(original(i, j)));
            error2 += (realised - exact) * (realised - exact);
            change2 += exact * exact;
            worst = std::max(worst, std::abs(realised - exact));
            unchanged += i != 4 && realised == 0 ? 1 : 0;
        }
    }
    CHECK(audit.entries == 21 * 530);
    CHECK(audit.touched == 20 * 530);
    CHECK(audit.unchanged == unchanged);
    CHECK(audit.unchanged_fraction() == doctest::Approx(double(unchanged) / (20 * 530)));
    CHECK(audit.relative_error == doctest::Approx(std::sqrt(error2 / change2)).epsilon(1e-2));
    CHECK(audit.worst_error == doctest::Approx(worst).epsilon(1e-2));
    const double at_worst = double(compute_t<T>(w(audit.worst_row, audit.worst_col))) -
                            double(compute_t<T>(original(audit.worst_row, audit.worst_col))) -
                            change.left.row(audit.worst_row)
                                .template cast<double>()
                                .dot(change.right.col(audit.worst_col).template cast<double>());
    CHECK(std::abs(at_worst) == doctest::Approx(audit.worst_error).epsilon(1e-2));
}

TEST_CASE_TEMPLATE("zeros of both signs, denormals, large and tiny entries come back", T, float, double, half,
                   bfloat16) {
    using S = compute_t<T>;
    using limits = std::numeric_limits<T>;
    const T values[] = {T(0.0F), T(-0.0F), limits::denorm_min(), -limits::denorm_min(), limits::min(), -limits::min(),
                        T(1),    T(-1),    limits::max(),        limits::lowest(),      T(1e-3F),      T(-3.5F)};
    const double factors[] = {0, 1e-30, 1e-7, 1, -1, 0.37, -123.0};
    const lowrank::index n = std::size(values);
    for (const double factor : factors) {
        CAPTURE(factor);
        row_matrix<T> original(1, n);
        low_rank<S> change{.left = matrix<S>::Constant(1, 1, static_cast<S>(factor)), .right = matrix<S>::Ones(1, n)};
        for (lowrank::index j = 0; j < n; ++j) {
            original(0, j) = values[j];
            if (std::abs(double(S(values[j]))) > 1e4) {
                change.right(0, j) = 0;  // adding here would overflow
            }
        }
        auto w = original;
        const auto receipt = merge(weight_view<T>(w), change);
        REQUIRE(receipt);
        if (factor == 0) {
            CHECK(same_bits(w, original));
            CHECK(receipt->audit.touched == 0);
            CHECK(receipt->audit.relative_error == 0);
        }
        REQUIRE(unmerge(weight_view<T>(w), *receipt, change));
        CHECK(same_bits(w, original));
    }
}

TEST_CASE_TEMPLATE("NaN, infinity and overflow are refused and leave the weight alone", T, float, double, half,
                   bfloat16) {
    using S = compute_t<T>;
    const auto change = random_change<T>(11, 1100, 3, 1e-2, 2);
    const auto refused = [](row_matrix<T> w, const low_rank<S>& d) {
        const auto before = w;
        const auto receipt = merge(weight_view<T>(w), d);
        return !receipt && receipt.error().code == errc::non_finite && same_bits(w, before);
    };
    const auto original = random_weight<T>(11, 1100, 1, 0.02);
    for (const T bad : {std::numeric_limits<T>::quiet_NaN(), std::numeric_limits<T>::infinity(),
                        -std::numeric_limits<T>::infinity()}) {
        // The first entry, and one far behind rows and blocks that were merged already.
        for (const auto& [i, j] : {std::pair<lowrank::index, lowrank::index>{0, 0}, {9, 1050}, {10, 3}}) {
            auto w = original;
            w(i, j) = bad;
            CHECK(refused(w, change));
            auto zero = change;
            zero.left.setZero();
            CHECK(refused(w, zero));
        }
        auto broken = change;
        broken.right(1, 7) = S(bad);
        CHECK(refused(original, broken));
    }
    auto w = original;
    w(8, 700) = std::numeric_limits<T>::max();
    low_rank<S> large{.left = matrix<S>::Zero(11, 1), .right = matrix<S>::Ones(1, 1100)};
    large.left(8, 0) = static_cast<S>(double(S(std::numeric_limits<T>::max())) / 2);
    CHECK(refused(w, large));
    const auto receipt = merge(weight_view<T>(w), large);
    CHECK(receipt.error().message.find("(8, 700)") != std::string::npos);
}

TEST_CASE_TEMPLATE("row and column scales", T, float, double, half, bfloat16) {
    using S = compute_t<T>;
    const auto original = random_weight<T>(12, 40, 1, 0.02);
    const auto change = random_change<T>(12, 40, 3, 1e-2, 2);
    std::vector<S> rows(12);
    std::vector<S> cols(40);
    for (std::size_t i = 0; i < rows.size(); ++i) {
        rows[i] = S(0.5) + S(i) / 8;
    }
    for (std::size_t j = 0; j < cols.size(); ++j) {
        cols[j] = S(j) - 20;  // one of them is zero
    }
    for (const auto& options : {merge_options<S>{.row_scale = rows}, merge_options<S>{.column_scale = cols},
                                merge_options<S>{.row_scale = rows, .column_scale = cols}}) {
        auto w = original;
        const auto receipt = merge(weight_view<T>(w), change, options);
        REQUIRE(receipt);
        double worst = 0;
        for (lowrank::index i = 0; i < 12; ++i) {
            for (lowrank::index j = 0; j < 40; ++j) {
                const double c = (options.row_scale.empty() ? 1.0 : double(rows[std::size_t(i)])) *
                                 (options.column_scale.empty() ? 1.0 : double(cols[std::size_t(j)]));
                const double want = double(S(merged_entry<T>(original(i, j), change, i, j, c)));
                worst = std::max(worst, std::abs(double(S(w(i, j))) - want) -
                                            (std::is_same_v<T, double> ? 1e-15 * std::abs(c) : 0.0));
            }
        }
        CHECK(worst <= 0);
        CHECK(unmerge(weight_view<T>(w), *receipt, change).code == errc::mismatch);
        REQUIRE(unmerge(weight_view<T>(w), *receipt, change, options));
        CHECK(same_bits(w, original));
    }
}

TEST_CASE_TEMPLATE("the wrong order, change, weight or receipt is noticed before anything is touched", T, float, double,
                   half, bfloat16) {
    const auto original = random_weight<T>(16, 40, 1, 0.02);
    const auto first = random_change<T>(16, 40, 3, 1e-2, 2);
    const auto second = random_change<T>(16, 40, 5, 1e-2, 7);
    auto w = original;
    const auto receipt1 = merge(weight_view<T>(w), first);
    const auto receipt2 = merge(weight_view<T>(w), second);
    REQUIRE(receipt1);
    REQUIRE(receipt2);
    const auto merged = w;
    const auto refused = [&](const merge_receipt& receipt, const low_rank<compute_t<T>>& change) {
        const auto why = unmerge(weight_view<T>(w), receipt, change);
        return why.code == errc::mismatch && same_bits(w, merged);
    };
    CHECK(refused(*receipt1, first));
    CHECK(refused(*receipt2, first));
    auto altered = second;
    altered.left(3, 1) = -altered.left(3, 1);
    CHECK(refused(*receipt2, altered));
    auto damaged = *receipt2;
    REQUIRE_FALSE(damaged.corrections.empty());
    damaged.corrections[0].push_back(1);
    CHECK(refused(damaged, second));
    damaged = *receipt2;
    damaged.rows = 15;
    CHECK(refused(damaged, second));
    // Another edit of one entry.
    const T kept = w(5, 5);
    w(5, 5) = T(9);
    CHECK(unmerge(weight_view<T>(w), *receipt2, second).code == errc::mismatch);
    w(5, 5) = kept;

    REQUIRE(unmerge(weight_view<T>(w), *receipt2, second));
    REQUIRE(unmerge(weight_view<T>(w), *receipt1, first));
    CHECK(same_bits(w, original));
}

TEST_CASE_TEMPLATE("an executor and a strided view change nothing", T, float, bfloat16) {
    const auto original = random_weight<T>(20, 2000, 1, 0.02);
    const auto change = random_change<T>(20, 1500, 3, 1e-3, 2);
    auto w = original;
    row_matrix<T> dense = original.middleCols(100, 1500);
    const merge_options<compute_t<T>> backwards{.exec = [](lowrank::index n, const task& body) {
        for (lowrank::index i = n; i-- > 0;) {
            body(i);
        }
    }};
    weight_view<T> inside(w.data() + 100, 20, 1500, 2000);
    const auto receipt = merge(inside, change, backwards);
    const auto plain = merge(weight_view<T>(dense), change);
    REQUIRE(receipt);
    REQUIRE(plain);
    CHECK(same_bits(row_matrix<T>(w.middleCols(100, 1500)), dense));
    CHECK(receipt->corrections == plain->corrections);
    CHECK(receipt->audit.relative_error == plain->audit.relative_error);
    CHECK(same_bits(row_matrix<T>(w.leftCols(100)), row_matrix<T>(original.leftCols(100))));
    REQUIRE(unmerge(inside, *receipt, change, backwards));
    CHECK(same_bits(w, original));
}

TEST_CASE_TEMPLATE("the merged weight computes what base and adapter compute", S, float, double) {
    auto w = random_weight<S>(24, 31, 1, 0.1);
    const auto adapter = random_adapter<S>(24, 31, {.r = 4, .lora_alpha = 2, .seed = 3});
    const auto x = random_matrix<S>(31, 6, 4);
    const matrix<S> unmerged = apply(w, x) + S(0.5) * apply(adapter, x);
    REQUIRE(merge(weight_view<S>(w), adapter.delta(S(0.5))));
    CHECK(relative_diff(apply(w, x), unmerged.template cast<double>()) < 100 * epsilon<S>);
}

TEST_CASE("shapes are contracts; empty weights are fine") {
    auto w = random_weight<float>(4, 5, 1);
    CHECK_THROWS_AS((void)merge(weight_view<float>(w), random_change<float>(5, 4, 2, 1, 1)), contract_violation);
    const std::vector<float> scale(3);
    CHECK_THROWS_AS((void)merge(weight_view<float>(w), random_change<float>(4, 5, 2, 1, 1), {.row_scale = scale}),
                    contract_violation);
    row_matrix<float> empty(0, 5);
    const low_rank<float> change{.left = matrix<float>(0, 2), .right = matrix<float>::Ones(2, 5)};
    const auto receipt = merge(weight_view<float>(empty), change);
    REQUIRE(receipt);
    CHECK(receipt->bits_per_weight() == 0);
    CHECK(unmerge(weight_view<float>(empty), *receipt, change));

    const auto before = w;
    const low_rank<float> none{.left = matrix<float>(4, 0), .right = matrix<float>(0, 5)};
    REQUIRE(merge(weight_view<float>(w), none));
    CHECK(same_bits(w, before));
}
