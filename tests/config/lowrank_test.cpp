// SPDX-License-Identifier: MIT
#include <lowrank/lowrank.hpp>

#ifdef NLOHMANN_JSON_VERSION_MAJOR
#error "lowrank.hpp must need nothing but Eigen"
#endif

#include <string_view>

#include <doctest/doctest.h>

TEST_CASE("lowrank: one include reaches core, factor, lora and laser") {
    lowrank::row_matrix<float> w(6, 5);
    lowrank::fill_uniform(w, -1.0F, 1.0F, lowrank::philox(3));
    const auto spectrum = lowrank::svd(w);
    REQUIRE(spectrum);
    const lowrank::low_rank<float> kept = spectrum.truncate(2);
    const lowrank::low_rank<float> gone = spectrum.dropped(2);
    CHECK((kept.dense() + gone.dense() - w).norm() < 1e-5F * w.norm());
    CHECK(lowrank::lora_scaling(16.0, 4, false) == 4.0);
}

TEST_CASE("lowrank: everything public lives in the ABI namespace") {
    // The name of the inline namespace appears in the mangled name of every function.
    const std::string_view name = typeid(lowrank::matrix<float>).name();
    CHECK(name.find("lowrank") == std::string_view::npos);  // Eigen's own type stays Eigen's
    const std::string_view ours = typeid(lowrank::workspace).name();
    CHECK(ours.find("v0_2") != std::string_view::npos);
}
