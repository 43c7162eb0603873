// SPDX-License-Identifier: MIT
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/lora/merge/detail/delta_tile.hpp>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE("entries of float products are sums in double in ascending order, bit for bit") {
    for (const lowrank::index k : {0, 1, 3, 16, 65}) {
        const low_rank<float> d{.left = random_matrix<float>(13, k, 1), .right = random_matrix<float>(k, 71, 2)};
        detail::delta_tiles<float> tiles(d);
        for (const auto& [first, count] : {std::pair<lowrank::index, lowrank::index>{0, 71}, {5, 33}, {70, 1}}) {
            tiles.select_columns(first, count);
            lowrank::index wrong = 0;
            for (lowrank::index i = 0; i < 13; i += 4) {
                const lowrank::index rows = std::min<lowrank::index>(4, 13 - i);
                const double* tile = tiles.rows(i, rows);
                for (lowrank::index r = 0; r < rows; ++r) {
                    for (lowrank::index j = 0; j < count; ++j) {
                        double sum = 0;
                        for (lowrank::index l = 0; l < k; ++l) {
                            sum += double(d.left(i + r, l)) * double(d.right(l, first + j));
                        }
                        wrong += sum == tile[r * tiles.stride() + j] ? 0 : 1;
                    }
                }
            }
            CHECK(wrong == 0);
        }
    }
}

TEST_CASE("entries of double products do not depend on how the tiles are cut") {
    const low_rank<double> d{.left = random_matrix<double>(9, 17, 1), .right = random_matrix<double>(17, 50, 2)};
    detail::delta_tiles<double> whole(d);
    whole.select_columns(0, 50);
    detail::delta_tiles<double> part(d);
    part.select_columns(7, 20);
    const double* a = whole.rows(4, 4);
    const double* b = part.rows(6, 2);
    for (lowrank::index j = 0; j < 20; ++j) {
        CHECK(a[2 * whole.stride() + 7 + j] == b[j]);
        CHECK(std::abs(b[j] - d.left.row(6).dot(d.right.col(7 + j))) < 1e-13);
    }
}
