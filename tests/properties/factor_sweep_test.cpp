// SPDX-License-Identifier: MIT

// What every factorizer promises, over the whole grid of shapes, scales and spectra: against Eigen's Jacobi SVD, and
// against the error of what was returned, computed in double.

#include <lowrank/core/linear_operator.hpp>
#include <lowrank/factor/factored_algebra.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/factor/sketched/adaptive_svd.hpp>
#include <lowrank/factor/sketched/interpolative.hpp>
#include <lowrank/factor/sketched/krylov_svd.hpp>
#include <lowrank/factor/sketched/randomized_svd.hpp>
#include <lowrank/factor/sketched/single_pass_svd.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/factor/truncated_svd.hpp>

#include <support/matrices.hpp>
#include <support/sweep.hpp>

#include <doctest/doctest.h>

using namespace lowrank;
using namespace lowrank_tests;

namespace {

/// ||W - U diag(s) V^T||_F in the unit of the sweep.
template <class S>
double swept_error(const swept<S>& x, const decomposition<S>& f) {
    vector<double> s(f.size());
    for (idx i = 0; i < f.size(); ++i) {
        s(i) = x.in_unit(static_cast<double>(f.s(i)));
    }
    return (x.wide - f.u.template cast<double>() * s.asDiagonal() * f.v.template cast<double>().transpose()).norm();
}

/// What holds of every decomposition: a failure only where a value is beyond the scalar; finite orthonormal factors,
/// values that descend and are never above the true ones; evidence that is right to the uncertainty it states.
/// False if there is no decomposition.
template <class S>
bool check_decomposition(const swept<S>& x, const decomposition<S>& f, idx k) {
    if (!f) {
        CHECK(f.why.code == errc::non_finite);
        CHECK_FALSE(x.fits());
        return false;
    }
    REQUIRE(f.size() == k);
    // Where values may be denormal, the factors take what those cannot hold.
    const double taken = x.exponent < -100 ? 160 * eps<S> * std::sqrt(static_cast<double>(k)) : 0.0;
    const double orthonormal = 30 * eps<S> * std::sqrt(static_cast<double>(std::max(x.w.rows(), x.w.cols()))) + taken;
    CHECK(orthogonality_defect(f.u) <= orthonormal);
    CHECK(orthogonality_defect(f.v) <= orthonormal);
    const double rounding = 20 * x.rounding();
    for (idx i = 0; i < k; ++i) {
        const double s = x.in_unit(static_cast<double>(f.s(i)));
        CHECK((s >= 0.0 && s <= x.values(i) + rounding));
        CHECK((i == 0 || f.s(i) <= f.s(i - 1)));
    }
    const double error = swept_error(x, f);
    const double norm = x.values.norm(), stated = x.in_unit(f.error.frobenius);
    CHECK(error >= x.best(k) - rounding);
    CHECK((f.error.deviation >= 0.0 && f.error.deviation <= 1.0));
    if (f.error.how != error_source::sampled) {
        CHECK(f.error.relative * norm == doctest::Approx(stated).epsilon(1e-5 + 20 * x.rounding()));
    }
    if (f.error.how == error_source::exact) {
        CHECK(std::abs(error - stated) <= rounding);
    } else if (f.error.how != error_source::sampled) {
        CHECK(std::abs(error - stated) <= f.error.deviation * std::max(stated, error) + 10 * x.rounding());
    }
    return true;
}

/// The same, and the best approximation there is, to `roundings`.
template <class S>
void check_best(const swept<S>& x, const decomposition<S>& f, idx k, double roundings = 20) {
    if (check_decomposition(x, f, k)) {
        CHECK(swept_error(x, f) <= x.best(k) + roundings * x.rounding());
        for (idx i = 0; i < k; ++i) {
            CHECK(std::abs(x.in_unit(static_cast<double>(f.s(i))) - x.values(i)) <= roundings * x.rounding());
        }
    }
}

/// A Krylov space counts what is below 200 eps of a product as rounding.
constexpr double krylov_roundings = 200;

}  // namespace

TEST_CASE_TEMPLATE("sweep: svd, singular_values, truncated_svd", S, float, double) {
    sweep<S>([](const swept<S>& x) {
        const auto f = svd(x.w);
        check_best(x, f, x.full());
        const auto values = singular_values(x.w);
        CHECK(static_cast<bool>(values) == static_cast<bool>(f));
        for (idx i = 0; values && i < x.full(); ++i) {
            CHECK(std::abs(x.in_unit(static_cast<double>((*values)(i))) - x.values(i)) <= 20 * x.rounding());
        }
        for (const idx k : {idx{0}, idx{1}, x.full() / 2}) {
            check_best(x, truncated_svd(x.w, k), k);
        }
    });
}

