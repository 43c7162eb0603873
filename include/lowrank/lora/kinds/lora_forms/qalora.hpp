// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_LORA_FORMS_QALORA_HPP
#define LOWRANK_LORA_KINDS_LORA_FORMS_QALORA_HPP

/// \file
/// QA-LoRA: LoRA of inputs that are averaged over groups, so that its change can become part of the zero points of a base
/// that is quantized in the same groups.
///
///     auto a = lowrank::make_qalora<float>(12, 8, 4, {.r = 3})     ;// A: 3 x 2
///     auto change = a.delta();                                                   // column i depends on i / 4 alone
///
/// Xu et al., QA-LoRA: Quantization-Aware Low-Rank Adaptation of Large Language Models, arXiv 2309.14717; the factor
/// in / group_size as in PEFT.

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

/// The change y += scaling * B A p, where p_j (j < in / g) is in / g times the mean of inputs j g ... j g + g - 1.
template <real S>
struct qalora_adapter {
    using scalar = S;

    lora_adapter<S> lora = {};  ///< Of the means: lora_A is r x in / group_size, lora_B out x r.
    index group_size = 16;

    [[nodiscard]] index rows() const noexcept { return lora.rows(); }
    [[nodiscard]] index cols() const noexcept { return lora.cols() * group_size; }

    /// What a sum over a group is multiplied with: (in / g) / g.
    [[nodiscard]] S pooling() const {
        return static_cast<S>(static_cast<double>(lora.cols()) / static_cast<double>(group_size));
    }

    /// left = scaling * (in / g) / g * B, right = each column of A g times.
    [[nodiscard]] low_rank<S> delta() const;
};

/// A new adapter: A uniform in +-1/sqrt(in / g), B zero, so that it changes nothing yet. \pre group_size divides in.
template <real S>
[[nodiscard]] qalora_adapter<S> make_qalora(index out, index in, index group_size, const lora_options& options = {});

/// LoRA, applied to sums over groups.
template <real S>
class applied_qalora : public detail::with_factor_gradient<S> {
public:
    using scalar = S;
    static constexpr bool additive = true;
    using gradient = lora_gradient<S>;

    explicit applied_qalora(qalora_adapter<S> a);

    qalora_adapter<S> adapter;

    [[nodiscard]] index rows() const { return adapter.rows(); }
    [[nodiscard]] index cols() const { return adapter.cols(); }
    [[nodiscard]] weight_change<S> change() const { return adapter.delta(); }
    void refresh(operator_reference<S> /*base*/) {}

    [[nodiscard]] gradient zero_gradient() const { return lowrank::zero_gradient(adapter.lora); }

    void add_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y, workspace& ws,
                     const dropout_key& key) const;
    void add_transposed_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y,
                                workspace& ws) const;
    void backward(operator_reference<S> base, S alpha, const_column_view<S> x, const_column_view<S> dy, gradient& g,
                  column_view<S>* dx, workspace& ws, const dropout_key& key) const;
};

/// Two factors, named as in PEFT.
template <real S>
struct adapter_kind<qalora_adapter<S>> {
    static constexpr std::string_view name = "qalora";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("lora_A.weight"), a.lora.lora_A);
        f(std::string_view("lora_B.weight"), a.lora.lora_B);
    }
    static double dropout(const qalora_adapter<S>& a) { return a.lora.lora_dropout; }
    static bool permute_rows(qalora_adapter<S>& a, std::span<const index> rows) {
        return detail::permute_rows(a.lora.lora_B, rows);
    }
    /// Groups of 16 inputs, or as many below that as divide every layer's.
    static auto maker(const adapted_layers& all, const lora_options& options) {
        index group = 16;
        while (all.common_in % group != 0) {
            --group;
        }
        return [options, group](const target_layer<S>& layer) {
            lora_options own = options;
            own.stream = layer.number;
            return make_qalora<S>(layer.base.rows(), layer.base.cols(), group, own);
        };
    }
    using applied = applied_qalora<S>;
};

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/kinds/lora_forms/qalora.ipp>
#endif

#endif  // LOWRANK_LORA_KINDS_LORA_FORMS_QALORA_HPP
