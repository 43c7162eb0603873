// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CHECKPOINTS_DETAIL_STORED_CHANGE_HPP
#define LOWRANK_IO_CHECKPOINTS_DETAIL_STORED_CHANGE_HPP

/// \file
/// What adapters do to one tensor of a checkpoint, in the layout the checkpoint stores.
///
///     auto change = detail::stored_change_of(change_of(module), {.out = rows, .in = cols}, false, strength);
///     change.add(another);                                      // two sums are one

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include <lowrank/core/checksum.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/scalar.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/peft/peft_modules.hpp>
#include <lowrank/lora/merge/merge_transformed.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// One tensor's change: new = diag(row_scale) (old + left right) diag(column_scale), in the layout of the checkpoint,
/// dimensions beyond the second counted as columns. Empty scales are ones.
struct stored_change {
    matrix<float> left = {};
    matrix<float> right = {};
    vector<float> row_scale = {};
    vector<float> column_scale = {};
    vector<float> magnitude =
        {};  ///< DoRA: the scale is 1 + strength (magnitude / norm - 1), norms of old + left right.
    bool magnitude_of_columns = false;
    double strength = 1;  ///< Of a magnitude.
    /// All there is where it is set: new rows from old ones (OFT, BOFT, HRA, HiRA, MiSS of the form "bat", LoHa, LoKr).
    std::optional<any_row_transform> rows = {};
    bool acts_on_transpose = false;   ///< The checkpoint stores in x out.
    bool is_additive = false;         ///< `rows` adds to a row what does not depend on it.
    std::uint64_t rows_checksum = 0;  ///< Of what `rows` was made from.

    /// True if the order of this change and others of the tensor would matter.
    [[nodiscard]] bool scales() const noexcept {
        return row_scale.size() != 0 || column_scale.size() != 0 || magnitude.size() != 0 || (rows && !is_additive);
    }

    /// Adds a change of the same tensor. \pre neither scales.
    void add(const stored_change& other) {
        if (!rows && !other.rows) {
            const index r = left.cols();
            left.conservativeResize(left.rows(), r + other.left.cols());
            left.rightCols(other.left.cols()) = other.left;
            right.conservativeResize(r + other.right.rows(), right.cols());
            right.bottomRows(other.right.rows()) = other.right;
            return;
        }
        const bool columns = rows ? acts_on_transpose : other.acts_on_transpose;
        const std::uint64_t sums[] = {checksum_as_rows(), other.checksum_as_rows()};
        rows = sum_of_added(as_rows(columns), other.as_rows(columns));
        rows_checksum = checksum(sums, sizeof sums, 0);
        acts_on_transpose = columns;
        is_additive = true;
        left.resize(left.rows(), 0);
        right.resize(0, right.cols());
    }

private:
    [[nodiscard]] any_row_transform as_rows(bool columns) const {
        if (rows) {
            return *rows;
        }
        return as_any_row_transform(added_rows(columns
                                                   ? product_rows{.left = right.transpose(), .right = left.transpose()}
                                                   : product_rows{.left = left, .right = right}));
    }
    [[nodiscard]] std::uint64_t checksum_as_rows() const {
        const auto bytes = [](const matrix<float>& m) { return static_cast<std::size_t>(m.size()) * sizeof(float); };
        return rows ? rows_checksum : checksum(left.data(), bytes(left), checksum(right.data(), bytes(right), 1));
    }
};

/// The changes of one tensor by all adapters, formed when the tensor is written: together they may be larger than
/// memory.
struct planned_change {
    std::vector<std::function<stored_change()>> parts = {};
    bool scales = false;
    std::optional<bool> acts_on_transpose = {};  ///< Of the parts that are `rows`.

    [[nodiscard]] stored_change form() const {
        stored_change sum = parts.front()();
        for (std::size_t i = 1; i < parts.size(); ++i) {
            sum.add(parts[i]());
        }
        return sum;
    }
};

/// 1 + strength (scale - 1)
template <class = on_use>
[[nodiscard]] vector<float> scale_at_strength(const vector<float>& scale, double strength) {
    return (1 + strength * (scale.cast<double>().array() - 1)).cast<float>();
}

