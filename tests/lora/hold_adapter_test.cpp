// SPDX-License-Identifier: MIT
#include <lowrank/lora/hold_adapter.hpp>

#include <doctest/doctest.h>

#include <lowrank/lora/kinds/lora.hpp>

using namespace lowrank;

TEST_CASE("a held adapter keeps its type, and its gradient says whose it is") {
    const auto held = detail::hold_adapter(make_lora<float>(4, 3, {.r = 2}));
    CHECK(held->rows() == 4);
    CHECK(held->cols() == 3);
    CHECK(held->parameter_count() == 2 * (4 + 3));
    CHECK(held->mark() == &detail::type_mark<lora_adapter<float>>);
    CHECK(held->zero_gradient()->spans.size() == 2);
    const any_adapter<float> any = make_lora<float>(4, 3, {.r = 2});
    CHECK(any.get<lora_adapter<float>>() != nullptr);
}
