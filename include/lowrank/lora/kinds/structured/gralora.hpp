// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_STRUCTURED_GRALORA_HPP
#define LOWRANK_LORA_KINDS_STRUCTURED_GRALORA_HPP

/// \file
/// GraLoRA: the weight as a k x k grid of blocks, each with a low-rank change of its own; the rank of the whole is k times
/// that of LoRA with as many parameters.
///
///     auto a = lowrank::make_gralora<float>(12, 8, {.r = 4, .k = 2, .hybrid_r = 1});
///     auto change = a.delta();                                        // k r + hybrid_r columns, with zeros
///
/// With A_i (in / k x r) and B_o (r x out / k), q = r / k, block (o, i) of the change is
/// scaling * (A_i[:, o q ... (o + 1) q] B_o[i q ... (i + 1) q, :])^T. It is applied as z_i = A_i^T x_i, an exchange of
/// chunks of q rows between the z_i, and y_o += B_o^T u_o, for the cost of LoRA.
///
/// Jung et al., GraLoRA: Granular Low-Rank Adaptation for Parameter-Efficient Fine-Tuning, arXiv 2505.20355; shapes and
/// the hybrid rank as in PEFT.

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
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/kinds/detail/gradients.hpp>
#include <lowrank/lora/kinds/lora.hpp>
#include <lowrank/lora/new_adapter.hpp>
#include <lowrank/lora/train/dropout.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A grid of low-rank blocks, and with a hybrid rank a plain LoRA beside it, of the same scaling.
template <real S>
struct gralora_adapter {
    using scalar = S;

    matrix<S> gralora_A = {};          ///< in x r: A_0 ... A_k-1, one below the other
    matrix<S> gralora_B = {};          ///< (k r) x out / k: B_0 ... B_k-1, one below the other
    matrix<S> gralora_A_general = {};  ///< hybrid_r x in, or nothing
    matrix<S> gralora_B_general = {};  ///< out x hybrid_r, or nothing
    index k = 2;
    double alpha = 64;
    double dropout = 0;  ///< Used by training only.

    [[nodiscard]] index rows() const noexcept { return gralora_B.cols() * k; }
    [[nodiscard]] index cols() const noexcept { return gralora_A.rows(); }
    [[nodiscard]] index rank() const noexcept { return gralora_A.cols(); }
    [[nodiscard]] index hybrid_rank() const noexcept { return gralora_A_general.rows(); }
    [[nodiscard]] double scale() const { return lora_scaling(alpha, rank() + hybrid_rank(), false); }
    [[nodiscard]] S scaling() const { return static_cast<S>(scale()); }

    /// left (out x k r + hybrid_r) = scaling * the B_o^T on a diagonal, right the A_i^T exchanged.
    /// \cost Both are dense, k times the size of the parameters.
    [[nodiscard]] low_rank<S> delta() const;

    /// Adds rows first, first + 1, ... of the change, one a column, times a factor. \cost 2 (r + hybrid_r) in flops a row.
    void add_rows(double factor, index first, column_view<double> to) const;
};

/// What a new adapter looks like. PEFT's defaults.
struct gralora_options {
    index r = 32;
    index k = 2;
    index hybrid_r = 0;
    double alpha = 64;
    double dropout = 0;
    std::uint64_t seed = 0;    ///< Same seed and stream, same values, on every machine.
    std::uint64_t stream = 0;  ///< One per layer.
};

/// A new adapter for an out x in weight: each A uniform in +-1/sqrt(its inputs), each B zero, so that it changes nothing.
///
/// \pre k divides r, in and out.
template <real S>
[[nodiscard]] gralora_adapter<S> make_gralora(index out, index in, const gralora_options& options = {});

/// The blocks, multiplied with.
template <real S>
class applied_gralora : public detail::with_own_gradient<gralora_adapter<S>> {
public:
    using scalar = S;
    static constexpr bool additive = true;
    using gradient = gralora_adapter<S>;

    explicit applied_gralora(gralora_adapter<S> a);

    gralora_adapter<S> adapter;

    [[nodiscard]] index rows() const { return adapter.rows(); }
    [[nodiscard]] index cols() const { return adapter.cols(); }
    void refresh(operator_reference<S> /*base*/) {}

    [[nodiscard]] gradient zero_gradient() const { return detail::with_zero_parameters(adapter); }

    void add_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y, workspace& ws,
                     const dropout_key& key) const;
    void add_transposed_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y,
                                workspace& ws) const;
    void backward(operator_reference<S> base, S alpha, const_column_view<S> x, const_column_view<S> dy, gradient& g,
                  column_view<S>* dx, workspace& ws, const dropout_key& key) const;
    [[nodiscard]] weight_change<S> change() const { return adapter.delta(); }

private:
    /// Chunk o of q rows of z_i becomes chunk i of u_o: its own inverse.
    void exchange(const const_column_view<S>& z, column_view<S> u) const;
};

/// Two stacks of factors and two factors, named as in PEFT.
template <real S>
struct adapter_kind<gralora_adapter<S>> {
    static constexpr std::string_view name = "gralora";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("gralora_A"), a.gralora_A);
        f(std::string_view("gralora_B"), a.gralora_B);
        if (a.hybrid_rank() != 0) {
            f(std::string_view("gralora_A_general.weight"), a.gralora_A_general);
            f(std::string_view("gralora_B_general.weight"), a.gralora_B_general);
        }
    }
    static double dropout(const gralora_adapter<S>& a) { return a.dropout; }
    /// Four blocks each way from rank 64 on, else two, if they divide rank and layers.
    static auto maker(const adapted_layers& all, const lora_options& options) {
        index k = options.r >= 64 ? 4 : 2;
        while (options.r % k != 0 || all.common_size() % k != 0) {
            --k;
        }
        return [options, k](const target_layer<S>& layer) {
            return make_gralora<S>(layer.base.rows(), layer.base.cols(),
                                   {.r = options.r,
                                    .k = k,
                                    .alpha = options.lora_alpha,
                                    .dropout = options.lora_dropout,
                                    .seed = options.seed,
                                    .stream = layer.number});
        };
    }
    using applied = applied_gralora<S>;
};

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/kinds/structured/gralora.ipp>
#endif

#endif  // LOWRANK_LORA_KINDS_STRUCTURED_GRALORA_HPP
