// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/kinds/lora_forms/kasa.hpp>

#include <string>

#include <lowrank/core/philox.hpp>

#include "io/peft/kinds/one_kind.hpp"
#include "io/peft/kinds/round_trip.hpp"

using namespace lowrank;
using namespace lowrank_tests;

namespace {

kasa_adapter<float> some_kasa() {
    kasa_adapter<float> a{
        .lora_A = matrix<float>(3, 8), .lora_B = matrix<float>(12, 3), .lora_alpha = 6, .use_rslora = true};
    fill_normal(a.lora_A, 0.3F, philox(1));
    fill_normal(a.lora_B, 0.3F, philox(2));
    a.lora_diag.resize(3);
    fill_normal(a.lora_diag, 1.0F, philox(3));
    return a;
}

}  // namespace

TEST_CASE("the description of KaSA holds for a module of it") { check_kind(some_kasa(), 12, 8); }

TEST_CASE("KaSA is read for the base that it changed, and written back as it was") {
    temporary_folder folder;
    peft_adapter made;
    made.modules.emplace("m.q", some_kasa());
    made.config = peft_config_for(made);
    REQUIRE(write_peft(folder / "a", made));
    const auto refused = read_peft(folder / "a");
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == errc::unsupported);
    for (const char* says : {"kasa_config", "base_is_residual", "on_original_base"}) {
        CHECK_MESSAGE(refused.error().message.find(says) != std::string::npos, refused.error().message);
    }
    auto read = read_peft(folder / "a", {.base_is_residual = true});
    REQUIRE_MESSAGE(read, (read ? std::string() : read.error().message));
    const auto* kasa = read->modules.at("m.q").get<kasa_adapter<float>>();
    REQUIRE(kasa != nullptr);
    CHECK(kasa->delta().dense() == some_kasa().delta().dense());
    CHECK(kasa->use_rslora);
    const auto tensors = text_of(folder / "a" / "adapter_model.safetensors");
    const auto config = text_of(folder / "a" / "adapter_config.json");
    REQUIRE(write_peft(folder / "a", *read));
    CHECK(text_of(folder / "a" / "adapter_model.safetensors") == tensors);
    CHECK(text_of(folder / "a" / "adapter_config.json") == config);

    const auto refuses = [&](const char* key, nlohmann::json value, const char* says) {
        auto changed = nlohmann::json::parse(config);
        changed[key] = std::move(value);
        REQUIRE(write_file(folder / "a" / "adapter_config.json", changed.dump()));
        const auto other = read_peft(folder / "a", {.base_is_residual = true});
        REQUIRE_FALSE(other);
        CHECK_MESSAGE(other.error().message.find(says) != std::string::npos, other.error().message);
    };
    refuses("use_dora", true, "exclude each other");
    refuses("r", 2, "expected 2 numbers");
    refuses("kasa_config", 3, "an object");
    // Other penalties are kept.
    read->config.options.set("kasa_config", peft_fields{{"beta", 0.5}});
    read->config = peft_config_for(*read, read->config);
    CHECK(field_of<double>(read->config.options.get<peft_fields>("kasa_config"), "beta") == 0.5);
}
