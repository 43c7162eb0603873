// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/peft_config.hpp>

#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "io_support.hpp"
#include "support/shared.hpp"

using namespace lowrank;
using lowrank_tests::text_of;

namespace {

result<peft_lora_config> parse(std::string_view text, const peft_read_options& opt = {}) {
    std::vector<std::string> warnings;
    return parse_peft_config(std::as_bytes(std::span(text)), warnings, opt);
}

/// A minimal configuration with one more member.
result<peft_lora_config> with(std::string_view member) {
    return parse("{\"peft_type\":\"LORA\"," + std::string(member) + "}");
}

}  // namespace

TEST_CASE("what is absent has PEFT's defaults") {
    const auto c = parse(R"({"peft_type":"LORA","target_modules":["q"]})");
    REQUIRE(c);
    CHECK(c->r == 8);
    CHECK(c->lora_alpha == 8);
    CHECK_FALSE(c->options.get<bool>("use_rslora"));
    CHECK(c->lora_dropout == 0);
    CHECK(c->bias == "none");
    CHECK(c->target_modules == std::vector<std::string>{"q"});
    CHECK_FALSE(c->base_model_name_or_path);
}

TEST_CASE("every value is read") {
    const auto c = parse(R"({"peft_type":"LORA","r":16,"lora_alpha":12.5,"use_rslora":true,"lora_dropout":0.05,)"
                         R"("fan_in_fan_out":true,"bias":"lora_only","target_modules":"all-linear",)"
                         R"("modules_to_save":["score"],"base_model_name_or_path":"m","task_type":"SEQ_CLS"})");
    REQUIRE(c);
    CHECK(c->r == 16);
    CHECK(c->lora_alpha == 12.5);
    CHECK(c->options.get<bool>("use_rslora"));
    CHECK(c->lora_dropout == 0.05);
    CHECK(c->fan_in_fan_out);
    CHECK(c->bias == "lora_only");
    CHECK(c->target_pattern == "all-linear");
    CHECK(c->modules_to_save == std::vector<std::string>{"score"});
    CHECK(c->base_model_name_or_path == "m");
    CHECK(c->task_type == "SEQ_CLS");
}

TEST_CASE("patterns follow PEFT: the whole path or its end after a dot, the first match wins") {
    const auto c = with(R"("r":4,"lora_alpha":8,"rank_pattern":{"z_proj":1,"layers.1.z_proj":2,"^model\\.up":3,)"
                        R"("layers\\.[5-7]\\..*":6},"alpha_pattern":{"mlp.up":20,"(q|k)_proj":0.5})");
    REQUIRE(c);
    CHECK(c->r_for("z_proj") == 1);
    CHECK(c->r_for("model.layers.1.z_proj") == 1);  // in the order of the file, which is not alphabetical
    CHECK(c->r_for("model.layers.1.az_proj") == 4);
    CHECK(c->r_for("model.up") == 3);
    CHECK(c->r_for("x.model.up") == 4);
    CHECK(c->r_for("model.layers.6.mlp.up") == 6);
    CHECK(c->r_for("model.layers.8.mlp.up") == 4);
    CHECK(c->alpha_for("model.layers.0.mlp.up") == 20);
    CHECK(c->alpha_for("model.layers.0.mlp.upper") == 8);
    CHECK(c->alpha_for("k_proj") == 0.5);
    CHECK(c->alpha_for("v_proj") == 8);
    // "." in a plain key stands for any character, as it does in PEFT.
    CHECK(c->alpha_for("mlp_up") == 20);
}

TEST_CASE("wrong values are refused, naming the key") {
    struct wrong {
        const char* member;
        const char* says;
    };
    for (const wrong& w : {wrong{R"("r":0)", "r must be a positive integer, got 0"},
                           {R"("r":-4)", "got -4"},
                           {R"("r":4.5)", "r must be"},
                           {R"("r":"8")", "r must be a positive integer, got \"8\""},
                           {R"("r":18446744073709551615)", "r must be"},
                           {R"("r":99999999999999999999999)", "r must be"},
                           {R"("r":[8])", "got a list"},
                           {R"("lora_alpha":"16")", "lora_alpha must be a number, got \"16\""},
                           {R"("lora_alpha":true)", "lora_alpha must be a number"},
                           {R"("lora_dropout":1.5)", "lora_dropout must be between 0 and 1"},
                           {R"("lora_dropout":-0.1)", "lora_dropout must be between 0 and 1"},
                           {R"("use_rslora":1)", "use_rslora must be true or false, got 1"},
                           {R"("fan_in_fan_out":"yes")", "fan_in_fan_out"},
                           {R"("bias":"some")", "bias must be"},
                           {R"("bias":3)", "bias must be"},
                           {R"("target_modules":{"q":1})", "target_modules must be a list of names, got an object"},
                           {R"("target_modules":["q",1])", "target_modules"},
                           {R"("modules_to_save":"x")", "modules_to_save"},
                           {R"("task_type":7)", "task_type"},
                           {R"("rank_pattern":[1])", "rank_pattern must be an object"},
                           {R"("rank_pattern":{"q":0})", "rank_pattern of \"q\" must be a positive integer"},
                           {R"("rank_pattern":{"q":[true]})", "rank_pattern of \"q\""},
                           {R"("alpha_pattern":{"q":"1"})", "alpha_pattern of \"q\" must be a number"},
                           {R"("rank_pattern":{"(q":1})", "rank_pattern: the pattern \"(q\""},
                           {R"("rank_pattern":{"a)|(b":1})", "closes a group"},
                           {R"("r":1,"r":2)", "\"r\" appears twice"}}) {
        const auto c = with(w.member);
        REQUIRE_MESSAGE(!c, w.member);
        CHECK(c.error().code == errc::invalid_format);
        CHECK_MESSAGE(c.error().message.find(w.says) != std::string::npos, c.error().message);
    }
    CHECK(parse("[]").error().message.find("JSON object") != std::string::npos);
    CHECK(parse("{}").error().message.find("peft_type") != std::string::npos);
    CHECK(parse("").error().code == errc::invalid_format);
    CHECK(with(R"("r":")" + std::string(100000, 'x') + "\"").error().message.size() < 300);
}

