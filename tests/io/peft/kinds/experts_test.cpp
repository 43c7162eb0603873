// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/kinds/experts.hpp>

#include <string>
#include <utility>
#include <vector>

#include <lowrank/io/formats/plain_lora.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/io/peft/to_any_adapters.hpp>

#include "io/io_support.hpp"
#include "io/peft/kinds/one_kind.hpp"
#include "lora/support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

namespace {

constexpr const char* owner = "model.layers.0.mlp.experts";

peft_experts stack_of(const std::string& parameter, Eigen::Index depth, Eigen::Index out, Eigen::Index in,
                      std::uint64_t seed) {
    return {.lora = {.experts = 3,
                     .lora_A = random_matrix<float>(6, in, seed),
                     .lora_B = random_matrix<float>(out, 6, seed + 1),
                     .lora_alpha = 4},
            .place = {.module = owner, .parameter = parameter, .depth = depth}};
}

/// A gated unit of three experts: 4 features, 5 between.
peft_adapter unit() {
    peft_adapter made;
    for (auto& m : {stack_of("gate_up_proj", 1, 10, 4, 1), stack_of("down_proj", 0, 4, 5, 3)}) {
        made.modules.insert_or_assign(m.place.path(), m);
    }
    made.config = peft_config_for(made);
    return made;
}

/// The message of reading a folder of the unit whose configuration and tensors `change` has changed.
std::string refusal(const temporary_folder& folder, const std::string& from, const std::string& to,
                    const std::vector<tensor_to_write>& tensors = {}) {
    REQUIRE(write_peft(folder / "a", unit()));
    std::string text = text_of(folder / "a" / "adapter_config.json");
    if (!from.empty()) {
        const auto at = text.find(from);
        REQUIRE(at != std::string::npos);
        text.replace(at, from.size(), to);
        REQUIRE(write_file(folder / "a" / "adapter_config.json", text));
    }
    if (!tensors.empty()) {
        REQUIRE(write_safetensors(folder / "a" / "adapter_model.safetensors", tensors));
    }
    const auto read = read_peft(folder / "a");
    return read ? std::string() : read.error().message;
}

}  // namespace

TEST_CASE("the description of experts holds for a stack") { check_kind(stack_of("down_proj", 0, 4, 5, 1), 12, 5); }

TEST_CASE("two parameters of a module nest in the file and are told apart by their shapes") {
    temporary_folder folder;
    const peft_adapter made = unit();
    CHECK(made.config.target_parameters == std::vector<std::string>{"experts.down_proj", "experts.gate_up_proj"});
    CHECK(made.config.target_modules.empty());
    REQUIRE(write_peft(folder / "a", made));
    const auto file = checkpoint::open(folder / "a" / "adapter_model.safetensors");
    REQUIRE(file);
    const std::string prefix = std::string("base_model.model.") + owner;
    REQUIRE(file->find(prefix + ".base_layer.lora_A.weight") != nullptr);
    CHECK(file->find(prefix + ".base_layer.lora_B.weight")->shape == std::vector<std::uint64_t>{10, 6});
    CHECK(file->find(prefix + ".lora_B.weight")->shape == std::vector<std::uint64_t>{4, 6});

    const auto read = read_peft(folder / "a");
    REQUIRE_MESSAGE(read, (read ? std::string() : read.error().message));
    CHECK(read->warnings.empty());
    for (const auto& [path, module] : made.modules) {
        REQUIRE(read->modules.contains(path));
        const auto* got = read->modules.at(path).get<peft_experts>();
        REQUIRE(got != nullptr);
        const auto* want = module.get<peft_experts>();
        CHECK(got->lora.experts == 3);
        CHECK(same_bits(got->lora.lora_A, want->lora.lora_A));
        CHECK(same_bits(got->lora.lora_B, want->lora.lora_B));
        CHECK(got->place.depth == want->place.depth);
    }
    REQUIRE(write_peft(folder / "b", *read));
    for (const char* name : {"adapter_config.json", "adapter_model.safetensors"}) {
        CHECK(text_of(folder / "a" / name) == text_of(folder / "b" / name));
    }
    peft_adapter halved = *read;
    for (auto& [path, module] : halved.modules) {
        for (const char* leaf : {".lora_A.weight", ".lora_B.weight"}) {
            halved.types[path + leaf] = dtype::bf16;
        }
    }
    REQUIRE(write_peft(folder / "c", halved));
    const auto short_again = read_peft(folder / "c");
    REQUIRE(short_again);
    CHECK(short_again->types == halved.types);
}

