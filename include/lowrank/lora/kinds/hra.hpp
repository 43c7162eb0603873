// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_HRA_HPP
#define LOWRANK_LORA_KINDS_HRA_HPP

/// \file
/// HRA: the inputs of a layer go through r Householder reflections, W' = W (I - 2 u_1 u_1^T) ... (I - 2 u_r u_r^T).
///
///     auto a = lowrank::make_hra<float>(out, in, {.r = 8});                 // pairs of equal reflections: R = I
///     const auto layer = lowrank::rotate(lowrank::any_operator<float>(lowrank::as_operator(w)), a);
///     auto y = lowrank::apply(layer, x);
///
/// Yuan, Liu, Xu, arXiv 2405.17484; parameters as in PEFT. The product of reflections is I - V T V^T with T^-1 = I / 2
/// + the strict upper triangle of V^T V, so that applying it costs two skinny products whatever r is, and R is
/// orthogonal to rounding. With `apply_GS` the columns are made orthonormal first and R = I - 2 V V^T.

#include <cmath>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/skinny_product.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/algebra/rotation.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The square linear operator I - V T V^T.
template <real S>
struct householder_rotation {
    using scalar = S;

    matrix<S> v = {};  ///< in x r
    matrix<S> t = {};  ///< r x r

    [[nodiscard]] index rows() const noexcept { return v.rows(); }
    [[nodiscard]] index cols() const noexcept { return v.rows(); }

    /// Y += alpha (X - V (T (V^T X))).
    void add_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
        run<false>(alpha, x, y, ws);
    }
    /// Y += alpha (X - V (T^T (V^T X))).
    void add_transposed_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
        run<true>(alpha, x, y, ws);
    }

    [[nodiscard]] householder_rotation zero_gradient() const {
        return {.v = matrix<S>::Zero(v.rows(), v.cols()), .t = matrix<S>::Zero(t.rows(), t.cols())};
    }

    /// With a = V^T X, b = T a, db = -V^T dZ: dT += db a^T, dV += X (T^T db)^T - dZ b^T, dX += R^T dZ.
    void backward(const_column_view<S> x, const_column_view<S> dz, householder_rotation& gradient, column_view<S>* dx,
                  workspace& ws) const {
        check(x, dz);
        detail::expects_shape("householder_rotation::backward", "gradient.v", gradient.v.rows(), gradient.v.cols(),
                              v.rows(), v.cols());
        const workspace::frame scope(ws);
        const index r = v.cols();
        const index n = x.cols();
        const const_column_view<S> v_view(v);
        const const_column_view<S> t_view(t);
        auto a = ws.take<S>(r, n);
        a.setZero();
        lowrank::add_transposed_product<S, 0>(S(1), v_view, x, a, ws);
        auto b = ws.take<S>(r, n);
        b.setZero();
        lowrank::add_product<S, 0>(S(1), t_view, a, b, ws);
        gradient.v.noalias() -= dz * b.transpose();
        auto db = ws.take<S>(r, n);
        db.setZero();
        lowrank::add_transposed_product<S, 0>(S(-1), v_view, dz, db, ws);
        gradient.t.noalias() += db * a.transpose();
        b.setZero();  // now T^T db
        lowrank::add_transposed_product<S, 0>(S(1), t_view, db, b, ws);
        gradient.v.noalias() += x * b.transpose();
        if (dx != nullptr) {
            *dx += dz;
            lowrank::add_product<S, 0>(S(1), v_view, b, *dx, ws);
        }
    }

    template <real D>
    [[nodiscard]] householder_rotation<D> cast() const {
        return {.v = v.template cast<D>(), .t = t.template cast<D>()};
    }

private:
    void check(const const_column_view<S>& x, const const_column_view<S>& y) const {
        detail::expects_shape("householder_rotation", "x", x.rows(), x.cols(), v.rows(), y.cols());
        detail::expects_shape("householder_rotation", "y", y.rows(), y.cols(), v.rows(), x.cols());
        detail::expects_shape("householder_rotation", "t", t.rows(), t.cols(), v.cols(), v.cols());
    }
    template <bool Transposed>
    void run(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
        check(x, const_column_view<S>(y));
        const workspace::frame scope(ws);
        auto a = ws.take<S>(v.cols(), x.cols());
        a.setZero();
        lowrank::add_transposed_product<S, 0>(S(1), const_column_view<S>(v), x, a, ws);
        auto b = ws.take<S>(v.cols(), x.cols());
        b.setZero();
        if constexpr (Transposed) {
            lowrank::add_transposed_product<S, 0>(S(1), const_column_view<S>(t), a, b, ws);
        } else {
            lowrank::add_product<S, 0>(S(1), const_column_view<S>(t), a, b, ws);
        }
        y += alpha * x;
        lowrank::add_product<S, 0>(-alpha, const_column_view<S>(v), b, y, ws);
    }
};

/// The entries of a rotation that a gradient of it has.
template <real S>
[[nodiscard]] std::vector<std::span<S>> rotation_spans(householder_rotation<S>& r) {
    return {detail::entries(r.v), detail::entries(r.t)};
}

/// ||R^T R - I||_F, computed in double from V and T without forming R.
template <real S>
[[nodiscard]] double orthogonality_error(const householder_rotation<S>& r) {
    const matrix<double> v = r.v.template cast<double>();
    const matrix<double> t = r.t.template cast<double>();
    const matrix<double> g = v.transpose() * v;
    const matrix<double> e = t.transpose() * g * t - t - t.transpose();
    const double square = (e.transpose() * g * e * g).trace();
    return square > 0 ? std::sqrt(square) : 0.0;
}

