// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/kinds/delora.hpp>

#include <lowrank/core/linear_operator.hpp>
#include <lowrank/io/formats/plain_lora.hpp>
#include <lowrank/io/peft.hpp>

#include "io/peft/kinds/one_kind.hpp"
#include "io_support.hpp"
#include "lora/support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE("the description of DeLoRA holds for a module of it") {
    const row_matrix<float> w = random_weight<float>(6, 4, 1);
    check_kind(make_delora<float>(as_operator(w), {.r = 2}), 6, 4);
}

TEST_CASE("DeLoRA is plain LoRA without a loss, and is refused without the lengths it is scaled by") {
    const row_matrix<float> w = random_weight<float>(6, 4, 1);
    auto made = make_delora<float>(as_operator(w), {.r = 2});
    made.delora_B = random_matrix<float>(6, 2, 2);
    peft_adapter adapter;
    adapter.modules["l"] = made;
    adapter.config = peft_config_for(adapter);
    const auto plain = to_plain_lora(adapter);
    REQUIRE(plain);
    CHECK(plain->relative_errors.empty());
    CHECK(relative_diff(lora_of(plain->adapter.modules.at("l")).delta().dense(),
                        matrix<double>(made.delta().dense().cast<double>())) < 1e-6);

    temporary_folder folder;
    const auto at = folder / "a";
    REQUIRE(write_peft(at, adapter));
    const std::string prefix = "base_model.model.l.";
    std::vector<tensor_to_write> tensors = {tensor_of(prefix + "delora_A", made.delora_A),
                                            tensor_of(prefix + "delora_B", made.delora_B),
                                            tensor_of(prefix + "delora_lambda", made.delora_lambda)};
    REQUIRE(write_safetensors(at / "adapter_model.safetensors", tensors));
    auto read = read_peft(at);
    REQUIRE_FALSE(read);
    CHECK(read.error().message.find("lacks delora_w_norm") != std::string::npos);
    tensors.push_back(tensor_of(prefix + "delora_w_norm", vector<float>(vector<float>::Ones(5))));
    REQUIRE(write_safetensors(at / "adapter_model.safetensors", tensors));
    read = read_peft(at);
    REQUIRE_FALSE(read);
    CHECK(read.error().message.find("shapes do not fit") != std::string::npos);
    tensors[2] = tensor_of(prefix + "delora_lambda", vector<float>(vector<float>::Ones(2)));
    REQUIRE(write_safetensors(at / "adapter_model.safetensors", tensors));
    CHECK_FALSE(read_peft(at));
}
