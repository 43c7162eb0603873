// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_MISS_BAT_HPP
#define LOWRANK_LORA_KINDS_MISS_BAT_HPP

/// \file
/// MiSS "bat" (Block Affine): each r x r block of W goes through an affine map of its block row, W_b -> W_b + W_b M +
/// M.
///
///     auto a = lowrank::make_miss_bat<float>(out, in, {.r = 64});               // zero: changes nothing yet
///     const lowrank::miss_bat_operator<float> change(w, a);                     // borrows the weight
///     const lowrank::operator_sum<float> layer({{lowrank::as_operator(w)}, {change}});
///     auto y = lowrank::apply(layer, x);                                        // base + change
///     auto receipt = lowrank::merge_transformed(lowrank::weight_view<float>(w), lowrank::miss_bat_rows(a));
///
/// Kang, Yin, arXiv 2409.15371; parameters as in PEFT. r must divide both dimensions.

#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/operator_reference.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/adapter_kind.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// PEFT's defaults.
struct miss_bat_options {
    index r = 64;
};

/// The matrices M_o of all block rows, below each other.
template <real S>
struct miss_bat_adapter {
    using scalar = S;

    matrix<S> miss_block = {};  ///< out x r: M_0 in the first r rows, M_1 in the next, ...
    index in = 0;

    [[nodiscard]] index out() const { return miss_block.rows(); }
    [[nodiscard]] index rank() const { return miss_block.cols(); }

    /// r divides both dimensions.
    void check() const {
        detail::expects(rank() >= 1 && out() % rank() == 0 && in % rank() == 0,
                        "miss_bat_adapter: r must divide the outputs and the inputs");
    }
};

/// A new adapter for an out x in weight: zero, so that it changes nothing yet.
template <real S>
[[nodiscard]] miss_bat_adapter<S> make_miss_bat(index out, index in, const miss_bat_options& options = {});

/// The change as a linear operator on a weight it borrows: rows o of the change are W_o diag(M_o, ..., M_o) + (M_o ... M_o).
template <storage T>
class miss_bat_operator {
public:
    using scalar = compute_t<T>;
    using S = scalar;

    /// \pre The weight has the adapter's shape and outlives the map.
    miss_bat_operator(const_weight_view<T> w, miss_bat_adapter<S> adapter) : w_(w), adapter_(std::move(adapter)) {
        adapter_.check();
        detail::expects_shape("miss_bat_operator", "weight", w.rows(), w.cols(), adapter_.out(), adapter_.in);
    }

    [[nodiscard]] index rows() const noexcept { return w_.rows(); }
    [[nodiscard]] index cols() const noexcept { return w_.cols(); }
    [[nodiscard]] const miss_bat_adapter<S>& adapter() const noexcept { return adapter_; }

    /// Y_o += alpha (W_o (M_o x_1; M_o x_2; ...) + M_o (x_1 + x_2 + ...)). A zero M_o leaves Y_o untouched.
    /// \cost That of the base, and 2 in out n flops for the small products.
    void add_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const;
    /// Y_i += alpha sum_o M_o^T ((W_o^T x_o)_i + x_o).
    void add_transposed_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const;

    /// Adds the gradients of a loss through Y += change X, given dY:
    ///
    ///     dM_o += sum_i (W_o^T dY_o)_i X_i^T + dY_o (sum_i X_i)^T     dX_i += sum_o M_o^T ((W_o^T dY_o)_i + dY_o)
    ///
    /// `dx` may be null. The base's own W^T dY is not in it.
    void backward(const_column_view<S> x, const_column_view<S> dy, miss_bat_adapter<S>& gradient, column_view<S>* dx,
                  workspace& ws) const;

private:
    const_weight_view<T> w_;
    miss_bat_adapter<S> adapter_;
};

namespace detail {

/// M_o in double and (I + M_o)^-1, zero where there is none.
struct bat_blocks {
    matrix<double> m = {};
    matrix<double> inverse = {};
};
template <real S>
[[nodiscard]] bat_blocks make_bat_blocks(const miss_bat_adapter<S>& a);
LOWRANK_API void turn_bat_rows(const bat_blocks& blocks, bool back, index first, const column_view<double>& rows);

}  // namespace detail

/// The row transform W_b -> W_b + W_b M + M of `merge_transformed`, with its inverse where I + M has one (elsewhere the
/// receipt holds the old weight instead).
class miss_bat_rows {
public:
    template <real S>
    explicit miss_bat_rows(const miss_bat_adapter<S>& a) : blocks_(detail::make_bat_blocks(a)), in_(a.in) {}

    [[nodiscard]] bool fits(index out, index in) const { return out == blocks_.m.rows() && in == in_; }
    void forward(index first, column_view<double> rows, workspace& /*ws*/) const {
        detail::turn_bat_rows(blocks_, false, first, rows);
    }
    void backward(index first, column_view<double> rows, workspace& /*ws*/) const {
        detail::turn_bat_rows(blocks_, true, first, rows);
    }

private:
    detail::bat_blocks blocks_;
    index in_;
};

/// The same over a base that can only be multiplied with: out / r products with it each way.
template <real S>
class applied_miss_bat {
public:
    using scalar = S;
    static constexpr bool additive = false;
    using gradient = miss_bat_adapter<S>;

    explicit applied_miss_bat(miss_bat_adapter<S> a) : adapter(std::move(a)) { adapter.check(); }

    miss_bat_adapter<S> adapter;

    [[nodiscard]] index rows() const { return adapter.out(); }
    [[nodiscard]] index cols() const { return adapter.in; }
    void refresh(operator_reference<S> /*base*/) {}

    [[nodiscard]] gradient zero_gradient() const { return detail::with_zero_parameters(adapter); }
    static std::vector<std::span<S>> spans(gradient& g) { return detail::parameter_spans(g); }

    void add_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y, workspace& ws,
                     const dropout_key& key) const;
    void add_transposed_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y,
                                workspace& ws) const;
    void backward(operator_reference<S> base, S alpha, const_column_view<S> x, const_column_view<S> dy, gradient& g,
                  column_view<S>* dx, workspace& ws, const dropout_key& key) const;
    void pull_back(const gradient& g, S* out) const { detail::add_parameters(g, out); }
    [[nodiscard]] weight_change<S> change() const { return row_change{miss_bat_rows(adapter)}; }
};

/// One matrix for each block of rows.
template <real S>
struct adapter_kind<miss_bat_adapter<S>> {
    static constexpr std::string_view name = "miss_bat";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("miss_block"), a.miss_block);
    }
    using applied = applied_miss_bat<S>;
};

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/kinds/miss_bat.ipp>
#endif

#endif  // LOWRANK_LORA_KINDS_MISS_BAT_HPP
