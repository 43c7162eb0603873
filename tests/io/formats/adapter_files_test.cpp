// SPDX-License-Identifier: MIT
#include <lowrank/io/formats/adapter_files.hpp>

#include <string>
#include <vector>

#include <lowrank/io/formats/gguf_lora.hpp>
#include <lowrank/io/formats/plain_lora.hpp>
#include <lowrank/io/models/model_config.hpp>
#include <lowrank/io/peft.hpp>

#include "io_support.hpp"
#include "support/shared.hpp"

using namespace lowrank;
using lowrank_tests::temporary_folder;
using lowrank_tests::text_of;

namespace {

std::vector<std::string> module_paths(const peft_adapter& adapter) {
    std::vector<std::string> paths;
    for (const auto& [module, lora] : adapter.modules) {
        paths.push_back(module);
    }
    return paths;
}

bool same_bits(const matrix<float>& a, const matrix<float>& b) {
    return a.rows() == b.rows() && a.cols() == b.cols() &&
           std::memcmp(a.data(), b.data(), static_cast<std::size_t>(a.size()) * sizeof(float)) == 0;
}

}  // namespace

TEST_CASE("real adapters go through every format that can express them without a changed bit") {
    LOWRANK_NEEDS_SHARED(shared);
    const auto layout = read_model_config(shared / "models" / "stories260K" / "config.json");
    REQUIRE(layout);
    int trips = 0;
    for (const char* name : {"stories260K/shakespeare-lora-r4", "stories260K/random-r4", "gradience-tiny-synthetic",
                             "gpt2-tigrinya", "sift-opf-zh"}) {
        auto read = read_peft(shared / "adapters" / name);
        REQUIRE_MESSAGE(read, (read ? std::string() : read.error().message));
        std::erase_if(read->modules, [](const auto& m) {
            return stored_tensor(m.second) != nullptr;
        });  // whole tensors are PEFT's alone
        const peft_adapter& adapter = *read;
        const bool is_llama = std::string(name).starts_with("stories");
        for (const std::string format : {"peft", "mlx", "kohya", "diffusers", "loralib", "gguf"}) {
            if (!is_llama && format == "gguf") {
                continue;
            }
            temporary_folder folder;
            const status why = write_adapter(folder / "x", adapter, format, {.model = &*layout});
            REQUIRE_MESSAGE(why, name << ' ' << format << ": " << why.message);
            adapter_read_options opt{.modules = module_paths(adapter), .model = &*layout};
            if (format == "loralib") {
                opt.lora_alpha = adapter.config.lora_alpha;
            }
            const auto again = read_adapter(folder / "x", opt);
            REQUIRE_MESSAGE(again, name << ' ' << format << ": " << (again ? std::string() : again.error().message));
            CHECK(again->format == format);
            CHECK(again->unmapped.empty());
            CHECK(again->renamed.empty() == (format != "kohya"));
            REQUIRE(again->adapter.modules.size() == adapter.modules.size());
            for (const auto& entry : adapter.modules) {
                const std::string& module = entry.first;
                const auto& lora = lora_of(entry.second);
                const auto& other = lora_of(again->adapter.modules.at(module));
                CHECK_MESSAGE(same_bits(other.delta().right, lora.delta().right), name << format << module);
                CHECK_MESSAGE(same_bits(other.delta().left, lora.delta().left), name << format << module);
            }
            ++trips;
        }
    }
    CHECK(trips == 27);
}

