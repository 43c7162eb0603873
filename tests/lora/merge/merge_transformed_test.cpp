// SPDX-License-Identifier: MIT
#include <lowrank/lora/merge/merge_transformed.hpp>

#include <limits>

#include <lowrank/core/check.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/lora/kinds/rotations/boft.hpp>
#include <lowrank/lora/kinds/rotations/oft.hpp>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

namespace {

template <class T>
auto turned_layer(const row_matrix<T>& w) {
    using S = compute_t<T>;
    auto a = make_boft<S>(w.rows(), w.cols(), {.block_size = 4, .n_butterfly_factor = 2});
    a.boft_R = random_matrix<S>(a.boft_R.rows(), 4, 11, S(0.3));
    a.boft_s = random_matrix<S>(w.rows(), 1, 12).cwiseAbs().array() + S(0.5);
    return rotate(any_operator<S>(as_operator(w)), a);
}

}  // namespace

TEST_CASE_TEMPLATE("merge rounds diag(s) W R once and unmerge gives the same bits back", T, float, double, half,
                   bfloat16) {
    using S = compute_t<T>;
    const row_matrix<T> original = random_weight<T>(40, 24, 1, 0.05);
    auto w = original;
    const row_rotation transform(turned_layer<T>(original));
    const auto layer = turned_layer<T>(original);
    const matrix<S> x = random_matrix<S>(24, 3, 2);
    const matrix<S> y = apply(layer, x);
    for (int cycle = 0; cycle < 10; ++cycle) {
        const auto receipt = merge_transformed(weight_view<T>(w), transform).value();
        if (cycle == 0) {
            const double rounding = sizeof(T) == 2 ? 2e-2 : 1e-5;
            CHECK(max_abs_diff(apply(w, x), y) < rounding);
            CHECK(receipt.audit.touched == 40 * 24);
            CHECK(receipt.audit.relative_error < (sizeof(T) == 2 ? 1e-2 : 1e-6));
            CHECK(receipt.bits_per_weight() < 6);
            auto wrong = turned_layer<T>(original);
            wrong.rotation.factors[0].blocks(0, 0) += S(0.01);
            CHECK(unmerge_transformed(weight_view<T>(w), receipt, row_rotation(wrong)).code == errc::mismatch);
            auto touched = w;
            touched(3, 4) = T(S(1));
            CHECK(unmerge_transformed(weight_view<T>(touched), receipt, transform).code == errc::mismatch);
        }
        REQUIRE(bool(unmerge_transformed(weight_view<T>(w), receipt, transform)));
        REQUIRE(same_bits(w, original));
    }
}

TEST_CASE("a weight stored in x out merges to the transpose; an identity keeps every bit") {
    const auto original = random_weight<float>(40, 24, 3);
    auto w = original;
    row_matrix<float> stored = original.transpose();
    const row_rotation transform(turned_layer<float>(original));
    const auto receipt = merge_transformed(weight_view<float>(stored), transform, {.transposed = true}).value();
    (void)merge_transformed(weight_view<float>(w), transform).value();
    CHECK(same_bits(row_matrix<float>(stored.transpose()), w));
    CHECK(bool(unmerge_transformed(weight_view<float>(stored), receipt, transform, {.transposed = true})));
    CHECK(same_bits(row_matrix<float>(stored.transpose()), original));

    w = original;
    w(0, 0) = -0.0F;
    const auto before = w;
    const row_rotation nothing(
        rotate(any_operator<float>(as_operator(original)), make_oft<float>(40, 24, {.block_size = 8})));
    const auto none = merge_transformed(weight_view<float>(w), nothing).value();
    CHECK(same_bits(w, before));
    CHECK(none.audit.touched == 0);
    CHECK(bool(unmerge_transformed(weight_view<float>(w), none, nothing)));
    CHECK(same_bits(w, before));
}

TEST_CASE("values that are not finite are refused, with every bit as it was") {
    auto w = random_weight<half>(70, 24, 4);
    const row_rotation transform(turned_layer<half>(w));
    w(69, 5) = std::numeric_limits<half>::infinity();
    const auto before = w;
    CHECK(merge_transformed(weight_view<half>(w), transform).error().code == errc::non_finite);
    CHECK(same_bits(w, before));
    w(69, 5) = half(60000.0F);
    w(69, 4) = half(60000.0F);
    const auto large = w;
    auto layer = turned_layer<half>(w);
    layer.output_scale(69) = 4;
    CHECK(merge_transformed(weight_view<half>(w), row_rotation(layer)).error().code == errc::non_finite);
    CHECK(same_bits(w, large));
    auto small = random_weight<half>(70, 20, 4);
    CHECK_THROWS_AS((void)merge_transformed(weight_view<half>(small), transform), contract_violation);
}
