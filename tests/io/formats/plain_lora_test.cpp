// SPDX-License-Identifier: MIT
#include <lowrank/io/formats/plain_lora.hpp>

#include <string>

#include <lowrank/core/philox.hpp>
#include <lowrank/io/checkpoints/merge_checkpoint.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/io/peft/kinds/lokr.hpp>

#include "io_support.hpp"
#include "support/shared.hpp"

using namespace lowrank;
using lowrank_tests::temporary_folder;

TEST_CASE("adapters of every linear type become plain LoRA that merges to the same weights") {
    LOWRANK_NEEDS_SHARED(shared);
    for (const char* id : {"adalora-forward", "loha-linear", "lokr-linear", "vera", "dora-linear",
                           "dora-fan-in-fan-out", "dora-embedding"}) {
        const auto home = lowrank_tests::golden_folder() / id;
        const auto base = checkpoint::open(home / "base.safetensors");
        const auto adapter = read_peft(home / "adapter");
        REQUIRE(base);
        REQUIRE_MESSAGE(adapter, (adapter ? std::string() : adapter.error().message));
        const auto plain = to_plain_lora(*adapter, &*base, {.rank = {.rule = rank_rule::relative_error, .value = 0}});
        REQUIRE_MESSAGE(plain, id << (plain ? std::string() : plain.error().message));
        CHECK(check_plain_lora(plain->adapter));
        CHECK(plain->adapter.modules.size() == adapter->modules.size());
        const bool is_dora = std::string(id).starts_with("dora");
        CHECK(plain->relative_errors.empty() != is_dora);
        temporary_folder folder;
        REQUIRE(merge_checkpoint(*base, *adapter, folder / "a"));
        REQUIRE(merge_checkpoint(*base, plain->adapter, folder / "b"));
        const auto a = checkpoint::open(folder / "a" / "base.safetensors");
        const auto b = checkpoint::open(folder / "b" / "base.safetensors");
        REQUIRE(a);
        REQUIRE(b);
        for (const auto& p : base->tensors()) {
            if (p.info->shape.size() == 2) {
                const row_matrix<double> x = *a->matrix<double>(p.info->name);
                const row_matrix<double> y = *b->matrix<double>(p.info->name);
                CHECK_MESSAGE((x - y).cwiseAbs().maxCoeff() <= 1e-5 * (1 + x.cwiseAbs().maxCoeff()),
                              id << ' ' << p.info->name);
            }
        }
        REQUIRE(write_peft(folder / "plain", plain->adapter));  // its configuration fits it
    }
}

TEST_CASE("a cut says what it lost, and what has no plain form is refused") {
    LOWRANK_NEEDS_SHARED(shared);
    const auto home = lowrank_tests::golden_folder() / "dora-linear";
    const auto base = checkpoint::open(home / "base.safetensors");
    const auto adapter = read_peft(home / "adapter");
    REQUIRE(base);
    REQUIRE(adapter);
    const auto cut = to_plain_lora(*adapter, &*base, {.rank = fixed_rank(2)});
    REQUIRE(cut);
    for (const auto& [module, held] : cut->adapter.modules) {
        CHECK(lora_of(held).rank() == 2);
        CHECK(cut->relative_errors.at(module) > 0);
        CHECK(cut->relative_errors.at(module) < 1);
    }
    const auto without = to_plain_lora(*adapter);
    REQUIRE_FALSE(without);
    CHECK(without.error().message.find("base model is needed") != std::string::npos);
    peft_adapter conv;
    conv.modules["c"] = peft_lora{.lora = make_lora<float>(4, 9), .kernel = {3, 3}};
    CHECK(to_plain_lora(conv).error().code == errc::unsupported);
}

TEST_CASE("a LoKr of full rank is cut like any matrix of full rank") {
    const auto normal = [](lowrank::index rows, lowrank::index cols, std::uint64_t stream) {
        matrix<float> m(rows, cols);
        fill_normal(m, 1.0F, philox(2, stream));
        return m;
    };
    peft_adapter adapter;
    const lokr_adapter<float> lokr{
        .w1 = {.left = normal(4, 3, 0)}, .w2 = {.left = normal(5, 4, 1)}, .alpha = 1, .r = 1};
    adapter.modules["l"] = lokr;
    const auto whole = to_plain_lora(adapter);
    REQUIRE(whole);
    CHECK(whole->relative_errors.at("l") < 1e-4);
    CHECK(lora_of(whole->adapter.modules.at("l")).rank() == 12);
    const auto cut = to_plain_lora(adapter, nullptr, {.rank = fixed_rank(3)});
    REQUIRE(cut);
    const auto& kept = lora_of(cut->adapter.modules.at("l"));
    CHECK(kept.rank() == 3);
    const matrix<float> change = lokr.delta().dense();
    const double lost = static_cast<double>((change - kept.delta().dense()).norm() / change.norm());
    CHECK(cut->relative_errors.at("l") == doctest::Approx(lost).epsilon(1e-4));
}
