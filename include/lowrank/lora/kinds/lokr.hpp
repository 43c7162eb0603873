// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_LOKR_HPP
#define LOWRANK_LORA_KINDS_LOKR_HPP

/// \file
/// LoKr: the Kronecker product of two small matrices, each whole or a low-rank product, times alpha / r.
///
///     lowrank::lokr_adapter<float> a{.w1 = {.left = small}, .w2 = {.left = lora_B, .right = lora_A}, .alpha = 8};
///     auto y = lowrank::apply(a.map(), x);             // reshapes columns: no product of size out x in
///     auto change = a.delta();                         // for merging and algebra
///
/// Yeh et al., LyCORIS, arXiv 2309.14859. Shapes come from the tensors, never from a configuration: PEFT and LyCORIS
/// factor dimensions differently.

#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/operator_reference.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/lora/adapter.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/kinds/lora.hpp>
#include <lowrank/lora/new_adapter.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A matrix that is whole (`left` alone) or a product `left * right`.
template <real S>
struct lokr_factor {
    matrix<S> left = {};
    matrix<S> right = {};  ///< without columns: the factor is `left`. A product of rank 0 has columns, and no rows.

    [[nodiscard]] bool whole() const noexcept { return right.cols() == 0; }
    [[nodiscard]] index rows() const noexcept { return left.rows(); }
    [[nodiscard]] index cols() const noexcept { return whole() ? left.cols() : right.cols(); }
    [[nodiscard]] matrix<S> dense() const;
    /// The right factor, an identity where the factor is whole.
    [[nodiscard]] matrix<S> right_or_identity() const;
};

/// The linear operator factor * kron(w1, w2), applied by reshaping each column.
template <real S>
struct kronecker_operator {
    using scalar = S;

    matrix<S> w1 = {};
    matrix<S> w2 = {};
    S factor = S(1);

    [[nodiscard]] index rows() const noexcept { return w1.rows() * w2.rows(); }
    [[nodiscard]] index cols() const noexcept { return w1.cols() * w2.cols(); }

    /// Per column, with x read as X (w2.cols x w1.cols): Y += alpha factor w2 X w1^T.
    void add_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const;
    void add_transposed_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const;
};

/// The change alpha / r * kron(w1, w2); a `factored_adapter`.
template <real S>
struct lokr_adapter {
    using scalar = S;

    lokr_factor<S> w1 = {};
    lokr_factor<S> w2 = {};
    double alpha = 8;
    index r = 8;  ///< of the configuration: PEFT scales by alpha / r even when both factors are whole

    [[nodiscard]] S scaling() const { return static_cast<S>(lora_scaling(alpha, r, false)); }

    /// For serving. \cost Forms the two small factors.
    [[nodiscard]] kronecker_operator<S> map() const {
        return {.w1 = w1.dense(), .w2 = w2.dense(), .factor = scaling()};
    }

    [[nodiscard]] index rows() const noexcept { return w1.rows() * w2.rows(); }
    [[nodiscard]] index cols() const noexcept { return w1.cols() * w2.cols(); }

    /// Adds rows first, first + 1, ... of the change, one a column, times a factor. \cost 2 in flops a row, and a row
    /// of each product.
    void add_rows(double factor, index first, column_view<double> to) const;

    /// kron(l1 r1, l2 r2) = kron(l1, l2) kron(r1, r2): as many columns as the inner dimensions multiply to.
    [[nodiscard]] low_rank<S> delta() const;

    /// Gradients of whatever is not an identity.
    [[nodiscard]] lokr_adapter pull_back(const delta_gradient<S>& g) const;
};

/// Two factors of a dimension, the smaller first, as LyCORIS chooses them: `factor` and its partner where it divides,
/// else the pair of divisors nearest to each other with the smaller at most `factor` (-1: no bound).
LOWRANK_API [[nodiscard]] std::pair<index, index> lokr_factorization(index dimension, index factor = -1);

