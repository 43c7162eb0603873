// SPDX-License-Identifier: MIT
#include <lowrank/io/formats/original_base.hpp>

#include <string>

#include <lowrank/factor/svd.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/io/peft/kinds/lora_forms/kasa.hpp>
#include <lowrank/lora/init/spectral_init.hpp>

#include "io_support.hpp"
#include "support/matrices.hpp"

using namespace lowrank;
using lowrank_tests::gaussian;
using lowrank_tests::temporary_folder;

namespace {

/// An adapter that began as `initial` and was trained a little.
lora_adapter<float> after_training(lora_adapter<float> initial) {
    initial.lora_A += 0.01F * gaussian<float>(initial.lora_A.rows(), initial.lora_A.cols(), 8);
    initial.lora_B += 0.01F * gaussian<float>(initial.lora_B.rows(), initial.lora_B.cols(), 9);
    return initial;
}

}  // namespace

TEST_CASE("PiSSA and OLoRA become plain LoRA on the original base, through files") {
    for (const std::string how : {"pissa", "olora"}) {
        for (const bool turned : {false, true}) {
            CAPTURE(how);
            CAPTURE(turned);
            temporary_folder folder;
            const matrix<float> w = gaussian<float>(12, 9, 1);
            const row_matrix<float> as_stored = turned ? row_matrix<float>(w.transpose()) : row_matrix<float>(w);
            REQUIRE(write_safetensors(folder / "model.safetensors", {tensor_of("l.weight", as_stored)}));
            const lora_options options{.r = 3, .lora_alpha = 6};
            const auto initial = how == "pissa" ? pissa(w, options) : olora(w, options, init_scaling::peft);
            REQUIRE(initial);
            const auto trained = after_training(*initial);
            // What PEFT computes: the residual base and the adapter on it.
            const matrix<double> want = w.cast<double>() - 2.0 * (initial->lora_B * initial->lora_A).cast<double>() +
                                        2.0 * (trained.lora_B * trained.lora_A).cast<double>();
            peft_adapter adapter;
            adapter.modules["l"] = trained;
            adapter.config = peft_config_for(adapter, {.fan_in_fan_out = turned});
            REQUIRE(write_peft(folder / "adapter", adapter));
            auto config = nlohmann::json::parse(lowrank_tests::text_of(folder / "adapter/adapter_config.json"));
            config["init_lora_weights"] = how;
            REQUIRE(write_file(folder / "adapter/adapter_config.json", config.dump()));
            CHECK(!read_peft(folder / "adapter"));
            const auto read = read_peft(folder / "adapter", {.base_is_residual = true});
            REQUIRE(read);
            const auto base = checkpoint::open(folder / "model.safetensors");
            REQUIRE(base);
            const auto plain = on_original_base(*read, *base);
            REQUIRE_MESSAGE(plain, (plain ? std::string() : plain.error().message));
            const auto& lora = lora_of(plain->modules.at("l"));
            CHECK(lora.rank() == 6);
            CHECK((w.cast<double>() + lora.delta().dense().cast<double>() - want).norm() < 1e-4 * want.norm());
            // Written and read again it is LoRA like any other.
            REQUIRE(write_peft(folder / "plain", *plain));
            CHECK(read_peft(folder / "plain"));
        }
    }
}

