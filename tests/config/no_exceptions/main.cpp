// SPDX-License-Identifier: MIT
// Every header under -fno-exceptions -fno-rtti, in two files of one program: an entity that is not inline would be defined
// twice. Without an argument: a factorization, an adapter, a status, and both files agree. With one: a broken contract, which
// must print its sentence and abort.
#include "every_header.hpp"

#include <cstdio>
#include <limits>

#include "shared.hpp"

#if defined(__cpp_exceptions) || defined(__cpp_rtti)
#error "this program is to be compiled without exceptions and RTTI"
#endif
static_assert(LOWRANK_EXCEPTIONS == 0);

namespace {

int failures = 0;

void check(bool condition, const char* what) {
    if (!condition) {
        std::fprintf(stderr, "failed: %s\n", what);
        ++failures;
    }
}

}  // namespace

int main(int count, char**) {
    if (count > 1) {
        (void)lowrank::make_lora<float>(4, 3, {.r = -1});
        return 0;
    }

    lowrank::row_matrix<float> w(8, 6);
    lowrank::fill_uniform(w, -1.0F, 1.0F, lowrank::philox(1));
    const auto spectrum = lowrank::svd(w);
    check(bool(spectrum), "a finite weight has a spectrum");
    check((spectrum.truncate(6).dense() - w).norm() < 1e-5F, "full rank gives the weight back");

    lowrank::row_matrix<float> broken = w;
    broken(0, 0) = std::numeric_limits<float>::quiet_NaN();
    const auto none = lowrank::svd(broken);
    check(!none && none.why.code == lowrank::errc::non_finite, "a NaN comes back as a status");

    const auto adapter = lowrank::make_lora<float>(8, 6, {.r = 2});
    check(adapter.delta().dense().norm() == 0.0F, "a new adapter changes nothing");

    const auto seeded = lowrank::make_lora<float>(4, 3, {.r = 2, .seed = 5});
    check(seeded.lora_A == made_elsewhere().lora_A, "the other file makes the same adapter");
    check(address_elsewhere() == &lowrank::detail::fail_contract, "both files have one function");
    return failures == 0 ? 0 : 1;
}
