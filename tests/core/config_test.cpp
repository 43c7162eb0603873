// SPDX-License-Identifier: MIT
#include <lowrank/core/config.hpp>

#include <string_view>

#include <doctest/doctest.h>

#define LOWRANK_TEST_TEXT_OF(x) #x
#define LOWRANK_TEST_TEXT(x) LOWRANK_TEST_TEXT_OF(x)

TEST_CASE("the inline namespace spells the version and every switch that changes code") {
    const std::string_view tag = LOWRANK_TEST_TEXT(LOWRANK_ABI);
    const std::string_view version =
        "v" LOWRANK_TEST_TEXT(LOWRANK_VERSION_MAJOR) "_" LOWRANK_TEST_TEXT(LOWRANK_VERSION_MINOR) "_";
    CHECK(tag.substr(0, version.size()) == version);
    CHECK(tag.find("noexcept") == std::string_view::npos);  // the tests are compiled with exceptions
#if defined(__AVX512F__)
    CHECK(tag.find("avx512") != std::string_view::npos);
#elif !defined(__AVX__)
    CHECK(tag.find("base") != std::string_view::npos);
#endif
}