/// What a new adapter looks like. PEFT's defaults.
struct lokr_options {
    index r = 8;
    double alpha = 8;
    index decompose_factor = -1;
    bool decompose_both = false;  ///< w1 may be a product too.
    std::uint64_t seed = 0;       ///< Same seed and stream, same values, on every machine.
    std::uint64_t stream = 0;     ///< One per layer.
};

/// A new adapter for an out x in weight: w1 zero, so that it changes nothing yet, w2 uniform in +-1/sqrt(columns). w2
/// is a product unless 2 r reaches its larger side.
template <real S>
[[nodiscard]] lokr_adapter<S> make_lokr(index out, index in, const lokr_options& options = {});

/// LoKr is applied as a Kronecker product, and its gradients are those of the two small matrices.
template <real S>
class applied_lokr {
public:
    using scalar = S;
    static constexpr bool additive = true;
    struct gradient {
        matrix<S> w1 = {}, w2 = {};
    };

    explicit applied_lokr(lokr_adapter<S> a) : adapter(std::move(a)), map_(adapter.map()) {}

    lokr_adapter<S> adapter;

    [[nodiscard]] index rows() const { return map_.rows(); }
    [[nodiscard]] index cols() const { return map_.cols(); }
    void refresh(operator_reference<S> /*base*/) { map_ = adapter.map(); }

    [[nodiscard]] gradient zero_gradient() const {
        gradient g;
        g.w1.setZero(map_.w1.rows(), map_.w1.cols());
        g.w2.setZero(map_.w2.rows(), map_.w2.cols());
        return g;
    }
    static std::vector<std::span<S>> spans(gradient& g) { return {detail::entries(g.w1), detail::entries(g.w2)}; }

    void add_product(operator_reference<S> /*base*/, S alpha, const_column_view<S> x, column_view<S> y, workspace& ws,
                     const dropout_key& /*key*/) const {
        map_.add_product(alpha, x, y, ws);
    }
    void add_transposed_product(operator_reference<S> /*base*/, S alpha, const_column_view<S> x, column_view<S> y,
                                workspace& ws) const {
        map_.add_transposed_product(alpha, x, y, ws);
    }
    /// Per column, with x and dy read as matrices: dw1 += c dY^T (w2 X), dw2 += c (dY w1) X^T.
    void backward(operator_reference<S> /*base*/, S alpha, const_column_view<S> x, const_column_view<S> dy, gradient& g,
                  column_view<S>* dx, workspace& ws, const dropout_key& /*key*/) const;
    void pull_back(const gradient& g, S* out) const;
    [[nodiscard]] weight_change<S> change() const { return adapter.delta(); }

private:
    kronecker_operator<S> map_;
};

/// Two small matrices, each whole or two factors.
template <real S>
struct adapter_kind<lokr_adapter<S>> {
    static constexpr std::string_view name = "lokr";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view(a.w1.whole() ? "lokr_w1" : "lokr_w1_a"), a.w1.left);
        if (!a.w1.whole()) {
            f(std::string_view("lokr_w1_b"), a.w1.right);
        }
        f(std::string_view(a.w2.whole() ? "lokr_w2" : "lokr_w2_a"), a.w2.left);
        if (!a.w2.whole()) {
            f(std::string_view("lokr_w2_b"), a.w2.right);
        }
    }
    static constexpr double learning_rate = 2e-2;
    static auto maker(const adapted_layers& /*all*/, const lora_options& options) {
        return [options](const target_layer<S>& layer) {
            return make_lokr<S>(
                layer.base.rows(), layer.base.cols(),
                {.r = options.r, .alpha = options.lora_alpha, .seed = options.seed, .stream = layer.number});
        };
    }
    using applied = applied_lokr<S>;
};

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/kinds/lokr.ipp>
#endif

#endif  // LOWRANK_LORA_KINDS_LOKR_HPP
