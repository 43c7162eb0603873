// SPDX-License-Identifier: MIT
#include <lowrank/core/detail/skinny_vector.hpp>

#include <cstddef>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include <lowrank/core/philox.hpp>
#include <lowrank/core/workspace.hpp>

using namespace lowrank;

namespace {

/// Small integers: every sum below is exact.
template <class M>
M small_integers(lowrank::index rows, lowrank::index cols, std::uint64_t stream) {
    const philox rng(61, stream);
    return M::NullaryExpr(rows, cols, [&](lowrank::index i, lowrank::index j) {
        return typename M::Scalar(static_cast<float>(rng.below(9, static_cast<std::uint64_t>(i * cols + j))) - 4.0F);
    });
}

}  // namespace

TEST_CASE_TEMPLATE("one column, over many pieces", T, float, double, half, bfloat16) {
    using S = compute_t<T>;
    for (const auto& [rows, cols] : std::vector<std::pair<lowrank::index, lowrank::index>>{
             {1, 1}, {13, 9000}, {9000, 13}, {300, 1500}, {1, 40000}, {40000, 1}, {16, 131072}}) {
        const row_matrix<T> r = small_integers<row_matrix<T>>(rows, cols, 4);
        const matrix<S> dense = r.template cast<S>();
        const matrix<S> x = small_integers<matrix<S>>(cols, 1, 5), z = small_integers<matrix<S>>(rows, 1, 6);
        matrix<S> y = matrix<S>::Ones(rows, 1), w = matrix<S>::Ones(cols, 1);
        workspace ws;
        detail::vector_along<T>(S(3), const_weight_view<T>(r), x, y, ws);
        detail::vector_across<T>(S(3), const_weight_view<T>(r), z, w, ws);
        CHECK(y == matrix<S>(matrix<S>::Ones(rows, 1) + S(3) * (dense * x)));
        CHECK(w == matrix<S>(matrix<S>::Ones(cols, 1) + S(3) * (dense.transpose() * z)));
        CHECK(ws.total_bytes() <= std::size_t{1} << 20);  // one piece is widened at a time, whatever the length of rows
    }
}
