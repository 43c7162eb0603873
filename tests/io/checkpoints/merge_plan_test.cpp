// SPDX-License-Identifier: MIT
#include <lowrank/io/checkpoints/detail/merge_plan.hpp>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <lowrank/core/philox.hpp>
#include <lowrank/io/checkpoints/merge_checkpoint.hpp>
#include <lowrank/io/formats/plain_lora.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/io/peft/kinds/rotations/hra.hpp>
#include <lowrank/io/peft/kinds/ia3.hpp>
#include <lowrank/io/peft/kinds/loha.hpp>
#include <lowrank/io/peft/kinds/lokr.hpp>

#include "io_support.hpp"
#include "support/shared.hpp"

using namespace lowrank;
using lowrank_tests::temporary_folder;
using lowrank_tests::text_of;

namespace {

/// The largest difference of two tensors of the same number of elements.
double farthest(const checkpoint& a, const checkpoint& b, const std::string& name_a, const std::string& name_b) {
    const auto flat = [](const checkpoint& file, const std::string& name) {
        const tensor_info* t = file.find(name);
        REQUIRE_MESSAGE(t != nullptr, name);
        tensor_info one = *t;
        one.shape = {1};
        for (const auto n : t->shape) {
            one.shape[0] *= n;
        }
        return detail::matrix_from<double>(one, *file.bytes(name)).value();
    };
    const auto x = flat(a, name_a);
    const auto y = flat(b, name_b);
    REQUIRE(x.size() == y.size());
    return (x - y).cwiseAbs().maxCoeff();
}

}  // namespace

TEST_CASE("adapters of every type merge into what PEFT merges them into") {
    LOWRANK_NEEDS_SHARED(shared);
    int weights = 0;
    for (const auto& home : lowrank_tests::golden_cases()) {
        if (!std::filesystem::exists(home / "adapter" / "adapter_config.json") ||
            !std::filesystem::exists(home / "base.safetensors")) {
            continue;
        }
        const auto about = nlohmann::json::parse(text_of(home / "case.json"));
        if (about.value("adapters", nlohmann::json::object()).size() != 1) {
            continue;
        }
        const auto adapter = read_peft(home / "adapter");
        if (!adapter) {
            continue;  // what is read at all is counted in peft_reader_test.cpp
        }
        const auto base = checkpoint::open(home / "base.safetensors");
        const auto expected = checkpoint::open(home / "expected.safetensors");
        REQUIRE(base);
        REQUIRE(expected);
        std::vector<nlohmann::json> checks;
        for (const auto& check : about["checks"]) {
            const auto name = check["tensor"].get<std::string>();
            if (name.starts_with("merged.") && base->find(name.substr(7)) != nullptr) {
                checks.push_back(check);
            }
        }
        if (checks.empty()) {
            continue;
        }
        temporary_folder folder;
        const auto report = merge_checkpoint(*base, *adapter, folder.path(), {.tile_bytes = 256, .check = true});
        REQUIRE_MESSAGE(report, home.string() << ": " << (report ? std::string() : report.error().message));
        const auto merged = checkpoint::open(folder / "base.safetensors");
        REQUIRE(merged);
        for (const auto& check : checks) {
            const auto name = check["tensor"].get<std::string>();
            const double off = farthest(*merged, *expected, name.substr(7), name);
            CHECK_MESSAGE(off <= check["atol_f32"].get<double>(), home.filename().string() << ' ' << name);
            ++weights;
        }
    }
    CHECK(weights >= 60);
}

TEST_CASE("a strength moves a DoRA layer part of the way") {
    LOWRANK_NEEDS_SHARED(shared);
    for (const char* id : {"dora-linear", "dora-fan-in-fan-out"}) {
        const auto home = lowrank_tests::golden_folder() / id;
        const auto base = checkpoint::open(home / "base.safetensors");
        auto adapter = read_peft(home / "adapter");
        REQUIRE(base);
        REQUIRE(adapter);
        temporary_folder folder;
        REQUIRE(merge_checkpoint(*base, *adapter, folder / "whole"));
        REQUIRE(merge_checkpoint(*base, *adapter, folder / "part", {.strength = 0.25}));
        const auto whole = checkpoint::open(folder / "whole" / "base.safetensors");
        const auto quarter = checkpoint::open(folder / "part" / "base.safetensors");
        REQUIRE(whole);
        REQUIRE(quarter);
        for (const auto& [module, relative] : adapter->modules) {
            const std::string name = module + ".weight";
            const row_matrix<double> w = *base->matrix<double>(name);
            const row_matrix<double> expected = w + 0.25 * (*whole->matrix<double>(name) - w);
            CHECK((*quarter->matrix<double>(name) - expected).cwiseAbs().maxCoeff() < 1e-6);
        }
        const adapter_to_merge twice[] = {{&*adapter, 0.5}, {&*adapter, 0.5}};
        const auto refused = merge_checkpoint(*base, twice, folder / "twice");
        REQUIRE_FALSE(refused);
        CHECK(refused.error().message.find("order would matter") != std::string::npos);
        adapter->config.alora_invocation_tokens = {1};
        CHECK(merge_checkpoint(*base, *adapter, folder / "alora").error().code == errc::unsupported);
    }
}

