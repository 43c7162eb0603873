// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_ALGEBRA_BLOCK_ROTATION_HPP
#define LOWRANK_LORA_ALGEBRA_BLOCK_ROTATION_HPP

/// \file
/// A rotation of the inputs as a sequence of block-diagonal factors, each on its own order of the coordinates.
///
///     const auto r = rotating.rotation();              // of a rotating adapter
///     auto z = lowrank::apply(r, x);                   // 2 in b n flops a factor, b the block size
///     double error = lowrank::orthogonality_error(r);  // max |B^T B - I| over the blocks

#include <span>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// One block-diagonal factor. Block k acts on the coordinates `places[k b .. k b + b)`.
template <real S>
struct rotation_factor {
    matrix<S> blocks = {};           ///< b x (b count), the blocks side by side; one block alone is used everywhere
    std::vector<index> places = {};  ///< a permutation of the coordinates; empty: in order

    [[nodiscard]] index block_size() const { return blocks.rows(); }
    [[nodiscard]] bool shared(index size) const { return blocks.cols() != size; }
};

/// The square linear operator F_m ... F_2 F_1 of block-diagonal factors, F_1 = `factors[0]` applied first.
template <real S>
struct block_rotation {
    using scalar = S;

    index size = 0;
    std::vector<rotation_factor<S>> factors = {};

    [[nodiscard]] index rows() const noexcept { return size; }
    [[nodiscard]] index cols() const noexcept { return size; }

    /// Y += alpha F_m ... F_1 X.
    void add_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const;
    /// Y += alpha F_1^T ... F_m^T X.
    void add_transposed_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const;

    /// The same shapes, blocks zero.
    [[nodiscard]] block_rotation zero_gradient() const {
        block_rotation g = *this;
        for (auto& f : g.factors) {
            f.blocks.setZero();
        }
        return g;
    }

    /// Adds to the blocks of `gradient`, and R^T dZ to `*dx` unless it is null.
    void backward(const_column_view<S> x, const_column_view<S> dz, block_rotation& gradient, column_view<S>* dx,
                  workspace& ws) const;

    template <real D>
    [[nodiscard]] block_rotation<D> cast() const {
        block_rotation<D> out{.size = size};
        for (const auto& f : factors) {
            out.factors.push_back({.blocks = copy_in<D>(f.blocks), .places = f.places});
        }
        return out;
    }

private:
    void check(const char* function, const const_column_view<S>& x, const const_column_view<S>& y) const;
    void run(bool transposed, S alpha, const const_column_view<S>& x, column_view<S>& y, workspace& ws) const;
};

/// max |B^T B - I| over all blocks, computed in double: 0 for exact rotations, up to rounding.
template <real S>
[[nodiscard]] double orthogonality_error(const block_rotation<S>& r);

/// The entries of a rotation that a gradient of it has.
template <real S>
[[nodiscard]] std::vector<std::span<S>> rotation_spans(block_rotation<S>& r) {
    std::vector<std::span<S>> all;
    for (auto& f : r.factors) {
        all.emplace_back(f.blocks.data(), static_cast<std::size_t>(f.blocks.size()));
    }
    return all;
}

/// The divisor of `in` nearest to `wanted`, the smaller of two equally near: what PEFT makes of a block size (or of a
/// number of blocks) that does not divide. \pre in, wanted >= 1.
LOWRANK_API [[nodiscard]] index rotation_block_size(index in, index wanted);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/algebra/block_rotation.ipp>
#endif

#endif  // LOWRANK_LORA_ALGEBRA_BLOCK_ROTATION_HPP
