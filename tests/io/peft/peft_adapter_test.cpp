// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/peft_adapter.hpp>

#include <string>

#include <doctest/doctest.h>

using namespace lowrank;

TEST_CASE("a program that knows plain LoRA alone learns what else there is") {
    peft_adapter adapter;
    adapter.modules["a"] = make_lora<float>(3, 2);
    CHECK(check_plain_lora(adapter));
    adapter.modules["b"] = peft_lora{.lora = make_lora<float>(3, 2), .magnitude = vector<float>::Ones(3)};
    const status why = check_plain_lora(adapter);
    CHECK(why.code == errc::unsupported);
    CHECK(why.message.find("\"b\" is adapted by DoRA") != std::string::npos);
}
