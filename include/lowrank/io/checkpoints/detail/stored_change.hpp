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
#include <utility>
#include <variant>
#include <vector>

#include <lowrank/core/checksum.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/scalar.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/io/containers/dtype.hpp>
#include <lowrank/io/peft/peft_modules.hpp>
#include <lowrank/lora/change.hpp>

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
        return added_rows(columns ? product_rows<float>{.left = right.transpose(), .right = left.transpose()}
                                  : product_rows<float>{.left = left, .right = right});
    }
    [[nodiscard]] std::uint64_t checksum_as_rows() const {
        const auto bytes = [](const matrix<float>& m) { return static_cast<std::size_t>(m.size()) * sizeof(float); };
        return rows ? rows_checksum : checksum(left.data(), bytes(left), checksum(right.data(), bytes(right), 1));
    }
};

/// What a module does to its weight as the checkpoint stores it, `has.out` x `has.in`.
LOWRANK_INLINE [[nodiscard]] stored_change stored_change_of(const peft_change& change, module_shape has,
                                                            bool transposed, double strength) {
    stored_change stored{.left = matrix<float>(has.out, 0), .right = matrix<float>(0, has.in)};
    const auto take_factors = [&](low_rank<float>& d) {
        if (d.left.size() != 0 || d.right.size() != 0) {
            stored.left = std::move(d.left);
            stored.right = std::move(d.right);
        }
    };
    const auto take_rows = [&](auto& c, bool is_additive) {
        stored.rows = std::move(c.rows);
        stored.acts_on_transpose = c.acts_on_transpose;
        stored.is_additive = is_additive;
    };
    weight_change<float> c = at_strength(change.weight, strength);
    if (transposed) {
        c = lowrank::transposed(std::move(c));
    }
    std::visit(
        overloaded{[&](low_rank<float>& d) { take_factors(d); },
                   [&](scaled_change<float>& s) {
                       take_factors(s.delta);
                       stored.row_scale = std::move(s.row_scale);
                       stored.column_scale = std::move(s.column_scale);
                       const index size = stored.column_scale.size();
                       const index taps = size != 0 && !transposed ? stored.right.cols() / size : 1;
                       if (taps > 1) {  // one scale for all taps of a channel
                           stored.column_scale =
                               vector<float>(stored.column_scale.transpose().replicate(taps, 1).reshaped());
                       }
                   },
                   [&](magnitude_change<float>& m) {
                       take_factors(m.delta);
                       stored.magnitude = std::move(m.magnitude);
                       stored.magnitude_of_columns = m.of_columns;
                       stored.strength = m.strength;
                   },
                   [&](row_change& r) { take_rows(r, false); }, [&](added_rows_change& r) { take_rows(r, true); },
                   [&](replacement<float>& r) { stored.rows = replaced_rows<float>{std::move(r)}; }},
        c);
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

/// Turns DoRA's magnitude into scales.
template <storage T>
void resolve_magnitude(std::span<const std::byte> bytes, stored_change& change) {
    if (change.magnitude.size() == 0) {
        return;
    }
    const vector<double> norms = changed_norms<T>(bytes, change).cwiseSqrt();
    scaled_change<float> scaled =
        resolved(magnitude_change<float>{.delta = {std::move(change.left), std::move(change.right)},
                                         .magnitude = std::move(change.magnitude),
                                         .of_columns = change.magnitude_of_columns,
                                         .strength = change.strength},
                 norms);
    change.left = std::move(scaled.delta.left);
    change.right = std::move(scaled.delta.right);
    change.row_scale = std::move(scaled.row_scale);
    change.column_scale = std::move(scaled.column_scale);
    change.magnitude.resize(0);
}

/// A tensor of an adapter that takes the place of one of the base, borrowed.
struct replaced_tensor {
    dtype type = dtype::f32;
    std::span<const std::byte> bytes = {};
    index rows = 0;
    index cols = 0;
    double strength = 1;      ///< old + strength (new - old)
    std::size_t adapter = 0;  ///< Its number.
};

/// W -> W + strength (the tensor - W), converted row by row.
struct replaced_by_tensor {
    replaced_tensor by;

    [[nodiscard]] bool fits(index out, index in) const { return out == by.rows && in == by.cols; }
    void forward(index first, column_view<double> rows, workspace&) const {
        std::vector<double> wanted(static_cast<std::size_t>(by.cols));
        const std::size_t length = wanted.size() * (bits_of(by.type) / 8);
        for (index i = 0; i < rows.cols(); ++i) {
            convert_elements<double>(by.type, by.bytes.subspan(static_cast<std::size_t>(first + i) * length, length),
                                     wanted);
            for (index j = 0; j < rows.rows(); ++j) {
                const double x = wanted[static_cast<std::size_t>(j)];
                rows(j, i) = by.strength == 1 ? x : rows(j, i) + by.strength * (x - rows(j, i));
            }
        }
    }
    void backward(index, column_view<double>, workspace&) const {}
};

/// W -> second(first(W)). Without an inverse, as `replaced_by_tensor`.
struct one_after_another {
    any_row_transform first;
    any_row_transform second;

    [[nodiscard]] bool fits(index out, index in) const { return first.fits(out, in) && second.fits(out, in); }
    void forward(index at, column_view<double> rows, workspace& ws) const {
        first.forward(at, rows, ws);
        second.forward(at, rows, ws);
    }
    void backward(index, column_view<double>, workspace&) const {}
};

/// What is done to a tensor that is replaced before it is changed. \pre `c` is `rows` of the tensor as it is stored, or no
/// `rows`.
LOWRANK_INLINE [[nodiscard]] stored_change after_replacement(const replaced_tensor& by, stored_change c) {
    const std::uint64_t sums[] = {checksum(by.bytes.data(), by.bytes.size(), static_cast<std::uint64_t>(by.type)),
                                  checksum(&by.strength, sizeof by.strength, 0), c.rows_checksum};
    any_row_transform then = replaced_by_tensor{by};
    if (!c.rows) {
        switch (by.type) {
            case dtype::f64: resolve_magnitude<double>(by.bytes, c); break;
            case dtype::f32: resolve_magnitude<float>(by.bytes, c); break;
            case dtype::f16: resolve_magnitude<half>(by.bytes, c); break;
            default: resolve_magnitude<bfloat16>(by.bytes, c); break;
        }
        const bool changes = c.left.cols() != 0 || c.row_scale.size() != 0 || c.column_scale.size() != 0;
        if (changes) {
            c.rows = scaled_rows<float>{{.delta = {.left = c.left, .right = c.right},
                                         .row_scale = c.row_scale,
                                         .column_scale = c.column_scale}};
        }
    }
    stored_change out{.left = matrix<float>(by.rows, 0), .right = matrix<float>(0, by.cols)};
    out.rows = c.rows ? any_row_transform(one_after_another{std::move(then), *c.rows}) : std::move(then);
    out.rows_checksum = checksum(sums, sizeof sums, 0);
    return out;
}

/// The changes of one tensor by all adapters, formed when the tensor is written: together they may be larger than
/// memory.
struct planned_change {
    std::vector<std::function<stored_change()>> parts = {};
    bool scales = false;
    std::size_t scaled_by = 0;                     ///< The adapter that does.
    std::optional<bool> acts_on_transpose = {};    ///< Of the parts that are `rows`.
    std::optional<replaced_tensor> replaced = {};  ///< What the parts change instead of the base's tensor.

    [[nodiscard]] stored_change form() const {
        stored_change sum;
        for (std::size_t i = 0; i < parts.size(); ++i) {
            i == 0 ? void(sum = parts[i]()) : sum.add(parts[i]());
        }
        return replaced ? after_replacement(*replaced, std::move(sum)) : sum;
    }
};

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_CHECKPOINTS_DETAIL_STORED_CHANGE_HPP
