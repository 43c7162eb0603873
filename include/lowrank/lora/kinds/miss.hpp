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

#include <algorithm>
#include <string_view>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/skinny_product.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/lora/adapter.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/kinds/lora.hpp>

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

    /// Y += alpha left (G X). A zero left leaves Y untouched.
    void add_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
        detail::expects_shape("miss_operator::add_product", "x", x.rows(), x.cols(), cols(), y.cols());
        detail::expects_shape("miss_operator::add_product", "y", y.rows(), y.cols(), rows(), x.cols());
        if (detail::all_zero(left)) {
            return;
        }
        const workspace::frame scope(ws);
        const index r = left.cols();
        auto sums = ws.take<S>(r, x.cols());
        sums.setZero();
        for (index first = 0; first < in; first += r) {
            const index count = std::min(r, in - first);
            sums.topRows(count) += x.middleRows(first, count);
        }
        lowrank::add_product<S, 0>(alpha, const_column_view<S>(left), sums, y, ws);
    }
    /// Y += alpha G^T (left^T X).
    void add_transposed_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
        detail::expects_shape("miss_operator::add_transposed_product", "x", x.rows(), x.cols(), rows(), y.cols());
        detail::expects_shape("miss_operator::add_transposed_product", "y", y.rows(), y.cols(), cols(), x.cols());
        const workspace::frame scope(ws);
        const index r = left.cols();
        auto t = ws.take<S>(r, x.cols());
        t.setZero();
        lowrank::add_transposed_product<S, 0>(alpha, const_column_view<S>(left), x, t, ws);
        for (index first = 0; first < in; first += r) {
            const index count = std::min(r, in - first);
            y.middleRows(first, count) += t.topRows(count);
        }
    }
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
    [[nodiscard]] low_rank<S> delta() const {
        low_rank<S> change{.left = full(), .right = matrix<S>::Zero(rank(), in)};
        for (index j = 0; j < in; ++j) {
            change.right(j % rank(), j) = S(1);
        }
        return change;
    }

    /// dM = dL^T, summed over the outputs that share a column.
    [[nodiscard]] miss_adapter pull_back(const delta_gradient<S>& g) const {
        detail::expects_shape("miss_adapter::pull_back", "gradient.left", g.left.rows(), g.left.cols(), out, rank());
        miss_adapter d{.miss_block = matrix<S>::Zero(miss_block.rows(), miss_block.cols()), .out = out, .in = in};
        for (index first = 0; first < out; first += miss_block.cols()) {
            d.miss_block += g.left.middleRows(first, miss_block.cols()).transpose();
        }
        return d;
    }

    /// Adds dM of a loss through Y += M^T G X, and G^T M dY to `*dx` unless it is null, without forming G.
    void backward(const_column_view<S> x, const_column_view<S> dy, miss_adapter& gradient, column_view<S>* dx,
                  workspace& ws) const {
        detail::expects_shape("miss_adapter::backward", "x", x.rows(), x.cols(), in, dy.cols());
        detail::expects_shape("miss_adapter::backward", "dy", dy.rows(), dy.cols(), out, x.cols());
        check();
        const workspace::frame scope(ws);
        const index mini = miss_block.cols();
        auto sums = ws.take<S>(rank(), x.cols());
        sums.setZero();
        for (index first = 0; first < in; first += rank()) {
            const index count = std::min(rank(), in - first);
            sums.topRows(count) += x.middleRows(first, count);
        }
        auto d = ws.take<S>(mini, x.cols());
        d.setZero();
        for (index first = 0; first < out; first += mini) {
            d += dy.middleRows(first, mini);
        }
        gradient.miss_block.noalias() += sums * d.transpose();
        if (dx != nullptr) {
            sums.setZero();
            lowrank::add_product<S, 0>(S(1), const_column_view<S>(miss_block), d, sums, ws);
            for (index first = 0; first < in; first += rank()) {
                const index count = std::min(rank(), in - first);
                dx->middleRows(first, count) += sums.topRows(count);
            }
        }
    }

private:
    void check() const {
        detail::expects(rank() >= 1 && miss_block.cols() >= 1 && out % miss_block.cols() == 0,
                        "miss_adapter: miss_block needs rows, and a number of columns that divides the outputs");
    }
    [[nodiscard]] matrix<S> full() const {
        check();
        return miss_block.transpose().replicate(out / miss_block.cols(), 1);
    }
};

/// A new adapter for an out x in weight: zero, so that it changes nothing yet.
template <real S>
[[nodiscard]] miss_adapter<S> make_miss(index out, index in, const miss_options& options = {}) {
    detail::expects(out >= 1 && in >= 1 && options.r >= 1, "make_miss: out, in and r must be at least 1");
    detail::expects(options.mini_r >= 0 && (options.mini_r == 0 || out % options.mini_r == 0),
                    "make_miss: mini_r must divide the outputs");
    return {.miss_block = matrix<S>::Zero(options.r, options.mini_r == 0 ? out : options.mini_r), .out = out, .in = in};
}

/// One matrix, applied as a product of factors.
template <real S>
struct adapter_kind<miss_adapter<S>> {
    static constexpr std::string_view name = "miss";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("miss_block"), a.miss_block);
    }
    using applied = applied_factors<miss_adapter<S>>;
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_MISS_HPP
