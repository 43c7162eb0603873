// SPDX-License-Identifier: MIT
#include <lowrank/io/checkpoints/extract_adapter.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/io/checkpoints/merge_checkpoint.hpp>

#include "io_support.hpp"
#include "support/shared.hpp"

using namespace lowrank;
using lowrank_tests::temporary_folder;

TEST_CASE("what a merge put in, extraction finds again") {
    LOWRANK_NEEDS_SHARED(shared);
    temporary_folder folder;
    const auto base = checkpoint::open(shared / "models" / "stories260K");
    const auto adapter = read_peft(shared / "adapters" / "stories260K" / "shakespeare-lora-r4");
    REQUIRE(base);
    REQUIRE(adapter);
    REQUIRE(merge_checkpoint(*base, *adapter, folder / "tuned"));
    const auto tuned = checkpoint::open(folder / "tuned");
    REQUIRE(tuned);
    const auto found = extract_adapter(*base, *tuned, {.lora = {.rank = fixed_rank(4)}});
    REQUIRE_MESSAGE(found, (found ? std::string() : found.error().message));
    CHECK(found->adapter.modules.size() == adapter->modules.size());
    CHECK(found->unchanged.size() + found->weights.size() == base->tensors().size());
    CHECK(found->left_out.empty());
    for (const auto& entry : adapter->modules) {
        const std::string& module = entry.first;
        const auto& lora = lora_of(entry.second);
        const matrix<float> was = lora.delta().dense();
        const matrix<float> is = lora_of(found->adapter.modules.at(module)).delta().dense();
        CHECK_MESSAGE((is - was).norm() <= 1e-4F * was.norm(), module);
        CHECK(found->weights.at(module + ".weight").relative_error < 1e-4);
    }
    REQUIRE(write_peft(folder / "found", found->adapter));
    CHECK(read_peft(folder / "found"));
    const auto nothing = extract_adapter(*base, *base);
    REQUIRE_FALSE(nothing);
    CHECK(nothing.error().message.find("nothing to extract") != std::string::npos);

    const auto small = resize_adapter(found->adapter, fixed_rank(2));
    REQUIRE(small);
    for (const auto& [module, about] : small->modules) {
        CHECK(about.rank == 2);
        CHECK(about.relative_error > 0);
        CHECK(about.relative_error < 1);
    }
    REQUIRE(write_peft(folder / "small", small->adapter));
    CHECK(read_peft(folder / "small")->config.r == 2);
    const auto same = resize_adapter(*adapter, fixed_rank(4));
    REQUIRE(same);
    for (const auto& [module, held] : adapter->modules) {
        const auto& lora = lora_of(held);
        CHECK((lora_of(same->adapter.modules.at(module)).delta().dense() - lora.delta().dense()).norm() <=
              1e-5F * lora.delta().dense().norm());
    }
}

TEST_CASE("tables, norms and tensors without a partner are told apart") {
    temporary_folder folder;
    row_matrix<float> table = row_matrix<float>::Ones(6, 3);
    vector<float> norm = vector<float>::Ones(3);
    REQUIRE(write_safetensors(folder / "a.safetensors",
                              {tensor_of("model.embed_tokens.weight", table), tensor_of("model.norm.weight", norm)}));
    table.row(4) *= 3;
    norm(1) = 2;
    REQUIRE(
        write_safetensors(folder / "b.safetensors", {tensor_of("model.embed_tokens.weight", table),
                                                     tensor_of("model.norm.weight", norm), tensor_of("other", norm)}));
    const auto a = checkpoint::open(folder / "a.safetensors");
    const auto b = checkpoint::open(folder / "b.safetensors");
    REQUIRE(a);
    REQUIRE(b);
    const auto found = extract_adapter(*a, *b, {.lora = {.rank = fixed_rank(1)}});
    REQUIRE(found);
    CHECK(found->left_out.size() == 2);
    const auto& lora = lora_of(found->adapter.modules.at("model.embed_tokens"));
    CHECK(lora.rows() == 3);
    CHECK(lora.cols() == 6);
    const auto whole = extract_adapter(*a, *b, {.lora = {.rank = fixed_rank(1)}, .keep_others = true});
    REQUIRE(whole);
    CHECK(whole->adapter.config.modules_to_save == std::vector<std::string>{"norm"});
    REQUIRE(write_peft(folder / "p", whole->adapter));
    const auto again = read_peft(folder / "p");
    REQUIRE_MESSAGE(again, (again ? std::string() : again.error().message));
    REQUIRE(merge_checkpoint(*a, *again, folder / "out"));
    const auto back = checkpoint::open(folder / "out" / "a.safetensors");
    CHECK((*back->matrix<float>("model.embed_tokens.weight") - table).norm() < 1e-5F);
    CHECK(*back->vector<float>("model.norm.weight") == norm);
    peft_adapter dora;
    dora.modules["x"] = peft_lora{.lora = make_lora<float>(2, 2), .magnitude = vector<float>::Ones(2)};
    CHECK(resize_adapter(dora, fixed_rank(1)).error().code == errc::unsupported);
}

