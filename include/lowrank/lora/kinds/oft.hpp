// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_OFT_HPP
#define LOWRANK_LORA_KINDS_OFT_HPP

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

#include <cmath>
#include <string_view>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/algebra/block_rotation.hpp>
#include <lowrank/lora/algebra/cayley.hpp>
#include <lowrank/lora/algebra/rotation.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// PEFT's defaults.
struct oft_options {
    index block_size = 32;  ///< must divide the inputs: see `oft_block_size`
    bool block_share = false;
    bool coft = false;
    double eps = 6e-5;
    bool use_cayley_neumann = true;
    index num_cayley_neumann_terms = 5;
};

/// The divisor of `in` nearest to `wanted`, the smaller of two equally near: what PEFT makes of a block size (or of a
/// number of blocks) that does not divide. \pre in, wanted >= 1.
[[nodiscard]] inline index oft_block_size(index in, index wanted) {
    detail::expects(in >= 1 && wanted >= 1, "oft_block_size: in and wanted must be positive");
    if (wanted >= in) {
        return in;
    }
    index up = wanted;
    while (in % up != 0) {
        ++up;
    }
    index down = wanted;
    while (in % down != 0) {
        --down;
    }
    return wanted - down <= up - wanted ? down : up;
}

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
    [[nodiscard]] index block_size() const {
        return static_cast<index>(std::lround((1 + std::sqrt(1 + 8 * static_cast<double>(oft_R.cols()))) / 2));
    }

    /// R as it multiplies the inputs. \cost b^3 a block, in double.
    [[nodiscard]] block_rotation<S> rotation() const {
        check();
        const index b = block_size();
        rotation_factor<S> factor{.blocks = matrix<S>(b, b * oft_R.rows())};
        for (index k = 0; k < oft_R.rows(); ++k) {
            factor.blocks.middleCols(k * b, b) = block(skew(k)).template cast<S>();
        }
        return {.size = in, .factors = {std::move(factor)}};
    }

    /// No scale of the outputs.
    [[nodiscard]] vector<S> output_scale() const { return {}; }

    /// The gradient of oft_R. As in PEFT, the projection of COFT counts as the identity.
    [[nodiscard]] oft_adapter pull_back(const rotated_gradient<block_rotation<S>>& g) const {
        check();
        const index b = block_size();
        detail::expects(g.rotation.factors.size() == 1, "oft_adapter::pull_back: the gradient is not of this rotation");
        const matrix<S>& blocks = g.rotation.factors.front().blocks;
        detail::expects_shape("oft_adapter::pull_back", "gradient blocks", blocks.rows(), blocks.cols(), b,
                              b * oft_R.rows());
        oft_adapter out = *this;
        for (index k = 0; k < oft_R.rows(); ++k) {
            const matrix<double> q = skew(k);
            const matrix<double> dr = blocks.middleCols(k * b, b).template cast<double>();
            const matrix<double> dq = use_cayley_neumann
                                          ? matrix<double>(-cayley_neumann_backward(-q, num_cayley_neumann_terms, dr))
                                          : cayley_backward(q, cayley(q), dr);
            out.oft_R.row(k) = skew_backward(dq).transpose().template cast<S>();
        }
        return out;
    }

    /// COFT: scales every block of oft_R into its ball, in place. Without `coft` nothing happens.
    void project() {
        for (index k = 0; k < oft_R.rows(); ++k) {
            const double factor = shrink(k);
            if (factor < 1) {
                oft_R.row(k) = (factor * oft_R.row(k).template cast<double>()).template cast<S>();
            }
        }
    }

private:
    void check() const {
        const index b = block_size();
        detail::expects(b * (b - 1) / 2 == oft_R.cols(), "oft_adapter: oft_R needs b (b - 1) / 2 columns for some b");
        detail::expects(in % b == 0 && (oft_R.rows() == in / b || oft_R.rows() == 1),
                        "oft_adapter: oft_R needs one row, or one for each block of the inputs");
    }
    /// By how much COFT scales block k.
    [[nodiscard]] double shrink(index k) const {
        if (!coft) {
            return 1;
        }
        const double norm = std::sqrt(2.0) * oft_R.row(k).template cast<double>().norm();
        const double most = eps / std::sqrt(static_cast<double>(oft_R.rows()));
        return norm <= most ? 1.0 : most / norm;
    }
    [[nodiscard]] matrix<double> skew(index k) const {
        const double factor = shrink(k);
        const vector<double> entries = oft_R.row(k).template cast<double>().transpose();
        return factor * skew_from_upper(entries, block_size());
    }
    [[nodiscard]] matrix<double> block(const matrix<double>& q) const {
        return use_cayley_neumann ? cayley_neumann(-q, num_cayley_neumann_terms) : cayley(q);
    }
};

/// A new adapter for an out x in weight (of a convolution: in * taps): Q = 0, so that it changes nothing yet. Nothing
/// in it depends on `out`. \pre block_size divides in.
template <real S>
[[nodiscard]] oft_adapter<S> make_oft([[maybe_unused]] index out, index in, const oft_options& options = {}) {
    const index b = options.block_size;
    detail::expects(b >= 1 && in >= 1 && in % b == 0,
                    "make_oft: block_size must divide the inputs; oft_block_size gives the nearest that does");
    detail::expects(options.num_cayley_neumann_terms >= 1, "make_oft: num_cayley_neumann_terms must be at least 1");
    return {.oft_R = matrix<S>::Zero(options.block_share ? 1 : in / b, b * (b - 1) / 2),
            .in = in,
            .coft = options.coft,
            .eps = options.eps,
            .use_cayley_neumann = options.use_cayley_neumann,
            .num_cayley_neumann_terms = options.num_cayley_neumann_terms};
}

/// A rotation of the inputs from its parameters.
template <real S>
struct adapter_kind<oft_adapter<S>> {
    static constexpr std::string_view name = "oft";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("oft_R.weight"), a.oft_R);
    }
    using applied = applied_rotation<oft_adapter<S>>;
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_OFT_HPP
