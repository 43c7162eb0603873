// SPDX-License-Identifier: MIT
#include <lowrank/io/peft/kinds/whole_tensor.hpp>

#include <doctest/doctest.h>

#include <lowrank/io/peft/peft_modules.hpp>

using namespace lowrank;

TEST_CASE("a tensor that replaces one of the base is kept as it stands in the file") {
    const auto t = tensor_of("base_model.model.head.weight", row_matrix<float>(row_matrix<float>::Ones(2, 3)));
    const peft_module whole = whole_tensor{t};
    const peft_module rows = token_rows{t, {4, 1}};
    for (const peft_module* m : {&whole, &rows}) {
        REQUIRE(stored_tensor(*m) != nullptr);
        CHECK(stored_tensor(*m)->name == t.name);
        CHECK(parameter_count(*m) == 6);
        CHECK(type_of(*m).empty());
        CHECK(to_any_adapter(*m, {.out = 2, .in = 3}).error().code == errc::unsupported);
    }
}
