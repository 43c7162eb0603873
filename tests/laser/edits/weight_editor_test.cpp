// SPDX-License-Identifier: MIT
#include <lowrank/laser/edits/weight_editor.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include <doctest/doctest.h>

#include <lowrank/core/philox.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/laser/edits/edit_list.hpp>

#include "laser/planted_model.hpp"

using namespace lowrank;

namespace {

/// Rows of four subspaces of dimension `rank`, shuffled: row i lies in subspace (7 i) mod 4, plus a little noise.
row_matrix<float> shuffled_subspaces(lowrank::index rows, lowrank::index cols, lowrank::index rank) {
    row_matrix<float> w(rows, cols);
    fill_normal(w, 0.02F, philox(11));
    for (lowrank::index g = 0; g < 4; ++g) {
        matrix<float> basis(rank, cols), weights(rows, rank);
        fill_normal(basis, 1.0F, philox(12, static_cast<std::uint64_t>(g)));
        fill_normal(weights, 1.0F, philox(13, static_cast<std::uint64_t>(g)));
        for (lowrank::index i = g; i < rows; i += 4) {
            w.row(i * 7 % rows) += weights.row(i) * basis;
        }
    }
    return w;
}

}  // namespace

TEST_CASE_TEMPLATE("blocks are truncated one by one, exactly", T, float, double, bfloat16) {
    using S = compute_t<T>;
    matrix<S> random(10, 6);
    fill_normal(random, S(1), philox(1));
    row_matrix<T> w = random.template cast<T>();
    const row_matrix<T> original = w;
    auto editor = weight_editor<T>::open({"w", w}).value();
    const auto e =
        edit{"w", kept_blocks::fraction(0.5, 10, 6, 3)};  // blocks of 4, 3 and 3 rows, rank floor(0.5 * 4) = 2
    CHECK(to_text(e) == "keep 0-1 of 4 by 3 blocks in w");
    const auto receipt = apply_edit<T>(w, editor, e);
    REQUIRE(receipt);
    double squares = 0;
    const S tolerance = std::is_same_v<T, bfloat16> ? S(3e-2) : std::is_same_v<T, float> ? S(1e-5) : S(1e-12);
    for (const auto& [first, rows] : {std::pair{0, 4}, std::pair{4, 3}, std::pair{7, 3}}) {
        const matrix<S> block = original.middleRows(first, rows).template cast<S>();
        const auto s = svd(block).value();
        const matrix<S> want = s.truncate(2).dense();
        CHECK((w.middleRows(first, rows).template cast<S>() - want).cwiseAbs().maxCoeff() < tolerance);
        squares += s.error_at(2) * s.error_at(2);
    }
    CHECK(receipt->removed_norm ==
          doctest::Approx((w.template cast<double>() - original.template cast<double>()).norm()).epsilon(1e-12));
    CHECK(receipt->removed_norm ==
          doctest::Approx(std::sqrt(squares)).epsilon(std::is_same_v<T, bfloat16> ? 1e-2 : 1e-5));
    CHECK(receipt->relative_error ==
          doctest::Approx(std::sqrt(squares) / original.template cast<double>().norm()).epsilon(1e-3));
    CHECK_FALSE(lowrank_tests::same_bits(w, original));
    REQUIRE(undo_edit<T>(w, *receipt));
    CHECK(lowrank_tests::same_bits(w, original));

    // As many groups as rows: every row has one component, all of it.
    const auto rows = editor.write({"w", kept_blocks::fraction(1, 10, 6, 10)}, w);
    REQUIRE(rows);
    CHECK(rows->parameters == 10 * (1 + 6));
    CHECK(lowrank_tests::same_bits(w, original));
    const auto none = editor.write({"w", kept_blocks::fraction(0, 10, 6, 5)}, w);
    CHECK(none->relative_error == doctest::Approx(1).epsilon(1e-6));
    CHECK((w.array() == T(0)).all());
}

TEST_CASE("any set of components can be kept, by blocks too: tail, band, list") {
    row_matrix<double> w(12, 5);
    fill_normal(w, 1.0, philox(2));
    const row_matrix<double> original = w;
    auto editor = weight_editor<double>::open({"w", w}).value();
    for (const auto& keep : {component_set::band(2, 5), component_set::band(1, 3), component_set::of({0, 3})}) {
        for (const bool blocks : {false, true}) {
            matrix<double> sum = matrix<double>::Zero(12, 5);
            for (const auto& part : {keep, keep.complement(5)}) {
                REQUIRE(
                    editor.write(blocks ? edit{"w", kept_blocks{part, 5, 2}} : edit{"w", kept_components{part, 5}}, w));
                sum += w;
            }
            CHECK((sum - original).cwiseAbs().maxCoeff() < 1e-13);  // what stays and what goes are the whole
        }
    }
}

TEST_CASE("clusters win on shuffled subspaces, and lose on one subspace, at equal parameters") {
    row_matrix<float> w = shuffled_subspaces(64, 24, 3);
    const row_matrix<float> original = w;
    auto editor = weight_editor<float>::open({"w", w}).value();
    const auto clusters = editor.write({"w", kept_clusters{component_set::first(3), 16, 4}}, w).value();
    const auto blocks = editor.write({"w", kept_blocks{component_set::first(3), 16, 4}}, w).value();
    const auto plain = [](auto& of, const edit_size& size) {
        return of.whole().relative_error(size.parameters / (64 + 24));
    };
    CHECK(clusters.parameters == 3 * (64 + 4 * 24));
    CHECK(clusters.relative_error < 0.05);
    CHECK(blocks.relative_error > 0.3);
    CHECK(plain(editor, clusters) > 5 * clusters.relative_error);

    matrix<float> left(64, 3), right(3, 24);
    fill_normal(left, 1.0F, philox(3));
    fill_normal(right, 1.0F, philox(4));
    row_matrix<float> smooth(64, 24);
    fill_normal(smooth, 0.1F, philox(5));
    smooth += left * right;
    auto flat = weight_editor<float>::open({"w", smooth}).value();
    const auto split = flat.write({"w", kept_clusters{component_set::first(2), 16, 4}}, smooth).value();
    CHECK(plain(flat, split) < split.relative_error);
}

