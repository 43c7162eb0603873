// SPDX-License-Identifier: MIT
#include <lowrank/io/checkpoints/diff_checkpoint.hpp>

#include <cmath>
#include <limits>
#include <string>

#include "io_support.hpp"

using namespace lowrank;
using lowrank_tests::temporary_folder;

TEST_CASE("every way two checkpoints can differ is named and measured") {
    temporary_folder folder;
    row_matrix<float> w = row_matrix<float>::Constant(100, 200, 2);
    const vector<float> norm = vector<float>::Ones(3);
    row_matrix<float> nan = row_matrix<float>::Zero(1, 2);
    nan(0, 0) = std::numeric_limits<float>::quiet_NaN();
    REQUIRE(write_safetensors(folder / "a.safetensors",
                              {tensor_of("w", w), tensor_of("same", norm), tensor_of("gone", norm),
                               tensor_of("s", norm), tensor_of("t", norm), tensor_of("nan", nan)}));
    w(99, 199) = 5;
    w(0, 0) = 6;
    nan(0, 1) = 1;
    REQUIRE(write_safetensors(folder / "b.safetensors",
                              {tensor_of("w", w), tensor_of("same", norm), tensor_of("new", norm),
                               tensor_of("s", vector<float>(norm.head(2))),
                               tensor_of("t", vector<bfloat16>(norm.cast<bfloat16>())), tensor_of("nan", nan)}));
    const auto a = checkpoint::open(folder / "a.safetensors");
    const auto b = checkpoint::open(folder / "b.safetensors");
    REQUIRE(a);
    REQUIRE(b);
    const auto diff = diff_checkpoints(*a, *b);
    REQUIRE(diff);
    REQUIRE(diff->tensors.size() == 7);
    CHECK(diff->differing == 6);
    const auto& t = diff->tensors;  // gone nan new s same t w
    CHECK(t[0].kind == difference_kind::only_first);
    CHECK(t[1].kind == difference_kind::values);
    CHECK(t[1].changed == 1);
    CHECK(t[1].not_finite == 1);
    CHECK(std::isinf(t[1].relative()));
    CHECK(t[2].kind == difference_kind::only_second);
    CHECK(t[3].kind == difference_kind::shape);
    CHECK(t[4].kind == difference_kind::same);
    CHECK(t[5].kind == difference_kind::type);
    CHECK(t[5].changed == 0);
    CHECK(t[6].kind == difference_kind::values);
    CHECK(t[6].elements == 20000);
    CHECK(t[6].changed == 2);
    CHECK(t[6].largest == 4);
    CHECK(t[6].norm == doctest::Approx(5));
    CHECK(t[6].relative() == doctest::Approx(5 / (2 * std::sqrt(20000.0))));
    CHECK(diff_checkpoints(*a, *a)->differing == 0);
    const auto stopped = diff_checkpoints(*a, *b, {.on_progress = [](const progress&) { return false; }});
    CHECK(stopped.error().code == errc::cancelled);
}
