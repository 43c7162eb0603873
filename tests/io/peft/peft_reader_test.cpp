// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/detail/peft_reader.hpp>

#include <algorithm>
#include <filesystem>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include <nlohmann/json.hpp>

#include <lowrank/io/peft.hpp>
#include <lowrank/io/peft/kinds/adalora.hpp>
#include <lowrank/io/peft/kinds/ia3.hpp>
#include <lowrank/io/peft/kinds/loha.hpp>
#include <lowrank/io/peft/kinds/lokr.hpp>
#include <lowrank/io/peft/kinds/shared/vera.hpp>

#include "io_support.hpp"
#include "support/shared.hpp"

using namespace lowrank;
using lowrank_tests::temporary_folder;
using lowrank_tests::tensor_of_ones;
using lowrank_tests::text_of;

namespace {

/// Every tensor of a file. Where there are tensors of several types, files are written in the order of the safetensors
/// library, by type before name, which these were not.
std::map<std::string, std::tuple<dtype, std::vector<std::uint64_t>, std::vector<std::byte>>> tensors_of(
    const std::filesystem::path& path) {
    const auto file = safetensors_file::open(path);
    REQUIRE(file);
    std::map<std::string, std::tuple<dtype, std::vector<std::uint64_t>, std::vector<std::byte>>> all;
    for (const tensor_info& t : file->tensors()) {
        const auto bytes = file->bytes(t);
        all.emplace(t.name, std::tuple(t.type, t.shape, std::vector<std::byte>(bytes.begin(), bytes.end())));
    }
    return all;
}

}  // namespace

TEST_CASE("adapters of every type that PEFT saved are read, and written to the same bytes") {
    LOWRANK_NEEDS_SHARED(shared);
    temporary_folder folder;
    int same = 0;
    std::vector<std::filesystem::path> folders;
    for (const auto& home : lowrank_tests::golden_cases()) {
        for (const auto& entry : std::filesystem::recursive_directory_iterator(home)) {
            if (entry.path().filename() == "adapter_config.json") {
                folders.push_back(entry.path().parent_path());
            }
        }
    }
    for (const auto& from : folders) {
        const auto adapter = read_peft(from, {.base_is_residual = true});
        if (!adapter) {
            CHECK_MESSAGE(adapter.error().message.find("not supported") != std::string::npos,
                          from.string() << ": " << adapter.error().message);
            continue;
        }
        const auto to = folder / "copy";
        const status why = write_peft(to, *adapter);
        REQUIRE_MESSAGE(why, from.string() << ": " << why.message);
        if (from.string().find("effective") != std::string::npos) {  // its core is folded into a factor
            CHECK(read_peft(to));
            continue;
        }
        const char* const weights = "adapter_model.safetensors";
        const auto before = tensors_of(from / weights);
        const bool has_integers = std::any_of(before.begin(), before.end(), [](const auto& entry) {
            const dtype type = std::get<0>(entry.second);
            return type == dtype::u8 || type == dtype::i32;
        });
        CHECK_MESSAGE(
            (has_integers ? tensors_of(to / weights) == before : text_of(to / weights) == text_of(from / weights)),
            from.string());
        CHECK_MESSAGE(nlohmann::json::parse(text_of(to / "adapter_config.json")) ==
                          nlohmann::json::parse(text_of(from / "adapter_config.json")),
                      from.string());
        ++same;
    }
    CHECK(same >= 40);
}

