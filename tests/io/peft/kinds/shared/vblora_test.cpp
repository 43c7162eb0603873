// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/kinds/shared/vblora.hpp>

#include <memory>
#include <string>

#include <lowrank/core/check.hpp>
#include <lowrank/core/philox.hpp>

#include "io/peft/kinds/one_kind.hpp"
#include "io/peft/kinds/round_trip.hpp"

using namespace lowrank;
using namespace lowrank_tests;

namespace {

std::shared_ptr<const matrix<float>> some_bank(std::uint64_t seed = 1, lowrank::index vectors = 6) {
    matrix<float> bank(vectors, 4);
    fill_normal(bank, 0.3F, philox(seed));
    return std::make_shared<const matrix<float>>(bank);
}

/// For a 12 x 8 weight.
peft_vblora some_vblora(std::shared_ptr<const matrix<float>> bank, bool fixed, std::uint64_t seed = 2) {
    peft_vblora m{.vblora = {.r = 3, .topk = 2}, .bank = std::move(bank)};
    std::uint64_t stream = 0;
    for (auto* p : {&m.vblora.A, &m.vblora.B}) {
        const lowrank::index pieces = stream == 0 ? 6 : 9;
        matrix<float> logits(pieces, m.bank->rows());
        fill_normal(logits, 1.0F, philox(seed, stream++));
        if (!fixed) {
            p->logits = logits;
            continue;
        }
        p->indices.resize(pieces, 2);
        p->weights = logits.leftCols(1).cwiseAbs().cwiseMin(1.0F);
        for (lowrank::index i = 0; i < pieces; ++i) {
            p->indices(i, 0) = static_cast<std::int32_t>(i % m.bank->rows());
            p->indices(i, 1) = static_cast<std::int32_t>((2 * i + 1) % m.bank->rows());
        }
    }
    return m;
}

}  // namespace

TEST_CASE("the description of VB-LoRA holds for a module of it") {
    check_kind(some_vblora(some_bank(), false), 12, 8);
    check_kind(some_vblora(some_bank(), true), 12, 8);
}

TEST_CASE("VB-LoRA travels through a PEFT folder, as logits or as the choice alone") {
    const auto bank = some_bank();
    const auto file = round_trip({{"m.q", some_vblora(bank, false)}, {"m.up", some_vblora(some_bank(), false, 3)}},
                                 "VBLORA", {{"m.q", {12, 8}}, {"m.up", {12, 8}}});
    CHECK(file.config["num_vectors"] == 6);
    CHECK(file.config["vector_length"] == 4);
    file.set("num_vectors", 7);
    file.refuses("bank of 6 vectors of 4");
    file.set("topk", 7);
    file.refuses("6 vectors");
    file.set("topk", 0);
    file.refuses("topk must be between");
    file.set("r", 2);
    file.refuses("rank 3");
    file.set("save_only_topk_weights", true);
    file.refuses("logits");

    const auto fixed = round_trip({{"m.q", some_vblora(bank, true)}}, "VBLORA", {{"m.q", {12, 8}}});
    CHECK(fixed.config["save_only_topk_weights"] == true);
    fixed.set("save_only_topk_weights", false);
    fixed.refuses("no vblora_logits_A");
    fixed.set("topk", 3);
    fixed.refuses("2 indices");
    const auto stored = safetensors_file::open(fixed.path() / "adapter_model.safetensors");
    REQUIRE(stored);
    for (const auto& t : stored->tensors()) {
        if (t.name.ends_with("indices")) {
            CHECK(t.type == dtype::u8);
        }
    }
    // 2^8 vectors and more have wider indices.
    const auto wide = round_trip({{"m.q", some_vblora(some_bank(1, 300), true)}}, "VBLORA", {{"m.q", {12, 8}}});
    const auto wider = safetensors_file::open(wide.path() / "adapter_model.safetensors");
    REQUIRE(wider);
    for (const auto& t : wider->tensors()) {
        CHECK((!t.name.ends_with("indices") || t.type == dtype::i16));
    }

    peft_adapter apart;
    apart.modules.emplace("a", some_vblora(some_bank(1), false));
    apart.modules.emplace("b", some_vblora(some_bank(5), false));
    apart.config = peft_config_for(apart);
    CHECK(write_peft(file.path(), apart).message.find("another vblora_vector_bank") != std::string::npos);
    apart.modules.insert_or_assign("b", some_vblora(some_bank(1), true));
    CHECK_THROWS_AS((void)peft_config_for(apart), contract_violation);
    CHECK(write_peft(file.path(), apart).message.find("save_only_topk_weights") != std::string::npos);
}

TEST_CASE("VB-LoRA without its bank, and with indices beyond it, is refused") {
    const auto file = round_trip({{"m.q", some_vblora(some_bank(), true)}}, "VBLORA", {{"m.q", {12, 8}}});
    const auto tensors = [&](std::uint8_t index, bool with_bank) {
        const auto read = safetensors_file::open(file.path() / "adapter_model.safetensors");
        REQUIRE(read);
        std::vector<tensor_to_write> all;
        for (const auto& t : read->tensors()) {
            const auto bytes = read->bytes(t);
            auto copy = std::make_shared<std::vector<std::byte>>(bytes.begin(), bytes.end());
            if (t.name.ends_with("A_topk_indices")) {
                copy->front() = static_cast<std::byte>(index);
            }
            if (with_bank || !t.name.ends_with("bank")) {
                all.push_back({t.name, t.type, t.shape, *copy, copy});
            }
        }
        return all;
    };
    const auto broken = tensors(6, true);
    const auto alone = tensors(0, false);
    file.set_tensors(broken);
    file.refuses("no index below 6");
    file.set_tensors(alone);
    file.refuses("needs vblora_vector_bank");
}

TEST_CASE("VB-LoRA that serves has a copy of the bank, and comes back as a module") {
    const peft_vblora m = some_vblora(some_bank(), false);
    auto a = to_any_adapter(m, {.out = 12, .in = 8});
    REQUIRE(a);
    CHECK(a->kind() == "vblora");
    const auto back = to_peft_module(*a);
    REQUIRE(back);
    REQUIRE(back->get<peft_vblora>() != nullptr);
    CHECK(*back->get<peft_vblora>()->bank == *m.bank);
    CHECK(back->get<peft_vblora>()->vblora.bank.size() == 0);
    CHECK_FALSE(to_any_adapter(m, {.out = 12, .in = 12}));
}
