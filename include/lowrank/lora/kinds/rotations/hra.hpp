// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_ROTATIONS_HRA_HPP
#define LOWRANK_LORA_KINDS_ROTATIONS_HRA_HPP

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

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/algebra/rotation.hpp>
#include <lowrank/lora/new_adapter.hpp>

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
        run(false, alpha, x, y, ws);
    }
    /// Y += alpha (X - V (T^T (V^T X))).
    void add_transposed_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
        run(true, alpha, x, y, ws);
    }

    [[nodiscard]] householder_rotation zero_gradient() const {
        householder_rotation g = *this;
        g.v.setZero();
        g.t.setZero();
        return g;
    }

    /// With a = V^T X, b = T a, db = -V^T dZ: dT += db a^T, dV += X (T^T db)^T - dZ b^T, dX += R^T dZ.
    void backward(const_column_view<S> x, const_column_view<S> dz, householder_rotation& gradient, column_view<S>* dx,
                  workspace& ws) const;

    template <real D>
    [[nodiscard]] householder_rotation<D> cast() const {
        return {.v = copy_in<D>(v), .t = copy_in<D>(t)};
    }

private:
    void check(const const_column_view<S>& x, const const_column_view<S>& y) const;
    void run(bool transpose, S alpha, const const_column_view<S>& x, column_view<S>& y, workspace& ws) const;
};

/// The entries of a rotation that a gradient of it has.
template <real S>
[[nodiscard]] std::vector<std::span<S>> rotation_spans(householder_rotation<S>& r) {
    return {detail::entries(r.v), detail::entries(r.t)};
}

/// ||R^T R - I||_F, computed in double from V and T without forming R.
template <real S>
[[nodiscard]] double orthogonality_error(const householder_rotation<S>& r);

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
    [[nodiscard]] householder_rotation<S> rotation() const;

    /// No scale of the outputs.
    [[nodiscard]] vector<S> output_scale() const { return {}; }

    /// The gradient of hra_u.
    [[nodiscard]] hra_adapter pull_back(const rotated_gradient<householder_rotation<S>>& g) const;
};

/// A new adapter for an out x in weight, of which `out` does not matter: columns of +-1/sqrt(r / 2), each one twice, so
/// that reflections cancel and R = I up to rounding. An odd r, and apply_GS (where equal columns have no meaning),
/// start from r different columns: such a layer is rotated from the first step on.
template <real S>
[[nodiscard]] hra_adapter<S> make_hra(index out, index in, const hra_options& options = {});

/// A rotation of the inputs from its parameters.
template <real S>
struct adapter_kind<hra_adapter<S>> {
    static constexpr std::string_view name = "hra";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("hra_u"), a.hra_u);
    }
    /// W R with other rows of W is other rows of W R.
    static bool permute_rows(hra_adapter<S>& /*a*/, std::span<const index> /*rows*/) { return true; }
    static auto maker(const adapted_layers& /*all*/, const lora_options& options) {
        return [options](const target_layer<S>& layer) {
            return make_hra<S>(layer.base.rows(), layer.base.cols(),
                               {.r = options.r + options.r % 2, .seed = options.seed, .stream = layer.number});
        };
    }
    using applied = applied_rotation<hra_adapter<S>>;
};

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/kinds/rotations/hra.ipp>
#endif

#endif  // LOWRANK_LORA_KINDS_ROTATIONS_HRA_HPP
