// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_TRAIN_DROPOUT_HPP
#define LOWRANK_LORA_TRAIN_DROPOUT_HPP

/// \file
/// Inverted dropout whose mask is a pure function of where an entry is, so that it is never stored.
///
///     const lowrank::dropout_key key{.probability = 0.1, .seed = 1, .layer = 3, .step = 40};
///     lowrank::apply_dropout(key, 0, x, kept);            // backward calls it again and gets the same mask
///
/// An entry survives with probability 1 - p and is then divided by 1 - p (Srivastava et al., JMLR 15, 2014).

#include <algorithm>
#include <cstdint>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Names one mask. The same key gives the same mask on every machine and for every split of the batch.
struct dropout_key {
    double probability = 0;   ///< Of dropping, in [0, 1). 0 switches dropout off.
    std::uint64_t seed = 0;   ///< Of the training run.
    std::uint64_t layer = 0;  ///< Which layer.
    std::uint64_t step = 0;   ///< Which update.
    index first_column = 0;   ///< Number of the batch's first column: micro-batches of one step continue counting.
};

namespace detail {

/// The bits of one column of a mask, and what decides over survival.
class dropout_mask {
public:
    explicit dropout_mask(const dropout_key& key)
        : seed_(philox(key.seed, key.layer).bits64(key.step)),
          first_(static_cast<std::uint64_t>(key.first_column)),
          threshold_(threshold_of(key.probability)) {
        expects(key.first_column >= 0, "dropout: first_column must not be negative");
    }

    /// Calls `visit(row, survives)` for the rows of one column in order.
    template <class F>
    void for_column(index column, index rows, F&& visit) const {
        const philox rng(seed_, first_ + static_cast<std::uint64_t>(column));
        for (index row = 0; row < rows; row += 4) {
            const auto words = rng.block(static_cast<std::uint64_t>(row / 4));
            const index count = std::min<index>(4, rows - row);
            for (index k = 0; k < count; ++k) {
                visit(row + k, words[static_cast<std::size_t>(k)] >= threshold_);
            }
        }
    }

private:
    /// Words below it fall: probability * 2^32.
    static std::uint64_t threshold_of(double probability) {
        expects(0 <= probability && probability < 1, "dropout: probability must be in [0, 1)");
        return static_cast<std::uint64_t>(probability * 0x1p32);
    }

    std::uint64_t seed_;
    std::uint64_t first_;
    std::uint64_t threshold_;
};

}  // namespace detail

/// Y = mask(key) * X / (1 - p), entry by entry. Column j of X is column `first + j` of the mask. Y may be X.
///
/// \pre  X and Y have one shape; 0 <= p < 1.
/// \cost One random block per four entries.
template <real S>
void apply_dropout(const dropout_key& key, index first, const_column_view<S> x, column_view<S> y) {
    detail::expects_shape("apply_dropout", "y", y.rows(), y.cols(), x.rows(), x.cols());
    const detail::dropout_mask mask(key);
    const auto scale = static_cast<S>(1 / (1 - key.probability));
    for (index j = 0; j < x.cols(); ++j) {
        mask.for_column(first + j, x.rows(),
                        [&](index i, bool survives) { y(i, j) = survives ? scale * x(i, j) : S(0); });
    }
}

/// Y += mask(key) * X / (1 - p): the way back through `apply_dropout`.
template <real S>
void add_dropout(const dropout_key& key, index first, const_column_view<S> x, column_view<S> y) {
    detail::expects_shape("add_dropout", "y", y.rows(), y.cols(), x.rows(), x.cols());
    const detail::dropout_mask mask(key);
    const auto scale = static_cast<S>(1 / (1 - key.probability));
    for (index j = 0; j < x.cols(); ++j) {
        mask.for_column(first + j, x.rows(), [&](index i, bool survives) {
            if (survives) {
                y(i, j) += scale * x(i, j);
            }
        });
    }
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_TRAIN_DROPOUT_HPP
