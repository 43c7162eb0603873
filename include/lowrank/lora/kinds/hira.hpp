// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_HIRA_HPP
#define LOWRANK_LORA_KINDS_HIRA_HPP

/// \file
/// HiRA: the change is the entrywise product of the weight with a low-rank matrix, W o (B A). Its rank can be full.
///
///     auto a = lowrank::make_hira<float>(out, in, {.r = 32});                   // B = 0: changes nothing yet
///     const lowrank::hira_operator<float> change(w, a);                         // borrows the weight
///     const lowrank::operator_sum<float> layer({{lowrank::as_operator(w)}, {change}});
///     auto y = lowrank::apply(layer, x);                                        // (W + W o (B A)) x
///     auto receipt = lowrank::merge_transformed(lowrank::weight_view<float>(w), lowrank::hira_rows(a));
///
/// Huang et al., HiRA, ICLR 2025; parameters as in PEFT (no scaling). Products go through a few rows of the weight at a
/// time; nothing of the size of W is formed. For a base that can only be multiplied with (a quantized weight) there are
/// `add_hira_product` and its relatives: sum_k diag(B_k) W diag(A_k), r products with the base.

#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/operator_reference.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/new_adapter.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// PEFT's defaults.
struct hira_options {
    index r = 32;
    std::uint64_t seed = 0;
    std::uint64_t stream = 0;
};

/// The trainable factors.
template <real S>
struct hira_adapter {
    using scalar = S;

    matrix<S> hira_A = {};  ///< r x in
    matrix<S> hira_B = {};  ///< out x r
};

/// A new adapter for an out x in weight: A uniform in +-1/sqrt(in), B zero, so that it changes nothing yet.
template <real S>
[[nodiscard]] hira_adapter<S> make_hira(index out, index in, const hira_options& options = {});

/// The linear operator W o (B A) on a weight it borrows.
template <storage T>
class hira_operator {
public:
    using scalar = compute_t<T>;
    using S = scalar;

    /// \pre The weight has the adapter's shape and outlives the map.
    hira_operator(const_weight_view<T> w, hira_adapter<S> adapter) : w_(w), adapter_(std::move(adapter)) {
        const auto& a = adapter_;
        detail::expects_shape("hira_operator", "weight", w.rows(), w.cols(), a.hira_B.rows(), a.hira_A.cols());
        detail::expects(a.hira_A.rows() == a.hira_B.cols(), "hira_operator: A and B must have one rank");
    }

    [[nodiscard]] index rows() const noexcept { return w_.rows(); }
    [[nodiscard]] index cols() const noexcept { return w_.cols(); }
    [[nodiscard]] const hira_adapter<S>& adapter() const noexcept { return adapter_; }

    /// Y += alpha (W o (B A)) X. A zero B leaves Y untouched. \cost 2 (r + n) out in flops, one pass over W.
    void add_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const;
    /// Y += alpha (W o (B A))^T X.
    void add_transposed_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const;

    /// Adds the gradients of a loss through Y += (W o (B A)) X, given dY, with H = W o (dY X^T):
    ///
    ///     dB += H A^T     dA += B^T H     dX += (W o (B A))^T dY
    ///
    /// `dx` may be null. The base's own W^T dY is not in it. \cost 2 (3 r + 2 n) out in flops.
    void backward(const_column_view<S> x, const_column_view<S> dy, hira_adapter<S>& gradient, column_view<S>* dx,
                  workspace& ws) const;

private:
    template <class F>
    void for_tiles(workspace& ws, F&& body) const;

    const_weight_view<T> w_;
    hira_adapter<S> adapter_;
};

/// Y += alpha (W o (B A)) X for any base W. A zero B leaves Y untouched. \cost r products with the base.
template <real S>
void add_hira_product(std::type_identity_t<operator_reference<S>> base, const hira_adapter<S>& a,
                      std::type_identity_t<S> alpha, std::type_identity_t<const_column_view<S>> x,
                      std::type_identity_t<column_view<S>> y, workspace& ws);

/// Y += alpha (W o (B A))^T X for any base W.
template <real S>
void add_hira_transposed_product(std::type_identity_t<operator_reference<S>> base, const hira_adapter<S>& a,
                                 std::type_identity_t<S> alpha, std::type_identity_t<const_column_view<S>> x,
                                 std::type_identity_t<column_view<S>> y, workspace& ws);

