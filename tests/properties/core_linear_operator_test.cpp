// SPDX-License-Identifier: MIT
// Laws of linear operators on random inputs: <M x, y> = <x, M^T y>, linearity, accumulation; for every map type of core.
#include <lowrank/core/linear_operator.hpp>

#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include <lowrank/core/philox.hpp>
#include <lowrank/core/workspace.hpp>

using namespace lowrank;

namespace {

template <class S>
matrix<S> normal(lowrank::index rows, lowrank::index cols, std::uint64_t stream) {
    matrix<S> a(rows, cols);
    fill_normal(a, S(1), philox(41, stream));
    return a;
}

template <class M>
void check_laws(const M& m, std::uint64_t stream) {
    using S = typename M::scalar;
    const lowrank::index rows = m.rows(), cols = m.cols();
    for (const lowrank::index k : {1, 3, 8, 17}) {
        const matrix<S> x = normal<S>(cols, k, stream), z = normal<S>(rows, k, stream + 1);
        const matrix<S> y = apply(m, x), w = apply_transposed(m, z);
        const double left = y.template cast<double>().cwiseProduct(z.template cast<double>()).sum();
        const double right = x.template cast<double>().cwiseProduct(w.template cast<double>()).sum();
        const double size = y.template cast<double>().norm() * z.template cast<double>().norm() +
                            x.template cast<double>().norm() * w.template cast<double>().norm() + 1e-30;
        const double eps = static_cast<double>(std::numeric_limits<S>::epsilon());
        CHECK(std::abs(left - right) <= 4 * eps * std::sqrt(static_cast<double>(rows + cols + 1)) * size);

        // One column at a time is the same map, and alpha scales it.
        for (const lowrank::index j : {lowrank::index(0), k - 1}) {
            const matrix<S> column = apply(m, const_column_view<S>(x.col(j)));
            CHECK((column - y.col(j)).norm() <= S(64) * std::numeric_limits<S>::epsilon() * (y.norm() + S(1)));
        }
        workspace ws;
        matrix<S> twice = y;
        m.add_product(S(-1), x, twice, ws);
        CHECK(twice.norm() <= S(64) * std::numeric_limits<S>::epsilon() * (y.norm() + S(1)));
    }
}

}  // namespace

TEST_CASE_TEMPLATE("adjoint law and linearity of every map", T, float, double, half, bfloat16) {
    using S = compute_t<T>;
    std::uint64_t stream = 0;
    for (const auto& [rows, cols] : std::vector<std::pair<lowrank::index, lowrank::index>>{
             {1, 1}, {1, 130}, {130, 1}, {31, 67}, {200, 129}, {65, 300}, {0, 7}, {7, 0}}) {
        const row_matrix<T> r = normal<S>(rows, cols, ++stream).template cast<T>();
        const matrix<T> c = normal<S>(rows, cols, ++stream).template cast<T>();
        check_laws(as_operator(r), stream);
        check_laws(as_operator(c), stream);
        check_laws(owned_operator<T>(r), stream);
        check_laws(any_operator<S>(as_operator(c)), stream);
        check_laws(operator_sum<S>({{as_operator(r)}, {as_operator(c), S(-0.5)}}), stream);
    }
}
