// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_TRAIN_GRADIENT_HPP
#define LOWRANK_LORA_TRAIN_GRADIENT_HPP

/// \file
/// Forward and backward through one LoRA adapter, nothing stored in between.
///
///     lowrank::lora_forward(adapter, 1.0F, x, y, ws, key);                          // y  += s B A drop(x)
///     auto gradient = lowrank::zero_gradient(adapter);
///     lowrank::lora_backward(adapter, 1.0F, x, dy, gradient, &dx, ws, key);         // dA, dB, dx +=
///
/// The backward pass needs only the layer's input: A drop(x) and the dropout mask are computed again. After the first
/// call with the same shapes neither function allocates, except what Eigen's general product takes from malloc when
/// its packed blocks exceed EIGEN_STACK_ALLOCATION_LIMIT.

#include <algorithm>
#include <type_traits>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/skinny_product.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/kinds/lora.hpp>
#include <lowrank/lora/train/dropout.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Gradients of the two factors; backward adds to them.
template <real S>
struct lora_gradient {
    matrix<S> lora_A = {};
    matrix<S> lora_B = {};

    void set_zero() {
        lora_A.setZero();
        lora_B.setZero();
    }
};

/// A gradient of the shapes of `adapter`, all zero.
template <real S>
[[nodiscard]] lora_gradient<S> zero_gradient(const lora_adapter<S>& adapter) {
    return {.lora_A = matrix<S>::Zero(adapter.lora_A.rows(), adapter.lora_A.cols()),
            .lora_B = matrix<S>::Zero(adapter.lora_B.rows(), adapter.lora_B.cols())};
}

namespace detail {

/// Columns dropped out at a time: their scratch stays in cache.
inline constexpr index dropout_panel = 64;

template <real S>
void check_lora_call(const char* function, const lora_adapter<S>& adapter, const const_column_view<S>& x,
                     index out_rows, index out_cols) {
    expects_shape(function, "x", x.rows(), x.cols(), adapter.cols(), out_cols);
    expects_shape(function, "y", out_rows, out_cols, adapter.rows(), x.cols());
}

/// Calls `body(first, count, dropped x)` for panels of columns, all of them at once without dropout.
template <real S, class F>
void for_dropped_panels(const dropout_key& key, const_column_view<S> x, workspace& ws, F&& body) {
    if (key.probability == 0) {
        body(index{0}, x.cols(), x);
        return;
    }
    const workspace::frame scope(ws);
    auto panel = ws.take<S>(x.rows(), std::min(dropout_panel, x.cols()));
    for (index first = 0; first < x.cols(); first += dropout_panel) {
        const index count = std::min(dropout_panel, x.cols() - first);
        column_view<S> dropped(panel.data(), x.rows(), count);
        apply_dropout<S>(key, first, x.middleCols(first, count), dropped);
        body(first, count, const_column_view<S>(dropped));
    }
}

}  // namespace detail

/// Y += strength * scaling * B A drop(X), with X in x n and Y out x n. A zero B leaves Y untouched.
///
/// \pre  Shapes agree; the key's probability is in [0, 1) (0: no dropout, the way to run outside training).
/// \cost 2 r (in + out) n flops, and one random block per four entries of X with dropout.
/// \note Bit-equal for one binary and CPU.
template <real S>
void lora_forward(const lora_adapter<S>& adapter, std::type_identity_t<S> strength,
                  std::type_identity_t<const_column_view<S>> x, std::type_identity_t<column_view<S>> y, workspace& ws,
                  const dropout_key& key = {}) {
    detail::check_lora_call("lora_forward", adapter, x, y.rows(), y.cols());
    if (detail::all_zero(adapter.lora_B)) {
        return;
    }
    const S scale = strength * adapter.scaling();
    detail::for_dropped_panels<S>(key, x, ws, [&](index first, index count, const_column_view<S> dropped) {
        const workspace::frame scope(ws);
        auto z = ws.take<S>(adapter.rank(), count);
        z.setZero();
        add_product<S, 0>(S(1), const_column_view<S>(adapter.lora_A), dropped, z, ws);
        add_product<S, 0>(scale, const_column_view<S>(adapter.lora_B), z, column_view<S>(y.middleCols(first, count)),
                          ws);
    });
}

/// Adds the gradients of a loss through Y += strength * scaling * B A drop(X), given dY:
///
///     dB += s dY (A drop(X))^T     dA += (s B^T dY) drop(X)^T     dX += drop(A^T (s B^T dY))
///
/// with s = strength * scaling. `dx` may be null. `key` is the one the forward pass was given.
///
/// \pre  Shapes agree; dX overlaps neither X nor dY.
/// \cost 2 r (2 in + 2 out) n flops without dX and 2 r in n more with it, after recomputing A drop(X).
template <real S>
void lora_backward(const lora_adapter<S>& adapter, std::type_identity_t<S> strength,
                   std::type_identity_t<const_column_view<S>> x, std::type_identity_t<const_column_view<S>> dy,
                   lora_gradient<S>& gradient, std::type_identity_t<column_view<S>>* dx, workspace& ws,
                   const dropout_key& key = {}) {
    detail::check_lora_call("lora_backward", adapter, x, dy.rows(), dy.cols());
    detail::expects_shape("lora_backward", "gradient.lora_A", gradient.lora_A.rows(), gradient.lora_A.cols(),
                          adapter.lora_A.rows(), adapter.lora_A.cols());
    detail::expects_shape("lora_backward", "gradient.lora_B", gradient.lora_B.rows(), gradient.lora_B.cols(),
                          adapter.lora_B.rows(), adapter.lora_B.cols());
    if (dx != nullptr) {
        detail::expects_shape("lora_backward", "dx", dx->rows(), dx->cols(), x.rows(), x.cols());
    }
    const index r = adapter.rank();
    if (r == 0 || x.cols() == 0) {
        return;
    }
    const S scale = strength * adapter.scaling();
    detail::for_dropped_panels<S>(key, x, ws, [&](index first, index count, const_column_view<S> dropped) {
        const workspace::frame scope(ws);
        const const_column_view<S> dy_panel = dy.middleCols(first, count);
        auto z = ws.take<S>(r, count);  // A drop(x)
        z.setZero();
        add_product<S, 0>(S(1), const_column_view<S>(adapter.lora_A), dropped, z, ws);
        auto t = ws.take<S>(r, count);  // s B^T dy
        t.setZero();
        add_transposed_product<S, 0>(scale, const_column_view<S>(adapter.lora_B), dy_panel, t, ws);

        gradient.lora_B.noalias() += scale * (dy_panel * z.transpose());
        gradient.lora_A.noalias() += t * dropped.transpose();
        if (dx == nullptr) {
            return;
        }
        column_view<S> dx_panel = dx->middleCols(first, count);
        if (key.probability == 0) {
            add_transposed_product<S, 0>(S(1), const_column_view<S>(adapter.lora_A), t, dx_panel, ws);
        } else {
            auto back = ws.take<S>(x.rows(), count);
            back.setZero();
            add_transposed_product<S, 0>(S(1), const_column_view<S>(adapter.lora_A), t, back, ws);
            add_dropout<S>(key, first, back, dx_panel);
        }
    });
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_TRAIN_GRADIENT_HPP
