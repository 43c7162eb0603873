// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_LORA_HPP
#define LOWRANK_LORA_KINDS_LORA_HPP

/// \file
/// A LoRA adapter: the change scaling * B A of a frozen weight, as a value.
///
///     auto adapter = lowrank::make_lora<float>(out, in, {.r = 8, .lora_alpha = 16, .seed = 1});
///     lowrank::low_rank<float> change = adapter.delta();   // left = scaling * B, right = A
///
/// Hu et al., LoRA, arXiv 2106.09685; alpha / sqrt(r): Kalajdzievski, rsLoRA, arXiv 2312.03732. Numbers as in PEFT.

#include <cmath>
#include <cstdint>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/skinny_product.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/low_rank.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// What a new adapter looks like.
struct lora_options {
    index r = 8;               ///< Rank.
    double lora_alpha = 8;     ///< Numerator of the scaling.
    bool use_rslora = false;   ///< Scale by alpha / sqrt(r) instead of alpha / r.
    double lora_dropout = 0;   ///< Probability in [0, 1) that training drops an entry of x on its way to A.
    std::uint64_t seed = 0;    ///< Same seed and stream, same A, on every machine.
    std::uint64_t stream = 0;  ///< One per layer, so that layers start differently.
};

/// alpha / r, or alpha / sqrt(r) with `use_rslora`; 0 for rank 0, where B A is zero anyway.
[[nodiscard]] inline double lora_scaling(double lora_alpha, index r, bool use_rslora) {
    detail::expects(r >= 0, "lora_scaling: r must not be negative");
    if (r == 0) {
        return 0;
    }
    const auto rank = static_cast<double>(r);
    return lora_alpha / (use_rslora ? std::sqrt(rank) : rank);
}

namespace detail {

/// True if every entry is +0 or -0; stops at the first that is not.
template <class D>
bool all_zero(const D& x) {
    for (index j = 0; j < x.cols(); ++j) {
        for (index i = 0; i < x.rows(); ++i) {
            if (x(i, j) != 0) {
                return false;
            }
        }
    }
    return true;
}

}  // namespace detail

/// The linear operator scaling * B A (out x in) with trainable factors A (r x in) and B (out x r).
template <real S>
struct lora_adapter {
    using scalar = S;

    matrix<S> lora_A = {};  ///< r x in
    matrix<S> lora_B = {};  ///< out x r
    double lora_alpha = 8;
    bool use_rslora = false;
    double lora_dropout = 0;  ///< Used by training only.

    [[nodiscard]] index rows() const noexcept { return lora_B.rows(); }
    [[nodiscard]] index cols() const noexcept { return lora_A.cols(); }
    [[nodiscard]] index rank() const noexcept { return lora_A.rows(); }

    /// alpha / r or alpha / sqrt(r), from the rank the factors have.
    [[nodiscard]] S scaling() const { return static_cast<S>(lora_scaling(lora_alpha, rank(), use_rslora)); }

    /// The change at a strength, as two factors: left = strength * scaling * B, right = A. \cost copies both factors.
    [[nodiscard]] low_rank<S> delta(S strength = S(1)) const {
        return {.left = strength * scaling() * lora_B, .right = lora_A};
    }

    /// Y += alpha scaling B (A X). A zero B leaves Y untouched, down to the sign of its zeros.
    void add_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
        detail::expects_shape("lora_adapter::add_product", "x", x.rows(), x.cols(), cols(), y.cols());
        detail::expects_shape("lora_adapter::add_product", "y", y.rows(), y.cols(), rows(), x.cols());
        if (detail::all_zero(lora_B)) {
            return;
        }
        workspace::frame scope(ws);
        auto z = ws.take<S>(rank(), x.cols());
        z.setZero();
        lowrank::add_product<S, 0>(S(1), const_column_view<S>(lora_A), x, z, ws);
        lowrank::add_product<S, 0>(alpha * scaling(), const_column_view<S>(lora_B), z, y, ws);
    }

    /// Y += alpha scaling A^T (B^T X).
    void add_transposed_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
        detail::expects_shape("lora_adapter::add_transposed_product", "x", x.rows(), x.cols(), rows(), y.cols());
        detail::expects_shape("lora_adapter::add_transposed_product", "y", y.rows(), y.cols(), cols(), x.cols());
        if (detail::all_zero(lora_B)) {
            return;
        }
        workspace::frame scope(ws);
        auto t = ws.take<S>(rank(), x.cols());
        t.setZero();
        lowrank::add_transposed_product<S, 0>(S(1), const_column_view<S>(lora_B), x, t, ws);
        lowrank::add_transposed_product<S, 0>(alpha * scaling(), const_column_view<S>(lora_A), t, y, ws);
    }
};

/// A new adapter for an out x in weight: A uniform in +-1/sqrt(in), B zero, so that it changes nothing yet.
///
/// \pre  `out, in >= 0`, `r >= 1`, `0 <= lora_dropout < 1`.
/// \note Bit-equal for equal options on every machine.
template <real S>
[[nodiscard]] lora_adapter<S> make_lora(index out, index in, const lora_options& options = {}) {
    detail::expects(out >= 0 && in >= 0, "make_lora: out and in must not be negative");
    detail::expects(options.r >= 1, "make_lora: r must be at least 1");
    detail::expects(0 <= options.lora_dropout && options.lora_dropout < 1, "make_lora: lora_dropout must be in [0, 1)");
    lora_adapter<S> adapter{.lora_A = matrix<S>(options.r, in),
                            .lora_B = matrix<S>::Zero(out, options.r),
                            .lora_alpha = options.lora_alpha,
                            .use_rslora = options.use_rslora,
                            .lora_dropout = options.lora_dropout};
    if (in > 0) {
        const auto bound = static_cast<S>(1 / std::sqrt(static_cast<double>(in)));
        fill_uniform(adapter.lora_A, -bound, bound, philox(options.seed, options.stream));
    }
    return adapter;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_LORA_HPP
