// SPDX-License-Identifier: MIT
#include <lowrank/laser/edits/edit.hpp>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include <lowrank/core/check.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/factor/svd.hpp>

using namespace lowrank;

namespace {

template <class T>
row_matrix<T> random_weight(lowrank::index rows, lowrank::index cols, std::uint64_t stream) {
    row_matrix<compute_t<T>> w(rows, cols);
    fill_normal(w, compute_t<T>(1), philox(3, stream));
    return w.template cast<T>();
}

template <class T>
bool edited_bits_equal(const row_matrix<T>& a, const row_matrix<T>& b) {
    return a.rows() == b.rows() && a.cols() == b.cols() &&
           std::memcmp(a.data(), b.data(), static_cast<std::size_t>(a.size()) * sizeof(T)) == 0;
}

/// What one rounding to T may change, relative to the largest entry.
template <class T>
double rounding() {
    return std::is_same_v<T, double> ? 1e-13 : std::is_same_v<T, float> ? 3e-6 : std::is_same_v<T, half> ? 2e-3 : 2e-2;
}

}  // namespace

TEST_CASE_TEMPLATE("an edit keeps the components asked for, and undo restores the bits", T, float, double, half,
                   bfloat16) {
    using S = compute_t<T>;
    std::uint64_t stream = 0;
    const std::vector<std::pair<lowrank::index, lowrank::index>> shapes = {{1, 1}, {1, 9}, {12, 5}, {7, 7}, {130, 20}};
    for (const auto& shape : shapes) {
        const auto rows = shape.first, cols = shape.second;
        const row_matrix<T> original = random_weight<T>(rows, cols, ++stream);
        const auto s = svd(original).value();
        for (const auto& keep :
             {component_set{}, component_set::first(1), component_set::first(s.size()),
              component_set::first(s.size() / 2), component_set::band(s.size() / 2, s.size()),
              component_set::of({0, s.size() - 1}), component_set::band(s.size() / 3, s.size() - s.size() / 3)}) {
            CAPTURE(rows);
            CAPTURE(cols);
            CAPTURE(keep.text());
            row_matrix<T> w = original;
            const auto receipt = apply_edit<T>(w, s, keep);
            REQUIRE(receipt);

            matrix<double> want = matrix<double>::Zero(rows, cols);
            double dropped = 0;
            for (lowrank::index i = 0; i < s.size(); ++i) {
                if (keep.contains(i)) {
                    want += static_cast<double>(s.s(i)) * s.u.col(i).template cast<double>() *
                            s.v.col(i).template cast<double>().transpose();
                } else {
                    dropped += static_cast<double>(s.s(i)) * static_cast<double>(s.s(i));
                }
            }
            const double scale = static_cast<double>(s.s(0));
            CHECK((w.template cast<double>() - want).cwiseAbs().maxCoeff() <= rounding<T>() * scale);
            // What was written, not what was computed before it was rounded.
            const double moved = (w.template cast<double>() - original.template cast<double>()).norm();
            CHECK(receipt->removed_norm == doctest::Approx(moved).epsilon(1e-13));
            CHECK(receipt->relative_error ==
                  doctest::Approx(moved / original.template cast<double>().norm()).epsilon(1e-12));
            CHECK(std::abs(moved - std::sqrt(dropped)) <=
                  rounding<T>() * scale * std::sqrt(static_cast<double>(w.size())));

            // The edit as an adapter: W + delta is the same matrix.
            const matrix<S> as_adapter = original.template cast<S>() + edit_delta(s, keep).dense();
            CHECK((as_adapter.template cast<double>() - want).cwiseAbs().maxCoeff() <=
                  (std::is_same_v<S, double> ? 1e-13 : 5e-6) * scale);
            CHECK(edit_delta(s, keep).rank() == s.size() - keep.size());
            CHECK((kept_part(s, keep).dense().template cast<double>() - want).cwiseAbs().maxCoeff() <=
                  (std::is_same_v<S, double> ? 1e-13 : 5e-6) * scale);

            REQUIRE(undo_edit<T>(w, *receipt));
            CHECK(edited_bits_equal(w, original));
        }
    }
}

TEST_CASE("keeping everything changes no bit, keeping nothing gives zero") {
    const auto original = random_weight<float>(9, 6, 40);
    const auto s = svd(original).value();
    row_matrix<float> w = original;
    const auto all = truncate_weight(weight_view<float>(w), s, s.size());
    REQUIRE(all);
    CHECK(edited_bits_equal(w, original));
    CHECK(all->relative_error == 0);
    const auto none = truncate_weight(weight_view<float>(w), s, 0);
    REQUIRE(none);
    CHECK(w.isZero(0));
    CHECK(none->relative_error == doctest::Approx(1));
    CHECK_THROWS_WITH_AS((void)truncate_weight(weight_view<float>(w), s, 7),
                         "truncate_weight: rank must be in [0, 6], got 7", contract_violation);
}

