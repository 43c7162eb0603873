// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_ROTATIONS_BOFT_HPP
#define LOWRANK_LORA_KINDS_ROTATIONS_BOFT_HPP

/// \file
/// BOFT: W' = diag(s) W R with R a product of m block-diagonal rotations in butterfly order.
///
///     auto a = lowrank::make_boft<float>(out, in, {.block_size = 4, .n_butterfly_factor = 2});   // R = I, s = 1
///     const auto layer = lowrank::rotate(lowrank::any_operator<float>(lowrank::as_operator(w)), a);
///     auto y = lowrank::apply(layer, x);
///
/// Liu et al., arXiv 2311.06243; parameters and permutations as in PEFT. The bias of the layer is not scaled. With m
/// factors of block size b every input reaches b 2^(m-1) others, at 2 m b flops an input.

#include <span>
#include <string_view>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/algebra/block_rotation.hpp>
#include <lowrank/lora/algebra/rotation.hpp>
#include <lowrank/lora/new_adapter.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// PEFT's defaults. Give the size of a block or the number of blocks; the other is 0.
struct boft_options {
    index block_size = 4;
    index block_num = 0;
    index n_butterfly_factor = 1;
};

/// Where factor `i` of BOFT with blocks of `b` finds its inputs: place k is coordinate `places[k]`. In each stretch of
/// b 2^i coordinates, block p couples the half blocks p and p + 2^i.
LOWRANK_API [[nodiscard]] std::vector<index> butterfly_places(index size, index b, index i);

/// A butterfly rotation of the inputs and a scale of the outputs; a `rotating_adapter`.
template <real S>
struct boft_adapter {
    using scalar = S;

    matrix<S> boft_R = {};  ///< (m * in) x b: the b x b blocks of factor 0, then of factor 1, ... below each other
    vector<S> boft_s = {};  ///< out

    /// Inputs of the layer.
    index in = 0;

    [[nodiscard]] index block_size() const { return boft_R.cols(); }
    [[nodiscard]] index factor_count() const { return in == 0 ? 0 : boft_R.rows() / in; }

    /// R as it multiplies the inputs: each block is (I - K)^-1 (I + K) with K = (B - B^T) / 2. \cost b^3 a block.
    [[nodiscard]] block_rotation<S> rotation() const;

    /// s.
    [[nodiscard]] vector<S> output_scale() const { return boft_s; }

    /// The gradients of boft_R and boft_s.
    [[nodiscard]] boft_adapter pull_back(const rotated_gradient<block_rotation<S>>& g) const;

private:
    void check() const;
    [[nodiscard]] matrix<double> skew(index row) const;
};

/// A new adapter for an out x in weight: R = I and s = 1, so that it changes nothing yet.
///
/// \pre Blocks divide the inputs; with m > 1 butterfly factors also b 2^(m-1) does, and b is even.
template <real S>
[[nodiscard]] boft_adapter<S> make_boft(index out, index in, const boft_options& options = {});

/// A rotation of the inputs from its parameters.
template <real S>
struct adapter_kind<boft_adapter<S>> {
    static constexpr std::string_view name = "boft";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("boft_R"), a.boft_R);
        f(std::string_view("boft_s"), a.boft_s);
    }
    /// The scales follow the rows; W R with other rows of W is other rows of W R.
    static bool permute_rows(boft_adapter<S>& a, std::span<const index> rows) {
        return detail::permute_rows(a.boft_s, rows);
    }
    /// One size of blocks for all layers, as PEFT's configuration has one.
    static auto maker(const adapted_layers& all, const lora_options& options) {
        return
            [size = rotation_block_size(all.common_in, options.r < 2 ? 2 : options.r)](const target_layer<S>& layer) {
                return make_boft<S>(layer.base.rows(), layer.base.cols(), {.block_size = size});
            };
    }
    using applied = applied_rotation<boft_adapter<S>>;
};

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/kinds/rotations/boft.ipp>
#endif

#endif  // LOWRANK_LORA_KINDS_ROTATIONS_BOFT_HPP
