// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/lora/init/data_init.hpp>

#include <array>
#include <cmath>

#include "support.hpp"

using namespace lowrank;
using namespace lowrank_tests;

namespace {

/// Inputs whose coordinates have very different sizes and a mean.
lowrank::matrix<double> uneven_inputs(lowrank::index in, lowrank::index count, std::uint64_t stream) {
    lowrank::matrix<double> x = random_matrix<double>(in, count, stream);
    for (lowrank::index i = 0; i < in; ++i) {
        x.row(i) *= std::pow(0.7, static_cast<double>(i));
        x.row(i).array() += 0.5;
    }
    return x;
}

}  // namespace

TEST_CASE("CorDA by root is the best rank r for the outputs, also for a singular covariance") {
    const auto w = random_weight<double>(10, 8, 1);
    for (const lowrank::index count : {50, 5}) {
        const matrix<double> x = uneven_inputs(8, count, 2);
        gram_accumulator c(8);
        throw_if_failed(c.add(x));
        const lora_options options{.r = 3, .lora_alpha = 5};
        const auto a =
            corda(w, matrix<double>(c.sum() / double(count)), options, {.weighting = corda_weighting::root}).value();
        const double error = ((w - a.delta().dense()) * x).norm();
        const matrix<double> wx = w * x;
        CHECK(error == doctest::Approx(svd(wx).value().error_at(3)).epsilon(1e-6));
        CHECK(a.lora_A.norm() == doctest::Approx(a.lora_B.norm()));
        const auto by_covariance = corda(w, matrix<double>(c.sum() / double(count)), options).value();
        CHECK(((w - by_covariance.delta().dense()) * x).norm() > error * (1 - 1e-9));
    }
}

TEST_CASE("CorDA by covariance is the head or the tail of W C' taken back through C'") {
    const auto w = random_weight<double>(7, 6, 3);
    const matrix<double> x = uneven_inputs(6, 40, 4);
    const matrix<double> c = x * x.transpose() / 40;
    matrix<double> damped = c;
    damped.diagonal().array() += 0.01 * c.diagonal().mean();
    const matrix<double> wc = w * damped;
    const auto spec = svd(wc).value();
    for (const bool knowledge : {false, true}) {
        const auto a = corda(w, c, {.r = 2, .lora_alpha = 6}, {.knowledge_preserving = knowledge}).value();
        const auto part = knowledge ? spec.dropped(4) : spec.truncate(2);
        CHECK(max_abs_diff(a.delta().dense() * damped, part.dense()) < 1e-11);
    }
    const auto bigger = corda(w, matrix<double>(9 * c), {.r = 2, .lora_alpha = 6}).value();
    CHECK(max_abs_diff(bigger.delta().dense(), corda(w, c, {.r = 2, .lora_alpha = 6}).value().delta().dense()) < 1e-11);
    CHECK(corda(w, matrix<double>(-c), {.r = 2}).error().code == errc::mismatch);
    CHECK(corda(w, matrix<double>(matrix<double>::Constant(6, 6, std::nan(""))), {.r = 2}).error().code ==
          errc::non_finite);
}

