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
    for (const char* bad : {"{}", "[]", "{", R"({"num_attention_heads":0})", R"({"num_attention_heads":-1})",
                            R"({"num_attention_heads":"8"})", R"({"num_attention_heads":8,"num_key_value_heads":2.5})",
                            R"({"num_attention_heads":99999999999})",
                            R"({"num_attention_heads":8,"tie_word_embeddings":1})"}) {
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
