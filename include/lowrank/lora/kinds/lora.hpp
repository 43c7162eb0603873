// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_LORA_HPP
#define LOWRANK_LORA_KINDS_LORA_HPP

/// \file
/// A LoRA adapter: the change scaling * B A of a frozen weight, as a value.
///
///     auto adapter = lowrank::make_lora<float>(out, in, {.r = 8, .lora_alpha = 16, .seed = 1});
///     lowrank::low_rank<float> change = adapter.delta();   // left = scaling * B, right = A
///     lowrank::lora_forward(adapter, 1.0F, x, y, ws);                    // y += s B A x
///     auto gradient = lowrank::zero_gradient(adapter);
///     lowrank::lora_backward(adapter, 1.0F, x, dy, gradient, &dx, ws);   // dA, dB, dx +=
///
/// The backward pass needs only the layer's input: A drop(x) and the dropout mask are computed again. After the first
/// call with the same shapes neither function allocates, except what Eigen's general product takes from malloc when
/// its packed blocks exceed EIGEN_STACK_ALLOCATION_LIMIT.
///
/// Hu et al., LoRA, arXiv 2106.09685; alpha / sqrt(r): Kalajdzievski, rsLoRA, arXiv 2312.03732. Numbers as in PEFT.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/operator_reference.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/skinny_product.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/train/dropout.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// What a new adapter looks like.
struct lora_options {
    index r = 8;               ///< Rank.
    double lora_alpha = 8;     ///< Numerator of the scaling.
    bool use_rslora = false;   ///< Scale by alpha / sqrt(r) instead of alpha / r.
    double lora_dropout = 0;   ///< Probability in [0, 1) that training drops an entry of x on its way to A.
    std::uint64_t seed = 0;    ///< Same seed and stream, same A, on every machine.
    std::uint64_t stream = 0;  ///< One per layer, so that layers start differently.
};

/// alpha / r, or alpha / sqrt(r) with `use_rslora`; 0 for rank 0, where B A is zero anyway.
[[nodiscard]] inline double lora_scaling(double lora_alpha, index r, bool use_rslora) {
    detail::expects(r >= 0, "lora_scaling: r must not be negative");
    if (r == 0) {
        return 0;
    }
    const auto rank = static_cast<double>(r);
    return lora_alpha / (use_rslora ? std::sqrt(rank) : rank);
}

namespace detail {

/// True if every entry is +0 or -0; stops at the first that is not.
template <class D>
bool all_zero(const D& x) {
    for (index j = 0; j < x.cols(); ++j) {
        for (index i = 0; i < x.rows(); ++i) {
            if (x(i, j) != 0) {
                return false;
            }
        }
    }
    return true;
}

}  // namespace detail

/// The linear operator scaling * B A (out x in) with trainable factors A (r x in) and B (out x r).
template <real S>
struct lora_adapter {
    using scalar = S;

    matrix<S> lora_A = {};  ///< r x in
    matrix<S> lora_B = {};  ///< out x r
    double lora_alpha = 8;
    bool use_rslora = false;
    double lora_dropout = 0;  ///< Used by training only.

    [[nodiscard]] index rows() const noexcept { return lora_B.rows(); }
    [[nodiscard]] index cols() const noexcept { return lora_A.cols(); }
    [[nodiscard]] index rank() const noexcept { return lora_A.rows(); }

    /// alpha / r or alpha / sqrt(r), from the rank the factors have.
    [[nodiscard]] S scaling() const { return static_cast<S>(lora_scaling(lora_alpha, rank(), use_rslora)); }

    /// The change at a strength, as two factors: left = strength * scaling * B, right = A. \cost copies both factors.
    [[nodiscard]] low_rank<S> delta(S strength = S(1)) const {
        return {.left = strength * scaling() * lora_B, .right = lora_A};
    }

