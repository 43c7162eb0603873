// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/kinds/whole_tensor.hpp>

#include <doctest/doctest.h>

#include <lowrank/io/checkpoints/merge_checkpoint.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/io/peft/peft_modules.hpp>
#include <lowrank/io/peft/to_any_adapters.hpp>

#include "io_support.hpp"

using namespace lowrank;
using lowrank_tests::temporary_folder;

TEST_CASE("a tensor that replaces one of the base is kept as it stands in the file") {
    const auto t = tensor_of("base_model.model.head.weight", row_matrix<float>(row_matrix<float>::Ones(2, 3)));
    const peft_module whole = whole_tensor{t};
    const peft_module rows = token_rows{t, {4, 1}};
    for (const peft_module* m : {&whole, &rows}) {
        REQUIRE(stored_tensor(*m) != nullptr);
        CHECK(stored_tensor(*m)->name == t.name);
        CHECK(parameter_count(*m) == 6);
        CHECK(type_of(*m).empty());
        CHECK(to_any_adapter(*m, {.out = 2, .in = 3}).error().code == errc::unsupported);
    }
}

TEST_CASE("an adapter of layer norms is read, written as it was, and merged in the place of the base's") {
    temporary_folder folder;
    const vector<float> weight = vector<float>::LinSpaced(6, 1, 2);
    const vector<float> bias = vector<float>::LinSpaced(6, -1, 1);
    const std::string prefix = "base_model.model.h.0.ln_1.ln_tuning_layers.";
    peft_adapter made;
    for (const auto& [leaf, values] : {std::pair<const char*, vector<float>>{"weight", weight}, {"bias", bias}}) {
        made.modules.emplace("h.0.ln_1.ln_tuning_layers." + std::string(leaf),
                             whole_tensor{tensor_of(prefix + leaf, values)});
    }
    made.config = peft_config_for(made, {.peft_type = "LN_TUNING"});
    CHECK(made.config.target_modules == std::vector<std::string>{"ln_1"});
    const auto at = folder / "a";
    REQUIRE(write_peft(at, made));
    const auto read = read_peft(at);
    REQUIRE(read);
    CHECK(read->config.peft_type == "LN_TUNING");
    CHECK(read->modules.size() == 2);
    const auto before = lowrank_tests::text_of(at / "adapter_model.safetensors");
    const auto said = lowrank_tests::text_of(at / "adapter_config.json");
    REQUIRE(write_peft(at, *read));
    CHECK(lowrank_tests::text_of(at / "adapter_model.safetensors") == before);
    CHECK(lowrank_tests::text_of(at / "adapter_config.json") == said);

    const vector<float> ones = vector<float>::Ones(6);
    std::filesystem::create_directory(folder / "base");
    REQUIRE(write_safetensors(folder / "base/model.safetensors",
                              {tensor_of("h.0.ln_1.weight", ones), tensor_of("h.0.ln_1.bias", ones)}));
    const auto base = checkpoint::open(folder / "base");
    for (const double strength : {1.0, 0.5}) {
        const auto out = folder / ("merged" + std::to_string(strength));
        REQUIRE(merge_checkpoint(*base, *read, out, {.strength = strength}));
        const auto merged = checkpoint::open(out);
        REQUIRE(merged);
        const auto t = static_cast<float>(strength);
        CHECK(vector<float>(merged->matrix<float>("h.0.ln_1.weight")->reshaped()).isApprox(ones + t * (weight - ones)));
        CHECK(vector<float>(merged->matrix<float>("h.0.ln_1.bias")->reshaped()).isApprox(ones + t * (bias - ones)));
    }
    CHECK(to_any_adapters(*read,
                          [](const std::string&) -> result<adapted_weight> {
                              return adapted_weight{6, 6};
                          })
              .error()
              .code == errc::unsupported);

    // Nothing of its type in the file.
    REQUIRE(
        write_safetensors(at / "adapter_model.safetensors", {tensor_of("base_model.model.l.lora_A.weight", weight)}));
    CHECK(read_peft(at).error().message.find("no LN_TUNING tensors") != std::string::npos);
}