/// The gradients of `hira_operator::backward` for any base W, at 2 r products with it: with u_k = W (A_k o X) and
/// v_k = W^T (B_k o dY), dB_k += rowsum(dY o u_k), dA_k += rowsum(X o v_k), dX += A_k o v_k.
template <real S>
void hira_backward(std::type_identity_t<operator_reference<S>> base, const hira_adapter<S>& a,
                   std::type_identity_t<const_column_view<S>> x, std::type_identity_t<const_column_view<S>> dy,
                   hira_adapter<S>& gradient, std::type_identity_t<column_view<S>>* dx, workspace& ws);

namespace detail {

/// Rows first, first + 1, ... of W, one a column, times (or over) those of 1 + B A, entry by entry.
LOWRANK_API void scale_by_products(const matrix<double>& a, const matrix<double>& b, index first,
                                   const column_view<double>& rows, bool divides, workspace& ws);

}  // namespace detail

/// The row transform W -> W o (1 + B A) of `merge_transformed`. An entry whose factor is zero is kept by the receipt.
class hira_rows {
public:
    template <real S>
    explicit hira_rows(const hira_adapter<S>& a) : a_(copy_in<double>(a.hira_A)), b_(copy_in<double>(a.hira_B)) {
        detail::expects(a_.rows() == b_.cols(), "hira_rows: A and B must have one rank");
    }

    [[nodiscard]] bool fits(index out, index in) const { return out == b_.rows() && in == a_.cols(); }

    void forward(index first, column_view<double> rows, workspace& ws) const { scale(first, rows, false, ws); }
    void backward(index first, column_view<double> rows, workspace& ws) const { scale(first, rows, true, ws); }

private:
    void scale(index first, const column_view<double>& rows, bool divides, workspace& ws) const {
        detail::scale_by_products(a_, b_, first, rows, divides, ws);
    }

    matrix<double> a_;
    matrix<double> b_;
};

/// HiRA over a base that can only be multiplied with.
template <real S>
class applied_hira {
public:
    using scalar = S;
    static constexpr bool additive = false;
    using gradient = hira_adapter<S>;

    explicit applied_hira(hira_adapter<S> a) : adapter(std::move(a)) {
        detail::expects(adapter.hira_A.rows() == adapter.hira_B.cols(), "hira_adapter: A and B must have one rank");
    }

    hira_adapter<S> adapter;

    [[nodiscard]] index rows() const { return adapter.hira_B.rows(); }
    [[nodiscard]] index cols() const { return adapter.hira_A.cols(); }
    void refresh(operator_reference<S> /*base*/) {}

    [[nodiscard]] gradient zero_gradient() const { return detail::with_zero_parameters(adapter); }
    static std::vector<std::span<S>> spans(gradient& g) { return detail::parameter_spans(g); }

    void add_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y, workspace& ws,
                     const dropout_key& /*key*/) const {
        base.add_product(alpha, x, y, ws);
        add_hira_product<S>(base, adapter, alpha, x, y, ws);
    }
    void add_transposed_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y,
                                workspace& ws) const {
        base.add_transposed_product(alpha, x, y, ws);
        add_hira_transposed_product<S>(base, adapter, alpha, x, y, ws);
    }
    void backward(operator_reference<S> base, S alpha, const_column_view<S> x, const_column_view<S> dy, gradient& g,
                  column_view<S>* dx, workspace& ws, const dropout_key& key) const;
    void pull_back(const gradient& g, S* out) const { detail::add_parameters(g, out); }
    [[nodiscard]] weight_change<S> change() const { return row_change{hira_rows(adapter)}; }
};

/// Two factors, multiplied with the weight entry by entry.
template <real S>
struct adapter_kind<hira_adapter<S>> {
    static constexpr std::string_view name = "hira";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("hira_A"), a.hira_A);
        f(std::string_view("hira_B"), a.hira_B);
    }
    static bool permute_rows(hira_adapter<S>& a, std::span<const index> rows) {
        return detail::permute_rows(a.hira_B, rows);
    }
    static constexpr double learning_rate = 3e-2;
    static auto maker(const adapted_layers& /*all*/, const lora_options& options) {
        return [options](const target_layer<S>& layer) {
            return make_hira<S>(layer.base.rows(), layer.base.cols(),
                                {.r = options.r, .seed = options.seed, .stream = layer.number});
        };
    }
    using applied = applied_hira<S>;
};

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/kinds/hira.ipp>
#endif

#endif  // LOWRANK_LORA_KINDS_HIRA_HPP
