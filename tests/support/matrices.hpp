// SPDX-License-Identifier: MIT
#ifndef LOWRANK_TESTS_SUPPORT_MATRICES_HPP
#define LOWRANK_TESTS_SUPPORT_MATRICES_HPP

/// \file
/// Random matrices with known properties, and the measures the laws are stated in.
///
///     auto w = with_values<float>(200, 80, decay, 7);  // singular values exactly as given, up to rounding
///     CHECK(orthogonality_defect(q) < 20 * eps<float> * std::sqrt(200.0));

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <utility>

#include <doctest/doctest.h>

#include <lowrank/core/philox.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank_tests {

using idx = lowrank::index;

template <class S>
inline constexpr double eps = static_cast<double>(std::numeric_limits<S>::epsilon());

/// Standard normals; `stream` names the matrix.
template <class S>
lowrank::matrix<S> gaussian(idx rows, idx cols, std::uint64_t stream) {
    lowrank::matrix<S> a(rows, cols);
    lowrank::fill_normal(a, S(1), lowrank::philox(20250901, stream));
    return a;
}

/// The first columns of Q in A = Q R, by reflections of Eigen and independent of the code under test.
lowrank::matrix<double> orthonormal_basis(const lowrank::matrix<double>& a);

/// Orthonormal columns; `stream` names the matrix.
inline lowrank::matrix<double> orthonormal(idx rows, idx cols, std::uint64_t stream) {
    return orthonormal_basis(gaussian<double>(rows, cols, stream));
}

/// U diag(values) V^T with random orthonormal U, V, computed in double and rounded once.
template <class S>
lowrank::matrix<S> with_values(idx rows, idx cols, const lowrank::vector<double>& values, std::uint64_t stream) {
    const auto u = orthonormal(rows, values.size(), 2 * stream);
    const auto v = orthonormal(cols, values.size(), 2 * stream + 1);
    return (u * values.asDiagonal() * v.transpose()).template cast<S>();
}

/// first * ratio^i.
inline lowrank::vector<double> geometric(idx count, double first, double ratio) {
    lowrank::vector<double> s(count);
    for (idx i = 0; i < count; ++i) {
        s(i) = first * std::pow(ratio, static_cast<double>(i));
    }
    return s;
}

/// (i + 1)^-power.
inline lowrank::vector<double> power_law(idx count, double power) {
    lowrank::vector<double> s(count);
    for (idx i = 0; i < count; ++i) {
        s(i) = std::pow(static_cast<double>(i + 1), -power);
    }
    return s;
}

/// ||Q^T Q - I||_F in double.
template <class D>
double orthogonality_defect(const D& q) {
    const lowrank::matrix<double> wide = q.template cast<double>();
    return (wide.transpose() * wide - lowrank::matrix<double>::Identity(wide.cols(), wide.cols())).norm();
}

/// ||W - U diag(s) V^T||_F / ||W||_F in double, scaled so that no square overflows.
template <class W, class F>
double relative_residual(const W& w, const F& f) {
    const lowrank::matrix<double> wide = w.template cast<double>();
    const double scale = wide.size() == 0 ? 0.0 : wide.cwiseAbs().maxCoeff();
    if (scale == 0.0) {
        return f.s.size() == 0 ? 0.0 : f.s.template cast<double>().norm();
    }
    const lowrank::vector<double> s = f.s.template cast<double>() / scale;
    const lowrank::matrix<double> product =
        f.u.template cast<double>() * s.asDiagonal() * f.v.template cast<double>().transpose();
    const lowrank::matrix<double> unit = wide / scale;
    return (unit - product).norm() / unit.norm();
}

/// ||A - B||_F / ||B||_F in double.
template <class A, class B>
double relative_difference(const A& a, const B& b) {
    const lowrank::matrix<double> x = a.template cast<double>();
    const lowrank::matrix<double> y = b.template cast<double>();
    return (x - y).norm() / y.norm();
}

/// f holds k orthonormal columns on each side of descending values.
template <class S, class F>
void check_factors(const lowrank::matrix<S>& w, const F& f, idx k) {
    REQUIRE(f);
    CHECK(f.u.cols() == k);
    CHECK(f.s.size() == k);
    CHECK(f.v.cols() == k);
    const double bound = 20 * eps<S> * std::sqrt(static_cast<double>(std::max(w.rows(), w.cols())));
    CHECK(orthogonality_defect(f.u) < bound);
    CHECK(orthogonality_defect(f.v) < bound);
    CHECK(std::is_sorted(f.s.begin(), f.s.end(), std::greater<>()));
}

/// ||W - U diag(s) V^T||_F in double, of anything with u, s and v.
template <class S, class F>
double true_error(const lowrank::matrix<S>& w, const F& f) {
    return (w.template cast<double>() - f.u.template cast<double>() * f.s.template cast<double>().asDiagonal() *
                                            f.v.template cast<double>().transpose())
        .norm();
}

}  // namespace lowrank_tests

#endif  // LOWRANK_TESTS_SUPPORT_MATRICES_HPP
