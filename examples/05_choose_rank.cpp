// SPDX-License-Identifier: MIT
// One spectrum, many conventions: what "keep 90 %" means to whom, and what noise alone would explain.
#include <cstdio>

#include <lowrank/lowrank.hpp>

int main() {
    // Twelve directions above unit noise.
    const lowrank::index m = 400, n = 250, planted = 12;
    lowrank::low_rank<double> signal{.left = lowrank::matrix<double>(m, planted),
                                     .right = lowrank::matrix<double>(planted, n)};
    lowrank::fill_normal(signal.left, 1.0, lowrank::philox(1));
    lowrank::fill_normal(signal.right, 0.3, lowrank::philox(2));
    lowrank::matrix<double> w(m, n);
    lowrank::fill_normal(w, 1.0, lowrank::philox(3));
    w += signal.dense();

    const auto values = lowrank::singular_values(w);
    if (!values) {
        std::fprintf(stderr, "%s\n", values.error().message.c_str());
        return 1;
    }
    const auto& s = *values;
    std::printf("planted rank                    %4td\n", planted);
    std::printf("fraction 0.05 (LASER)           %4td\n", lowrank::rank_from_fraction(0.05, m, n));
    std::printf("half the parameters             %4td\n", lowrank::rank_from_parameter_ratio(0.5, m, n));
    std::printf("90 %% of sum s^2 (energy)        %4td\n", lowrank::rank_from_energy(s, 0.9));
    std::printf("90 %% of sqrt(sum s^2)           %4td\n", lowrank::rank_from_frobenius_share(s, 0.9));
    std::printf("90 %% of sum s                   %4td\n", lowrank::rank_from_sum_share(s, 0.9));
    std::printf("above the noise edge            %4td\n", lowrank::marchenko_pastur_rank(s, m, n));
    std::printf("optimal hard threshold          %4td\n", lowrank::gavish_donoho_rank(s, m, n));
    std::printf("effective rank                  %6.1f\n", lowrank::effective_rank(s));
    return 0;
}