TEST_CASE("a killed extraction decomposes nothing twice and finds the same factors") {
    temporary_folder folder;
    std::vector<tensor_to_write> before;
    std::vector<tensor_to_write> after;
    for (int i = 0; i < 4; ++i) {
        row_matrix<float> w = row_matrix<float>::NullaryExpr(
            7, 5, [&](Eigen::Index r, Eigen::Index c) { return static_cast<float>((3 * r + c * c + i) % 8); });
        before.push_back(tensor_of("m" + std::to_string(i) + ".weight", w));
        w(i, 2) += i == 3 ? 1e-3F : 1.0F;  // the last one moves less than min_difference
        w(5, i) -= i == 3 ? 1e-3F : 0.5F;
        after.push_back(tensor_of("m" + std::to_string(i) + ".weight", w));
    }
    REQUIRE(write_safetensors(folder / "a.safetensors", before));
    REQUIRE(write_safetensors(folder / "b.safetensors", after));
    const auto a = checkpoint::open(folder / "a.safetensors");
    const auto b = checkpoint::open(folder / "b.safetensors");
    REQUIRE(a);
    REQUIRE(b);
    extract_adapter_options how{.lora = {.rank = fixed_rank(2), .min_difference = 0.01}};
    const auto whole = extract_adapter(*a, *b, how);
    REQUIRE(whole);
    how.parts = folder / "parts";
    Eigen::Index kept = 0;
    std::uint64_t room = 60;
    for (bool killed = true; killed; room += room / 4) {
        killed = lowrank_tests::killed_after(room, [&](lowrank_tests::killing_disk& disk) {
            auto with_disk = how;
            with_disk.write.calls = &disk;
            return extract_adapter(*a, *b, with_disk).has_value();
        });
        const auto again = extract_adapter(*a, *b, how);
        REQUIRE_MESSAGE(again, (again ? std::string() : again.error().message));
        CHECK(again->kept_parts >= kept);
        CHECK((!killed || again->kept_parts < 4));
        kept = again->kept_parts;
        CHECK(again->unchanged == whole->unchanged);
        REQUIRE(again->adapter.modules.size() == 3);
        for (const auto& entry : whole->adapter.modules) {
            const auto& found = lora_of(again->adapter.modules.at(entry.first));
            const auto& wanted = lora_of(entry.second);
            CHECK(found.lora_A == wanted.lora_A);
            CHECK(found.lora_B == wanted.lora_B);
            CHECK(found.scaling() == wanted.scaling());
            CHECK(again->weights.at(entry.first + ".weight").relative_error ==
                  whole->weights.at(entry.first + ".weight").relative_error);
        }
        if (killed) {
            forget_parts(how.parts);
            CHECK(std::filesystem::is_empty(how.parts));
        }
    }
    CHECK(kept == 4);
    how.lora.rank = fixed_rank(1);
    CHECK(extract_adapter(*a, *b, how).error().code == errc::mismatch);
}

TEST_CASE("GPT-2's weights are turned without a flag, tables are known by many names, codes are named") {
    temporary_folder folder;
    std::filesystem::create_directories(folder / "a");
    std::filesystem::create_directories(folder / "b");
    const row_matrix<float> attn = row_matrix<float>::Ones(4, 12);
    const row_matrix<float> table = row_matrix<float>::Ones(6, 4);
    const std::vector<const char*> tables = {"shared", "gpt_neox.embed_in", "text_model.embeddings.token_embedding",
                                             "text_model.embeddings.position_embedding",
                                             "embeddings.token_type_embeddings"};
    const auto write = [&](const char* name, float add, std::uint8_t code) {
        row_matrix<float> now = attn;
        now.row(1).array() += add;
        std::vector<tensor_to_write> all{tensor_of("h.0.attn.c_attn.weight", now)};
        row_matrix<float> rows = table;
        rows.row(2).array() += add;
        for (const char* module : tables) {
            all.push_back(tensor_of(std::string(module) + ".weight", rows));
        }
        auto bytes = std::make_shared<std::vector<std::byte>>(8, static_cast<std::byte>(code));
        all.push_back({"q.weight", dtype::f8_e4m3, {2, 4}, *bytes, bytes});
        REQUIRE(write_safetensors(folder / name / "model.safetensors", std::move(all)));
        return *checkpoint::open(folder / name);
    };
    const auto a = write("a", 0, 1);
    const auto b = write("b", 0.5F, 2);
    const auto found = extract_adapter(a, b, {.lora = {.rank = fixed_rank(1)}});
    REQUIRE_MESSAGE(found, (found ? std::string() : found.error().message));
    CHECK(found->adapter.config.fan_in_fan_out);
    CHECK(lora_of(found->adapter.modules.at("h.0.attn.c_attn")).rows() == 12);
    CHECK(static_cast<std::size_t>(std::count_if(found->adapter.modules.begin(), found->adapter.modules.end(),
                                                 [](const auto& m) { return is_table_module(m.second); })) ==
          tables.size());
    REQUIRE(found->left_out.size() == 1);
    CHECK(found->left_out.front().find("F8_E4M3") != std::string::npos);
    const auto same = write("a", 0.5F, 1);
    const auto none = extract_adapter(same, b, {.lora = {.rank = fixed_rank(1)}});
    REQUIRE_FALSE(none);
    CHECK(none.error().message.find("F8_E4M3") != std::string::npos);
}
