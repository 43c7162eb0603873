// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_MISS_HPP
#define LOWRANK_LORA_KINDS_MISS_HPP

/// \file
/// MiSS (Bone): inputs are summed in groups, j with j + r, j + 2r, ..., and the r sums go through one small matrix.
///
///     auto a = lowrank::make_miss<float>(out, in, {.r = 64});       // zero: changes nothing yet
///     auto y = lowrank::apply(a.map(), x);                          // M^T (sums of x): 2 r out n flops
///     auto change = a.delta();                                      // two factors, for merging and algebra
///
/// Kang, Yin, arXiv 2409.15371; parameters as in PEFT (`miss_block`, and `bone_block` of older versions). Inputs that r
/// does not divide are padded with zeros. The "bat" mode, which needs the weight itself, is in miss_bat.hpp.

#include <span>
#include <string_view>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/lora/adapter.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/new_adapter.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// PEFT's defaults. mini_r = 0: an own column for every output.
struct miss_options {
    index r = 64;
    index mini_r = 0;  ///< "mini": outputs o and o + mini_r share a column; must divide out
};

/// The linear operator left G with G (r x in) the sums over groups: (G x)_k = x_k + x_{k + r} + ...
template <real S>
struct miss_operator {
    using scalar = S;

    matrix<S> left;  ///< out x r
    index in = 0;

    [[nodiscard]] index rows() const noexcept { return left.rows(); }
    [[nodiscard]] index cols() const noexcept { return in; }

    /// Y += alpha left (G X). A zero left leaves Y untouched, as r = 0 does.
    void add_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const;
    /// Y += alpha G^T (left^T X).
    void add_transposed_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const;
};

/// The change M^T G; a `factored_adapter` with r * out parameters, r * mini_r in the mini mode.
template <real S>
struct miss_adapter {
    using scalar = S;

    matrix<S> miss_block = {};  ///< M: r x out, or r x mini_r
    index out = 0;
    index in = 0;

    [[nodiscard]] index rank() const { return miss_block.rows(); }

    /// For serving: sums instead of a product with ones.
    [[nodiscard]] miss_operator<S> map() const { return {.left = full(), .in = in}; }

    /// left = M^T, right = the r x in matrix of zeros and ones that sums.
    [[nodiscard]] low_rank<S> delta() const;

    /// dM = dL^T, summed over the outputs that share a column.
    [[nodiscard]] miss_adapter pull_back(const delta_gradient<S>& g) const;

    /// Adds dM of a loss through Y += M^T G X, and G^T M dY to `*dx` unless it is null, without forming G.
    void backward(const_column_view<S> x, const_column_view<S> dy, miss_adapter& gradient, column_view<S>* dx,
                  workspace& ws) const;

private:
    void check() const;
    [[nodiscard]] matrix<S> full() const;
};

/// A new adapter for an out x in weight: zero, so that it changes nothing yet.
template <real S>
[[nodiscard]] miss_adapter<S> make_miss(index out, index in, const miss_options& options = {});

/// One matrix, applied as a product of factors.
template <real S>
struct adapter_kind<miss_adapter<S>> {
    static constexpr std::string_view name = "miss";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("miss_block"), a.miss_block);
    }
    /// Not in the mini mode, where outputs share a column by their position.
    static bool permute_rows(miss_adapter<S>& a, std::span<const index> rows) {
        if (a.miss_block.cols() != a.out) {
            return false;
        }
        matrix<S> turned = a.miss_block.transpose();
        detail::permute_rows(turned, rows);
        a.miss_block = turned.transpose();
        return true;
    }
    static auto maker(const adapted_layers& /*all*/, const lora_options& options) {
        return [r = options.r](const target_layer<S>& layer) {
            return make_miss<S>(layer.base.rows(), layer.base.cols(), {.r = r});
        };
    }
    using applied = applied_factors<miss_adapter<S>>;
};

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/kinds/miss.ipp>
#endif

#endif  // LOWRANK_LORA_KINDS_MISS_HPP
