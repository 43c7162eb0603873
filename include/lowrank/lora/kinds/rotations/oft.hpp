// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_ROTATIONS_OFT_HPP
#define LOWRANK_LORA_KINDS_ROTATIONS_OFT_HPP

/// \file
/// OFT: the inputs of a layer go through a block-diagonal rotation, W' = W R, with R from skew-symmetric blocks.
///
///     auto a = lowrank::make_oft<float>(out, in, {.block_size = 32});            // R = I
///     const auto layer = lowrank::rotate(lowrank::any_operator<float>(lowrank::as_operator(w)), a);
///     auto y = lowrank::apply(layer, x);                                    // W (R x)
///     // training: rotated_backward(...), then a.pull_back(g); COFT: a.project() after each step
///
/// Qiu et al., arXiv 2306.07280; parameters, truncation and constraint as in PEFT. Note that PEFT's two ways turn in
/// opposite directions: with Q from `oft_R` its exact transform gives R = (I - Q)^-1 (I + Q), its Neumann series
/// approximates the inverse of that. Both are reproduced, so an adapter must be used with the flag it was trained with.

#include <span>
#include <string_view>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/algebra/block_rotation.hpp>
#include <lowrank/lora/algebra/rotation.hpp>
#include <lowrank/lora/new_adapter.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// PEFT's defaults.
struct oft_options {
    index block_size = 32;  ///< must divide the inputs: see `rotation_block_size`
    bool block_share = false;
    bool coft = false;
    double eps = 6e-5;
    bool use_cayley_neumann = true;
    index num_cayley_neumann_terms = 5;
};

/// A rotation of `in` inputs in blocks of b; a `rotating_adapter` with b (b - 1) / 2 parameters a block.
template <real S>
struct oft_adapter {
    using scalar = S;

    matrix<S> oft_R = {};  ///< one row per block (one row: shared), the strict upper triangle of Q row by row
    index in = 0;
    bool coft = false;  ///< ||Q|| of a block stays within eps / sqrt(number of rows)
    double eps = 6e-5;
    bool use_cayley_neumann = true;
    index num_cayley_neumann_terms = 5;

    /// b, from the number of entries.
    [[nodiscard]] index block_size() const;

    /// R as it multiplies the inputs. \cost b^3 a block, in double.
    [[nodiscard]] block_rotation<S> rotation() const;

    /// No scale of the outputs.
    [[nodiscard]] vector<S> output_scale() const { return {}; }

    /// The gradient of oft_R. As in PEFT, the projection of COFT counts as the identity.
    [[nodiscard]] oft_adapter pull_back(const rotated_gradient<block_rotation<S>>& g) const;

    /// COFT: scales every block of oft_R into its ball, in place. Without `coft` nothing happens.
    void project();

private:
    void check() const;
    [[nodiscard]] double shrink(index k) const;
    [[nodiscard]] matrix<double> skew(index k, double factor) const;
};

/// A new adapter for an out x in weight (of a convolution: in * taps): Q = 0, so that it changes nothing yet. Nothing
/// in it depends on `out`. \pre block_size divides in.
template <real S>
[[nodiscard]] oft_adapter<S> make_oft(index out, index in, const oft_options& options = {});

/// A rotation of the inputs from its parameters.
template <real S>
struct adapter_kind<oft_adapter<S>> {
    static constexpr std::string_view name = "oft";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("oft_R.weight"), a.oft_R);
    }
    /// W R with other rows of W is other rows of W R.
    static bool permute_rows(oft_adapter<S>& /*a*/, std::span<const index> /*rows*/) { return true; }
    static auto maker(const adapted_layers& /*all*/, const lora_options& options) {
        return [r = options.r](const target_layer<S>& layer) {
            return make_oft<S>(layer.base.rows(), layer.base.cols(),
                               {.block_size = rotation_block_size(layer.base.cols(), r < 2 ? 2 : r)});
        };
    }
    using applied = applied_rotation<oft_adapter<S>>;
};

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/kinds/rotations/oft.ipp>
#endif

#endif  // LOWRANK_LORA_KINDS_ROTATIONS_OFT_HPP
