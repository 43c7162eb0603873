// SPDX-License-Identifier: MIT
// The best approximation of a weight at every rank, from one decomposition.
#include <cstdio>

#include <lowrank/lowrank.hpp>

int main() {
    // A weight with a strong rank-8 part under noise.
    lowrank::low_rank<float> signal{.left = lowrank::matrix<float>(300, 8), .right = lowrank::matrix<float>(8, 200)};
    lowrank::fill_normal(signal.left, 1.0F, lowrank::philox(1));
    lowrank::fill_normal(signal.right, 1.0F, lowrank::philox(2));
    lowrank::row_matrix<float> w(300, 200);
    lowrank::fill_normal(w, 0.5F, lowrank::philox(3));
    w += signal.dense();

    const auto spectrum = lowrank::svd(w);
    if (!spectrum) {
        std::fprintf(stderr, "%s\n", spectrum.why.message.c_str());
        return 1;
    }
    std::printf("rank   ||W - W_k|| / ||W||   numbers to store\n");
    for (const lowrank::index k : {1, 2, 4, 8, 16, 32, 64, 128}) {
        const lowrank::low_rank<float> part = spectrum.truncate(k);
        std::printf("%4td   %19.4f   %5.1f %%\n", k, spectrum.relative_error(k),
                    100.0 * static_cast<double>(part.left.size() + part.right.size()) / static_cast<double>(w.size()));
    }
    return 0;
}
