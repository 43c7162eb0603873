// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_TRAIN_DROPOUT_IPP
#define LOWRANK_LORA_TRAIN_DROPOUT_IPP

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include <lowrank/core/check.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/lora/train/dropout.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// The random bits of the columns of a mask, and the threshold below which an entry is dropped.
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
    /// Entries with a word below it are dropped: probability * 2^32.
    static std::uint64_t threshold_of(double probability) {
        expects(0 <= probability && probability < 1, "dropout: probability must be in [0, 1)");
        return static_cast<std::uint64_t>(probability * 0x1p32);
    }

    std::uint64_t seed_;
    std::uint64_t first_;
    std::uint64_t threshold_;
};

}  // namespace detail

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

#ifdef LOWRANK_COMPILED
#define LOWRANK_DROPOUT_OF(S)                                                                        \
    template void apply_dropout<S>(const dropout_key&, index, const_column_view<S>, column_view<S>); \
    template void add_dropout<S>(const dropout_key&, index, const_column_view<S>, column_view<S>);
LOWRANK_DROPOUT_OF(float)
LOWRANK_DROPOUT_OF(double)
#undef LOWRANK_DROPOUT_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_TRAIN_DROPOUT_IPP