TEST_CASE("an edit by groups in a list of edits applies, stacks with others and comes off") {
    lowrank_tests::planted_model<float> model(2, 1);
    const lowrank_tests::untouched<float> before{model};
    const auto weights = model.weights();
    const std::vector<edit> edits = {parse_edit("keep 0-1 of 6 by 2 blocks in mixer").value(),
                                     parse_edit("keep 0 of 3 by 4 clusters in head").value()};
    CHECK(edits[1] == edit{"head", kept_clusters{component_set::first(1), 3, 4}});
    const auto done = apply_edits<float>(weights, edits);
    REQUIRE(done);
    CHECK(svd(model.mixer).value().relative_error(4) < 1e-5);
    CHECK(svd(model.mixer).value().relative_error(3) > 1e-2);
    REQUIRE(undo_edits<float>(weights, *done));
    CHECK(before.now());
    CHECK(apply_edits<float>(weights, {edit{"head", kept_blocks{component_set::first(1), 4, 4}}}).error().code ==
          errc::mismatch);
    CHECK(apply_edits<float>(weights, {edit{"head", kept_blocks{component_set::first(1), 1, 13}}}).error().code ==
          errc::mismatch);
    CHECK(before.now());
}

TEST_CASE("texts of grouped edits are read strictly") {
    for (const char* line :
         {"keep 0-1 of 6 by 1 blocks in w", "keep 0-1 of 6 by 2 block in w", "keep 0-1 of 6 by blocks in w",
          "keep 0-6 of 6 by 2 blocks in w", "keep 0 of 6 by 02 clusters in w", "keep 0 of 6 by -2 blocks in w"}) {
        CAPTURE(line);
        CHECK(parse_edit(line).error().code == errc::invalid_format);
    }
    const edit e{"a by 2 blocks in b", kept_blocks{component_set::first(2), 8, 3}};
    CHECK(parse_edit(to_text(e)).value() == e);
}

TEST_CASE("a weight with NaN is not opened, a changed weight is not edited") {
    row_matrix<float> w = row_matrix<float>::Identity(4, 4);
    auto editor = weight_editor<float>::open({"w", w}).value();
    w(0, 1) = 1;
    CHECK(apply_edit<float>(w, editor, editor.truncation(0.5)).error().code == errc::mismatch);
    CHECK(w(0, 1) == 1);
    w(0, 0) = std::numeric_limits<float>::quiet_NaN();
    CHECK(weight_editor<float>::open({"w", w}).error().message.find("w: ") == 0);
}

TEST_CASE_TEMPLATE("magnitude pruning is an edit: exact, reversible, storable", T, float, bfloat16) {
    using S = compute_t<T>;
    matrix<S> random(9, 7);
    fill_normal(random, S(1), philox(21));
    row_matrix<T> w = random.template cast<T>();
    w(2, 3) = w(1, 1) = w(5, 0);  // three equal magnitudes
    const row_matrix<T> before = w;
    auto editor = weight_editor<T>::open({"w", w}).value();
    const edit e{"w", kept_entries::fraction(0.4, 9, 7)};
    CHECK(to_text(e) == "keep 0-24 of 63 entries in w");
    CHECK(parse_edit(to_text(e)).value() == e);

    const auto receipt = apply_edit<T>(weight_view<T>(w), editor, e).value();
    const auto size = [](T x) { return std::abs(static_cast<double>(static_cast<S>(x))); };
    lowrank::index kept = 0;
    double removed = 0, smallest_kept = 1e9, largest_removed = 0;
    for (lowrank::index i = 0; i < w.size(); ++i) {
        const double x = size(before.data()[i]);
        if (size(w.data()[i]) == 0) {
            removed += x * x;
            largest_removed = std::max(largest_removed, x);
        } else {
            CHECK(size(w.data()[i]) == x);
            ++kept;
            smallest_kept = std::min(smallest_kept, x);
        }
    }
    CHECK(kept == 25);
    CHECK(smallest_kept >= largest_removed);
    CHECK(receipt.removed_norm == doctest::Approx(std::sqrt(removed)).epsilon(1e-6));
    CHECK(undo_edit<T>(weight_view<T>(w), receipt));
    CHECK(w == before);

    // Any set of places: what two complementary sets keep adds up to the weight.
    row_matrix<T> upper(9, 7), lower(9, 7);
    CHECK(editor.write({"w", kept_entries{component_set::first(10), 63}}, upper)->parameters == 10);
    CHECK(editor.write({"w", kept_entries{component_set::band(10, 63), 63}}, lower)->parameters == 53);
    CHECK((upper.template cast<S>() + lower.template cast<S>()).eval() == before.template cast<S>());
    CHECK(editor.write({"w", kept_entries{component_set::first(0), 63}}, lower)->relative_error ==
          doctest::Approx(1).epsilon(1e-5));
    CHECK(editor.write({"w", kept_entries{component_set::first(63), 63}}, lower)->removed_norm == 0);
    CHECK(lower == before);
    CHECK(editor.write({"w", kept_entries{component_set::first(3), 60}}, lower).error().code == errc::mismatch);
}