TEST_CASE("adapters that are sums are added before the one rounding") {
    temporary_folder folder;
    const row_matrix<float> w = row_matrix<float>::Constant(4, 3, 1);
    REQUIRE(write_safetensors(folder / "model.safetensors",
                              {tensor_of("l.weight", row_matrix<bfloat16>(w.cast<bfloat16>()))}));
    const auto base = checkpoint::open(folder.path());
    REQUIRE(base);
    peft_adapter a;
    a.modules["l"] =
        lora_adapter<float>{.lora_A = matrix<float>::Ones(1, 3),
                            .lora_B = matrix<float>::Constant(4, 1, 0.002F),  // half a step of bfloat16 at 1 is 0.0039
                            .lora_alpha = 1};
    const adapter_to_merge both[] = {{&a, 1}, {&a, 1}, {&a, 0}};
    const auto report = merge_checkpoint(*base, both, folder / "out");
    REQUIRE(report);
    CHECK(report->weights.at("l.weight").rank == 2);
    CHECK(report->weights.at("l.weight").type == dtype::bf16);
    CHECK(checkpoint::open(folder / "out")->matrix<float>("l.weight")->minCoeff() > 1);
    const auto one = merge_checkpoint(*base, a, folder / "one");
    REQUIRE(one);
    CHECK(one->weights.at("l.weight").unchanged_fraction() == 1);
    int steps = 0;
    const auto stopped = merge_checkpoint(*base, a, folder / "stopped", {.on_progress = [&](const progress& p) {
        CHECK(p.total == 24);
        return ++steps < 1;
    }});
    REQUIRE_FALSE(stopped);
    CHECK(stopped.error().code == errc::cancelled);
    CHECK(std::filesystem::is_empty(folder / "stopped"));
}