/// What a module does to its weight as the checkpoint stores it, `has.out` x `has.in`.
template <class = on_use>
[[nodiscard]] stored_change stored_change_of(const peft_change& change, module_shape has, bool transposed,
                                             double strength) {
    stored_change stored{.strength = strength};
    if (change.has_delta()) {
        // DoRA needs the change as it is for its norms.
        const matrix<float> left =
            (change.magnitude.size() != 0 ? 1.0F : static_cast<float>(strength)) * change.delta.left;
        stored.left = transposed ? matrix<float>(change.delta.right.transpose()) : left;
        stored.right = transposed ? matrix<float>(left.transpose()) : change.delta.right;
    } else {  // rows, or scales alone: any shape they fit
        stored.left = matrix<float>(has.out, 0);
        stored.right = matrix<float>(0, has.in);
    }
    if (change.rows) {
        stored.rows =
            change.is_additive ? added_at_strength(*change.rows, strength) : rows_at_strength(*change.rows, strength);
        stored.acts_on_transpose = transposed != change.acts_on_transpose;
        stored.is_additive = change.is_additive;
    }
    stored.magnitude = change.magnitude;
    stored.magnitude_of_columns = transposed != change.magnitude_of_inputs;
    const vector<float> by_out = scale_at_strength(change.output_scale, strength);
    vector<float> by_in = scale_at_strength(change.input_scale, strength);
    const index taps = by_in.size() != 0 && !transposed ? stored.right.cols() / by_in.size() : 1;
    if (taps > 1) {  // one scale for all taps of a channel
        by_in = vector<float>(by_in.transpose().replicate(taps, 1).reshaped());
    }
    stored.row_scale = transposed ? by_in : by_out;
    stored.column_scale = transposed ? by_out : by_in;
    return stored;
}

/// Squared lengths of the rows or columns of old + left right, in double. \cost one pass.
template <storage T>
[[nodiscard]] vector<double> changed_norms(std::span<const std::byte> bytes, const stored_change& c) {
    const index rows = c.left.rows();
    const index cols = c.right.cols();
    vector<double> norms = vector<double>::Zero(c.magnitude_of_columns ? cols : rows);
    const matrix<double> right_t = c.right.transpose().cast<double>();
    std::vector<T> row(static_cast<std::size_t>(cols));
    vector<double> sum(cols);
    for (index i = 0; i < rows; ++i) {
        std::memcpy(row.data(), bytes.data() + static_cast<std::size_t>(i * cols) * sizeof(T), row.size() * sizeof(T));
        for (index j = 0; j < cols; ++j) {
            sum(j) = static_cast<double>(static_cast<compute_t<T>>(row[static_cast<std::size_t>(j)]));
        }
        sum.noalias() += right_t * c.left.row(i).transpose().cast<double>();
        if (c.magnitude_of_columns) {
            norms.array() += sum.array().square();
        } else {
            norms(i) = sum.squaredNorm();
        }
    }
    return norms;
}

/// Turns DoRA's magnitude into scales: with k = m / n and c = 1 + strength (k - 1),
/// W + strength (diag(k) (W + D) - W) = diag(c) (W + diag(strength k / c) D).
template <storage T>
void resolve_magnitude(std::span<const std::byte> bytes, stored_change& change) {
    if (change.magnitude.size() == 0) {
        return;
    }
    const vector<double> norms = changed_norms<T>(bytes, change).cwiseSqrt();
    vector<float> scale(norms.size());
    for (index i = 0; i < norms.size(); ++i) {
        const double k = norms(i) > 0 ? static_cast<double>(change.magnitude(i)) / norms(i) : 0;
        const auto c = static_cast<float>(1 + change.strength * (k - 1));
        scale(i) = c != 0 ? c : 1e-30F;
        const auto factor = static_cast<float>(change.strength * k / static_cast<double>(scale(i)));
        if (change.strength == 1) {
            continue;
        }
        if (change.magnitude_of_columns) {
            change.right.col(i) *= factor;
        } else {
            change.left.row(i) *= factor;
        }
    }
    (change.magnitude_of_columns ? change.column_scale : change.row_scale) = std::move(scale);
    change.magnitude.resize(0);
}

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_CHECKPOINTS_DETAIL_STORED_CHANGE_HPP
