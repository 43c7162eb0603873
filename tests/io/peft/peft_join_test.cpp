// SPDX-License-Identifier: MIT

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/core/philox.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/io/peft/kinds/delora.hpp>
#include <lowrank/io/peft/kinds/hira.hpp>
#include <lowrank/io/peft/kinds/miss.hpp>
#include <lowrank/io/peft/kinds/rotations/boft.hpp>
#include <lowrank/io/peft/kinds/rotations/hra.hpp>
#include <lowrank/io/peft/kinds/rotations/oft.hpp>
#include <lowrank/io/peft/kinds/rotations/road.hpp>
#include <lowrank/io/peft/kinds/shared/randlora.hpp>
#include <lowrank/io/peft/kinds/structured/c3a.hpp>
#include <lowrank/io/peft/kinds/structured/fourierft.hpp>
#include <lowrank/io/peft/kinds/structured/shira.hpp>
#include <lowrank/lora/kinds/shared/randlora.hpp>
#include <lowrank/lora/merge/merge_change.hpp>

#include "io_support.hpp"

using namespace lowrank;
using lowrank_tests::temporary_folder;

namespace {

constexpr lowrank::index layer_out = 6;
constexpr lowrank::index layer_in = 8;

/// A module of each type for a 6 x 8 weight, no parameter zero, and the names of its tensors.
struct made_kind {
    const char* type;
    peft_module module;
    std::vector<std::string> tensors;
};

matrix<float> random_factor(lowrank::index rows, lowrank::index cols, std::uint64_t stream) {
    matrix<float> m(rows, cols);
    fill_normal(m, 0.3F, philox(5, stream));
    return m;
}

std::vector<made_kind> made_kinds() {
    std::vector<made_kind> all;
    auto oft = make_oft<float>(layer_out, layer_in, {.block_size = 4, .num_cayley_neumann_terms = 6});
    oft.oft_R = random_factor(2, 6, 1);
    all.push_back({"OFT", oft, {"oft_R.weight[2, 6]"}});
    oft.oft_R = random_factor(1, 6, 2);
    oft.use_cayley_neumann = false;
    oft.coft = true;
    oft.eps = 0.25;
    oft.in = 0;  // as read: a shared block does not say how many inputs there are
    all.push_back({"OFT", oft, {"oft_R.weight[1, 6]"}});
    auto boft = make_boft<float>(layer_out, layer_in, {.block_size = 2, .n_butterfly_factor = 3});
    boft.boft_R = random_factor(24, 2, 3);
    boft.boft_s = random_factor(6, 1, 4);
    all.push_back({"BOFT", peft_boft{.boft = boft}, {"boft_R[3, 4, 2, 2]", "boft_s[6, 1]"}});
    all.push_back({"BOFT", peft_boft{.boft = boft, .is_convolution = true}, {"boft_R[3, 4, 2, 2]", "boft_s[1, 6]"}});
    all.push_back({"HRA", hra_adapter<float>{.hra_u = random_factor(8, 4, 5), .apply_GS = true}, {"hra_u[8, 4]"}});
    auto miss = make_miss<float>(layer_out, layer_in, {.r = 3});
    miss.miss_block = random_factor(3, 6, 6);
    all.push_back({"MISS", miss, {"miss_block[3, 6]"}});
    all.push_back({"BONE", miss, {"bone_block[3, 6]"}});
    miss.miss_block = random_factor(3, 2, 7);
    all.push_back({"MISS", miss, {"miss_block[3, 2]"}});
    auto bat = make_miss_bat<float>(layer_out, layer_in, {.r = 2});
    bat.miss_block = random_factor(6, 2, 8);
    all.push_back({"MISS", bat, {"miss_block[3, 2, 2]"}});
    all.push_back({"BONE", bat, {"bone_block[3, 2, 2]"}});
    auto rand = make_randlora(make_randlora_projections<float>(10, 9, {.r = 4}), layer_out, layer_in, 80);
    rand.lambda = random_factor(4, 2, 9);
    all.push_back({"RANDLORA",
                   peft_randlora{.randlora = rand},
                   {"base_model.randlora_A[4, 1, 9]", "base_model.randlora_B[10, 3, 4]", "randlora_gamma[2, 6]",
                    "randlora_lambda[4, 2]"}});
    all.push_back({"RANDLORA",
                   peft_randlora{.randlora = rand, .repeats_bases = true},
                   {"base_model.randlora_A[4, 1, 9]", "base_model.randlora_B[10, 3, 4]", "randlora_A[4, 1, 9]",
                    "randlora_B[10, 3, 4]", "randlora_gamma[2, 6]", "randlora_lambda[4, 2]"}});
    all.push_back({"HIRA",
                   hira_adapter<float>{.hira_A = random_factor(3, 8, 10), .hira_B = random_factor(6, 3, 11)},
                   {"hira_A[3, 8]", "hira_B[6, 3]"}});
    const hira_adapter<float> hira{.hira_A = random_factor(3, 8, 10), .hira_B = random_factor(6, 3, 11)};
    all.push_back({"HIRA", peft_hira{.hira = hira, .kernel = {2, 2}}, {"hira_A[3, 2, 2, 2]", "hira_B[6, 3, 1, 1]"}});
    all.push_back(
        {"HIRA", peft_hira{.hira = hira, .is_table = true}, {"hira_embedding_A[3, 8]", "hira_embedding_B[6, 3]"}});
    auto shira = make_shira<float>(layer_out, layer_in, {.r = 3, .seed = 1});
    shira.shira_weight = random_factor(42, 1, 13);
    all.push_back({"SHIRA", shira, {"shira_indices[2, 42]", "shira_weight[42]"}});
    auto c3a = make_c3a<float>(layer_out, layer_in, {.block_size = 2});
    c3a.c3a_kernel = random_factor(12, 2, 14);
    all.push_back({"C3A", c3a, {"c3a_kernel[3, 4, 2]"}});
    for (const lowrank::index variant : {1, 2, 4}) {
        auto road = make_road<float>(layer_out, {.variant = variant, .group_size = 2});
        road.road_theta = random_factor(3 * variant, 1, 15);
        const std::string shape = "[" + std::to_string(3 * variant) + "]";
        all.push_back({"ROAD", road, {"road_alpha" + shape, "road_theta" + shape}});
    }
    auto fourierft =
        make_fourierft<float>(layer_out, layer_in, {.n_frequency = 5, .scaling = 60, .random_loc_seed = 9});
    fourierft.fourierft_spectrum = random_factor(5, 1, 16);
    all.push_back({"FOURIERFT", fourierft, {"fourierft_spectrum[5]"}});
    all.push_back({"DELORA",
                   delora_adapter<float>{.delora_A = random_factor(3, 8, 17),
                                         .delora_B = random_factor(6, 3, 18),
                                         .delora_lambda = vector<float>::Constant(1, 2.5F),
                                         .delora_w_norm = random_factor(8, 1, 19).cwiseAbs(),
                                         .module_dropout = 0.25},
                   {"delora_A[3, 8]", "delora_B[6, 3]", "delora_lambda[1]", "delora_w_norm[8]"}});
    return all;
}

/// W' of a module: what its change makes of a weight.
matrix<double> changed_weight(peft_module module) {
    const matrix<double> w = random_factor(layer_out, layer_in, 12).cast<double>();
    throw_if_failed(fit_module(module, layer_out, layer_in));
    const auto change = change_of(module);
    CHECK_FALSE(change.is_unknown());
    REQUIRE(fits_weight(change.weight, layer_out, layer_in));
    return changed(change.weight, w);
}

std::string message_of(const std::filesystem::path& folder) {
    const auto read = read_peft(folder);
    CHECK_FALSE(read);
    return read ? std::string() : read.error().message;
}

/// The adapter of one kind in a folder, its config as text.
nlohmann::json write_kind(const std::filesystem::path& folder, const made_kind& kind) {
    peft_adapter made;
    made.modules["model.x.q_proj"] = kind.module;
    made.config = peft_config_for(made, {.peft_type = kind.type});
    const status why = write_peft(folder, made);
    REQUIRE_MESSAGE(why, kind.type << ": " << why.message);
    return nlohmann::json::parse(lowrank_tests::text_of(folder / "adapter_config.json"));
}

void write_config(const std::filesystem::path& folder, nlohmann::json config, const char* key, nlohmann::json value) {
    config[key] = std::move(value);
    REQUIRE(write_file(folder / "adapter_config.json", config.dump()));
}

}  // namespace

