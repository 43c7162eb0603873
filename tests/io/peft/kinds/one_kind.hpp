// SPDX-License-Identifier: MIT
#ifndef LOWRANK_TESTS_IO_PEFT_KINDS_ONE_KIND_HPP
#define LOWRANK_TESTS_IO_PEFT_KINDS_ONE_KIND_HPP

/// \file
/// What the description of every kind promises, for one module of it.

#include <algorithm>
#include <iterator>
#include <string>

#include <doctest/doctest.h>

#include <lowrank/io/peft/detail/peft_relatives.hpp>
#include <lowrank/io/peft/peft_kind.hpp>

namespace lowrank_tests {

/// Its tensors have the names of the kind, it fits the weight it is made for and no other, and its change has one.
template <class M>
void check_kind(const M& module, lowrank::index out, lowrank::index in) {
    using kind = lowrank::peft_kind<M>;
    lowrank::detail::relative_tensors tensors;
    tensors(module);
    CHECK_FALSE(tensors.parts.empty());
    for (const auto& part : tensors.parts) {
        CAPTURE(part.tail);
        CHECK(part.tail.front() == '.');
        std::uint64_t entries = 1;
        for (const std::uint64_t n : part.shape) {
            entries *= n;
        }
        CHECK(entries == static_cast<std::uint64_t>(part.values.size()));
        if constexpr (requires { kind::leaves; }) {
            CHECK((std::begin(kind::leaves) == std::end(kind::leaves) ||
                   std::any_of(std::begin(kind::leaves), std::end(kind::leaves),
                               [&](std::string_view leaf) { return part.tail.substr(1).starts_with(leaf); })));
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