TEST_CASE("trained tokens replace rows of the table, and travel with the adapter") {
    temporary_folder folder;
    const auto table = row_matrix<float>(row_matrix<float>::Constant(6, 3, 1.25F));
    REQUIRE(write_safetensors(folder / "model.safetensors",
                              {tensor_of("model.embed_tokens.weight", row_matrix<bfloat16>(table.cast<bfloat16>())),
                               tensor_of("l.weight", table)}));
    const auto base = checkpoint::open(folder.path());
    REQUIRE(base);
    peft_adapter adapter;
    adapter.modules["l"] = make_lora<float>(6, 3, {.r = 1});
    adapter.config = peft_config_for(adapter);
    adapter.config.trainable_token_indices["embed_tokens"] = {4, 1};
    row_matrix<float> rows(2, 3);
    rows << 1, 2, 3, -0.1F, 5, 6;
    const std::string path = "model.embed_tokens.token_adapter.trainable_tokens_delta";
    adapter.modules[path] = token_rows{tensor_of("base_model.model." + path, rows), {4, 1}};
    REQUIRE(write_peft(folder / "adapter", adapter));
    const auto read = read_peft(folder / "adapter");
    REQUIRE_MESSAGE(read, (read ? std::string() : read.error().message));
    CHECK(read->config.trainable_token_indices == adapter.config.trainable_token_indices);
    CHECK(nlohmann::json::parse(format_peft_config(read->config))["trainable_token_indices"]["embed_tokens"] ==
          nlohmann::json({4, 1}));

    const auto report = merge_checkpoint(*base, *read, folder / "out");
    REQUIRE_MESSAGE(report, (report ? std::string() : report.error().message));
    CHECK(report->replaced == std::vector<std::string>{"model.embed_tokens.weight"});
    const auto merged = *checkpoint::open(folder / "out")->matrix<float>("model.embed_tokens.weight");
    row_matrix<float> expected = table;
    expected.row(4) = rows.row(0);
    expected.row(1) = rows.row(1).cast<bfloat16>().cast<float>();
    CHECK(merged == expected);
    REQUIRE(merge_checkpoint(*base, *read, folder / "half", {.strength = 0.5}));
    CHECK((*checkpoint::open(folder / "half")->matrix<float>("model.embed_tokens.weight"))(4, 2) == 2.125F);

    const auto refused = [&](errc code, const peft_adapter& a, const char* says) {
        const auto r = merge_checkpoint(*base, a, folder / "refused");
        REQUIRE_FALSE(r);
        CHECK_MESSAGE(r.error().code == code, r.error().message);
        CHECK_MESSAGE(r.error().message.find(says) != std::string::npos, r.error().message);
    };
    const adapter_to_merge twice[] = {{&*read, 1}, {&*read, 1}};
    CHECK(merge_checkpoint(*base, twice, folder / "twice").error().message.find("trained twice") != std::string::npos);
    auto& tokens = adapter.modules.at(path).get<token_rows>()->tokens;
    tokens = {4, 6};
    refused(errc::mismatch, adapter, "token 6");
    tokens = {4};
    refused(errc::mismatch, adapter, "a row for each");
    adapter.config.trainable_token_indices.clear();
    REQUIRE(write_peft(folder / "unlisted", adapter));
    CHECK(read_peft(folder / "unlisted").error().message.find("trainable_token_indices") != std::string::npos);
    peft_adapter none = adapter;  // no tokens, of a table without rows
    none.modules.clear();
    none.modules["empty.token_adapter.trainable_tokens_delta"] =
        token_rows{{"base_model.model.empty.token_adapter.trainable_tokens_delta", dtype::f32, {0, 3}, {}}};
    std::filesystem::create_directory(folder / "none");
    REQUIRE(write_safetensors(folder / "none" / "model.safetensors", {{"empty.weight", dtype::f32, {0, 3}, {}}}));
    const auto without = merge_checkpoint(*checkpoint::open(folder / "none"), none, folder / "none_out");
    REQUIRE(without);
    CHECK(without->replaced.empty());
    tokens = {0, 5};
    CHECK(merge_checkpoint(*base, adapter, folder / "any"));
    adapter.modules["model.embed_tokens"] = peft_lora{.lora = make_lora<float>(3, 6, {.r = 1}), .is_table = true};
    refused(errc::unsupported, adapter, "single tokens");
}

TEST_CASE("an adapter for repeated layers is read where the caller has them, written, and not merged") {
    temporary_folder folder;
    peft_adapter adapter;
    adapter.modules["model.layers.5.mlp.up_proj"] = make_lora<float>(4, 3, {.r = 1});
    adapter.config = peft_config_for(adapter);
    adapter.config.layer_replication = {{0, 4}, {2, 5}};
    REQUIRE(write_peft(folder / "adapter", adapter));
    CHECK(read_peft(folder / "adapter").error().message.find("layer_replication") != std::string::npos);
    const auto read = read_peft(folder / "adapter", {.replicated_layers = true});
    REQUIRE_MESSAGE(read, (read ? std::string() : read.error().message));
    CHECK(read->config.layer_replication == adapter.config.layer_replication);
    CHECK(nlohmann::json::parse(format_peft_config(read->config))["layer_replication"] ==
          nlohmann::json({{0, 4}, {2, 5}}));
    REQUIRE(write_safetensors(folder / "model.safetensors",
                              {tensor_of("l.weight", row_matrix<float>(row_matrix<float>::Ones(4, 3)))}));
    const auto base = checkpoint::open(folder.path());
    REQUIRE(base);
    const auto merged = merge_checkpoint(*base, *read, folder / "out");
    REQUIRE_FALSE(merged);
    CHECK(merged.error().code == errc::unsupported);
    CHECK(merged.error().message.find("repeated") != std::string::npos);
    REQUIRE(write_file(folder / "adapter" / "adapter_config.json",
                       R"({"peft_type":"LORA","r":1,"target_modules":["up_proj"],"layer_replication":[[3,3]]})"));
    CHECK(read_peft(folder / "adapter", {.replicated_layers = true}).error().code == errc::invalid_format);
}

