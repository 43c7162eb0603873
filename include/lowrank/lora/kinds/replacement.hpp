// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_REPLACEMENT_HPP
#define LOWRANK_LORA_KINDS_REPLACEMENT_HPP

/// \file
/// A whole weight in the place of another: the head that a fine-tune trained, modules that an adapter's file replaces.
///
///     lowrank::any_adapter<float> head = lowrank::replacement_adapter<float>{.weight = tuned};     // W' = tuned

#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/operator_reference.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/change.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// W' = weight, whatever W was.
template <real S>
struct replacement_adapter {
    using scalar = S;

    matrix<S> weight = {};  ///< out x in
};

/// The weight is multiplied with instead of the base, and its gradient is dY X^T.
template <real S>
class applied_replacement {
public:
    using scalar = S;
    static constexpr bool additive = false;
    using gradient = replacement_adapter<S>;

    explicit applied_replacement(replacement_adapter<S> a) : adapter(std::move(a)) {}

    replacement_adapter<S> adapter;

    [[nodiscard]] index rows() const { return adapter.weight.rows(); }
    [[nodiscard]] index cols() const { return adapter.weight.cols(); }
    void refresh(operator_reference<S> /*base*/) {}

    [[nodiscard]] gradient zero_gradient() const { return detail::with_zero_parameters(adapter); }
    static std::vector<std::span<S>> spans(gradient& g) { return detail::parameter_spans(g); }
    void pull_back(const gradient& g, S* out) const { detail::add_parameters(g, out); }
    [[nodiscard]] weight_change<S> change() const { return replacement<S>{.weight = adapter.weight}; }

    void add_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y, workspace& ws,
                     const dropout_key& key) const;
    void add_transposed_product(operator_reference<S> base, S alpha, const_column_view<S> x, column_view<S> y,
                                workspace& ws) const;
    void backward(operator_reference<S> base, S alpha, const_column_view<S> x, const_column_view<S> dy, gradient& g,
                  column_view<S>* dx, workspace& ws, const dropout_key& key) const;
};

/// One matrix.
template <real S>
struct adapter_kind<replacement_adapter<S>> {
    static constexpr std::string_view name = "replacement";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("weight"), a.weight);
    }
    static bool permute_rows(replacement_adapter<S>& a, std::span<const index> rows) {
        return detail::permute_rows(a.weight, rows);
    }
    using applied = applied_replacement<S>;
};

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/kinds/replacement.ipp>
#endif

#endif  // LOWRANK_LORA_KINDS_REPLACEMENT_HPP
