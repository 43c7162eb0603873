// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/workspace.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include <doctest/doctest.h>

#include "support/allocations.hpp"

using namespace lowrank;

namespace {

bool is_aligned(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 64 == 0; }

struct piece {
    unsigned char* place;
    std::size_t size;
    unsigned char mark;
};

/// Takes a piece and writes it full.
piece take_marked(workspace& ws, std::size_t size, unsigned char mark) {
    piece p{static_cast<unsigned char*>(ws.take_bytes(size)), size, mark};
    for (std::size_t i = 0; i < size; ++i) {
        p.place[i] = mark;
    }
    return p;
}

bool intact(const piece& p) {
    for (std::size_t i = 0; i < p.size; ++i) {
        if (p.place[i] != p.mark) {
            return false;
        }
    }
    return true;
}

/// Nested frames of random sizes; false if a piece was overwritten while it was held, or is not aligned.
bool nest(workspace& ws, const philox& random, std::uint64_t& at, int depth) {
    workspace::frame scope(ws);
    std::vector<piece> pieces;
    bool good = true;
    for (std::uint64_t n = random.below(4, at++); n-- > 0;) {
        const bool empty = random.below(5, at++) == 0;
        const auto size = empty ? 0 : static_cast<std::size_t>(random.below(200000, at++));
        pieces.push_back(take_marked(ws, size, static_cast<unsigned char>(random.below(255, at++))));
        good = good && is_aligned(pieces.back().place);
        if (depth > 0) {
            good = nest(ws, random, at, depth - 1) && good;
        }
    }
    for (const auto& p : pieces) {
        good = good && intact(p);
    }
    return good;
}

}  // namespace

TEST_CASE_TEMPLATE("what is taken is aligned, of its shape, and apart", S, float, double) {
    workspace ws;
    workspace::frame scope(ws);
    auto a = ws.take<S>(3, 5);
    auto b = ws.take<S>(7, 1);
    CHECK(a.rows() == 3);
    CHECK(a.cols() == 5);
    CHECK(a.outerStride() == 3);
    CHECK(is_aligned(a.data()));
    CHECK(is_aligned(b.data()));
    a.setConstant(S(1));
    b.setConstant(S(2));
    CHECK((a.array() == S(1)).all());
    CHECK(b.sum() == S(14));
}

TEST_CASE("empty takes are valid, first, last and in between") {
    workspace ws;
    workspace::frame scope(ws);
    CHECK(is_aligned(ws.take_bytes(0)));
    auto a = ws.take<float>(0, 5);
    auto b = ws.take<float>(5, 0);
    CHECK(a.size() == 0);
    CHECK(b.size() == 0);
    const auto p = take_marked(ws, 65536, 1);
    CHECK(ws.take<double>(0, 0).size() == 0);
    const auto q = take_marked(ws, 1, 2);
    CHECK(intact(p));
    CHECK(intact(q));
}

TEST_CASE("nested frames never hand out memory that is still held") {
    workspace ws;
    const philox random(21);
    std::uint64_t at = 0;
    for (int pass = 0; pass < 30; ++pass) {
        CHECK(nest(ws, random, at, 3));
    }
}

TEST_CASE("an inner frame gives back what it took and nothing else") {
    workspace ws;
    workspace::frame outer(ws);
    const auto kept = take_marked(ws, 1000, 1);
    void* first = nullptr;
    {
        workspace::frame inner(ws);
        first = ws.take_bytes(500);
    }
    {
        workspace::frame inner(ws);
        CHECK(ws.take_bytes(500) == first);
        (void)ws.take_bytes(std::size_t{1} << 22);  // grows; the outer piece must stay where it is
        CHECK(intact(kept));
    }
    CHECK(intact(kept));
    CHECK(ws.take_bytes(500) == first);
}

TEST_CASE("the second pass of the same shapes allocates nothing") {
    if (!lowrank_tests::can_count_allocations()) {
        return;
    }
    workspace ws;
    const auto pass = [&] {
        workspace::frame scope(ws);
        ws.take<float>(100, 1000).setZero();
        for (int i = 0; i < 3; ++i) {
            workspace::frame inner(ws);
            ws.take<double>(300, 400 * (i + 1)).setZero();
            ws.take<float>(7, 7).setZero();
        }
        ws.take<double>(1, 99999).setZero();
    };
    const long start = lowrank_tests::allocations();
    pass();
    CHECK(lowrank_tests::allocations() > start);
    const long warm = lowrank_tests::allocations();
    const std::size_t held = ws.total_bytes();
    for (int i = 0; i < 5; ++i) {
        pass();
    }
    CHECK(lowrank_tests::allocations() == warm);
    CHECK(ws.total_bytes() == held);
}

TEST_CASE("sizes nobody can have are refused before anything happens") {
    workspace ws;
    const lowrank::index most = std::numeric_limits<lowrank::index>::max();
    CHECK_THROWS_AS((void)ws.take<float>(-1, 2), contract_violation);
    CHECK_THROWS_AS((void)ws.take<float>(2, -1), contract_violation);
    CHECK_THROWS_AS((void)ws.take<float>(most, most), contract_violation);
    CHECK_THROWS_AS((void)ws.take<double>(most / 4, 8), contract_violation);
    CHECK_THROWS_AS((void)ws.take_bytes(std::numeric_limits<std::size_t>::max()), contract_violation);
    CHECK(ws.total_bytes() == 0);
}

TEST_CASE("a workspace carries its executor") {
    int calls = 0;
    workspace ws([&](lowrank::index n, const task& body) {
        ++calls;
        for (lowrank::index i = 0; i < n; ++i) {
            body(i);
        }
    });
    parallel_for(ws.exec, 3, [](lowrank::index) {});
    CHECK(calls == 1);
}
