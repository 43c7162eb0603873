// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/lora/merge/merge_stack.hpp>

#include <limits>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

namespace {

template <class T>
low_rank<compute_t<T>> change_of(std::uint64_t stream) {
    return random_adapter<compute_t<T>>(17, 530, {.r = 3, .lora_alpha = 0.3, .seed = stream}).delta();
}

}  // namespace

TEST_CASE_TEMPLATE("bits depend on what is in, not on how it came in", T, float, double, half, bfloat16) {
    const auto original = random_weight<T>(17, 530, 1, 0.02);
    const auto a = change_of<T>(1);
    const auto b = change_of<T>(2);
    const auto c = change_of<T>(3);

    auto w1 = original;
    merge_stack<T> one{weight_view<T>(w1)};
    REQUIRE(one.add("a", a));
    REQUIRE(one.add("c", c));
    const auto a_and_c = w1;

    auto w2 = original;
    merge_stack<T> two{weight_view<T>(w2)};
    REQUIRE(two.add("c", c));
    REQUIRE(two.add("b", b));
    REQUIRE(two.add("a", a));
    CHECK(two.changes().size() == 3);
    CHECK_FALSE(same_bits(w2, a_and_c));
    REQUIRE(two.remove("b"));  // neither the first nor the last that came in
    CHECK(same_bits(w2, a_and_c));
    REQUIRE(two.add("a", b));  // replaces
    REQUIRE(two.add("a", a));
    CHECK(same_bits(w2, a_and_c));
    REQUIRE(two.remove("c"));
    REQUIRE(two.remove("a"));
    CHECK(same_bits(w2, original));
    REQUIRE(one.clear());
    CHECK(same_bits(w1, original));
    REQUIRE(one.clear());
}

TEST_CASE_TEMPLATE("several changes are rounded once", T, half, bfloat16) {
    const auto original = random_weight<T>(17, 530, 1, 0.02);
    auto w = original;
    merge_stack<T> stack{weight_view<T>(w)};
    const auto a = change_of<T>(1);
    const auto b = change_of<T>(2);
    REQUIRE(stack.add("a", a));
    REQUIRE(stack.add("b", b));
    const matrix<double> exact = original.template cast<float>().template cast<double>() +
                                 a.left.template cast<double>() * a.right.template cast<double>() +
                                 b.left.template cast<double>() * b.right.template cast<double>();
    lowrank::index wrong = 0;
    for (lowrank::index i = 0; i < w.size(); ++i) {
        wrong += static_cast<float>(w.data()[i]) ==
                         static_cast<float>(static_cast<T>(static_cast<float>(exact(i / 530, i % 530))))
                     ? 0
                     : 1;
    }
    CHECK(wrong == 0);
}

TEST_CASE("failures leave weight and stack as they were") {
    const auto original = random_weight<half>(17, 530, 1, 0.02);
    auto w = original;
    merge_stack<half> stack{weight_view<half>(w)};
    REQUIRE(stack.add("a", change_of<half>(1)));
    const auto merged = w;
    auto huge = change_of<half>(2);
    huge.left *= 1e9F;
    CHECK(stack.add("huge", huge).code == errc::non_finite);
    CHECK(same_bits(w, merged));
    CHECK(stack.changes().size() == 1);
    CHECK(stack.remove("huge").code == errc::not_found);

    w(3, 3) = half(7);
    CHECK(stack.add("b", change_of<half>(2)).code == errc::mismatch);
    CHECK(stack.clear().code == errc::mismatch);
    w(3, 3) = merged(3, 3);
    REQUIRE(stack.clear());
    CHECK(same_bits(w, original));
    CHECK_THROWS_AS((void)stack.add("shape", random_adapter<float>(3, 4, {.r = 2}).delta()), contract_violation);
}
