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

#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/operator_reference.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/new_adapter.hpp>
#include <lowrank/lora/train/dropout.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// alpha / r, or alpha / sqrt(r) with `use_rslora`; 0 for rank 0, where B A is zero anyway.
LOWRANK_API [[nodiscard]] double lora_scaling(double lora_alpha, index r, bool use_rslora);

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
    [[nodiscard]] low_rank<S> delta(S strength = S(1)) const;

    /// Y += alpha scaling B (A X). A zero B leaves Y untouched, down to the sign of its zeros.
    void add_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const;

    /// Y += alpha scaling A^T (B^T X).
    void add_transposed_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const;
};

/// A new adapter for an out x in weight: A uniform in +-1/sqrt(in), B zero, so that it changes nothing yet.
///
/// \pre  `out, in >= 0`, `r >= 1`, `0 <= lora_dropout < 1`.
/// \note Bit-equal for equal options on every machine.
template <real S>
[[nodiscard]] lora_adapter<S> make_lora(index out, index in, const lora_options& options = {});

/// The same for a layer, with a stream of its own.
template <real S>
[[nodiscard]] lora_adapter<S> make_lora(const target_layer<S>& layer, lora_options options) {
    options.stream = layer.number;
    return make_lora<S>(layer.base.rows(), layer.base.cols(), options);
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
    lora_gradient<S> g;
    g.lora_A.setZero(adapter.lora_A.rows(), adapter.lora_A.cols());
    g.lora_B.setZero(adapter.lora_B.rows(), adapter.lora_B.cols());
    return g;
}

/// Y += strength * scaling * B A drop(X), with X in x n and Y out x n. A zero B leaves Y untouched.
///
/// \pre  Shapes agree; the key's probability is in [0, 1) (0: no dropout, the way to run outside training).
/// \cost 2 r (in + out) n flops, and one random block per four entries of X with dropout.
/// \note Bit-equal for one binary and CPU.
template <real S>
void lora_forward(const lora_adapter<S>& adapter, std::type_identity_t<S> strength,
                  std::type_identity_t<const_column_view<S>> x, std::type_identity_t<column_view<S>> y, workspace& ws,
                  const dropout_key& key = {});

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
                   const dropout_key& key = {});

namespace detail {

/// Refuses columns that do not fit the adapter.
template <real S>
void check_lora_call(const char* function, const lora_adapter<S>& adapter, const const_column_view<S>& x,
                     index out_rows, index out_cols);

}  // namespace detail

/// LoRA is applied as it is stored, and may drop inputs in training. A is LoRA or has one in it.
template <real S, class A = lora_adapter<S>>
class applied_lora {
public:
    using scalar = S;
    static constexpr bool additive = true;
    using gradient = lora_gradient<S>;

    explicit applied_lora(A a) : adapter(std::move(a)) {}

    A adapter;

    [[nodiscard]] index rows() const { return lora().rows(); }
    [[nodiscard]] index cols() const { return lora().cols(); }
    void refresh(operator_reference<S> /*base*/) {}

    [[nodiscard]] gradient zero_gradient() const { return lowrank::zero_gradient(lora()); }
    static std::vector<std::span<S>> spans(gradient& g) {
        return {detail::entries(g.lora_A), detail::entries(g.lora_B)};
    }

    void add_product(operator_reference<S> /*base*/, S alpha, const_column_view<S> x, column_view<S> y, workspace& ws,
                     const dropout_key& key) const {
        lora_forward(lora(), alpha, x, y, ws, key);
    }
    void add_transposed_product(operator_reference<S> /*base*/, S alpha, const_column_view<S> x, column_view<S> y,
                                workspace& ws) const {
        lora().add_transposed_product(alpha, x, y, ws);
    }
    void backward(operator_reference<S> /*base*/, S alpha, const_column_view<S> x, const_column_view<S> dy, gradient& g,
                  column_view<S>* dx, workspace& ws, const dropout_key& key) const {
        lora_backward(lora(), alpha, x, dy, g, dx, ws, key);
    }
    void pull_back(const gradient& g, S* out) const {
        detail::add_entries(g.lora_B, detail::add_entries(g.lora_A, out));
    }
    [[nodiscard]] weight_change<S> change() const { return lora().delta(); }

private:
    [[nodiscard]] const lora_adapter<S>& lora() const { return *adapter_kind<A>::lora(adapter); }
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
    static bool permute_rows(lora_adapter<S>& a, std::span<const index> rows) {
        return detail::permute_rows(a.lora_B, rows);
    }
    static auto maker(const adapted_layers& /*all*/, const lora_options& options) {
        return [options](const target_layer<S>& layer) { return make_lora<S>(layer, options); };
    }
    using applied = applied_lora<S>;
};

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/kinds/lora.ipp>
#endif

#endif  // LOWRANK_LORA_KINDS_LORA_HPP