TEST_CASE("features that change the result are refused, naming the key") {
    for (const char* member :
         {R"("use_qalora":true,"use_dora":true)", R"("use_bdlora":{"a":1})", R"("alora_invocation_tokens":[1,2])",
          R"("layer_replication":[[0,4]])", R"("kasa_config":{"beta":1})", R"("arrow_config":{"x":1})",
          R"("velora_config":{"x":1})", R"("monteclora_config":{"x":1})", R"("init_lora_weights":"pissa_niter_4")",
          R"("init_lora_weights":"olora")", R"("rank_pattern":{"(?=x)y":1})"}) {
        const auto c = with(member);
        REQUIRE_MESSAGE(!c, member);
        CHECK(c.error().code == errc::unsupported);
        const std::string_view text(member);
        CHECK(c.error().message.find(text.substr(1, text.find('"', 1) - 1)) != std::string::npos);
    }
    CHECK(parse(R"({"peft_type":"PREFIX_TUNING"})").error().message.find("\"PREFIX_TUNING\"") != std::string::npos);
    CHECK(parse(R"({"peft_type":"LORA","init_lora_weights":"pissa"})", {.base_is_residual = true}));
    for (const char* member :
         {R"("use_dora":false)", R"("use_dora":null)", R"("target_parameters":[])", R"("init_lora_weights":"gaussian")",
          R"("init_lora_weights":true)", R"("loftq_config":{})", R"("layers_to_transform":[1])"}) {
        CHECK_MESSAGE(with(member), member);
    }
}

TEST_CASE("targeted parameters are LoRA's alone, and are kept as they are") {
    const auto c = with(R"("target_parameters":["experts.down_proj"])");
    REQUIRE(c);
    CHECK(c->target_parameters == std::vector<std::string>{"experts.down_proj"});
    CHECK(nlohmann::json::parse(format_peft_config(*c)).at("target_parameters") == nlohmann::json{"experts.down_proj"});
    CHECK(!with(R"("target_parameters":"experts")"));
    const auto other = parse(R"({"peft_type":"LOHA","target_parameters":["x"]})");
    CHECK(other.error().code == errc::unsupported);
    CHECK(other.error().message.find("target_parameters") != std::string::npos);
}

TEST_CASE("unknown keys are named and kept") {
    std::vector<std::string> warnings;
    const std::string text = R"({"peft_type":"LORA","zeta":{"a":[1,2.50]},"r":4})";
    const auto c = parse_peft_config(std::as_bytes(std::span(text)), warnings);
    REQUIRE(c);
    REQUIRE(warnings.size() == 1);
    CHECK(warnings[0].find("\"zeta\"") != std::string::npos);
    CHECK(nlohmann::json::parse(format_peft_config(*c)) == nlohmann::json::parse(text));
}

TEST_CASE("a new configuration has the keys PEFT writes") {
    LOWRANK_NEEDS_SHARED(shared);
    const auto theirs = text_of(shared / "adapters" / "stories260K" / "shakespeare-lora-r4" / "adapter_config.json");
    const peft_lora_config c{
        .r = 4,
        .lora_alpha = 8,
        .target_modules = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
        .base_model_name_or_path = "karpathy/stories260K",
        .task_type = "CAUSAL_LM"};
    CHECK(format_peft_config(c) == theirs);
}

TEST_CASE("values that did not change keep their spelling, others are written") {
    const std::string text =
        "{\n  \"alpha_pattern\": {\n    \"b\": 2.0,\n    \"a\": 3\n  },\n  \"lora_alpha\": 16.0,\n  \"peft_type\": "
        "\"LORA\",\n  \"r\": 8,\n  \"rank_pattern\": {},\n  \"revision\": \"\\u00e9\"\n}";
    auto c = parse(text);
    REQUIRE(c);
    CHECK(format_peft_config(*c) == text);
    c->lora_alpha = 4;
    c->options.set("use_rslora", true);
    c->rank_pattern.emplace_back("x", 3);
    const auto again = parse(format_peft_config(*c));
    REQUIRE(again);
    CHECK(again->lora_alpha == 4);
    CHECK(again->options.get<bool>("use_rslora"));
    CHECK(again->r_for("y.x") == 3);
    CHECK(again->alpha_pattern == c->alpha_pattern);
    CHECK(nlohmann::json::parse(again->document)["revision"] == nlohmann::json::parse(c->document)["revision"]);
}