/// PEFT's defaults.
struct hra_options {
    index r = 8;
    bool apply_GS = false;
    std::uint64_t seed = 0;
    std::uint64_t stream = 0;
};

/// r reflections of the inputs; a `rotating_adapter`. A column of zeros reflects nothing.
template <real S>
struct hra_adapter {
    using scalar = S;

    matrix<S> hra_u = {};  ///< in x r; the length of a column does not matter
    bool apply_GS = false;

    /// R. \pre With apply_GS: columns are linearly independent. \cost in r^2, in double.
    [[nodiscard]] householder_rotation<S> rotation() const {
        const basis b = make_basis();
        return {.v = b.v.template cast<S>(), .t = b.t.template cast<S>()};
    }

    /// No scale of the outputs.
    [[nodiscard]] vector<S> output_scale() const { return {}; }

    /// The gradient of hra_u.
    [[nodiscard]] hra_adapter pull_back(const rotated_gradient<householder_rotation<S>>& g) const {
        detail::expects_shape("hra_adapter::pull_back", "gradient", g.rotation.v.rows(), g.rotation.v.cols(),
                              hra_u.rows(), hra_u.cols());
        const basis b = make_basis();
        matrix<double> dv = g.rotation.v.template cast<double>();
        hra_adapter out = *this;
        if (apply_GS) {
            // Through the QR factorization U = V R with a constant T.
            const matrix<double> m = -dv.transpose() * b.v;
            matrix<double> low = m.template triangularView<Eigen::Lower>();
            low += m.template triangularView<Eigen::StrictlyLower>().toDenseMatrix().transpose();
            const matrix<double> rhs = (dv + b.v * low).transpose();
            const matrix<double> du = b.r.template triangularView<Eigen::Upper>().solve(rhs);
            out.hra_u = du.transpose().template cast<S>();
            return out;
        }
        // T is the inverse of M = I / 2 + striu(V^T V): dM = -T^T dT T^T.
        const matrix<double> dm = -b.t.transpose() * g.rotation.t.template cast<double>() * b.t.transpose();
        const matrix<double> upper = dm.template triangularView<Eigen::StrictlyUpper>();
        dv += b.v * (upper + upper.transpose());
        for (index k = 0; k < hra_u.cols(); ++k) {
            const double norm = b.norms(k);
            const vector<double> direction = b.v.col(k);
            const vector<double> d = dv.col(k) - direction * direction.dot(dv.col(k));
            out.hra_u.col(k) =
                (norm > 0 ? vector<double>(d / norm) : vector<double>::Zero(d.size()).eval()).template cast<S>();
        }
        return out;
    }

private:
    struct basis {
        matrix<double> v;      ///< unit columns
        matrix<double> t;      ///< of the rotation
        matrix<double> r;      ///< U = V R, with apply_GS
        vector<double> norms;  ///< of the columns of U, without
    };
    [[nodiscard]] basis make_basis() const {
        const index r = hra_u.cols();
        basis b{.v = hra_u.template cast<double>(),
                .t = 2 * matrix<double>::Identity(r, r),
                .r = matrix<double>::Zero(r, r),
                .norms = vector<double>::Zero(r)};
        for (index k = 0; k < r; ++k) {
            const double before = b.v.col(k).norm();
            for (index j = 0; apply_GS && j < k; ++j) {
                b.r(j, k) = b.v.col(j).dot(b.v.col(k));
                b.v.col(k) -= b.r(j, k) * b.v.col(j);
            }
            b.norms(k) = b.v.col(k).norm();
            b.r(k, k) = b.norms(k);
            detail::expects(!apply_GS || b.norms(k) > 1e-12 * before,
                            "hra_adapter: apply_GS needs linearly independent columns of hra_u");
            if (b.norms(k) > 0) {
                b.v.col(k) /= b.norms(k);
            }
        }
        if (!apply_GS) {
            const matrix<double> gram = b.v.transpose() * b.v;
            matrix<double> m = gram.template triangularView<Eigen::StrictlyUpper>();
            m.diagonal().setConstant(0.5);
            b.t = m.template triangularView<Eigen::Upper>().solve(matrix<double>::Identity(r, r));
        }
        return b;
    }
};

/// A new adapter for an out x in weight, of which `out` does not matter: columns of +-1/sqrt(r / 2), each one twice, so
/// that reflections cancel and R = I up to rounding. An odd r, and apply_GS (where equal columns have no meaning),
/// start from r different columns: such a layer is rotated from the first step on.
template <real S>
[[nodiscard]] hra_adapter<S> make_hra([[maybe_unused]] index out, index in, const hra_options& options = {}) {
    detail::expects(in >= 1 && options.r >= 1, "make_hra: in and r must be at least 1");
    const bool paired = options.r % 2 == 0 && !options.apply_GS;
    const index drawn = paired ? options.r / 2 : options.r;
    matrix<S> u(in, drawn);
    const auto bound = static_cast<S>(1 / std::sqrt(static_cast<double>(drawn)));
    fill_uniform(u, -bound, bound, philox(options.seed, options.stream));
    hra_adapter<S> a{.hra_u = matrix<S>(in, options.r), .apply_GS = options.apply_GS};
    for (index k = 0; k < options.r; ++k) {
        a.hra_u.col(k) = u.col(paired ? k / 2 : k);
    }
    return a;
}

/// A rotation of the inputs from its parameters.
template <real S>
struct adapter_kind<hra_adapter<S>> {
    static constexpr std::string_view name = "hra";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("hra_u"), a.hra_u);
    }
    using applied = applied_rotation<hra_adapter<S>>;
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_HRA_HPP