TEST_CASE("LoRA, LoHa and LoKr of one tensor are summed, whichever comes first") {
    temporary_folder folder;
    const auto normal = [](lowrank::index rows, lowrank::index cols, std::uint64_t stream) {
        matrix<float> m(rows, cols);
        fill_normal(m, 0.2F, philox(5, stream));
        return m;
    };
    const matrix<float> w = normal(40, 6, 0);
    std::vector<peft_adapter> adapters(3);
    adapters[0].modules["l"] =
        lora_adapter<float>{.lora_A = normal(2, 6, 1), .lora_B = normal(40, 2, 2), .lora_alpha = 4};
    adapters[1].modules["l"] = loha_adapter<float>{
        .w1_a = normal(40, 3, 3), .w1_b = normal(3, 6, 4), .w2_a = normal(40, 3, 5), .w2_b = normal(3, 6, 6)};
    adapters[2].modules["l"] =
        lokr_adapter<float>{.w1 = {.left = normal(8, 3, 7)}, .w2 = {.left = normal(5, 2, 8)}, .alpha = 3, .r = 2};
    const double strengths[] = {1, -0.5, 2};
    matrix<double> expected = w.cast<double>();
    expected += lora_of(adapters[0].modules["l"]).delta().dense().cast<double>();
    for (std::size_t i = 1; i < 3; ++i) {
        expected += strengths[i] * factors_of(change_of(adapters[i].modules["l"]).weight)->dense().cast<double>();
    }
    for (const bool transposed : {false, true}) {
        REQUIRE(write_safetensors(folder / "model.safetensors",
                                  {tensor_of("l.weight", transposed ? matrix<float>(w.transpose()) : w)}));
        const auto base = checkpoint::open(folder / "model.safetensors");
        REQUIRE(base);
        for (auto& adapter : adapters) {
            adapter.config.fan_in_fan_out = transposed;
        }
        const std::vector<std::vector<std::size_t>> orders = {{0, 1, 2}, {2, 0, 1}, {1, 2, 0}};
        for (const auto& order : orders) {
            std::vector<adapter_to_merge> all;
            for (const std::size_t i : order) {
                all.push_back({&adapters[i], strengths[i]});
            }
            const auto report = merge_checkpoint(*base, all, folder / "out", {.check = true});
            REQUIRE_MESSAGE(report, (report ? std::string() : report.error().message));
            const matrix<double> merged = *checkpoint::open(folder / "out")->matrix<double>("l.weight");
            CHECK((merged - (transposed ? matrix<double>(expected.transpose()) : expected)).cwiseAbs().maxCoeff() <
                  1e-6);
        }
        peft_adapter turning;
        turning.modules["l"] = hra_adapter<float>{.hra_u = normal(6, 2, 9)};
        turning.config.fan_in_fan_out = transposed;
        const adapter_to_merge both[] = {{&adapters[2], 1}, {&turning, 1}};
        CHECK(merge_checkpoint(*base, both, folder / "both").error().message.find("order would matter") !=
              std::string::npos);
    }
    // Another model, found before a change of 1.6e11 entries is formed.
    adapters[2].modules["l"] =
        lokr_adapter<float>{.w1 = {.left = normal(400, 1000, 7)}, .w2 = {.left = normal(1000, 400, 8)}};
    const auto base = checkpoint::open(folder / "model.safetensors");
    CHECK(merge_checkpoint(*base, adapters[2], folder / "other").error().code == errc::mismatch);
    CHECK(to_plain_lora(adapters[2], &*base).error().code == errc::mismatch);
    CHECK(to_plain_lora(adapters[2]).error().message.find("give the base") != std::string::npos);
}

TEST_CASE("tensors without elements are left alone, whatever extents they claim") {
    temporary_folder folder;
    const std::uint64_t huge = std::uint64_t{1} << 52;
    REQUIRE(write_safetensors(folder / "model.safetensors", {{"l.weight", dtype::f32, {huge, 0}, {}}}));
    const auto base = checkpoint::open(folder / "model.safetensors");
    REQUIRE(base);
    peft_adapter adapter;
    adapter.modules["l"] = peft_ia3{.scale = vector<float>(), .is_feedforward = true};
    const auto report = merge_checkpoint(*base, adapter, folder / "out");
    REQUIRE(report);
    CHECK(report->weights.empty());
    CHECK(text_of(folder / "out" / "model.safetensors") == text_of(folder / "model.safetensors"));
}