TEST_CASE("edits in a block of a larger matrix leave the rest alone") {
    row_matrix<double> whole = random_weight<double>(20, 30, 41);
    const row_matrix<double> original = whole;
    weight_view<double> part(whole.data() + 2 * 30 + 3, 10, 12, 30);
    const auto s = svd(part).value();
    const auto receipt = truncate_weight(part, s, 2);
    REQUIRE(receipt);
    whole.block(2, 3, 10, 12) = original.block(2, 3, 10, 12);  // what the edit wrote, and only that, is put back
    CHECK(edited_bits_equal(whole, original));
}

TEST_CASE("edits stack, and undo goes backwards") {
    const auto original = random_weight<float>(16, 16, 42);
    row_matrix<float> w = original;
    const auto first = truncate_weight(weight_view<float>(w), svd(w).value(), 8);
    REQUIRE(first);
    const row_matrix<float> between = w;
    const auto second = truncate_weight(weight_view<float>(w), svd(w).value(), 3);
    REQUIRE(second);
    const row_matrix<float> after = w;

    const auto refused = undo_edit<float>(w, *first);
    CHECK(refused.code == errc::mismatch);
    CHECK(edited_bits_equal(w, after));
    REQUIRE(undo_edit<float>(w, *second));
    CHECK(edited_bits_equal(w, between));
    REQUIRE(undo_edit<float>(w, *first));
    CHECK(edited_bits_equal(w, original));
}

TEST_CASE("undo keeps what arithmetic would not: signed zeros and padding") {
    row_matrix<float> w = random_weight<float>(5, 5, 43);
    w(0, 0) = -0.0F;
    w(1, 1) = std::numeric_limits<float>::denorm_min();
    const row_matrix<float> original = w;
    const auto s = svd(w).value();
    for (int cycle = 0; cycle < 100; ++cycle) {
        const auto receipt = truncate_weight(weight_view<float>(w), s, cycle % 5);
        REQUIRE(receipt);
        REQUIRE(undo_edit<float>(w, *receipt));
    }
    CHECK(edited_bits_equal(w, original));
}

TEST_CASE("a wrong spectrum, a broken weight and an overflow are refused, and nothing changes") {
    const auto original = random_weight<float>(6, 6, 44);
    const auto s = svd(original).value();
    row_matrix<float> w = 2 * original;
    const row_matrix<float> doubled = w;
    CHECK(truncate_weight(weight_view<float>(w), s, 3).error().code == errc::mismatch);
    CHECK(edited_bits_equal(w, doubled));
    w.setZero();
    CHECK(truncate_weight(weight_view<float>(w), s, 3).error().code == errc::mismatch);

    w = original;
    w(2, 3) = std::numeric_limits<float>::quiet_NaN();
    const row_matrix<float> broken = w;
    CHECK(truncate_weight(weight_view<float>(w), s, 3).error().code == errc::non_finite);
    CHECK(edited_bits_equal(w, broken));

    CHECK_THROWS_AS((void)truncate_weight(weight_view<float>(w.data(), 4, 9), s, 3), contract_violation);

    // A matrix of +-65504 whose rank-1 part overshoots the largest half.
    row_matrix<half> big(2, 2);
    big << half(65504.0F), half(65504.0F), half(65504.0F), half(30000.0F);
    const row_matrix<half> big_original = big;
    const auto big_spectrum = svd(big).value();
    CHECK(truncate_weight(weight_view<half>(big), big_spectrum, 1).error().code == errc::non_finite);
    CHECK(edited_bits_equal(big, big_original));
}

TEST_CASE("scales at both ends of the number range work") {
    for (const double scale : {1e-160, 1e-30, 1e30, 1e160}) {
        row_matrix<double> w = random_weight<double>(8, 5, 45) * scale;
        const row_matrix<double> original = w;
        const auto s = svd(w).value();
        const auto receipt = truncate_weight(weight_view<double>(w), s, 2);
        REQUIRE(receipt);
        CHECK(((w - original) / scale).norm() == doctest::Approx(s.error_at(2) / scale).epsilon(1e-10));
        CHECK(receipt->removed_norm == doctest::Approx(s.error_at(2)).epsilon(1e-12));
    }
    row_matrix<float> zero = row_matrix<float>::Zero(4, 3);
    const auto receipt = truncate_weight(weight_view<float>(zero), svd(zero).value(), 1);
    REQUIRE(receipt);
    CHECK(receipt->relative_error == 0);
    CHECK(zero.isZero(0));
    row_matrix<float> empty(0, 3);
    CHECK(truncate_weight(weight_view<float>(empty), svd(empty).value(), 0));
}

