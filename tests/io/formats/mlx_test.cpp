// SPDX-License-Identifier: MIT
#include <lowrank/io/formats/mlx.hpp>
#include <lowrank/io/peft/kinds/loha.hpp>

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <lowrank/core/philox.hpp>
#include <lowrank/io/formats/adapter_files.hpp>
#include <lowrank/io/peft.hpp>

#include "io_support.hpp"

using namespace lowrank;
using lowrank_tests::temporary_folder;
using lowrank_tests::text_of;

namespace {

constexpr Eigen::Index mlx_experts_count = 3;
constexpr Eigen::Index mlx_rank = 2;

row_matrix<float> mlx_numbers(Eigen::Index rows, Eigen::Index cols, std::uint64_t seed) {
    row_matrix<float> w(rows, cols);
    fill_normal(w, 1.0F, philox(seed));
    return w;
}

/// A tensor of three dimensions whose matrices lie below each other.
tensor_to_write stack_of(const std::string& name, const row_matrix<float>& x) {
    tensor_to_write t = tensor_of(name, x);
    t.shape = {mlx_experts_count, t.shape[0] / mlx_experts_count, t.shape[1]};
    return t;
}

/// A folder of MLX with two stacks of experts and a layer besides.
void write_mlx_experts(const std::filesystem::path& folder, const std::string& layer) {
    std::filesystem::create_directories(folder);
    REQUIRE(write_safetensors(
        folder / "adapters.safetensors",
        {stack_of(layer + ".switch_mlp.up_proj.lora_a", mlx_numbers(mlx_experts_count * mlx_rank, 4, 1)),
         stack_of(layer + ".switch_mlp.up_proj.lora_b", mlx_numbers(mlx_experts_count * 6, mlx_rank, 2)),
         stack_of(layer + ".switch_mlp.down_proj.lora_a", mlx_numbers(mlx_experts_count * mlx_rank, 6, 3)),
         stack_of(layer + ".switch_mlp.down_proj.lora_b", mlx_numbers(mlx_experts_count * 4, mlx_rank, 4)),
         tensor_of("model.layers.0.self_attn.q_proj.lora_a", mlx_numbers(4, mlx_rank, 5)),
         tensor_of("model.layers.0.self_attn.q_proj.lora_b", mlx_numbers(mlx_rank, 4, 6))},
        {{"format", "mlx"}}));
    REQUIRE(write_file(folder / "adapter_config.json",
                       R"({"fine_tune_type":"lora","num_layers":-1,"lora_parameters":{"rank":2,"scale":8.0}})"));
}

}  // namespace

TEST_CASE("MLX keeps the LoRA of experts in stacks, which become a module for each expert and stacks again") {
    struct naming {
        const char* layer;
        std::array<const char*, 2> up_and_down;
    };
    for (const naming& names : {naming{"model.layers.0.mlp", {"up_proj", "down_proj"}},
                                naming{"model.layers.0.block_sparse_moe", {"w3", "w2"}}}) {
        const temporary_folder folder;
        const std::string layer = names.layer;
        write_mlx_experts(folder / "mlx", layer);
        const auto read = read_adapter(folder / "mlx");
        REQUIRE_MESSAGE(read, (read ? "" : read.error().message));
        CHECK(read->format == "mlx");
        REQUIRE(read->adapter.modules.size() == 2 * static_cast<std::size_t>(mlx_experts_count) + 1);
        for (Eigen::Index e = 0; e < mlx_experts_count; ++e) {
            const std::string expert = layer + ".experts." + std::to_string(e) + ".";
            const auto* up = read->adapter.modules.at(expert + names.up_and_down[0]).get<lora_adapter<float>>();
            REQUIRE(up != nullptr);
            CHECK(up->lora_A == mlx_numbers(mlx_experts_count * mlx_rank, 4, 1).middleRows(e * mlx_rank, mlx_rank));
            CHECK(up->lora_B == mlx_numbers(mlx_experts_count * 6, mlx_rank, 2).middleRows(e * 6, 6));
            CHECK(lora_scaling(up->lora_alpha, up->rank(), up->use_rslora) == 8);
            const auto* down = read->adapter.modules.at(expert + names.up_and_down[1]).get<lora_adapter<float>>();
            REQUIRE(down != nullptr);
            CHECK(down->lora_A == mlx_numbers(mlx_experts_count * mlx_rank, 6, 3).middleRows(e * mlx_rank, mlx_rank));
            CHECK(down->lora_B == mlx_numbers(mlx_experts_count * 4, mlx_rank, 4).middleRows(e * 4, 4));
        }
        REQUIRE(write_adapter(folder / "again", read->adapter, "mlx"));
        CHECK(text_of(folder / "again/adapters.safetensors") == text_of(folder / "mlx/adapters.safetensors"));
        CHECK(text_of(folder / "again/adapter_config.json").find("switch_mlp.up_proj\"") != std::string::npos);
        CHECK(text_of(folder / "again/adapter_config.json").find("experts") == std::string::npos);
        // And through a folder of PEFT.
        REQUIRE(write_adapter(folder / "peft", read->adapter, "peft"));
        const auto of_peft = read_adapter(folder / "peft");
        REQUIRE_MESSAGE(of_peft, (of_peft ? "" : of_peft.error().message));
        REQUIRE(write_adapter(folder / "back", of_peft->adapter, "mlx"));
        CHECK(text_of(folder / "back/adapters.safetensors") == text_of(folder / "mlx/adapters.safetensors"));
    }
}

