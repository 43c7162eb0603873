// SPDX-License-Identifier: MIT
#include <lowrank/factor/factored_algebra.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/lora/combine/arithmetic.hpp>

#include <array>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

namespace {

template <class S>
lora_adapter<S> numbered_adapter(std::uint64_t seed, lowrank::index r = 2) {
    return random_adapter<S>(9, 7, {.r = r, .lora_alpha = 3, .seed = seed});
}

template <class A>
lowrank::matrix<double> dense_change(const A& a) {
    return a.delta().dense().template cast<double>();
}

}  // namespace

TEST_CASE_TEMPLATE("sums, differences, multiples and means are those of the dense changes", S, float, double) {
    const auto a = numbered_adapter<S>(1);
    const auto b = numbered_adapter<S>(2, 4);
    const double tolerance = 40 * epsilon<S>;
    CHECK(max_abs_diff(dense_change(add(a, b, 2, -0.5)), 2 * dense_change(a) - 0.5 * dense_change(b)) < tolerance);
    CHECK(max_abs_diff(dense_change(subtract(a, b)), dense_change(a) - dense_change(b)) < tolerance);
    CHECK(subtract(a, b).rank() == 6);
    CHECK(max_abs_diff(dense_change(scale(a, -3)), -3 * dense_change(a)) < tolerance);
    CHECK(same_bits(negate(negate(a)).lora_B, a.lora_B));
    CHECK(max_abs_diff(dense_change(add(a, negate(a))), matrix<double>::Zero(9, 7)) < tolerance);
    const std::array<lora_adapter<S>, 3> three{a, b, a};
    CHECK(max_abs_diff(dense_change(average<S>(three)), (2 * dense_change(a) + dense_change(b)) / 3) < tolerance);
    CHECK(average<S>(three).scaling() == S(1));
}

TEST_CASE_TEMPLATE("projections remove what they name and keep the rest", S, float, double) {
    const auto a = numbered_adapter<S>(1).delta();
    const auto b = numbered_adapter<S>(2, 3).delta();
    const double tolerance = 40 * epsilon<S>;
    const auto rest = project_out(a, b);
    CHECK(std::abs(cosine(rest, b)) < tolerance);
    CHECK(frobenius_norm(rest) < frobenius_norm(a));
    CHECK(std::abs(cosine(a, b)) > 1e-3);
    CHECK(cosine(b, b) == doctest::Approx(1));
    CHECK(cosine(b, scale(b, S(-2))) == doctest::Approx(-1));
    CHECK(cosine(b, scale(b, S(0))) == 0);
    CHECK(same_bits(project_out(a, scale(b, S(0))).left, a.left));

    const auto silent = project_out_outputs(a, b.left);
    CHECK(max_abs_diff(b.left.transpose() * silent.dense(), matrix<S>::Zero(3, 7)) < 20 * tolerance);
    const auto blind = project_out_inputs(a, matrix<S>(b.right.transpose()));
    CHECK(max_abs_diff(blind.dense() * b.right.transpose(), matrix<S>::Zero(9, 3)) < 20 * tolerance);
    CHECK(blind.rank() == 2);
    // Twice changes nothing more.
    CHECK(max_abs_diff(project_out_outputs(silent, b.left).dense(), silent.dense()) < tolerance);
}

TEST_CASE_TEMPLATE("orthogonalize leaves orthogonal changes that span the same", S, float, double) {
    std::vector<low_rank<S>> changes;
    for (std::uint64_t i = 0; i < 4; ++i) {
        changes.push_back(numbered_adapter<S>(i, 1 + static_cast<lowrank::index>(i)).delta());
    }
    changes.push_back(add(changes[0], changes[2], S(2), S(-1)));  // in the span
    const auto q = orthogonalize<S>(changes);
    REQUIRE(q.size() == 5);
    const double tolerance = 100 * epsilon<S>;
    for (std::size_t i = 0; i < 4; ++i) {
        for (std::size_t j = 0; j < i; ++j) {
            CHECK(std::abs(cosine(q[i], q[j])) < tolerance);
        }
        // The change minus its orthogonal part lies along the results before it.
        low_rank<S> rest = add(changes[i], q[i], S(1), S(-1));
        for (std::size_t j = 0; j < i; ++j) {
            rest = project_out(rest, q[j]);
        }
        CHECK(frobenius_norm(rest) < tolerance * frobenius_norm(changes[i]));
    }
    CHECK(same_bits(q[0].dense(), changes[0].dense()));
    CHECK(frobenius_norm(q[4]) < 1e-5 * frobenius_norm(changes[4]));
}