TEST_CASE("a made adapter of each type gets a configuration that reads it back") {
    temporary_folder folder;
    const auto vera = make_vera_projections<float>(6, 5, 2, 1);
    const matrix<float> m = make_lora<float>(1, 4, {.r = 2}).lora_A.transpose();
    const peft_module kinds[] = {
        peft_lora{.lora = make_lora<float>(6, 5, {.r = 2}), .magnitude = vector<float>::Ones(6)},
        peft_lora{.lora = make_lora<float>(6, 5, {.r = 2}), .bias = vector<float>::Ones(6)},
        peft_lora{.lora = make_lora<float>(6, 8, {.r = 2}), .kernel = {4}},
        adalora_adapter<float>{.lora_A = m.transpose(), .lora_B = m, .lora_E = vector<float>::Ones(2), .ranknum = 3},
        loha_adapter<float>{.w1_a = m, .w1_b = m.transpose(), .w2_a = m, .w2_b = m.transpose(), .alpha = 3},
        lokr_adapter<float>{.w1 = {.left = m}, .w2 = {.left = m, .right = m.transpose()}, .alpha = 3, .r = 2},
        make_vera(vera, 6, 5),
        peft_ia3{.scale = vector<float>::Constant(6, 2)},
        peft_ia3{.scale = vector<float>::Constant(5, 2), .is_feedforward = true},
    };
    for (const peft_module& kind : kinds) {
        peft_adapter made;
        made.modules["model.x.q_proj"] = kind;
        made.config = peft_config_for(made, {.task_type = "CAUSAL_LM"});
        const status why = write_peft(folder / "a", made);
        REQUIRE_MESSAGE(why, why.message);
        const auto read = read_peft(folder / "a");
        REQUIRE_MESSAGE(read, (read ? std::string() : read.error().message));
        CHECK_MESSAGE(read->warnings.empty(), kind_of(kind));
        REQUIRE(read->modules.size() == 1);
        const peft_module& again = read->modules.at("model.x.q_proj");
        CHECK(kind_of(again) == kind_of(kind));
        const auto before = change_of(kind);
        const auto after = change_of(again);
        CHECK(before.bias == after.bias);
        REQUIRE(before.weight.index() == after.weight.index());
        CHECK(factors_of(before.weight)->dense() == factors_of(after.weight)->dense());
        if (const auto* lengths = std::get_if<magnitude_change<float>>(&before.weight)) {
            CHECK(lengths->magnitude == std::get<magnitude_change<float>>(after.weight).magnitude);
        } else if (const auto* scaled = std::get_if<scaled_change<float>>(&before.weight)) {
            CHECK(scaled->row_scale == std::get<scaled_change<float>>(after.weight).row_scale);
            CHECK(scaled->column_scale == std::get<scaled_change<float>>(after.weight).column_scale);
        }
    }
    peft_adapter mixed;
    mixed.modules["a"] = make_lora<float>(6, 5, {.r = 2});
    mixed.modules["b"] = kinds[0];
    mixed.config = peft_config_for(mixed);
    CHECK(write_peft(folder / "mixed", mixed).code == errc::mismatch);  // PEFT has one use_dora for all
    mixed.modules["b"] = kinds[1];
    mixed.config = peft_config_for(mixed);
    CHECK(write_peft(folder / "mixed", mixed));
}

TEST_CASE("VeRA without its projections is refused by name") {
    temporary_folder folder;
    REQUIRE(write_file(folder / "adapter_config.json", R"({"peft_type":"VERA","r":2})"));
    REQUIRE(write_safetensors(folder / "adapter_model.safetensors",
                              {tensor_of("base_model.model.l.vera_lambda_b", vector<float>(vector<float>::Ones(3))),
                               tensor_of("base_model.model.l.vera_lambda_d", vector<float>(vector<float>::Ones(2)))}));
    const auto adapter = read_peft(folder.path());
    REQUIRE_FALSE(adapter);
    CHECK(adapter.error().code == errc::unsupported);
    CHECK(adapter.error().message.find("save_projection=True") != std::string::npos);
}

TEST_CASE("factors that do not fit the rest of the file are refused before anything large is made of them") {
    temporary_folder folder;
    const auto refuses = [&](const char* config, std::vector<tensor_to_write> tensors, errc code, const char* says) {
        REQUIRE(write_file(folder / "adapter_config.json", config));
        REQUIRE(write_safetensors(folder / "adapter_model.safetensors", std::move(tensors)));
        const auto read = read_peft(folder.path());
        REQUIRE_MESSAGE(!read, says);
        CHECK_MESSAGE(read.error().code == code, read.error().message);
        CHECK_MESSAGE(read.error().message.find(says) != std::string::npos, read.error().message);
    };
    const char* lora = R"({"peft_type":"LORA","r":2,"use_dora":true,"lora_bias":true,"target_modules":["a"]})";
    refuses(lora, {tensor_of_ones("a.lora_magnitude_vector", {4})}, errc::invalid_format, "has no partner");
    refuses(lora, {tensor_of_ones("a.lora_B.bias", {4})}, errc::invalid_format, "has no partner");
    refuses(R"({"peft_type":"LORA","r":4096,"target_modules":["a"]})",
            {tensor_of_ones("a.lora_A.weight", {4096, 1, 1, 1}), tensor_of_ones("a.lora_B.weight", {4096, 1, 1, 1})},
            errc::unsupported, "4096 groups");
    const char* loha = R"({"peft_type":"LOHA","r":1,"alpha":1,"target_modules":["a"]})";
    const auto tucker = [&](std::vector<std::uint64_t> core, std::uint64_t in) {
        return std::vector<tensor_to_write>{
            tensor_of_ones("a.hada_t1", std::move(core)), tensor_of_ones("a.hada_w1_a", {1, 2}),
            tensor_of_ones("a.hada_w1_b", {1, in}), tensor_of_ones("a.hada_w2_a", {2, 1}),
            tensor_of_ones("a.hada_w2_b", {1, in})};
    };
    refuses(loha, tucker({1, 1, 0, 3}, 2), errc::mismatch, "do not fit");
    refuses(loha, tucker({1, 1, 1024, 8}, 8192), errc::unsupported, "8192 taps");
    refuses(R"({"peft_type":"LOKR","r":1,"alpha":1,"target_modules":["a"]})",
            {tensor_of_ones("a.lokr_w1", {0, 4}), tensor_of_ones("a.lokr_w2", {2, 2})}, errc::mismatch, "do not fit");
    refuses(R"({"peft_type":"ADALORA","r":2,"lora_alpha":1,"target_modules":["a"]})",
            {tensor_of_ones("a.lora_A", {0, 8192, 8192, 8192, 8192}), tensor_of_ones("a.lora_B", {6, 2}),
             tensor_of_ones("a.lora_E", {2, 1})},
            errc::unsupported, "without elements");
}

