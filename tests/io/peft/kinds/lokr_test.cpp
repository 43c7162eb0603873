// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/kinds/lokr.hpp>

#include <lowrank/io/peft.hpp>

#include "io/peft/kinds/one_kind.hpp"
#include "io_support.hpp"

using namespace lowrank;

TEST_CASE("the description of LoKr holds for a module of it") {
    lowrank_tests::check_kind(make_lokr<float>(6, 4, {.r = 1}), 6, 4);
}

TEST_CASE("a LoKr of other factors than its rank says is not written, as PEFT could not read it") {
    const lowrank_tests::temporary_folder folder;
    peft_adapter made;
    const auto ones = [](lowrank::index rows, lowrank::index cols) {
        return matrix<float>(matrix<float>::Ones(rows, cols));
    };
    lokr_adapter<float> lokr{.w1 = {.left = ones(3, 1), .right = ones(1, 2)}, .w2 = {.left = ones(2, 2)}, .r = 4};
    made.modules["q"] = lokr;
    made.config = peft_config_for(made);
    CHECK(write_peft(folder / "a", made).message.find("rank of a factor") != std::string::npos);
    lokr.r = 1;
    made.modules["q"] = lokr;
    made.config = peft_config_for(made);
    REQUIRE(write_peft(folder / "a", made));
    CHECK(read_peft(folder / "a"));
}
