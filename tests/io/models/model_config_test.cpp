// SPDX-License-Identifier: MIT
#include <lowrank/io/models/model_config.hpp>

#include <string>

#include "io_support.hpp"

using namespace lowrank;
using lowrank_tests::temporary_folder;

TEST_CASE("the configuration of a model says how many heads there are") {
    temporary_folder folder;
    const auto read = [&](const char* text) {
        REQUIRE(write_file(folder / "config.json", text));
        return read_model_config(folder / "config.json");
    };
    const auto full = read(R"({"num_attention_heads":8,"num_key_value_heads":2,"tie_word_embeddings":true})");
    REQUIRE(full);
    CHECK(full->num_attention_heads == 8);
    CHECK(full->num_key_value_heads == 2);
    CHECK(full->tie_word_embeddings);
    CHECK(read(R"({"num_attention_heads":8})")->num_key_value_heads == 8);
    for (const char* bad :
         {"{}", "[]", "{", R"({"num_attention_heads":0})", R"({"num_attention_heads":-1})",
          R"({"num_attention_heads":"8"})", R"({"num_attention_heads":8,"num_key_value_heads":2.5})",
          R"({"num_attention_heads":99999999999})", R"({"num_attention_heads":8,"tie_word_embeddings":1})"}) {
        CHECK_MESSAGE(!read(bad), bad);
    }
    CHECK(read_model_config(folder / "absent").error().code == errc::not_found);
}

TEST_CASE("what is written is read again, and an unknown architecture is refused by name") {
    model_config made{.hidden_size = 24, .num_attention_heads = 4, .num_key_value_heads = 2, .head_dim = 6};
    made.scaling = {.type = rope_scaling::kind::llama3, .factor = 8, .low_freq_factor = 2};
    const auto text = model_config_text(made);
    REQUIRE(text);
    const auto again = parse_model_config(*text);
    REQUIRE(again);
    CHECK(*model_config_text(*again) == *text);
    CHECK(again->scaling.low_freq_factor == 2);
    CHECK(parse_model_config(R"({"num_attention_heads":1,"rope_scaling":{"type":"yarn"}})")->scaling.name == "yarn");
    CHECK(parse_model_config(R"({"model_type":"gpt2"})").error().message.find("\"gpt2\", not \"llama\"") !=
          std::string::npos);
    made.model_type = "gpt2";
    CHECK(model_config_text(made).error().code == errc::unsupported);
}

TEST_CASE("rotations are read where transformers 5 writes them, and what engines do not compute is refused") {
    const auto read = [](const char* rest) {
        return parse_model_config(R"({"num_attention_heads":2, )" + std::string(rest) + "}");
    };
    const auto now = read(R"("rope_parameters": {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0})");
    REQUIRE(now);
    CHECK(now->rope_theta == 500000);
    CHECK(now->scaling.type == rope_scaling::kind::llama3);
    CHECK(read(R"("rope_parameters": {"rope_theta": 7.0, "partial_rotary_factor": 0.5})")->partial_rotary_factor ==
          0.5);
    const auto layers = read(R"("rope_parameters": {"full_attention": {"rope_theta": 1.0}, "sliding_attention": {}})");
    REQUIRE_FALSE(layers);
    CHECK(layers.error().message.find("full_attention") != std::string::npos);
    const architecture& llama = **find_architecture("llama");
    CHECK(check_activation(*now, llama));
    CHECK(check_activation(*read(R"("hidden_act": "gelu")"), llama).message.find("\"gelu\"") != std::string::npos);
    CHECK(check_activation(*read(R"("partial_rotary_factor": 0.25)"), llama).code == errc::unsupported);
}
