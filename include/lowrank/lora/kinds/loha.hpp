// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_LOHA_HPP
#define LOWRANK_LORA_KINDS_LOHA_HPP

/// \file
/// LoHa: the entrywise product of two low-rank products, (w1_a w1_b) o (w2_a w2_b) * alpha / r.
///
///     lowrank::loha_adapter<float> a{.w1_a = lora_B, .w1_b = lora_A, .w2_a = lora_B, .w2_b = lora_A, .alpha = 8};
///     auto change = a.delta();                         // exact, with r^2 columns; never forms out x in
///
/// Hyeon-Woo et al., FedPara, arXiv 2108.06098; LyCORIS, PEFT. An entrywise product of rank-r matrices is a product of
/// factors whose columns and rows are the entrywise products of all pairs (Khatri-Rao), so LoHa serves, merges and
/// combines like any other adapter.

#include <cstdint>
#include <span>
#include <string_view>
#include <utility>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/lora/adapter.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/kinds/lora.hpp>
#include <lowrank/lora/new_adapter.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The change alpha / r * (w1_a w1_b) o (w2_a w2_b); a `factored_adapter`. For "effective conv2d" tensors w1_b is
/// tucker_right(t1, b1, taps) and w1_a the transpose of the file's (tucker.hpp).
template <real S>
struct loha_adapter {
    using scalar = S;

    matrix<S> w1_a = {};  ///< out x r
    matrix<S> w1_b = {};  ///< r x in
    matrix<S> w2_a = {};
    matrix<S> w2_b = {};
    double alpha = 8;

    [[nodiscard]] S scaling() const { return static_cast<S>(lora_scaling(alpha, w1_b.rows(), false)); }

    /// left[:, p r + q] = scaling * w1_a[:, p] o w2_a[:, q], right[p r + q, :] = w1_b[p, :] o w2_b[q, :].
    [[nodiscard]] low_rank<S> delta() const;

    [[nodiscard]] index rows() const noexcept { return w1_a.rows(); }
    [[nodiscard]] index cols() const noexcept { return w1_b.cols(); }

    /// Adds rows first, first + 1, ... of the change, one a column, times a factor. \cost 4 r in flops a row.
    void add_rows(double factor, index first, column_view<double> to) const;

    /// The product rule on each pair.
    [[nodiscard]] loha_adapter pull_back(const delta_gradient<S>& g) const;

private:
    void check() const;
};

/// What a new adapter looks like. PEFT's defaults.
struct loha_options {
    index r = 8;
    double alpha = 8;
    std::uint64_t seed = 0;    ///< Same seed and stream, same values, on every machine.
    std::uint64_t stream = 0;  ///< One per layer.
};

/// A new adapter for an out x in weight: w1_a, w1_b, w2_b uniform in +-1/sqrt(columns), w2_a zero, so that it changes
/// nothing yet.
template <real S>
[[nodiscard]] loha_adapter<S> make_loha(index out, index in, const loha_options& options = {});

/// Four factors, applied as the product they make.
template <real S>
struct adapter_kind<loha_adapter<S>> {
    static constexpr std::string_view name = "loha";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("hada_w1_a"), a.w1_a);
        f(std::string_view("hada_w1_b"), a.w1_b);
        f(std::string_view("hada_w2_a"), a.w2_a);
        f(std::string_view("hada_w2_b"), a.w2_b);
    }
    static bool permute_rows(loha_adapter<S>& a, std::span<const index> rows) {
        return detail::permute_rows(a.w1_a, rows) && detail::permute_rows(a.w2_a, rows);
    }
    static auto maker(const adapted_layers& /*all*/, const lora_options& options) {
        return [options](const target_layer<S>& layer) {
            return make_loha<S>(
                layer.base.rows(), layer.base.cols(),
                {.r = options.r, .alpha = options.lora_alpha, .seed = options.seed, .stream = layer.number});
        };
    }
    using applied = applied_factors<loha_adapter<S>>;
};

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/kinds/loha.ipp>
#endif

#endif  // LOWRANK_LORA_KINDS_LOHA_HPP
