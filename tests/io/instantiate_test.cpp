// SPDX-License-Identifier: MIT
#include <lowrank/io/instantiate.hpp>

#include <doctest/doctest.h>

#include "io_support.hpp"

#ifndef LOWRANK_EXTERN_IO
#error "the tests of io are to link what lowrank_io_once compiles"
#endif

using namespace lowrank;

TEST_CASE("a function that is compiled once is one function under every form of its call") {
    // Linked by name: a list that lacks a function, or tells other parameters, does not link.
    result<peft_adapter> (*const by_name)(const std::filesystem::path&, const peft_read_options&) = &read_peft<on_use>;
    const lowrank_tests::temporary_folder folder;
    const auto called = read_peft(folder / "none");
    const auto linked = by_name(folder / "none", {});
    REQUIRE(!called);
    REQUIRE(!linked);
    CHECK(called.error().code == linked.error().code);
    CHECK(called.error().message == linked.error().message);
}
