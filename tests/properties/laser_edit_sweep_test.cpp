// SPDX-License-Identifier: MIT

// What an edit says of itself, over the whole grid and every stored type: the error of the bits that were written.

#include <lowrank/core/storage.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/laser/edits/edit.hpp>
#include <lowrank/laser/edits/weight_editor.hpp>

#include <cstring>

#include <support/matrices.hpp>
#include <support/sweep.hpp>

#include <doctest/doctest.h>

using namespace lowrank;
using namespace lowrank_tests;

namespace {

template <class T>
matrix<double> stored_in_unit(const row_matrix<T>& w, int exponent) {
    matrix<double> wide = w.template cast<double>();
    for (idx i = 0; i < wide.size(); ++i) {
        wide.data()[i] = std::ldexp(wide.data()[i], -exponent);
    }
    return wide;
}

template <class T>
bool same_stored_bits(const row_matrix<T>& a, const row_matrix<T>& b) {
    return std::memcmp(a.data(), b.data(), static_cast<std::size_t>(a.size()) * sizeof(T)) == 0;
}

}  // namespace

TEST_CASE_TEMPLATE("sweep: an edit states the error of what it wrote, and comes off", T, float, double, half,
                   bfloat16) {
    using S = compute_t<T>;
    sweep<S>(
        [](const swept<S>& x) {
            // Half holds 2^-24 to 65504: the middle of its range and both ends of it.
            const int exponent = !std::is_same_v<T, half> ? x.exponent
                                 : x.exponent > 0         ? 15
                                 : x.exponent < -100      ? -20
                                                          : 0;
            row_matrix<T> original(x.w.rows(), x.w.cols());
            for (idx i = 0; i < x.w.rows(); ++i) {
                for (idx j = 0; j < x.w.cols(); ++j) {
                    original(i, j) = to_storage<T>(std::ldexp(x.wide(i, j), exponent));
                }
            }
            const auto f = svd(original);
            if (!f) {
                CHECK(x.exponent > 0);
                return;
            }
            const matrix<double> before = stored_in_unit(original, exponent);
            for (const idx k : {idx{0}, idx{1}, x.full() / 2, x.full()}) {
                row_matrix<T> w = original;
                const auto receipt = truncate_weight(weight_view<T>(w), f, k);
                if (!receipt) {
                    CHECK(receipt.error().code == errc::non_finite);
                    CHECK(x.exponent > 0);  // an entry of W_k may be larger than those of W
                    CHECK(same_stored_bits(w, original));
                    continue;
                }
                const double moved = (stored_in_unit(w, exponent) - before).norm();
                // In double the number itself is rounded, row by row, where it is near the smallest there is.
                const double smallest_double = std::ldexp(5e-324, -exponent) * static_cast<double>(x.w.rows() + 2);
                CHECK(std::abs(std::ldexp(receipt->removed_norm, -exponent) - moved) <=
                      1e-12 * moved + smallest_double);
                CHECK(std::abs(receipt->relative_error * before.norm() - moved) <= 1e-12 * moved + smallest_double);
                // The best approximation of its rank, and one rounding of each entry.
                const double smallest =
                    std::ldexp(static_cast<double>(static_cast<S>(std::numeric_limits<T>::denorm_min())), -exponent);
                const double stored =
                    static_cast<double>(static_cast<S>(std::numeric_limits<T>::epsilon())) * before.norm() +
                    smallest * std::sqrt(static_cast<double>(w.size()));
                CHECK(std::abs(moved - std::ldexp(f.error_at(k), -exponent)) <=
                      stored + 20 * eps<S> * before.norm() + 20 * x.rounding());
                REQUIRE(undo_edit(weight_view<T>(w), *receipt));
                CHECK(same_stored_bits(w, original));
            }
        },
        std::is_same_v<T, float> ? 40 : 16, 33);
}

TEST_CASE_TEMPLATE("sweep: every kind of edit states the error of what it wrote", T, float, half, bfloat16) {
    sweep<float>(
        [](const swept<float>& x) {
            if (x.w.rows() < 4 || x.exponent != 0) {
                return;
            }
            const row_matrix<T> original = x.w.template cast<T>();
            auto editor = weight_editor<T>::open("w", row_matrix<T>(original));
            REQUIRE(editor);
            const idx m = x.w.rows(), n = x.w.cols();
            for (const edit& e :
                 {editor->truncation(0.5), edit{"w", kept_blocks::fraction(0.5, m, n, 2)},
                  edit{"w", kept_clusters::fraction(0.5, m, n, 2)}, edit{"w", kept_entries::fraction(0.3, m, n)}}) {
                CAPTURE(to_text(e));
                row_matrix<T> w(m, n);
                const auto size = editor->write(e, weight_view<T>(w));
                REQUIRE(size);
                const double moved = (stored_in_unit(w, 0) - stored_in_unit(original, 0)).norm();
                CHECK(size->removed_norm == doctest::Approx(moved).epsilon(1e-12));
                CHECK(size->relative_error * size->weight_norm == doctest::Approx(moved).epsilon(1e-12));
            }
        },
        20, 33);
}