TEST_CASE("an AdaLoRA whose alpha is its rank is written as it was read") {
    temporary_folder folder;
    peft_adapter made;
    const matrix<float> m = matrix<float>::Ones(4, 2);
    made.modules["l"] = adalora_adapter<float>{
        .lora_A = m.transpose(), .lora_B = m, .lora_E = vector<float>::Ones(2), .lora_alpha = 2, .ranknum = 2};
    made.config = peft_config_for(made);
    REQUIRE(write_peft(folder / "a", made));
    auto config = nlohmann::json::parse(text_of(folder / "a" / "adapter_config.json"));
    config["lora_alpha"] = 0;  // PEFT: the rank then
    REQUIRE(write_file(folder / "a" / "adapter_config.json", config.dump()));
    const auto read = read_peft(folder / "a");
    REQUIRE(read);
    CHECK(factors_of(change_of(read->modules.at("l")).weight)->dense() ==
          factors_of(change_of(made.modules.at("l")).weight)->dense());
    const status why = write_peft(folder / "b", *read);
    CHECK_MESSAGE(why, why.message);
}

TEST_CASE("an unknown tensor under a known module is refused, or leaves the module out") {
    lowrank_tests::temporary_folder folder;
    peft_adapter made;
    for (const char* module : {"a.q", "a.k"}) {
        made.modules[module] = make_lora<float>(3, 4, {.r = 2, .lora_alpha = 2});
        lora_of(made.modules[module]).lora_B.setOnes();
    }
    made.config = peft_config_for(made);
    made.config.modules_to_save = {"score"};
    const auto write = [&](const char* extra) {
        peft_adapter with_one = made;
        with_one.modules[extra] = whole_tensor{lowrank_tests::tensor_of_ones(extra, {3})};
        REQUIRE(write_peft(folder.path(), with_one));
    };
    for (const char* whole : {"base_model.model.a.q.base_layer.weight", "base_model.model.a.q.bias", "score.weight",
                              "base_model.model.a.norm.weight"}) {
        write(whole);
        CHECK_MESSAGE(read_peft(folder.path()), whole);
    }
    for (const char* part : {"base_model.model.a.q.lora_mid.weight", "base_model.model.a.q.magnitude", "a.q.diff_b"}) {
        write(part);
        const auto refused = read_peft(folder.path());
        REQUIRE_FALSE(refused);
        CHECK(refused.error().code == errc::unsupported);
        CHECK_MESSAGE(refused.error().message.find("\"a.q\" has a part that is not known") != std::string::npos,
                      refused.error().message);
        const auto rest = read_peft(folder.path(), {.skip_unsupported = true});
        REQUIRE(rest);
        CHECK(rest->modules.size() == 1);
        CHECK(rest->modules.contains("a.k"));
        CHECK(rest->warnings.front().find("is left out") != std::string::npos);
    }
}

TEST_CASE("cores are folded into factors, and what is written again says that there are none") {
    temporary_folder folder;
    using lowrank_tests::tensor_of_ones;
    REQUIRE(write_file(folder / "adapter_config.json",
                       std::string(R"({"peft_type": "LOHA", "r": 2, "alpha": 2, "target_modules": ["conv"],
                                       "use_effective_conv2d": true})")));
    REQUIRE(write_safetensors(folder / "adapter_model.safetensors",
                              {tensor_of_ones("base_model.model.conv.hada_w1_a", {2, 3}),
                               tensor_of_ones("base_model.model.conv.hada_w1_b", {2, 4}),
                               tensor_of_ones("base_model.model.conv.hada_t1", {2, 2, 3, 3}),
                               tensor_of_ones("base_model.model.conv.hada_w2_a", {2, 3}),
                               tensor_of_ones("base_model.model.conv.hada_w2_b", {2, 4}),
                               tensor_of_ones("base_model.model.conv.hada_t2", {2, 2, 3, 3})}));
    const auto read = read_peft(folder.path());
    REQUIRE_MESSAGE(read, (read ? std::string() : read.error().message));
    REQUIRE(write_peft(folder / "b", *read));
    const auto again = read_peft(folder / "b");
    REQUIRE(again);
    CHECK(again->config.document.find(R"("use_effective_conv2d": false)") != std::string::npos);
    const auto& first = *read->modules.at("conv").get<loha_adapter<float>>();
    const auto& second = *again->modules.at("conv").get<loha_adapter<float>>();
    CHECK(second.w1_b.cols() == 36);
    CHECK(second.w1_b == first.w1_b);
    CHECK(second.w1_a == first.w1_a);
}
