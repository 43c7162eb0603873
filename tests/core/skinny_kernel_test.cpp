// SPDX-License-Identifier: MIT
#include <lowrank/core/detail/skinny_kernel.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include <doctest/doctest.h>

#include <lowrank/core/philox.hpp>
#include <lowrank/core/workspace.hpp>

#include "support/skinny.hpp"

using namespace lowrank;
using namespace lowrank_tests;

namespace {

/// The big kernels by name, on shapes that normally go to Eigen: every edge of every tile.
template <class T>
void check_kernels(const shape& s) {
    using S = compute_t<T>;
    CAPTURE(s.rows);
    CAPTURE(s.cols);
    CAPTURE(s.k);
    const row_matrix<T> r = normal<row_matrix<T>>(s.rows, s.cols, 6);
    const matrix<double> dense = r.template cast<compute_t<T>>().template cast<double>();
    const matrix<S> x = normal<matrix<S>>(s.cols, s.k, 7), z = normal<matrix<S>>(s.rows, s.k, 8);
    matrix<S> y = normal<matrix<S>>(s.rows, s.k, 9), w = normal<matrix<S>>(s.cols, s.k, 10);
    const matrix<double> y_want = y.template cast<double>() + 2 * (dense * x.template cast<double>()).eval();
    const matrix<double> w_want =
        w.template cast<double>() + 2 * (dense.transpose() * z.template cast<double>()).eval();
    workspace ws;
    detail::skinny_along<T>(S(2), const_weight_view<T>(r), x, y, ws);
    CHECK(rounding<S>(y, y_want, s.cols) < 1);
    detail::skinny_across<T>(S(2), const_weight_view<T>(r), z, w, ws);
    CHECK(rounding<S>(w, w_want, s.rows) < 1);
}

}  // namespace

TEST_CASE_TEMPLATE("the streaming kernels at every edge", T, float, double, half, bfloat16) {
    for (const lowrank::index rows : {1, 4, 11, 12, 13, 97, 200}) {
        for (const lowrank::index cols : {1, 15, 16, 17, 49, 600}) {
            for (const lowrank::index k : {1, 7, 8, 33}) {
                check_kernels<T>({rows, cols, k});
            }
        }
    }
    check_kernels<T>({20, 2500, 40});
    check_kernels<T>({400, 50, 40});
}

TEST_CASE("pieces cover the work once, each task with scratch of its own") {
    for (const lowrank::index pieces : {0, 1, 5, 64, 65, 200}) {
        std::vector<int> seen(static_cast<std::size_t>(pieces), 0);
        std::vector<float*> scratch;
        workspace ws([&](lowrank::index n, const task& body) {
            CHECK(n <= detail::most_tasks);
            for (lowrank::index i = n; i-- > 0;) {
                body(i);
            }
        });
        detail::for_pieces<float>(ws, pieces, 5, [&](lowrank::index piece, float* place) {
            ++seen[static_cast<std::size_t>(piece)];
            if (scratch.empty() || scratch.back() != place) {
                scratch.push_back(place);
            }
        });
        CHECK(seen == std::vector<int>(static_cast<std::size_t>(pieces), 1));
        for (std::size_t i = 1; i < scratch.size(); ++i) {
            CHECK(scratch[i - 1] - scratch[i] >= 16);  // backwards, and a cache line apart
        }
    }
}
