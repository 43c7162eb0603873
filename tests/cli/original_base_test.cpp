// SPDX-License-Identifier: MIT
// Adapters that took a part of their base away, with the base of before.
#include <doctest/doctest.h>

#include <string>

#include <nlohmann/json.hpp>

#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/lora/init/spectral_init.hpp>

#include "process.hpp"
#include "tiny_checkpoint.hpp"

using namespace lowrank_tests;

TEST_CASE("a PiSSA adapter merges into the base of before, and becomes plain LoRA of it") {
    temporary_folder folder;
    write_tiny_checkpoint(folder / "model");
    const auto model = (folder / "model").string();
    const auto pissa = (folder / "pissa").string();
    const std::string module = "model.layers.0.mlp.up_proj";
    lowrank::peft_adapter made;
    auto trained = lowrank::pissa(make_tiny_weights().at(module + ".weight"), {.r = 2, .lora_alpha = 4});
    REQUIRE(trained);
    lowrank::peft_adapter initial;
    initial.modules[module] = *trained;
    initial.config = lowrank::peft_config_for(initial.modules);
    lowrank::throw_if_failed(lowrank::write_peft(folder / "initial", initial));
    trained->lora_B.col(0) *= 1.5F;  // half of the first component is added to the weight
    made.modules[module] = *trained;
    made.config = lowrank::peft_config_for(made.modules);
    made.config.document = R"({"init_lora_weights": "pissa"})";
    lowrank::throw_if_failed(lowrank::write_peft(pissa, made));

    CHECK(run_tool({"merge", model, "--adapter", pissa, "--output", (folder / "no").string()}).exit_code == 1);
    const auto merged = (folder / "merged").string();
    const auto r = run_tool({"merge", model, "--adapter", pissa, "--base-is-original", "--output", merged});
    CAPTURE(r.err);
    REQUIRE(r.exit_code == 0);
    const auto before = lowrank::checkpoint::open(folder / "model");
    const auto after = lowrank::checkpoint::open(merged);
    REQUIRE(before);
    REQUIRE(after);
    const lowrank::matrix<double> w = *before->matrix<double>(module + ".weight");
    const lowrank::matrix<double> change = *after->matrix<double>(module + ".weight") - w;
    const auto f = lowrank::svd(w);
    REQUIRE(f);
    CHECK((change - 0.5 * f.s(0) * f.u.col(0) * f.v.col(0).transpose()).norm() < 1e-5 * f.s(0));

    const auto plain = (folder / "plain").string();
    REQUIRE(run_tool({"convert", pissa, "--to", "peft", "--model", model, "--base-is-original", "--output", plain})
                .exit_code == 0);
    const auto read = lowrank::read_peft(plain);
    REQUIRE(read);
    CHECK(lora_of(read->modules.at(module)).rank() == 4);

    // The same with what it was before training, and then for an initialization that no base tells.
    made.config.document = R"({"init_lora_weights": "corda"})";
    const auto corda = (folder / "corda").string(), again = (folder / "again").string();
    lowrank::throw_if_failed(lowrank::write_peft(corda, made));
    CHECK(run_tool({"merge", model, "--adapter", corda, "--base-is-original", "--output", again}).exit_code == 1);
    const auto with_initial = run_tool(
        {"merge", model, "--adapter", corda, "--initial-adapter", (folder / "initial").string(), "--output", again});
    CAPTURE(with_initial.err);
    REQUIRE(with_initial.exit_code == 0);
    const auto same = lowrank::checkpoint::open(again);
    REQUIRE(same);
    CHECK((*same->matrix<double>(module + ".weight") - w - change).norm() < 1e-5 * f.s(0));
    CHECK(run_tool({"convert", corda, "--to", "peft", "--initial-adapter", (folder / "initial").string(), "--output",
                    (folder / "plain2").string()})
              .exit_code == 0);
}