TEST_CASE("ranks of parameters follow their patterns, by the path of the parameter") {
    temporary_folder folder;
    peft_adapter made = unit();
    auto* down = made.modules.at(std::string(owner) + ".down_proj").get<peft_experts>();
    down->lora = {.experts = 3, .lora_A = random_matrix<float>(12, 5, 8), .lora_B = random_matrix<float>(4, 12, 9)};
    made.config = peft_config_for(made);
    REQUIRE(write_peft(folder / "a", made));
    const auto read = read_peft(folder / "a");
    REQUIRE_MESSAGE(read, (read ? std::string() : read.error().message));
    const auto* got = read->modules.at(std::string(owner) + ".down_proj").get<peft_experts>();
    CHECK(got->lora.rank() == 4);
    CHECK(got->lora.experts == 3);
    CHECK(got->lora.lora_alpha == 8);
}

TEST_CASE("what a stack cannot be is refused in a sentence that says why") {
    temporary_folder folder;
    CHECK(refusal(folder, "", "").empty());
    CHECK(refusal(folder, "\"r\": 2", "\"r\": 4").find("no multiple of the rank") != std::string::npos);
    CHECK(refusal(folder, "\"use_dora\": false", "\"use_dora\": true").find("no magnitude") != std::string::npos);
    CHECK(refusal(folder, "\"LORA\"", "\"LOHA\"").find("target_parameters") != std::string::npos);
    const std::string prefix = std::string("base_model.model.") + owner;
    const auto a = random_matrix<float>(6, 4, 1), b = random_matrix<float>(4, 6, 2);
    CHECK(refusal(folder, "", "", {tensor_of(prefix + ".lora_A.weight", a)}).find("no partner") != std::string::npos);
    CHECK(refusal(folder, "", "",
                  {tensor_of(prefix + ".lora_A.weight", a), tensor_of(prefix + ".lora_B.weight", b),
                   tensor_of(prefix + ".lora_magnitude_vector", vector<float>(vector<float>::Ones(4)))})
              .find("belongs to a parameter") != std::string::npos);
    CHECK(refusal(folder, "", "",
                  {tensor_of(prefix + ".lora_A.weight", a),
                   tensor_of(prefix + ".lora_B.weight", random_matrix<float>(4, 5, 2))})
              .find("same r and experts") != std::string::npos);
    CHECK(refusal(folder, "\"rank_pattern\": {}", "\"rank_pattern\": {\"down_proj\": 3}",
                  {tensor_of(prefix + ".lora_A.weight", a), tensor_of(prefix + ".lora_B.weight", b)})
              .find("nothing tells") != std::string::npos);
}

TEST_CASE("a parameter that is the weight of a layer is plain LoRA of it") {
    temporary_folder folder;
    peft_adapter made;
    made.modules["l0"] = random_adapter<float>(6, 5, {.r = 2});
    made.config = peft_config_for(made);
    made.config.target_modules.clear();
    made.config.target_parameters = {"l0.weight"};
    REQUIRE(write_peft(folder / "a", made));
    const auto read = read_peft(folder / "a");
    REQUIRE(read);
    CHECK(is_plain_lora(read->modules.at("l0")));
    CHECK(read->config.target_parameters == made.config.target_parameters);
}

TEST_CASE("each expert becomes an adapter, and a layer of plain LoRA") {
    const peft_adapter made = unit();
    const auto weight_of = [](const std::string& path) -> result<adapted_weight> {
        return path.find("gate_up") != std::string::npos ? adapted_weight{10, 4} : adapted_weight{4, 5};
    };
    const auto all = to_any_adapters(made, weight_of);
    REQUIRE_MESSAGE(all, (all ? std::string() : all.error().message));
    CHECK(all->size() == 6);
    const auto& stack = made.modules.at(std::string(owner) + ".down_proj").get<peft_experts>()->lora;
    CHECK(same_bits(all->at(std::string(owner) + ".down_proj.2").get<lora_adapter<float>>()->lora_B,
                    stack.expert(2).lora_B));
    CHECK(to_any_adapters(made,
                          [](const std::string&) {
                              return result<adapted_weight>(adapted_weight{9, 9});
                          })
              .error()
              .code == errc::mismatch);

    const auto plain = to_plain_lora(made);
    REQUIRE_MESSAGE(plain, (plain ? std::string() : plain.error().message));
    CHECK(plain->adapter.modules.size() == 9);
    CHECK(plain->adapter.config.target_parameters.empty());
    const auto& fused = made.modules.at(std::string(owner) + ".gate_up_proj").get<peft_experts>()->lora;
    const auto& up = lora_of(plain->adapter.modules.at(std::string(owner) + ".1.up_proj"));
    CHECK(same_bits(up.lora_A, fused.expert(1).lora_A));
    CHECK(same_bits(up.lora_B, matrix<float>(fused.expert(1).lora_B.bottomRows(5))));
    CHECK(up.scaling() == fused.expert(1).scaling());
}