    /// Y += alpha scaling B (A X). A zero B leaves Y untouched, down to the sign of its zeros.
    void add_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
        detail::expects_shape("lora_adapter::add_product", "x", x.rows(), x.cols(), cols(), y.cols());
        detail::expects_shape("lora_adapter::add_product", "y", y.rows(), y.cols(), rows(), x.cols());
        if (detail::all_zero(lora_B)) {
            return;
        }
        workspace::frame scope(ws);
        auto z = ws.take<S>(rank(), x.cols());
        z.setZero();
        lowrank::add_product<S, 0>(S(1), const_column_view<S>(lora_A), x, z, ws);
        lowrank::add_product<S, 0>(alpha * scaling(), const_column_view<S>(lora_B), z, y, ws);
    }

    /// Y += alpha scaling A^T (B^T X).
    void add_transposed_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
        detail::expects_shape("lora_adapter::add_transposed_product", "x", x.rows(), x.cols(), rows(), y.cols());
        detail::expects_shape("lora_adapter::add_transposed_product", "y", y.rows(), y.cols(), cols(), x.cols());
        if (detail::all_zero(lora_B)) {
            return;
        }
        workspace::frame scope(ws);
        auto t = ws.take<S>(rank(), x.cols());
        t.setZero();
        lowrank::add_transposed_product<S, 0>(S(1), const_column_view<S>(lora_B), x, t, ws);
        lowrank::add_transposed_product<S, 0>(alpha * scaling(), const_column_view<S>(lora_A), t, y, ws);
    }
};

/// A new adapter for an out x in weight: A uniform in +-1/sqrt(in), B zero, so that it changes nothing yet.
///
/// \pre  `out, in >= 0`, `r >= 1`, `0 <= lora_dropout < 1`.
/// \note Bit-equal for equal options on every machine.
template <real S>
[[nodiscard]] lora_adapter<S> make_lora(index out, index in, const lora_options& options = {}) {
    detail::expects(out >= 0 && in >= 0, "make_lora: out and in must not be negative");
    detail::expects(options.r >= 1, "make_lora: r must be at least 1");
    detail::expects(0 <= options.lora_dropout && options.lora_dropout < 1, "make_lora: lora_dropout must be in [0, 1)");
    lora_adapter<S> adapter{.lora_A = matrix<S>(options.r, in),
                            .lora_B = matrix<S>::Zero(out, options.r),
                            .lora_alpha = options.lora_alpha,
                            .use_rslora = options.use_rslora,
                            .lora_dropout = options.lora_dropout};
    if (in > 0) {
        const auto bound = static_cast<S>(1 / std::sqrt(static_cast<double>(in)));
        fill_uniform(adapter.lora_A, -bound, bound, philox(options.seed, options.stream));
    }
    return adapter;
}

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

/// LoRA is applied as it is stored, and may drop inputs in training.
template <real S>
class applied_lora {
public:
    using scalar = S;
    static constexpr bool additive = true;
    using gradient = lora_gradient<S>;

    explicit applied_lora(lora_adapter<S> a) : adapter(std::move(a)) {}

    lora_adapter<S> adapter;

    [[nodiscard]] index rows() const { return adapter.rows(); }
    [[nodiscard]] index cols() const { return adapter.cols(); }
    void refresh(operator_reference<S> /*base*/) {}

    [[nodiscard]] gradient zero_gradient() const { return lowrank::zero_gradient(adapter); }
    static std::vector<std::span<S>> spans(gradient& g) {
        return {detail::entries(g.lora_A), detail::entries(g.lora_B)};
    }

    void add_product(operator_reference<S> /*base*/, S alpha, const_column_view<S> x, column_view<S> y, workspace& ws,
                     const dropout_key& key) const {
        lora_forward(adapter, alpha, x, y, ws, key);
    }
    void add_transposed_product(operator_reference<S> /*base*/, S alpha, const_column_view<S> x, column_view<S> y,
                                workspace& ws) const {
        adapter.add_transposed_product(alpha, x, y, ws);
    }
    void backward(operator_reference<S> /*base*/, S alpha, const_column_view<S> x, const_column_view<S> dy, gradient& g,
                  column_view<S>* dx, workspace& ws, const dropout_key& key) const {
        lora_backward(adapter, alpha, x, dy, g, dx, ws, key);
    }
    void pull_back(const gradient& g, S* out) const {
        detail::add_entries(g.lora_B, detail::add_entries(g.lora_A, out));
    }
    [[nodiscard]] weight_change<S> change() const { return adapter.delta(); }
};

/// Two factors, named as in PEFT.
template <real S>
struct adapter_kind<lora_adapter<S>> {
    static constexpr std::string_view name = "lora";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("lora_A.weight"), a.lora_A);
        f(std::string_view("lora_B.weight"), a.lora_B);
    }
    static const lora_adapter<S>* lora(const lora_adapter<S>& a) { return &a; }
    static double dropout(const lora_adapter<S>& a) { return a.lora_dropout; }
    using applied = applied_lora<S>;
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_LORA_HPP
