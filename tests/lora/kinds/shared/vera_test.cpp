// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/lora/kinds/shared/vera.hpp>

#include "factored_gradient.hpp"

using namespace lowrank;
using namespace lowrank_tests;

TEST_CASE("layers share slices of one pair of projections; gradients are right") {
    const auto shared = make_vera_projections<double>(9, 12, 4, 3);
    CHECK(shared->vera_A.cwiseAbs().maxCoeff() <= std::sqrt(6.0 / 12));
    CHECK(shared->vera_B.cwiseAbs().maxCoeff() <= std::sqrt(6.0 / 4));
    auto a = make_vera(shared, 5, 7);
    CHECK(a.delta().dense().isZero(0));
    a.lambda_b = random_matrix<double>(5, 1, 1);
    const matrix<double> want =
        a.lambda_b.asDiagonal() * shared->vera_B.topRows(5) * a.lambda_d.asDiagonal() * shared->vera_A.leftCols(7);
    CHECK(max_abs_diff(a.delta().dense(), want) < 1e-14);
    const auto g = probe_gradient(a);
    const auto loss = [&] { return probe_loss(a); };
    CHECK(relative_diff(g.lambda_b, numeric_gradient(a.lambda_b, loss)) < 1e-7);
    CHECK(relative_diff(g.lambda_d, numeric_gradient(a.lambda_d, loss)) < 1e-7);
    a.in = 13;
    CHECK_THROWS_AS((void)a.delta(), contract_violation);
    CHECK_THROWS_AS((void)make_vera<double>(nullptr, 5, 7), contract_violation);
}