TEST_CASE("DoRA goes through PEFT, MLX and LyCORIS names, and through GGUF as plain LoRA of a stated error") {
    LOWRANK_NEEDS_SHARED(shared);
    const auto home = shared / "models" / "stories260K";
    const auto layout = read_model_config(home / "config.json");
    const auto base = checkpoint::open(home);
    const auto adapter = read_peft(shared / "adapters" / "stories260K" / "shakespeare-dora-r4");
    REQUIRE(layout);
    REQUIRE(base);
    REQUIRE(adapter);
    temporary_folder folder;
    for (const std::string format : {"mlx", "kohya"}) {
        const auto path = folder / format;
        REQUIRE(write_adapter(path, *adapter, format));
        const auto again = read_adapter(path, {.modules = module_paths(*adapter)});
        REQUIRE_MESSAGE(again, (again ? std::string() : again.error().message));
        for (const auto& [module, relative] : adapter->modules) {
            const auto& mine = (*relative.get<peft_lora>());
            const auto& other = (*again->adapter.modules.at(module).get<peft_lora>());
            CHECK(same_bits(mine.lora.lora_A, other.lora.lora_A));
            CHECK(same_bits(mine.lora.lora_B, other.lora.lora_B));
            CHECK(same_bits(mine.magnitude, other.magnitude));
            CHECK(mine.lora.scaling() == other.lora.scaling());
        }
    }
    const status refused = write_adapter(folder / "d.gguf", *adapter, "gguf", {.model = &*layout});
    CHECK(refused.message.find("is adapted by DoRA") != std::string::npos);
    const auto plain = to_plain_lora(*adapter, &*base);
    REQUIRE(plain);
    for (const auto& [module, error] : plain->relative_errors) {
        CHECK(error <= 1e-4);
    }
    REQUIRE(write_adapter(folder / "d.gguf", plain->adapter, "gguf", {.model = &*layout}));
    CHECK(read_adapter(folder / "d.gguf").error().message.find("base model is needed") != std::string::npos);
    CHECK(read_adapter(folder / "d.gguf", {.model = &*layout})->adapter.modules.size() == 25);
}

TEST_CASE("invocation tokens travel through GGUF and are applied by nobody unasked") {
    temporary_folder folder;
    peft_adapter made;
    made.modules["model.layers.0.mlp.up_proj"] = make_lora<float>(6, 4, {.r = 2});
    made.config = peft_config_for(made);
    made.config.alora_invocation_tokens = {7, 9};
    const model_config layout{.num_attention_heads = 1, .num_key_value_heads = 1};
    REQUIRE(write_adapter(folder / "a.gguf", made, "gguf", {.model = &layout}));
    CHECK(read_gguf_lora(folder / "a.gguf").error().code == errc::unsupported);
    const auto gguf = read_gguf_lora(folder / "a.gguf", {.activated_by_tokens = true});
    REQUIRE(gguf);
    CHECK(gguf->alora_invocation_tokens == std::vector<std::uint32_t>{7, 9});
    CHECK(peft_from_gguf(*gguf, layout)->config.alora_invocation_tokens == std::vector<std::int64_t>{7, 9});
    CHECK(read_adapter(folder / "a.gguf", {.model = &layout}).error().code == errc::unsupported);
    const auto again = read_adapter(folder / "a.gguf", {.model = &layout, .peft = {.activated_by_tokens = true}});
    REQUIRE(again);
    CHECK(again->adapter.config.alora_invocation_tokens == std::vector<std::int64_t>{7, 9});
    REQUIRE(write_adapter(folder / "p", made, "peft"));
    CHECK(read_adapter(folder / "p").error().message.find("alora_invocation_tokens") != std::string::npos);
    CHECK(read_adapter(folder / "p", {.peft = {.activated_by_tokens = true}}));
    CHECK(write_adapter(folder / "k", made, "kohya").code == errc::unsupported);
}

TEST_CASE("broken MLX folders get a sentence") {
    temporary_folder folder;
    REQUIRE(write_file(folder / "adapter_config.json", R"({"lora_parameters":{"rank":2}})"));
    CHECK(read_adapter(folder.path()).error().message.find("a number named scale") != std::string::npos);
    REQUIRE(write_file(folder / "adapter_config.json",
                       R"({"fine_tune_type":"full","lora_parameters":{"rank":2,"scale":1}})"));
    CHECK(read_adapter(folder.path()).error().code == errc::unsupported);
    REQUIRE(write_file(folder / "adapter_config.json", R"({"lora_parameters":{"rank":2,"scale":1}})"));
    CHECK(read_adapter(folder.path()).error().code == errc::not_found);
    CHECK(read_adapter(folder / "absent").error().code == errc::not_found);
    CHECK((*find_adapter_format("kohya"))->name == "kohya");
    CHECK(find_adapter_format("pickle").error().message.find("known: mlx, peft, gguf, kohya") != std::string::npos);
}