TEST_CASE("MLX: an expert without a module changes nothing, stacks that do not fit are refused") {
    const temporary_folder folder;
    peft_adapter adapter;
    const auto expert = [](Eigen::Index r) {
        auto lora = make_lora<float>(6, 4, {.r = r, .lora_alpha = 4});
        lora.lora_B.setConstant(0.5F);
        return lora;
    };
    adapter.modules["model.layers.0.mlp.experts.2.up_proj"] = expert(2);
    adapter.modules["model.layers.0.mlp.experts.0.up_proj"] = expert(2);
    adapter.config = peft_config_for(adapter.modules);
    REQUIRE(write_adapter(folder / "gap", adapter, "mlx"));
    const auto read = read_adapter(folder / "gap");
    REQUIRE(read);
    REQUIRE(read->adapter.modules.size() == 3);
    CHECK(lora_of(read->adapter.modules.at("model.layers.0.mlp.experts.1.up_proj")).lora_B.isZero(0.0F));
    CHECK(lora_of(read->adapter.modules.at("model.layers.0.mlp.experts.2.up_proj")).lora_B ==
          lora_of(adapter.modules.at("model.layers.0.mlp.experts.2.up_proj")).lora_B);

    adapter.modules["model.layers.0.mlp.experts.1.up_proj"] = expert(3);
    const status ranks = write_adapter(folder / "ranks", adapter, "mlx");
    CHECK(ranks.code == errc::unsupported);
    CHECK(ranks.message.find("several shapes or ranks") != std::string::npos);
    adapter.modules["model.layers.0.mlp.experts.1.up_proj"] =
        peft_lora{.lora = expert(2), .magnitude = vector<float>::Ones(6)};
    CHECK(write_adapter(folder / "dora", adapter, "mlx").code == errc::unsupported);

    std::filesystem::create_directories(folder / "wrong");
    REQUIRE(write_safetensors(folder / "wrong/adapters.safetensors",
                              {stack_of("a.switch_mlp.up_proj.lora_a", mlx_numbers(6, 4, 1)),
                               stack_of("a.switch_mlp.up_proj.lora_b", mlx_numbers(18, 3, 2))}));
    REQUIRE(write_file(folder / "wrong/adapter_config.json",
                       R"({"fine_tune_type":"lora","lora_parameters":{"rank":2,"scale":8.0}})"));
    const auto wrong = read_adapter(folder / "wrong");
    REQUIRE_FALSE(wrong);
    CHECK(wrong.error().message.find("a stack of experts has [experts, r, in] and [experts, out, r]") !=
          std::string::npos);
}

TEST_CASE("MLX stores transposed factors and holds DoRA of linear layers") {
    const adapter_format mlx = mlx_format();
    lora_tensors out;
    const auto lora = make_lora<float>(6, 8, {.r = 2, .lora_alpha = 3});
    REQUIRE(mlx.emit(out, "x", lora, {.mlx_scale = 1.5}));
    REQUIRE(out.tensors.size() == 2);
    CHECK(out.tensors[0].name == "x.lora_a");
    CHECK(out.tensors[0].shape == std::vector<std::uint64_t>{8, 2});
    CHECK(mlx.holds(peft_lora{.lora = lora, .magnitude = vector<float>::Ones(6)}));
    CHECK_FALSE(mlx.holds(peft_lora{.lora = lora, .magnitude = vector<float>::Ones(6), .kernel = {2, 2}}));
    CHECK_FALSE(mlx.holds(loha_adapter<float>{}));
}