TEST_CASE_TEMPLATE("sweep: svd of a product of two factors, never formed", S, float, double) {
    sweep<S>([](const swept<S>& x) {
        // The other factor has the opposite scale, or the same where the product then still has digits.
        const int other = std::abs(x.exponent) < 62 ? x.exponent : -x.exponent / 2;
        swept<S> y;
        y.seed = x.seed;
        y.exponent = x.exponent + other;
        const idx cols = 5;
        const matrix<double> right = swept_matrix<S>(x.w.cols(), cols, 0, 40 + x.seed).template cast<double>();
        low_rank<S> factors{.left = x.w, .right = matrix<S>(x.w.cols(), cols)};
        for (idx i = 0; i < right.size(); ++i) {
            factors.right.data()[i] = std::ldexp(static_cast<S>(right.data()[i]), other);
        }
        matrix<double> right_in_unit(x.w.cols(), cols);
        for (idx i = 0; i < right.size(); ++i) {
            right_in_unit.data()[i] = std::ldexp(static_cast<double>(factors.right.data()[i]), -other);
        }
        y.wide = x.wide * right_in_unit;
        y.w.setZero(x.w.rows(), cols);
        y.values = jacobi_values(y.wide);
        const auto f = svd(factors);
        if (f) {
            // Rounding is that of the factors: their norms, not that of the product.
            const double roundings =
                20 * std::max(1.0, x.values.norm() * right_in_unit.norm() / std::max(y.values.norm(), 1e-300));
            const idx k = std::min({x.w.rows(), x.w.cols(), cols});
            REQUIRE(f.size() == k);
            CHECK(swept_error(y, f) <= roundings * y.rounding());
            CHECK(std::abs(y.in_unit(frobenius_norm(factors)) - y.values.norm()) <= roundings * y.rounding());
            for (idx i = 0; i < k; ++i) {
                CHECK(std::abs(y.in_unit(static_cast<double>(f.s(i))) - y.values(i)) <= roundings * y.rounding());
            }
        } else {
            CHECK_FALSE(y.fits());
        }
    });
}

TEST_CASE_TEMPLATE("sweep: randomized_svd", S, float, double) {
    sweep<S>([](const swept<S>& x) {
        for (const idx oversample : {idx{0}, idx{8}}) {
            for (const int passes : {0, 2}) {
                const randomized_svd_options options = {
                    .oversample = oversample, .power_iterations = passes, .seed = x.seed};
                check_best(x, randomized_svd(x.w, x.full(), options), x.full());
                for (const idx k : {idx{0}, idx{1}, x.full() / 2}) {
                    check_decomposition(x, randomized_svd(x.w, k, options), k);
                }
            }
        }
    });
}

TEST_CASE_TEMPLATE("sweep: krylov_svd", S, float, double) {
    sweep<S>([](const swept<S>& x) {
        for (const idx block : {idx{0}, idx{1}}) {
            const krylov_svd_options options = {.block = block, .depth = block > 0 ? 64 : 0, .seed = x.seed};
            check_best(x, krylov_svd(x.w, x.full(), options), x.full(), krylov_roundings);
            for (const idx k : {idx{0}, idx{1}, x.full() / 2}) {
                check_decomposition(x, krylov_svd(x.w, k, options), k);
            }
        }
    });
}

TEST_CASE_TEMPLATE("sweep: adaptive_svd, tolerances down to the smallest number and to zero", S, float, double) {
    sweep<S>([](const swept<S>& x) {
        for (const double tolerance : {0.0, 5e-324, 0.1, 1.0}) {
            for (const idx block : {idx{1}, idx{32}}) {
                const auto f = adaptive_svd(x.w, {.tolerance = tolerance, .block = block, .seed = x.seed});
                if (check_decomposition(x, f, f ? f.size() : 0)) {
                    CHECK(swept_error(x, f) <= tolerance * x.values.norm() + krylov_roundings * x.rounding());
                }
            }
        }
    });
}

TEST_CASE_TEMPLATE("sweep: other operators, whose error is estimated", S, float, double) {
    double squares = 0.0, count = 0.0;
    sweep<S>([&](const swept<S>& x) {
        const any_operator<S> hidden(as_operator(x.w));
        const idx k = x.full() / 2;
        for (const auto& f : {randomized_svd(hidden, k, {.seed = x.seed}), krylov_svd(hidden, k, {.seed = x.seed}),
                              adaptive_svd(hidden, {.tolerance = 0.0, .max_rank = k, .seed = x.seed})}) {
            if (check_decomposition(x, f, f ? f.size() : k)) {
                CHECK(f.error.how == error_source::sampled);
                const double error = swept_error(x, f), stated = x.in_unit(f.error.frobenius);
                CHECK(stated <= 4 * error + krylov_roundings * x.rounding());  // more than 6 deviations
                if (error > 1e3 * x.rounding()) {
                    squares += (stated / error) * (stated / error);
                    count += 1.0;
                }
            }
        }
    });
    CHECK(count > (sanitized ? 125 : 1000));
    CHECK(std::sqrt(squares / count) == doctest::Approx(1.0).epsilon(0.02));  // |A G|^2 / columns has no bias
}