TEST_CASE("rotations, MiSS and all other kinds are written as PEFT names them and read back without a changed bit") {
    temporary_folder folder;
    for (const made_kind& kind : made_kinds()) {
        CAPTURE(std::string(kind.type) + " " + kind.tensors.front());
        const auto config = write_kind(folder / "a", kind);
        CHECK(config["peft_type"] == kind.type);
        const auto* miss = kind.module.get<miss_adapter<float>>();
        const nlohmann::json form = (kind.module.get<miss_bat_adapter<float>>() != nullptr) ? nlohmann::json("bat")
                                    : miss != nullptr && miss->miss_block.cols() == 2       ? nlohmann::json("mini")
                                                                                            : nlohmann::json(true);
        CHECK(config["init_weights"] == form);
        const auto file = checkpoint::open(folder / "a" / "adapter_model.safetensors");
        REQUIRE(file);
        std::vector<std::string> names;
        for (const auto& place : file->tensors()) {
            std::string name = place.info->name;
            if (name.starts_with("base_model.model.model.x.q_proj.")) {
                name = name.substr(name.rfind("q_proj.") + 7);
            }
            names.push_back(name + detail::shape_in_words(place.info->shape));
        }
        std::sort(names.begin(), names.end());
        CHECK(names == kind.tensors);

        auto read = read_peft(folder / "a");
        REQUIRE_MESSAGE(read, (read ? std::string() : read.error().message));
        CHECK(read->warnings.empty());
        CHECK(first_stored_tensor(*read) == nullptr);
        const peft_module& again = read->modules.at("model.x.q_proj");
        REQUIRE(kind_of(again) == kind_of(kind.module));
        CHECK(parameter_count(again) == parameter_count(kind.module));
        CHECK(changed_weight(again) == changed_weight(kind.module));
        const auto before = lowrank_tests::text_of(folder / "a" / "adapter_model.safetensors");
        const auto said = lowrank_tests::text_of(folder / "a" / "adapter_config.json");
        REQUIRE(write_peft(folder / "a", *read));
        CHECK(lowrank_tests::text_of(folder / "a" / "adapter_model.safetensors") == before);
        CHECK(lowrank_tests::text_of(folder / "a" / "adapter_config.json") == said);
        peft_module other = again;
        REQUIRE(fit_module(other, layer_out, layer_in));
        CHECK(fit_module(other, layer_out + 1, layer_in + 1).code == errc::mismatch);
    }
}

