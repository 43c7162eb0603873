// SPDX-License-Identifier: MIT
// The engine: C++17, its own arrays, an adapter it knows nothing about.
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "adapter_bridge.hpp"

#if __cplusplus >= 202002L
#error "this file is meant to be C++17"
#endif

int main() {
    const std::vector<float> a = {1, 0, 2};  // r = 1, in = 3
    const std::vector<float> b = {1, -1};    // out = 2
    const std::vector<float> x = {1, 2, 3,   // two tokens
                                  0, 1, 0.5F};
    std::vector<float> y(4, 10.0F);

    std::string why;
    const auto adapter = engine::adapter::make(a.data(), b.data(), 2, 3, 1, 2.0F, why);
    if (!adapter) {
        std::fprintf(stderr, "%s\n", why.c_str());
        return 1;
    }
    adapter->apply(0.5F, x.data(), y.data(), 2);  // A x = 7 and 1; alpha / r * strength = 1
    const std::vector<float> expected = {17, 3, 11, 9};
    for (std::size_t i = 0; i < y.size(); ++i) {
        if (std::fabs(y[i] - expected[i]) > 1e-5F) {
            std::fprintf(stderr, "y[%zu] is %g, expected %g\n", i, static_cast<double>(y[i]),
                         static_cast<double>(expected[i]));
            return 1;
        }
    }
    std::printf("y = %g %g %g %g\n", static_cast<double>(y[0]), static_cast<double>(y[1]), static_cast<double>(y[2]),
                static_cast<double>(y[3]));
    return 0;
}
