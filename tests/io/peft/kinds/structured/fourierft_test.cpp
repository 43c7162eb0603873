// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/kinds/structured/fourierft.hpp>

#include <lowrank/io/formats/plain_lora.hpp>
#include <lowrank/io/peft.hpp>

#include "io/peft/kinds/one_kind.hpp"
#include "io_support.hpp"
#include "lora/support.hpp"

using namespace lowrank;
using lowrank_tests::temporary_folder;

TEST_CASE("the description of FourierFT holds for a module of it") {
    lowrank_tests::check_kind(make_fourierft<float>(6, 4, {.n_frequency = 3}), 6, 4);
}

TEST_CASE("a file says how many frequencies and their seed; the shape of the weight says which") {
    temporary_folder folder;
    auto made = make_fourierft<float>(6, 8, {.n_frequency = 7, .scaling = 12.5, .random_loc_seed = 21});
    made.fourierft_spectrum = lowrank_tests::random_matrix<float>(7, 1, 1);
    peft_adapter adapter;
    adapter.modules["l"] = made;
    adapter.config = peft_config_for(adapter);
    REQUIRE(write_peft(folder / "a", adapter));
    auto read = read_peft(folder / "a");
    REQUIRE(read);
    const peft_module& module = read->modules.at("l");
    CHECK(change_of(module).is_unknown());
    CHECK(change_without_factors(module).is_unknown());
    peft_module fitted = module;
    REQUIRE(fit_module(fitted, 6, 8));
    const auto* again = fitted.get<fourierft_adapter<float>>();
    CHECK(again->waves.positions == made.waves.positions);
    CHECK(again->scaling == 12.5);
    CHECK(fit_module(fitted, 8, 6).code == errc::mismatch);  // its shape is known now
    peft_module tiny = module;
    CHECK(fit_module(tiny, 2, 3).message.find("more frequencies than") != std::string::npos);  // seven of six
    peft_module huge = module;
    CHECK(fit_module(huge, lowrank::index{1} << 20, lowrank::index{1} << 20).message.find("releases of PyTorch") !=
          std::string::npos);
    REQUIRE(fit_module(tiny, 60, 80));
    CHECK(tiny.get<fourierft_adapter<float>>()->waves.positions == torch_random_positions(60, 80, 7, 21));
}

TEST_CASE("few frequencies are plain LoRA of twice their number without a loss") {
    auto made = make_fourierft<float>(40, 30, {.n_frequency = 5, .random_loc_seed = 2});
    made.fourierft_spectrum = lowrank_tests::random_matrix<float>(5, 1, 1);
    peft_adapter adapter;
    adapter.modules["l"] = made;
    adapter.config = peft_config_for(adapter);
    const auto plain = to_plain_lora(adapter);
    REQUIRE(plain);
    CHECK(plain->relative_errors.empty());
    const auto& lora = lora_of(plain->adapter.modules.at("l"));
    CHECK(lora.rank() <= 10);
    CHECK(lowrank_tests::relative_diff(lora.delta().dense(), made.delta().dense().cast<double>().eval()) < 1e-6);
}