TEST_CASE("EVA: exact principal components from shards, ranks by explained variance, A of the components") {
    const matrix<double> x = uneven_inputs(6, 60, 5);
    input_statistics all(6);
    input_statistics shard(6);
    throw_if_failed(all.add(matrix<double>(x.leftCols(20))));
    throw_if_failed(shard.add(matrix<float>(x.rightCols(40).cast<float>())));
    all.merge(shard);
    CHECK(all.count() == 60);
    const matrix<double> centered = x.colwise() - x.rowwise().mean();
    const auto want = svd(centered).value();
    const auto found = principal_components(all, 4).value();
    CHECK(found.directions.cols() == 4);
    CHECK(max_abs_diff(found.singular_values, want.s.head(4)) < 1e-5);
    CHECK(found.explained(0) == doctest::Approx(std::pow(want.s(0) / want.norm(), 2)).epsilon(1e-5));
    CHECK((found.directions.transpose() * want.u.leftCols(4)).cwiseAbs().isIdentity(1e-4));
    CHECK(principal_components(all, 4, false).value().singular_values(0) ==
          doctest::Approx(svd(x).value().s(0)).epsilon(1e-5));

    const std::array<vector<double>, 3> explained{vector<double>{{0.9, 0.05, 0.01, 0.001}},
                                                  vector<double>{{0.5, 0.4, 0.3, 0.2}},
                                                  vector<double>{{0.02, 0.01, 0.005, 0.001}}};
    CHECK(eva_ranks(explained, 2) == std::vector<lowrank::index>{2, 4, 0});
    CHECK(eva_ranks(explained, 2, 1.5) == std::vector<lowrank::index>{2, 3, 1});
    CHECK(eva_ranks(explained, 2, 1) == std::vector<lowrank::index>{2, 2, 2});

    const lora_options options{.r = 2, .lora_alpha = 8};
    const auto plain = eva<double>(found, 9, options);
    CHECK(plain.delta().dense().isZero());
    CHECK(max_abs_diff(plain.lora_A, found.directions.leftCols(2).transpose()) == 0);
    const auto white = eva<double>(found, 9, options, 3, {.whiten = true});
    CHECK(white.scaling() == doctest::Approx(plain.scaling()));
    CHECK(white.lora_A.row(2).norm() == doctest::Approx(1 / std::sqrt(found.singular_values(2))));
}

TEST_CASE("LoRA-GA starts in the leading directions of the gradient, at the sizes of its rules") {
    const matrix<double> g = random_matrix<double>(16, 11, 6);
    const auto spec = svd(g).value();
    const lora_options options{.r = 3, .lora_alpha = 6, .seed = 2};
    const auto start = [&](lora_ga_options how) { return lora_ga(spec, options, how); };
    const auto a = start({});
    CHECK(max_abs_diff(a.lora_A, spec.v.leftCols(3).transpose()) == 0);
    const double stable = 2.0 / 4.0;  // 16^(1/4) / sqrt(16)
    CHECK(max_abs_diff(a.lora_B, stable * spec.u.middleCols(3, 3) * spec.s.segment(3, 3).asDiagonal()) < 1e-14);
    const auto paper = start({.direction = lora_ga_direction::b_first, .scale = lora_ga_scale::paper});
    CHECK(max_abs_diff(paper.lora_A, stable * spec.v.middleCols(3, 3).transpose()) < 1e-14);
    CHECK(max_abs_diff(paper.lora_B, stable * spec.u.leftCols(3)) < 1e-14);
    const auto turns = start({.direction = lora_ga_direction::alternating, .scale = lora_ga_scale::unit});
    CHECK(max_abs_diff(turns.lora_A.row(1), spec.v.col(3).transpose()) == 0);
    CHECK(max_abs_diff(turns.lora_B.col(1), spec.u.col(2) * spec.s(2)) < 1e-14);
    const auto random = start({.direction = lora_ga_direction::random, .scale = lora_ga_scale::gd_scale});
    CHECK(random.lora_A.rowwise().norm().isConstant(0.5, 1e-12));
    CHECK(max_abs_diff(random.lora_A * random.lora_A.transpose(), matrix<double>::Identity(3, 3) / 4) < 1e-13);
    const auto sized = start({.scale = lora_ga_scale::weight_svd, .weight_sigma1 = 5});
    CHECK(sized.lora_B.col(0).norm() == doctest::Approx(5));
    CHECK_THROWS_AS((void)lora_ga(spec, {.r = 6}), contract_violation);

    // One step of gradient descent on B and A of the loss <G, W + s B A> moves W against the gradient.
    const double s = a.scaling();
    lora_adapter<double> stepped = a;
    stepped.lora_B -= 1e-6 * s * g * a.lora_A.transpose();
    stepped.lora_A -= 1e-6 * s * a.lora_B.transpose() * g;
    CHECK((stepped.delta().dense() - a.delta().dense()).cwiseProduct(g).sum() < 0);
}
