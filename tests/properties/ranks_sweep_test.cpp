// SPDX-License-Identifier: MIT

// Rank rules over the whole grid: a rank does not depend on the unit of a weight, and rounding is no signal.

#include <lowrank/factor/ranks/noise_threshold.hpp>
#include <lowrank/factor/ranks/rank_budget.hpp>
#include <lowrank/factor/ranks/rank_rules.hpp>
#include <lowrank/factor/svd.hpp>

#include <vector>

#include <support/matrices.hpp>
#include <support/sweep.hpp>

#include <doctest/doctest.h>

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE_TEMPLATE("sweep: noise rules do not take rounding for signal", T, float, double, half, bfloat16) {
    using S = compute_t<T>;
    sweep<S>(
        [](const swept<S>& x) {
            const idx rank = x.kind == 4 ? 1 : 2, m = x.w.rows(), n = x.w.cols();
            // Numbers of few digits, denormal ones too, are noise of their own; all of them hold the matrix of ones.
            const bool digits =
                std::is_same_v<T, S> && (x.exponent > -130 || (std::is_same_v<S, double> && x.exponent > -1000));
            if (!(x.kind == 4 || (x.kind == 2 && digits)) || (std::is_same_v<T, half> && x.exponent != 0) ||
                (std::is_same_v<T, bfloat16> && x.exponent < -130)) {
                return;
            }
            const auto s = singular_values(matrix<T>(x.w.template cast<T>()));
            if (!s) {
                CHECK_FALSE(x.fits());
                return;
            }
            const idx most = std::min(rank, x.full());
            CHECK(marchenko_pastur_rank(*s, m, n) <= most);
            CHECK(gavish_donoho_rank(*s, m, n) <= most);
            if (x.full() > 2 * rank) {  // fewer than half of the values are signal
                CHECK(marchenko_pastur_rank(*s, m, n) == rank);
                CHECK(gavish_donoho_rank(*s, m, n) == rank);
            }
        },
        40, 64);
}

namespace {

/// The values of a matrix of the grid without those that are rounding.
vector<double> clean_values(const swept<double>& x) {
    vector<double> s = x.values;
    for (double& v : s) {
        v = v > 1e-15 * x.values(0) ? v : 0.0;
    }
    return s;
}

/// The same in a unit in which none of them is denormal, but squares are none.
vector<double> rescaled_values(const swept<double>& x) {
    vector<double> s = clean_values(x);
    for (double& v : s) {
        v = std::ldexp(v, std::max(x.exponent, -900));
    }
    return s;
}

}  // namespace

TEST_CASE("sweep: rank rules do not know the unit") {
    sweep<double>([](const swept<double>& x) {
        const vector<double> s = clean_values(x), scaled = rescaled_values(x);
        for (const double share : {0.0, 0.3, 0.9, 1.0}) {
            CHECK(rank_from_energy(scaled, share) == rank_from_energy(s, share));
            CHECK(rank_from_frobenius_share(scaled, share) == rank_from_frobenius_share(s, share));
            CHECK(rank_from_sum_share(scaled, share) == rank_from_sum_share(s, share));
            CHECK(rank_from_relative_error(scaled, share) == rank_from_relative_error(s, share));
            CHECK(rank_above_ratio(scaled, share) == rank_above_ratio(s, share));
        }
        CHECK(effective_rank(scaled) == effective_rank(s));
        CHECK(stable_rank(scaled) == stable_rank(s));
        CHECK(participation_ratio(scaled) == participation_ratio(s));
        CHECK(marchenko_pastur_rank(scaled, x.w.rows(), x.w.cols()) ==
              marchenko_pastur_rank(s, x.w.rows(), x.w.cols()));
    });
}

TEST_CASE("sweep: a budget is shared alike in every unit, and spent as the loss says") {
    std::vector<swept<double>> before;
    sweep<double>([&](const swept<double>& x) {
        before.push_back(x);
        if (before.size() < 3) {
            return;
        }
        std::vector<budget_item> items, scaled;
        idx all = 0;
        for (const auto& one : before) {
            swept<double> same = one;
            same.exponent = x.exponent;
            items.push_back({.values = clean_values(one), .rows = one.w.rows(), .cols = one.w.cols()});
            scaled.push_back({.values = rescaled_values(same), .rows = one.w.rows(), .cols = one.w.cols()});
            all += one.w.size();
        }
        before.clear();
        double last = std::numeric_limits<double>::infinity();
        for (const idx budget : {idx{0}, all / 5, all / 2, all - 1, all}) {
            const auto plan = allocate_ranks(items, budget), same = allocate_ranks(scaled, budget);
            CHECK(plan.ranks == same.ranks);
            CHECK(plan.parameters == same.parameters);
            CHECK(plan.parameters <= budget);
            CHECK(plan.loss <= last * (1 + 1e-12) + 1e-300);
            last = plan.loss;
            double left = 0.0;
            for (std::size_t i = 0; i < items.size(); ++i) {
                left += items[i].values.tail(items[i].values.size() - plan.ranks[i]).squaredNorm();
            }
            CHECK(plan.loss == doctest::Approx(left).epsilon(1e-12));
        }
        CHECK(last == 0.0);  // everything fits
    });
}
