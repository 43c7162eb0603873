// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_STRUCTURED_SHIRA_HPP
#define LOWRANK_LORA_KINDS_STRUCTURED_SHIRA_HPP

/// \file
/// SHiRA: the change is a sparse matrix of full rank; one number for each of its entries is trained.
///
///     auto a = lowrank::make_shira<float>(out, in, {.r = 8});       // 8 (out + in) entries, zero: changes nothing yet
///     lowrank::workspace ws;
///     a.add_product(1.0F, x, y, ws);                                // y += change x, without a dense matrix
///
/// Bhardwaj et al., Sparse High Rank Adapters, arXiv 2406.13175; parameters as in PEFT, whose "random" mask has
/// r (out + in) entries, as many as the factors of LoRA of rank r.

#include <cstdint>
#include <span>
#include <string_view>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/change.hpp>
#include <lowrank/lora/kinds/structured/entry_positions.hpp>
#include <lowrank/lora/new_adapter.hpp>

namespace lowrank::inline LOWRANK_ABI {

struct shira_options {
    index r = 32;
    std::uint64_t seed = 0;  ///< Of the mask, as PEFT's random_seed: the same entries.
};

/// The change D with D(rows(k), columns(k)) = shira_weight(k), an `operator_adapter`. Entries that are named twice add up.
template <real S>
struct shira_adapter {
    using scalar = S;

    entry_positions shira_indices = {};  ///< 2 x n: rows (outputs), columns (inputs)
    vector<S> shira_weight = {};         ///< n
    index r = 0;                         ///< n / (out + in)
    index out = 0;                       ///< Of the layer,
    index in = 0;

    [[nodiscard]] index rows() const noexcept { return out; }
    [[nodiscard]] index cols() const noexcept { return in; }

    /// One row and one column for each entry, inside of the weight: what all of the following expect.
    void check() const;

    /// Y += alpha D X. \cost 2 n flops for each column.
    void add_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const;
    /// Y += alpha D^T X.
    void add_transposed_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const;
    /// d shira_weight(k) = sum of dY(rows(k), :) o X(columns(k), :).
    void backward(const_column_view<S> x, const_column_view<S> dy, shira_adapter& gradient, column_view<S>* dx,
                  workspace& ws) const;

    /// W + D. \cost Sorts the entries by rows; O(n + out) memory.
    [[nodiscard]] weight_change<S> change() const;
};

/// A new adapter for an out x in weight: zero at r (out + in) random entries, so that it changes nothing yet.
/// \pre r (out + in) <= out in, below `torch_positions_limit`.
template <real S>
[[nodiscard]] shira_adapter<S> make_shira(index out, index in, const shira_options& options = {});

/// One number for each entry.
template <real S>
struct adapter_kind<shira_adapter<S>> {
    static constexpr std::string_view name = "shira";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("shira_weight"), a.shira_weight);
    }
    /// The entries of a row move with it.
    static bool permute_rows(shira_adapter<S>& a, std::span<const index> rows);
    static constexpr double learning_rate = 1e-2;
    static status check_layers(const adapted_layers& all) {
        return all.largest_rank >= 1 && all.max_out < torch_positions_limit / all.max_in
                   ? status{}
                   : status{errc::unsupported,
                            "shira needs weights with more entries than outputs and inputs together, and below 214 "
                            "million; choose other layers, or lora"};
    }
    static auto maker(const adapted_layers& all, const lora_options& options) {
        const index r = options.r < all.largest_rank ? options.r : all.largest_rank;
        return [r, seed = options.seed](const target_layer<S>& layer) {
            return make_shira<S>(layer.base.rows(), layer.base.cols(), {.r = r, .seed = seed + layer.number});
        };
    }
    using applied = applied_operator<shira_adapter<S>>;
};

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/kinds/structured/shira.ipp>
#endif

#endif  // LOWRANK_LORA_KINDS_STRUCTURED_SHIRA_HPP
