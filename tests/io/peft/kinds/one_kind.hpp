// SPDX-License-Identifier: MIT
#ifndef LOWRANK_TESTS_IO_PEFT_KINDS_ONE_KIND_HPP
#define LOWRANK_TESTS_IO_PEFT_KINDS_ONE_KIND_HPP

/// \file
/// What the description of every kind promises, for one module of it.

#include <algorithm>
#include <string>

#include <doctest/doctest.h>

#include <lowrank/io/peft/peft_kind.hpp>
#include <lowrank/io/peft/peft_modules.hpp>
#include <lowrank/io/peft/peft_tensors.hpp>

namespace lowrank_tests {

/// Its tensors have the names of the kind, it fits the weight it is made for and no other, and its change has one.
template <class M>
void check_kind(const M& module, lowrank::index out, lowrank::index in) {
    using kind = lowrank::peft_kind<M>;
    lowrank::check_peft_kind<M>();
    lowrank::peft_tensors tensors;
    kind::write(module, tensors);
    CHECK_FALSE(tensors.parts.empty());
    const auto types = kind::types();
    for (const auto& part : tensors.parts) {
        CAPTURE(part.leaf);
        std::uint64_t entries = 1;
        for (const std::uint64_t n : part.shape) {
            entries *= n;
        }
        CHECK(entries == static_cast<std::uint64_t>(part.values.size()));
        if (!types.empty()) {
            const auto& leaves = types.front().leaves;
            CHECK(std::find(leaves.begin(), leaves.end(), part.leaf) != leaves.end());
        }
    }
    M fitted = module;
    CHECK(kind::fit(fitted, out, in));
    const lowrank::module_shape says = kind::shape(fitted);
    CHECK((says.out == 0 || says.out == out));
    CHECK((says.in == 0 || says.in == in));
    CHECK_FALSE(kind::change(fitted).is_unknown());
    CHECK_FALSE(std::string(kind::label(module)).empty());
    CHECK(kind::facts(module).r >= 0);
}

}  // namespace lowrank_tests

#endif  // LOWRANK_TESTS_IO_PEFT_KINDS_ONE_KIND_HPP
