// SPDX-License-Identifier: MIT
#include <lowrank/lora/init/spectral_init.hpp>

#include <cmath>

#include <lowrank/core/check.hpp>
#include <lowrank/factor/orthonormalize.hpp>
#include <lowrank/factor/svd.hpp>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE_TEMPLATE("PiSSA starts as the best rank r of W; the residual and its adapter are W", S, float, double) {
    for (const bool rslora : {false, true}) {
        const auto w = random_weight<S>(12, 9, 1);
        const lora_options options{.r = 4, .lora_alpha = 6, .use_rslora = rslora};
        const auto spec = svd(w).value();
        const auto a = pissa(spec, options);
        CHECK(max_abs_diff(a.delta().dense(), spec.truncate(4).dense()) < 40 * epsilon<S>);
        CHECK(std::abs(double(a.lora_A.norm() - a.lora_B.norm())) < 40 * epsilon<S>);
        CHECK(max_abs_diff(pissa(w, options).value().delta().dense(), a.delta().dense()) == 0);
        const auto fast = pissa_fast(w, options, {.oversample = 5}).value();
        CHECK(max_abs_diff(fast.delta().dense(), a.delta().dense()) < 200 * epsilon<S>);

        auto base = w;
        const auto receipt = subtract_init(weight_view<S>(base), a);
        REQUIRE(receipt);
        CHECK(max_abs_diff(base, spec.dropped(4).dense()) < 40 * epsilon<S>);
        CHECK(unmerge(weight_view<S>(base), *receipt, a.delta(S(-1))));
        CHECK(same_bits(base, w));
    }
}

TEST_CASE("PiSSA refuses a rank above the shape, NaN, and alpha zero") {
    auto w = random_weight<float>(6, 4, 2);
    CHECK_THROWS_AS((void)pissa(w, {.r = 5}), contract_violation);
    CHECK_THROWS_AS((void)pissa(w, {.r = 2, .lora_alpha = 0}), contract_violation);
    w(1, 1) = std::nanf("");
    CHECK(pissa(w, {.r = 2}).error().code == errc::non_finite);
    CHECK(olora(w, {.r = 2}).error().code == errc::non_finite);
    CHECK(pissa_fast(w, {.r = 2}).error().code == errc::non_finite);
}

TEST_CASE_TEMPLATE("OLoRA is the head of the QR decomposition, by default with the scaling taken into account", S,
                   float, double) {
    for (const auto& [out, in] : {std::pair<int, int>{12, 9}, {7, 15}}) {
        const auto w = random_weight<S>(out, in, 3);
        const lora_options options{.r = 5, .lora_alpha = 9};
        const auto full = thin_qr<double>(matrix<double>(w.template cast<double>()));
        const matrix<double> head = full.q.leftCols(5) * full.r.topRows(5);
        const auto a = olora(w, options).value();
        CHECK(max_abs_diff(a.delta().dense(), head) < 60 * epsilon<S>);
        CHECK(max_abs_diff(a.lora_B.transpose() * a.lora_B, matrix<S>::Identity(5, 5)) < 20 * epsilon<S>);
        CHECK(matrix<S>(a.lora_A.leftCols(5)).isUpperTriangular(S(0)));
        const auto peft = olora(w, options, init_scaling::peft).value();
        CHECK(max_abs_diff(peft.lora_B * peft.lora_A, head) < 60 * epsilon<S>);
    }
}

TEST_CASE("MiCA starts in the minor left directions with a change of zero") {
    const auto w = random_weight<double>(8, 11, 4);
    const auto a = mica(w, {.r = 3}).value();
    const auto spec = svd(w).value();
    CHECK(a.lora_A.isZero());
    CHECK(max_abs_diff(a.lora_B, spec.u.rightCols(3)) == 0);
    // ||B^T W||^2 is the energy of the three smallest values: no three orthonormal directions see less of W.
    CHECK((a.lora_B.transpose() * w).norm() == doctest::Approx(spec.error_at(5)));
}
