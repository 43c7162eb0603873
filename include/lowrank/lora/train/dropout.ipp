// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_TRAIN_DROPOUT_IPP
#define LOWRANK_LORA_TRAIN_DROPOUT_IPP

#include <lowrank/lora/train/dropout.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include <lowrank/core/check.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/workspace.hpp>

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

namespace detail {

/// Columns dropped out at a time: their scratch stays in cache.
inline constexpr index dropout_panel = 64;

/// Calls `body(first, count, dropped x)` for panels of columns, for all of them at once without dropout.
template <real S, class F>
void for_dropped_panels(const dropout_key& key, const const_column_view<S>& x, workspace& ws, F&& body) {
    if (key.probability == 0) {
        body(index{0}, x.cols(), x);
        return;
    }
    const workspace::frame scope(ws);
    auto panel = ws.take<S>(x.rows(), std::min(dropout_panel, x.cols()));
    for (index first = 0; first < x.cols(); first += dropout_panel) {
        const index count = std::min(dropout_panel, x.cols() - first);
        column_view<S> dropped(panel.data(), x.rows(), count);
        apply_dropout<S>(key, first, some_columns(x, first, count), dropped);
        body(first, count, const_column_view<S>(dropped));
    }
}

/// The way back: `body(first, count, dropped x, dx)` adds to a dX that is null or of this panel, and what it adds is
/// dropped as X was.
template <real S, class F>
void for_dropped_panels_back(const dropout_key& key, const const_column_view<S>& x, column_view<S>* dx, workspace& ws,
                             F&& body) {
    for_dropped_panels<S>(key, x, ws, [&](index first, index count, const const_column_view<S>& dropped) {
        if (dx == nullptr || key.probability == 0) {
            body(first, count, dropped, dx);
            return;
        }
        const workspace::frame scope(ws);
        auto back = ws.take<S>(x.rows(), count);
        back.setZero();
        body(first, count, dropped, &back);
        add_dropout<S>(key, first, back, some_columns(*dx, first, count));
    });
}

}  // namespace detail

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