TEST_CASE("a configuration that does not describe the tensors is refused, naming module and reason") {
    temporary_folder folder;
    const auto at = folder / "a";
    const auto kinds = made_kinds();
    const std::vector<std::tuple<std::size_t, const char*, nlohmann::json, const char*>> wrong = {
        {0, "oft_block_size", 2, "2 blocks of 4 inputs"},
        {0, "block_share", true, "2 blocks of 4 inputs"},
        {2, "boft_block_size", 4, "3 factors of blocks"},
        {2, "boft_n_butterfly_factor", 1, "3 factors of blocks"},
        {4, "r", 3, "4 reflections"},
        {5, "r", 2, "rank 3"},
        {5, "init_weights", "bat", "miss_block of shape"},
        {7, "mini_r", 3, "2 columns"},
        {8, "init_weights", true, "miss_block of shape"},
        {10, "r", 2, "rank 4"},
        {12, "r", 2, "rank 3"},
        {12, "target_parameters", {"x"}, "target_parameters is set"},
        {15, "r", 5, "42 entries"},
        {16, "block_size", 4, "blocks of 2"},
        {16, "block_size_pattern", {{"q_proj", 8}}, "blocks of 2"},
        {16, "block_size_pattern", {{"k_proj", 8}}, "of block_size_pattern matches no module"},
        {17, "variant", "road_2", "3 angles"},
        {17, "variant", "road_3", "road_1, road_2 and road_4"},
        {17, "group_size", 4, "3 angles"},
        {17, "group_size", 3, "group_size must be even"},
        {20, "n_frequency", 6, "5 frequencies"},
        {20, "random_loc_seed", "x", "random_loc_seed must be"},
        {21, "r", 2, "rank 3"},
    };
    for (const auto& [kind, key, value, says] : wrong) {
        const auto config = write_kind(at, kinds[kind]);
        write_config(at, config, key, value);
        const std::string message = message_of(at);
        CHECK_MESSAGE(message.find(says) != std::string::npos, message);
    }
    write_kind(at, kinds[0]);
    REQUIRE(write_safetensors(at / "adapter_model.safetensors",
                              {tensor_of("base_model.model.l.oft_R.weight", random_factor(2, 7, 1))}));
    CHECK(message_of(at).find("b (b - 1) / 2") != std::string::npos);
    REQUIRE(write_safetensors(at / "adapter_model.safetensors",
                              {tensor_of("base_model.model.l.oft_embedding_R.weight", random_factor(2, 6, 1))}));
    CHECK(message_of(at).find("embedding") != std::string::npos);
}

TEST_CASE("RandLoRA without its bases, and HRA that cannot be orthonormal, are refused") {
    temporary_folder folder;
    const auto kinds = made_kinds();
    const auto at = folder / "a";
    write_kind(at, kinds[10]);
    const auto lambda = tensor_of("base_model.model.l.randlora_lambda", random_factor(4, 2, 1));
    const auto gamma = tensor_of("base_model.model.l.randlora_gamma", random_factor(2, 6, 2));
    REQUIRE(write_safetensors(at / "adapter_model.safetensors", {lambda, gamma}));
    CHECK(message_of(at).find("save_projection=True") != std::string::npos);
    // Bases in a module alone are as good; ones that differ from those of the adapter are not.
    auto a = tensor_of("base_model.model.l.randlora_A", random_factor(4, 9, 3));
    auto b = tensor_of("base_model.model.l.randlora_B", random_factor(10, 12, 4));
    a.shape = {4, 1, 9};
    b.shape = {10, 3, 4};
    REQUIRE(write_safetensors(at / "adapter_model.safetensors", {lambda, gamma, a, b}));
    CHECK(read_peft(at));
    auto other = tensor_of("base_model.randlora_A", random_factor(4, 9, 5));
    auto same = b;
    same.name = "base_model.randlora_B";
    REQUIRE(write_safetensors(at / "adapter_model.safetensors", {lambda, gamma, a, b, other, same}));
    CHECK(message_of(at).find("random bases of its own") != std::string::npos);

    made_kind hra = kinds[4];
    (*hra.module.get<hra_adapter<float>>()).hra_u.col(1) = (*hra.module.get<hra_adapter<float>>()).hra_u.col(0);
    write_kind(at, hra);
    CHECK(message_of(at).find("dependent columns") != std::string::npos);
}
