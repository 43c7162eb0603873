// SPDX-License-Identifier: MIT
#include <lowrank/core/detail/skinny_tiles.hpp>

#include <vector>

#include <doctest/doctest.h>

#include <lowrank/core/workspace.hpp>

using namespace lowrank;

namespace {

/// A tile on small integers, against the sum written out.
template <int Rows, int Packets, class S>
void check_tile(lowrank::index depth) {
    constexpr lowrank::index width = Packets * detail::lanes<S>;
    workspace ws;
    const lowrank::index stride = depth + 3, out_stride = width + 5;
    auto r = ws.take<S>(stride, Rows), x = ws.take<S>(width, depth);
    auto out = ws.take<S>(out_stride, Rows);
    for (lowrank::index i = 0; i < r.size(); ++i) {
        r.data()[i] = static_cast<S>(i * 7 % 5 - 2);
    }
    for (lowrank::index i = 0; i < x.size(); ++i) {
        x.data()[i] = static_cast<S>(i * 11 % 7 - 3);
    }
    const matrix<S> product = S(2) * (x * r.topRows(depth));
    out.setConstant(S(9));
    detail::fetch_cursor<S> ahead{.row = r.data(), .stride = stride, .rows = Rows, .length = depth, .pace = 3};
    detail::multiply_tile<Rows, Packets>(S(2), r.data(), stride, detail::fixed<1>, depth, x.data(), width, out.data(),
                                         out_stride, false, ahead);
    CHECK(out.topRows(width) == product);
    CHECK((out.bottomRows(5).array() == S(9)).all());
    detail::fetch_nothing nothing;
    const matrix<S> packed = r.topRows(depth).transpose();  // the rows side by side, step after step
    detail::multiply_tile<Rows, Packets>(S(2), packed.data(), detail::fixed<1>, detail::fixed<Rows>, depth, x.data(),
                                         detail::fixed<width>, out.data(), out_stride, true, nothing);
    CHECK(out.topRows(width) == matrix<S>(product + product));
}

}  // namespace

TEST_CASE_TEMPLATE("every tile the kernels use", S, float, double) {
    for (const lowrank::index depth : {0, 1, 7, 8, 15, 16, 17, 100}) {
        check_tile<detail::along_rows, detail::along_packets, S>(depth);
        check_tile<detail::along_rows, 1, S>(depth);
        check_tile<detail::across_rows, detail::across_packets, S>(depth);
        check_tile<4, detail::across_packets, S>(depth);
        check_tile<4, 1, S>(depth);
        check_tile<1, detail::across_packets, S>(depth);
        check_tile<1, detail::along_packets, S>(depth);
        check_tile<1, 1, S>(depth);
    }
}

TEST_CASE("the cursor visits each line of a block once, and stops") {
    std::vector<float> block(4 * 100);
    detail::fetch_cursor<float> cursor{.row = block.data(), .stride = 100, .rows = 4, .length = 70, .pace = 2};
    int calls = 0;
    while (cursor.rows > 0) {
        const auto at = cursor.at, rows = cursor.rows;
        cursor.step(0, 16);  // one of the sixteen steps of a line: pace 2 asks for one line at step 0, one at step 1
        ++calls;
        CHECK((cursor.at == at + 16 || (cursor.at == 0 && cursor.rows == rows - 1)));
    }
    CHECK(calls == 4 * 5);  // 70 floats touch five lines
    cursor.step(0, 16);
    CHECK(cursor.rows == 0);
    detail::fetch_cursor<float> slow{.row = block.data(), .stride = 100, .rows = 4, .length = 70, .pace = 2};
    for (int q = 2; q < 16; ++q) {
        slow.step(q, 16);
    }
    CHECK(slow.at == 0);
}
