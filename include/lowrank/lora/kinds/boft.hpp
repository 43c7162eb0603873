// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_BOFT_HPP
#define LOWRANK_LORA_KINDS_BOFT_HPP

/// \file
/// BOFT: W' = diag(s) W R with R a product of m block-diagonal rotations in butterfly order.
///
///     auto a = lowrank::make_boft<float>(out, in, {.block_size = 4, .n_butterfly_factor = 2});   // R = I, s = 1
///     const auto layer = lowrank::rotate(lowrank::any_operator<float>(lowrank::as_operator(w)), a);
///     auto y = lowrank::apply(layer, x);
///
/// Liu et al., arXiv 2311.06243; parameters and permutations as in PEFT. The bias of the layer is not scaled. With m
/// factors of block size b every input reaches b 2^(m-1) others, at 2 m b flops an input.

#include <cmath>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/algebra/block_rotation.hpp>
#include <lowrank/lora/algebra/cayley.hpp>
#include <lowrank/lora/algebra/rotation.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// PEFT's defaults. Give the size of a block or the number of blocks; the other is 0.
struct boft_options {
    index block_size = 4;
    index block_num = 0;
    index n_butterfly_factor = 1;
};

/// Where factor `i` of BOFT with blocks of `b` finds its inputs: place k is coordinate `places[k]`. In each stretch of
/// b 2^i coordinates, block p couples the half blocks p and p + 2^i.
[[nodiscard]] inline std::vector<index> butterfly_places(index size, index b, index i) {
    const index stretch = b << i;
    detail::expects(b >= 2 && b % 2 == 0 && size % stretch == 0,
                    "butterfly_places: b must be even and b 2^i must divide the inputs");
    const index step = b / 2;  // half a block
    const index halves = stretch / step;
    std::vector<index> places(static_cast<std::size_t>(size));
    for (index first = 0; first < size; first += stretch) {
        for (index h = 0; h < halves; ++h) {
            const index coordinate = first + (h % 2 == 0 ? h / 2 : halves / 2 + h / 2) * step;
            for (index k = 0; k < step; ++k) {
                places[static_cast<std::size_t>(first + h * step + k)] = coordinate + k;
            }
        }
    }
    return places;
}

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
    [[nodiscard]] block_rotation<S> rotation() const {
        check();
        const index b = block_size();
        const index m = factor_count();
        block_rotation<S> r{.size = in};
        for (index i = m; i-- > 0;) {  // the last factor meets the inputs first
            rotation_factor<S> factor{.blocks = matrix<S>(b, in)};
            for (index first = 0; first < in; first += b) {
                factor.blocks.middleCols(first, b) = cayley(skew(i * in + first)).template cast<S>();
            }
            if (m > 1 && i > 0) {
                factor.places = butterfly_places(in, b, i);
            }
            r.factors.push_back(std::move(factor));
        }
        return r;
    }

    /// s.
    [[nodiscard]] vector<S> output_scale() const { return boft_s; }

    /// The gradients of boft_R and boft_s.
    [[nodiscard]] boft_adapter pull_back(const rotated_gradient<block_rotation<S>>& g) const {
        check();
        const index b = block_size();
        const index m = factor_count();
        detail::expects(static_cast<index>(g.rotation.factors.size()) == m && g.output_scale.size() == boft_s.size(),
                        "boft_adapter::pull_back: the gradient is not of this rotation");
        boft_adapter out{.boft_R = matrix<S>(boft_R.rows(), b), .boft_s = g.output_scale, .in = in};
        for (index i = 0; i < m; ++i) {
            const matrix<S>& blocks = g.rotation.factors[static_cast<std::size_t>(m - 1 - i)].blocks;
            for (index first = 0; first < in; first += b) {
                const matrix<double> k = skew(i * in + first);
                const matrix<double> dk =
                    cayley_backward(k, cayley(k), blocks.middleCols(first, b).template cast<double>());
                out.boft_R.middleRows(i * in + first, b) = (0.5 * (dk - dk.transpose())).template cast<S>();
            }
        }
        return out;
    }

private:
    void check() const {
        const index b = block_size();
        detail::expects(in >= 1 && b >= 1 && in % b == 0 && boft_R.rows() > 0 && boft_R.rows() % in == 0,
                        "boft_adapter: boft_R needs b columns and m * in rows, with b dividing in");
    }
    [[nodiscard]] matrix<double> skew(index row) const {
        const matrix<double> block = boft_R.middleRows(row, block_size()).template cast<double>();
        return 0.5 * (block - block.transpose());
    }
};

/// A new adapter for an out x in weight: R = I and s = 1, so that it changes nothing yet.
///
/// \pre Blocks divide the inputs; with m > 1 butterfly factors also b 2^(m-1) does, and b is even.
template <real S>
[[nodiscard]] boft_adapter<S> make_boft(index out, index in, const boft_options& options = {}) {
    detail::expects((options.block_size == 0) != (options.block_num == 0),
                    "make_boft: give block_size or block_num, the other is 0");
    detail::expects(options.block_size > 0 || (options.block_num > 0 && in % options.block_num == 0),
                    "make_boft: block_num must divide the inputs");
    const index b = options.block_size > 0 ? options.block_size : in / options.block_num;
    const index m = options.n_butterfly_factor;
    detail::expects_in_range("make_boft", "n_butterfly_factor", m, index{1}, index{32});
    detail::expects(out >= 0 && in >= 1 && in % b == 0, "make_boft: block_size must divide the inputs");
    detail::expects(m == 1 || (b % 2 == 0 && in % (b << (m - 1)) == 0),
                    "make_boft: several factors need an even block size, and block_size * 2^(factors - 1) dividing in");
    return {.boft_R = matrix<S>::Zero(m * in, b), .boft_s = vector<S>::Ones(out), .in = in};
}

/// A rotation of the inputs from its parameters.
template <real S>
struct adapter_kind<boft_adapter<S>> {
    static constexpr std::string_view name = "boft";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("boft_R"), a.boft_R);
        f(std::string_view("boft_s"), a.boft_s);
    }
    using applied = applied_rotation<boft_adapter<S>>;
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_BOFT_HPP