TEST_CASE("KaSA becomes plain LoRA on the original base, which has its smallest components still") {
    temporary_folder folder;
    const matrix<float> w = gaussian<float>(12, 9, 1);
    REQUIRE(write_safetensors(folder / "model.safetensors", {tensor_of("l.weight", row_matrix<float>(w))}));
    const auto base = checkpoint::open(folder / "model.safetensors");
    REQUIRE(base);
    const auto start = kasa(svd(w).value(), {.r = 3, .lora_alpha = 6});
    auto trained = start.adapter;
    trained.lora_B = 0.1F * gaussian<float>(12, 3, 4);
    peft_adapter adapter;
    adapter.modules["l"] = trained;
    adapter.config = peft_config_for(adapter);
    REQUIRE(write_peft(folder / "adapter", adapter));
    CHECK_FALSE(read_peft(folder / "adapter"));
    const auto read = read_peft(folder / "adapter", {.base_is_residual = true});
    REQUIRE(read);
    const auto plain = on_original_base(*read, *base);
    REQUIRE_MESSAGE(plain, (plain ? std::string() : plain.error().message));
    const auto& lora = lora_of(plain->modules.at("l"));
    CHECK(lora.rank() == 6);
    const matrix<float> want = w - start.noise.dense() + trained.delta().dense();
    CHECK((w + lora.delta().dense() - want).norm() < 1e-4F * want.norm());
    REQUIRE(write_peft(folder / "plain", *plain));
    CHECK(read_peft(folder / "plain"));
    adapter.modules["l"] = kasa_adapter<float>{
        .lora_A = gaussian<float>(2, 12, 1), .lora_B = gaussian<float>(9, 2, 2), .lora_diag = gaussian<float>(2, 1, 3)};
    CHECK(on_original_base(adapter, *base).why.code == errc::mismatch);
}

TEST_CASE("what weights do not determine is refused, what took nothing away stays as it is") {
    temporary_folder folder;
    REQUIRE(write_safetensors(folder / "model.safetensors",
                              {tensor_of("l.weight", row_matrix<float>(gaussian<float>(12, 9, 1)))}));
    const auto base = checkpoint::open(folder / "model.safetensors");
    REQUIRE(base);
    peft_adapter adapter;
    adapter.modules["l"] = after_training(make_lora<float>(12, 9, {.r = 2, .lora_alpha = 4}));
    adapter.config = peft_config_for(adapter.modules);
    const auto same = on_original_base(adapter, *base);
    REQUIRE(same);
    CHECK(lora_of(same->modules.at("l")).rank() == 2);
    for (const char* how : {"pissa_niter_4", "corda", "loftq", "lora_ga"}) {
        adapter.config.document = std::string(R"({"init_lora_weights": ")") + how + "\"}";
        CHECK(on_original_base(adapter, *base).why.code == errc::unsupported);
    }
    adapter.config.document = R"({"init_lora_weights": "pissa"})";
    adapter.modules["l"] = after_training(make_lora<float>(9, 12, {.r = 2, .lora_alpha = 4}));
    CHECK(on_original_base(adapter, *base).why.code == errc::mismatch);
    adapter.modules.clear();
    adapter.modules["missing"] = after_training(make_lora<float>(12, 9, {.r = 2, .lora_alpha = 4}));
    CHECK(on_original_base(adapter, *base).why.code == errc::mismatch);
}

TEST_CASE("with the adapter of before training every initialization becomes plain LoRA, without weights") {
    const lora_options options{.r = 2, .lora_alpha = 4};
    peft_adapter initial, trained;
    const auto began = make_lora<float>(12, 9, options);
    initial.modules["l"] = after_training(began);
    trained.modules["l"] = after_training(after_training(began));
    initial.config = peft_config_for(initial);
    trained.config = peft_config_for(trained);
    for (const char* how : {"pissa_niter_4", "corda", "lora_ga", "pissa", "olora"}) {
        trained.config.document = std::string(R"({"init_lora_weights": ")") + how + "\"}";
        const auto plain = on_original_base(trained, initial);
        REQUIRE_MESSAGE(plain, (plain ? std::string() : plain.error().message));
        const matrix<float> want =
            lora_of(trained.modules.at("l")).delta().dense() - lora_of(initial.modules.at("l")).delta().dense();
        const auto& lora = lora_of(plain->modules.at("l"));
        CHECK(lora.rank() == 4);
        CHECK((lora.delta().dense() - want).norm() < 1e-5F * want.norm());
    }
    trained.config.document = R"({"init_lora_weights": "loftq"})";
    CHECK(on_original_base(trained, initial).error().message.find("quantized") != std::string::npos);
    trained.config.document = R"({"init_lora_weights": "corda"})";
    initial.modules["l"] = make_lora<float>(12, 8, options);
    CHECK(on_original_base(trained, initial).error().message.find("another weight") != std::string::npos);
    initial.modules.clear();
    CHECK(on_original_base(trained, initial).error().code == errc::mismatch);
}