TEST_CASE_TEMPLATE("sweep: pivoted QR, interpolative and CUR state the error of what they return", S, float, double) {
    sweep<S>([](const swept<S>& x) {
        const auto in_unit = [&](const matrix<S>& a, int exponent) {
            matrix<double> wide = a.template cast<double>();
            for (idx i = 0; i < wide.size(); ++i) {
                wide.data()[i] = std::ldexp(wide.data()[i], -exponent);
            }
            return wide;
        };
        for (const idx k : {idx{1}, x.full() / 2, x.full()}) {
            const auto f = pivoted_qr(x.w, {.max_rank = k});
            if (f) {
                const double error = (x.wide - f.q.template cast<double>() * in_unit(f.r, x.exponent)).norm();
                CHECK(std::abs(error - x.in_unit(f.error)) <= 20 * x.rounding());
            } else {
                CHECK(f.why.code == errc::non_finite);
                CHECK(x.exponent > 0);
            }
            const auto g = interpolative(x.w, k);
            REQUIRE(g);
            matrix<double> chosen(x.w.rows(), static_cast<idx>(g.columns.size()));
            for (idx j = 0; j < chosen.cols(); ++j) {
                chosen.col(j) = x.wide.col(g.columns[static_cast<std::size_t>(j)]);
            }
            const matrix<double> z = g.z.template cast<double>();
            CHECK(std::abs((x.wide - chosen * z).norm() - x.in_unit(g.error)) <=
                  20 * std::max(x.rounding(), eps<S> * chosen.norm() * z.norm()));

            const auto h = cur(x.w, k);
            if (!h) {
                CHECK(h.why.code == errc::non_finite);
                CHECK(x.exponent < 0);
                continue;
            }
            const matrix<double> c = in_unit(h.c, x.exponent), u = in_unit(h.u, -x.exponent),
                                 r = in_unit(h.r, x.exponent);
            CHECK(std::abs((x.wide - c * u * r).norm() - x.in_unit(h.error)) <=
                  x.rounding() + 1e-14 * (x.values.norm() + c.norm() * u.norm() * r.norm()));
        }
    });
}

TEST_CASE_TEMPLATE("sweep: single_pass_sketch", S, float, double) {
    sweep<S>([](const swept<S>& x) {
        const idx k = std::min<idx>(x.full(), 4);
        single_pass_sketch<S> sketch(x.w.rows(), x.w.cols(), k, {.seed = x.seed});
        for (idx first = 0; first < x.w.rows(); first += 7) {
            REQUIRE(sketch.add_rows(first, matrix<S>(x.w.middleRows(first, std::min<idx>(7, x.w.rows() - first)))));
        }
        const auto f = sketch.finish(k);
        if (!f) {
            CHECK(f.why.code == errc::non_finite);
            CHECK(x.exponent > 0);  // sums of up to 64 entries near the largest number
            return;
        }
        CHECK(orthogonality_defect(f.u) <= 300 * eps<S>);
        CHECK(orthogonality_defect(f.v) <= 300 * eps<S>);
        CHECK(swept_error(x, f) <= 3 * x.best(k) + 200 * x.rounding());
        CHECK(x.in_unit(f.error.frobenius) <= 4 * swept_error(x, f) + 200 * x.rounding());
        CHECK((f.error.relative >= 0.0 && f.error.relative <= 4.0));
    });
}

TEST_CASE_TEMPLATE("every 2 x 2 and 3 x 3 matrix of -1, 0 and 1", S, float, double) {
    for (const idx n : {idx{2}, idx{3}}) {
        const int all = n == 2 ? 81 : 19683;
        for (int number = 0; number < all; number += sanitized ? 8 : 1) {
            swept<S> x;
            x.seed = static_cast<std::uint64_t>(number % 7);
            x.w.resize(n, n);
            for (idx i = 0, rest = number; i < n * n; ++i, rest /= 3) {
                x.w.data()[i] = static_cast<S>(rest % 3 - 1);
            }
            x.wide = x.w.template cast<double>();
            x.values = jacobi_values(x.wide);
            CAPTURE(number);
            for (idx k = 0; k <= n; ++k) {
                const auto f =
                    randomized_svd(x.w, k, {.oversample = 0, .power_iterations = number % 2, .seed = x.seed});
                k == n ? check_best(x, f, k) : static_cast<void>(check_decomposition(x, f, k));
            }
            check_best(x, svd(x.w), n);
            check_best(x, krylov_svd(x.w, n, {.seed = x.seed}), n, krylov_roundings);
            const auto g = adaptive_svd(x.w, {.tolerance = 0.0, .block = 1, .seed = x.seed});
            REQUIRE(g);
            check_best(x, g, g.size(), krylov_roundings);
            CHECK(swept_error(x, g) <= krylov_roundings * x.rounding());
        }
    }
}
