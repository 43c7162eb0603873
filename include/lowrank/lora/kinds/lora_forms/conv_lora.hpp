// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_LORA_FORMS_CONV_LORA_HPP
#define LOWRANK_LORA_KINDS_LORA_FORMS_CONV_LORA_HPP

/// \file
/// loralib's ConvLoRA: the product B A read again, row by row, as a weight of the convolution's shape.
///
///     lowrank::conv_lora_adapter<float> a{.lora_A = lora_A, .lora_B = lora_B, .out = out, .in = in, .r = 4};
///     w += a.dense_delta();                            // scaling * reshape(B A); in: inputs / groups * kernel size
///
/// A is (r k) x (in k) and B (out / groups k) x (r k). The reshape is not a product of small factors of the weight's
/// own shape (its rank as an out x in k k matrix is not r), so this adapter is applied and merged through its dense
/// change. LoRA of a convolution everywhere else is plain LoRA of the weight that multiplies patches: layers/conv.hpp.

#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/operator_reference.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/change.hpp>
#include <lowrank/lora/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The change scaling * reshape(B A) of an out x in weight, reshaped in row-major order.
template <real S>
struct conv_lora_adapter {
    using scalar = S;

    matrix<S> lora_A = {};
    matrix<S> lora_B = {};
    index out = 0;
    index in = 0;  ///< inputs / groups * kernel size
    index r = 8;   ///< of the scaling; the inner dimension is r times the kernel's edge
    double lora_alpha = 8;

    [[nodiscard]] S scaling() const { return static_cast<S>(lora_scaling(lora_alpha, r, false)); }

    /// \pre B A has out * in entries.
    [[nodiscard]] row_matrix<S> dense_delta() const;

    /// Gradients of A and B from that of the weight.
    [[nodiscard]] conv_lora_adapter pull_back(const row_matrix<S>& weight_gradient) const;

private:
    void check() const;
};

namespace detail {

/// Rows of a matrix that is there.
template <real S>
struct dense_rows {
    row_matrix<S> d = {};

    [[nodiscard]] index rows() const noexcept { return d.rows(); }
    [[nodiscard]] index cols() const noexcept { return d.cols(); }
    void add_rows(double factor, index first, column_view<double> to) const;
};

}  // namespace detail

/// The dense change, multiplied with; its gradient is dY X^T.
template <real S>
class applied_conv_lora {
public:
    using scalar = S;
    static constexpr bool additive = true;
    using gradient = row_matrix<S>;

    explicit applied_conv_lora(conv_lora_adapter<S> a) : adapter(std::move(a)), delta_(adapter.dense_delta()) {}

    conv_lora_adapter<S> adapter;

    [[nodiscard]] index rows() const { return adapter.out; }
    [[nodiscard]] index cols() const { return adapter.in; }
    void refresh(operator_reference<S> /*base*/) { delta_ = adapter.dense_delta(); }

    [[nodiscard]] gradient zero_gradient() const {
        gradient g;
        g.setZero(rows(), cols());
        return g;
    }
    static std::vector<std::span<S>> spans(gradient& g) { return {detail::entries(g)}; }

    void add_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y, workspace& ws,
                     const dropout_key& key) const;
    void add_transposed_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y,
                                workspace& ws) const;
    void backward(operator_reference<S> base, S alpha, const_column_view<S> x, const_column_view<S> dy, gradient& g,
                  column_view<S>* dx, workspace& ws, const dropout_key& key) const;
    void pull_back(const gradient& g, S* out) const { detail::add_parameters(adapter.pull_back(g), out); }
    [[nodiscard]] weight_change<S> change() const {
        return added_rows_change{added_rows(detail::dense_rows<S>{delta_})};
    }

private:
    row_matrix<S> delta_;
};

/// Two factors.
template <real S>
struct adapter_kind<conv_lora_adapter<S>> {
    static constexpr std::string_view name = "conv_lora";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("lora_A"), a.lora_A);
        f(std::string_view("lora_B"), a.lora_B);
    }
    using applied = applied_conv_lora<S>;
};

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/kinds/lora_forms/conv_lora.ipp>
#endif

#endif  // LOWRANK_LORA_KINDS_LORA_FORMS_CONV_LORA_HPP