TEST_CASE("a description is one line and reads back") {
    const edit e{"model.layers.1.mlp.up_proj.weight", kept_components{component_set::first(5), 64}};
    CHECK(to_text(e) == "keep 0-4 of 64 in model.layers.1.mlp.up_proj.weight");
    for (const edit& x : {e, edit{"w", kept_components{component_set{}, 1}},
                          edit{"a name in words of any kind", kept_components{component_set::of({0, 2, 3}), 4}},
                          edit{"", kept_components{component_set::first(0), 0}},
                          edit{"w", kept_entries{component_set::first(9), 40}}}) {
        const auto back = parse_edit(to_text(x));
        REQUIRE(back);
        CHECK(*back == x);
    }
    CHECK_THROWS_AS((void)to_text({"two\nlines", kept_components{{}, 1}}), contract_violation);
    CHECK_THROWS_AS((void)to_text({"w", kept_blocks{{}, 4, 1}}), contract_violation);
    CHECK_THROWS_AS((void)kept_blocks::fraction(0.5, 4, 4, 5), contract_violation);
    CHECK_THROWS_WITH_AS((void)kept_clusters::fraction(0.5, 4, 4, 1),
                         "kept_clusters::fraction: the number of groups must be in [2, 4], got 1", contract_violation);
    for (const char* line : {"", "keep", "keep 0 of 3", "keep 0-4 of 64 at w", "keep 0-4 of 4 in w", "drop 0 of 4 in w",
                             "keep 0-4 of -1 in w", "keep 0 of 1-3 in w", "keep 0 of none in w", "keep 4-0 of 9 in w",
                             "keep 0 of 03 in w", "keep 0 of 4 in a\nb", " keep 0 of 4 in w", "keep 0 of 4entries in w",
                             "keep 0 of 4 entries by 2 blocks in w", "keep 0 of entries in w"}) {
        CAPTURE(line);
        CHECK(parse_edit(line).error().code == errc::invalid_format);
    }
}

TEST_CASE_TEMPLATE("what a user has is edited in place: either storage order, blocks, no spelled-out arguments", T,
                   float, double, bfloat16) {
    using S = compute_t<T>;
    const row_matrix<T> original = random_weight<T>(13, 9, 77);
    const auto s = svd(original).value();
    row_matrix<T> rows = original;
    matrix<T> columns = original;
    const auto of_rows = truncate_weight(rows, s, 5);
    const auto of_columns = truncate_weight(columns, s, 5);
    REQUIRE(of_rows);
    REQUIRE(of_columns);
    CHECK((rows.template cast<S>() - columns.template cast<S>()).cwiseAbs().maxCoeff() < rounding<T>() * 4);
    CHECK(of_columns->removed_norm == doctest::Approx(of_rows->removed_norm));
    REQUIRE(undo_edit(rows, *of_rows));
    REQUIRE(undo_edit(columns, *of_columns));
    CHECK(rows == original);
    CHECK(columns == original);

    matrix<T> wide = matrix<T>::Zero(20, 9);  // a block of a larger one
    wide.middleRows(3, 13) = original;
    const auto of_block = apply_edit(wide.middleRows(3, 13), s, component_set::band(1, 4));
    REQUIRE(of_block);
    CHECK((wide.topRows(3).array() == T(0)).all());
    CHECK((wide.bottomRows(4).array() == T(0)).all());
    REQUIRE(undo_edit(wide.middleRows(3, 13), *of_block));
    CHECK(wide.middleRows(3, 13) == original);
}

TEST_CASE_TEMPLATE("an edit of groups or entries is not taken for one of the whole weight's components", T, float,
                   half) {
    const row_matrix<T> original = random_weight<T>(16, 16, 90);
    const auto s = svd(original).value();
    row_matrix<T> w = original;
    const weight_view<T> view(w);
    for (const auto& other : {edit{"w", kept_blocks{component_set::first(2), 4, 4}},
                              edit{"w", kept_clusters{component_set::first(2), 4, 4}},
                              edit{"w", kept_entries{component_set::first(2), 256}},
                              edit{"w", kept_components{component_set::first(2), 17}}}) {
        CAPTURE(to_text(other));
        CHECK(apply_edit<T>(view, s, other).error().code == errc::mismatch);
        CHECK(edited_bits_equal(w, original));
    }
    REQUIRE(apply_edit<T>(view, s, edit{"w", kept_components{component_set::first(2), 16}}));
    CHECK_FALSE(edited_bits_equal(w, original));
}
