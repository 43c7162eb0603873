// SPDX-License-Identifier: MIT
// config.json: what is read, what is refused, and that each refusal is one sentence that names the cause.

#include <llama/config.hpp>

#include <cmath>
#include <string>

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "tiny_models.hpp"

namespace {

nlohmann::json good() {
    return {{"model_type", "llama"},  {"vocab_size", 32},         {"hidden_size", 24},        {"intermediate_size", 40},
            {"num_hidden_layers", 2}, {"num_attention_heads", 4}, {"num_key_value_heads", 2}, {"rope_scaling", nullptr},
            {"rms_norm_eps", 1e-5},   {"some_future_key", "x"},   {"eos_token_id", {2, 7}}};
}

lowrank::status refused(const nlohmann::json& text) {
    const auto c = llama::parse_config(text.dump());
    REQUIRE(!c.has_value());
    CHECK(c.error().message.find('\n') == std::string::npos);
    return c.error();
}

}  // namespace

TEST_CASE("a config is read with its defaults") {
    const auto c = *llama::parse_config(good().dump());
    CHECK(c.vocab_size == 32);
    CHECK(c.head_dim == 6);
    CHECK(c.query_size() == 24);
    CHECK(c.key_size() == 12);
    CHECK(c.rope_theta == 10000);
    CHECK(!c.tie_word_embeddings);
    CHECK(c.eos_token_id == 2);
    auto text = good();
    text.erase("num_key_value_heads");
    text["head_dim"] = 10;
    const auto d = *llama::parse_config(text.dump());
    CHECK(d.num_key_value_heads == 4);
    CHECK(d.query_size() == 40);
}

TEST_CASE("to_json and parse_config are inverse") {
    auto c = tiny::shape({.tied = false, .bias = true});
    c.scaling = {.type = llama::rope_scaling::kind::llama3,
                 .factor = 8,
                 .low_freq_factor = 1,
                 .high_freq_factor = 4,
                 .original_max_position_embeddings = 64};
    const auto back = *llama::parse_config(llama::to_json(c));
    CHECK(llama::to_json(back) == llama::to_json(c));
    CHECK(back.scaling.type == llama::rope_scaling::kind::llama3);
    CHECK(back.scaling.factor == 8);
    CHECK(back.attention_bias);
    c.scaling.type = llama::rope_scaling::kind::linear;
    CHECK(llama::parse_config(llama::to_json(c))->scaling.type == llama::rope_scaling::kind::linear);
}

TEST_CASE("rotation frequencies follow the kind of scaling") {
    auto c = tiny::shape({.head_dim = 64});
    c.rope_theta = 500000;
    const auto plain = [&](llama::index i) { return std::pow(500000.0, -static_cast<double>(i) / 32); };
    CHECK(llama::rope_frequency(c, 0) == 1);
    CHECK(llama::rope_frequency(c, 7) == doctest::Approx(plain(7)).epsilon(1e-14));
    c.scaling = {.type = llama::rope_scaling::kind::linear, .factor = 4};
    CHECK(llama::rope_frequency(c, 7) == doctest::Approx(plain(7) / 4).epsilon(1e-14));
    c.scaling = {.type = llama::rope_scaling::kind::llama3,
                 .factor = 8,
                 .low_freq_factor = 1,
                 .high_freq_factor = 4,
                 .original_max_position_embeddings = 8192};
    CHECK(llama::rope_frequency(c, 0) == 1);  // wavelength 6 of 8192: kept
    CHECK(llama::rope_frequency(c, 31) == doctest::Approx(plain(31) / 8).epsilon(1e-14));
    // Index 16 turns 8192 / (2 pi 500000^0.5) = 1.8438 times: keeps (1.8438 - 1) / 3 of itself.
    const double turns = 8192 * plain(16) / (2 * 3.14159265358979323846);
    const double keep = (turns - 1) / 3;
    CHECK(turns == doctest::Approx(1.8438).epsilon(1e-3));
    CHECK(llama::rope_frequency(c, 16) == doctest::Approx(plain(16) * (keep + (1 - keep) / 8)).epsilon(1e-14));
}

TEST_CASE("rope_parameters, the newer spelling, is read too") {
    auto text = good();
    text.erase("rope_scaling");
    text["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 123.0}};
    CHECK(llama::parse_config(text.dump())->rope_theta == 123);
}

TEST_CASE("hostile configs are refused by name") {
    CHECK(refused("just text").code == lowrank::errc::invalid_format);
    CHECK(!llama::parse_config("{").has_value());
    CHECK(!llama::parse_config("").has_value());
    CHECK(!llama::parse_config(std::string(100000, '[')).has_value());
    const struct {
        const char* name;
        nlohmann::json value;
        const char* says;
    } cases[] = {
        {"vocab_size", 0, "vocab_size"},
        {"vocab_size", "32", "vocab_size"},
        {"vocab_size", 3.5, "vocab_size"},
        {"vocab_size", 18446744073709551615ULL, "vocab_size"},
        {"hidden_size", -24, "hidden_size"},
        {"hidden_size", 26, "hidden_size"},
        {"num_hidden_layers", 5e18, "num_hidden_layers"},
        {"num_attention_heads", 0, "num_attention_heads"},
        {"num_attention_heads", 5, "hidden_size"},
        {"num_key_value_heads", 3, "num_key_value_heads"},
        {"num_key_value_heads", 0, "num_key_value_heads"},
        {"head_dim", 5, "head_dim"},
        {"head_dim", 0, "head_dim"},
        {"rms_norm_eps", 0.0, "rms_norm_eps"},
        {"rms_norm_eps", "small", "rms_norm_eps"},
        {"rope_theta", -1.0, "rope_theta"},
        {"rope_theta", 1e300, "rope_theta"},
        {"tie_word_embeddings", 1, "tie_word_embeddings"},
        {"max_position_embeddings", 0, "max_position_embeddings"},
        {"bos_token_id", "one", "bos_token_id"},
        {"rope_scaling", "yarn", "rope_scaling"},
        {"rope_scaling", {{"type", "linear"}, {"factor", 0}}, "rope_scaling"},
        {"rope_scaling", {{"type", "linear"}, {"factor", "2"}}, "factor"},
    };
    for (const auto& each : cases) {
        CAPTURE(each.name);
        auto text = good();
        text[each.name] = each.value;
        const auto why = refused(text);
        CHECK(why.code == lowrank::errc::invalid_format);
        CHECK(why.message.find(each.says) != std::string::npos);
    }
    const struct {
        const char* name;
        nlohmann::json value;
        const char* says;
    } unsupported[] = {
        {"model_type", "qwen3", "qwen3"},
        {"hidden_act", "gelu", "gelu"},
        {"rope_scaling", {{"rope_type", "yarn"}, {"factor", 2.0}}, "yarn"},
        {"rope_scaling", {{"type", "dynamic"}, {"factor", 2.0}}, "dynamic"},
    };
    for (const auto& each : unsupported) {
        auto text = good();
        text[each.name] = each.value;
        const auto why = refused(text);
        CHECK(why.code == lowrank::errc::unsupported);
        CHECK(why.message.find(each.says) != std::string::npos);
    }
    auto missing = good();
    missing.erase("intermediate_size");
    CHECK(refused(missing).message.find("intermediate_size") != std::string::npos);
}
