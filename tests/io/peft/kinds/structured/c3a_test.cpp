// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/kinds/structured/c3a.hpp>

#include <string>

#include <lowrank/io/peft.hpp>

#include "io/peft/kinds/one_kind.hpp"
#include "io_support.hpp"
#include "lora/support.hpp"

using namespace lowrank;
using lowrank_tests::temporary_folder;

TEST_CASE("the description of C3A holds for a module of it") {
    lowrank_tests::check_kind(make_c3a<float>(6, 4, {.block_size = 2}), 6, 4);
}

TEST_CASE("blocks of several sizes are a pattern of the configuration; empty and flat kernels are refused") {
    temporary_folder folder;
    peft_adapter adapter;
    auto small = make_c3a<float>(6, 8, {.block_size = 2});
    auto large = make_c3a<float>(8, 8, {.block_size = 4});
    small.c3a_kernel = lowrank_tests::random_matrix<float>(12, 2, 1);
    large.c3a_kernel = lowrank_tests::random_matrix<float>(4, 4, 2);
    adapter.modules["a.q"] = small;
    adapter.modules["a.k"] = small;
    adapter.modules["b.q"] = large;
    adapter.config = peft_config_for(adapter);
    const auto at = folder / "a";
    REQUIRE(write_peft(at, adapter));
    const auto config = nlohmann::json::parse(lowrank_tests::text_of(at / "adapter_config.json"));
    CHECK(config["block_size"] == 2);
    CHECK(config["block_size_pattern"] == nlohmann::json{{"^b\\.q", 4}});
    const auto read = read_peft(at);
    REQUIRE(read);
    CHECK(read->modules.at("b.q").get<c3a_adapter<float>>()->c3a_kernel == large.c3a_kernel);
    CHECK(read->modules.at("a.k").get<c3a_adapter<float>>()->c3a_kernel == small.c3a_kernel);
    for (const std::vector<std::uint64_t>& shape :
         {std::vector<std::uint64_t>{12, 2}, {0, 4, 2}, {std::uint64_t{1} << 60, 0, 8}, {3, 4, 0}}) {
        auto kernel = tensor_of("base_model.model.a.q.c3a_kernel", small.c3a_kernel);
        kernel.shape = shape;
        if (shape.size() == 3) {
            kernel.bytes = {};
        }
        REQUIRE(write_safetensors(at / "adapter_model.safetensors", {kernel}));
        CHECK_FALSE(read_peft(at));
    }
}
