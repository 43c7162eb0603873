// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_CHANGE_HPP
#define LOWRANK_LORA_CHANGE_HPP

/// \file
/// What an adapter does to a weight, whatever its kind: one closed sum that merging, auditing and converting know.
///
///     lowrank::weight_change<float> change = lowrank::any_adapter<float>(adapter).change();
///     change = lowrank::at_strength(std::move(change), 0.5);            // W + 0.5 (W' - W)
///     auto receipt = lowrank::merge(lowrank::weight_view<float>(w), change);          // merge/merge_change.hpp
///
/// The alternatives: a low-rank sum, scales around one, lengths of rows or columns, a transform of rows
/// (rotations, entrywise products), added rows, another weight. `at_strength` is the one place that says what a
/// strength t means: W + t (W' - W).

#include <concepts>
#include <functional>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>
#include <variant>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/low_rank.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A map from old rows of a weight to new ones and, as nearly as it can, back. Rows first ... first + n are the columns
/// of an in x n matrix in double, changed in place. `fits(out, in)` says for which weights it is meant.
template <class F>
concept row_transform = requires(const F& f, index first, column_view<double> rows, workspace& ws) {
    { f.fits(first, first) } -> std::convertible_to<bool>;
    f.forward(first, rows, ws);
    f.backward(first, rows, ws);
};

/// A `row_transform` of any type behind one, shared by its copies.
class any_row_transform {
public:
    template <row_transform F>
    requires(!std::same_as<F, any_row_transform>) any_row_transform(F transform) {  // NOLINT: conversion is the point
        const auto f = std::make_shared<const F>(std::move(transform));
        fits_ = [f](index out, index in) { return f->fits(out, in); };
        forward_ = [f](index first, column_view<double> rows, workspace& ws) { f->forward(first, rows, ws); };
        backward_ = [f](index first, column_view<double> rows, workspace& ws) { f->backward(first, rows, ws); };
    }

    [[nodiscard]] bool fits(index out, index in) const { return fits_(out, in); }
    void forward(index first, column_view<double> rows, workspace& ws) const { forward_(first, rows, ws); }
    void backward(index first, column_view<double> rows, workspace& ws) const { backward_(first, rows, ws); }

private:
    std::function<bool(index, index)> fits_;
    std::function<void(index, column_view<double>, workspace&)> forward_;
    std::function<void(index, column_view<double>, workspace&)> backward_;
};

/// A matrix that adds some of its rows, one a column, times a factor.
template <class D>
concept row_source = requires(const D& d, double factor, index first, column_view<double> rows) {
    { d.rows() } -> std::convertible_to<index>;
    { d.cols() } -> std::convertible_to<index>;
    d.add_rows(factor, first, rows);
};

/// The row transform W -> W + D, for a D of which no more than a few rows are ever formed.
template <row_source D>
class added_rows {
public:
    explicit added_rows(D d) : d_(std::move(d)) {}

    [[nodiscard]] bool fits(index out, index in) const { return out == d_.rows() && in == d_.cols(); }
    void forward(index first, column_view<double> rows, workspace&) const { d_.add_rows(1, first, rows); }
    void backward(index first, column_view<double> rows, workspace&) const { d_.add_rows(-1, first, rows); }

private:
    D d_;
};

/// Rows of a product of two factors, formed in double.
template <real S>
struct product_rows {
    matrix<S> left = {};
    matrix<S> right = {};

    [[nodiscard]] index rows() const noexcept { return left.rows(); }
    [[nodiscard]] index cols() const noexcept { return right.cols(); }
    void add_rows(double factor, index first, column_view<double> to) const;
};

/// diag(row_scale) (W + delta) diag(column_scale). Empty scales are ones.
template <real S>
struct scaled_change {
    low_rank<S> delta = {};
    vector<S> row_scale = {};
    vector<S> column_scale = {};
};

/// W + strength (diag(magnitude / n) (W + delta) - W) with n the lengths of the rows of W + delta, or the same
/// with columns.
template <real S>
struct magnitude_change {
    low_rank<S> delta = {};
    vector<S> magnitude = {};
    bool of_columns = false;
    double strength = 1;
};

/// New rows from old ones; of W^T, which is new columns from old ones, with `acts_on_transpose`.
struct row_change {
    any_row_transform rows;
    bool acts_on_transpose = false;
};

/// The same where what is added to a row does not depend on it.
struct added_rows_change {
    any_row_transform rows;
    bool acts_on_transpose = false;
};

namespace detail {

/// Column i of `to` += factor * row first + i of left right, in double.
template <real S>
void add_rows_of_product(double factor, const matrix<S>& left, const matrix<S>& right, index first,
                         column_view<double> to);

/// W -> W + D + E from W -> W + D and W -> W + E.
LOWRANK_API [[nodiscard]] any_row_transform sum_of_added(any_row_transform d, any_row_transform e);

}  // namespace detail

/// W + strength (weight - W).
template <real S>
struct replacement {
    matrix<S> weight = {};
    double strength = 1;
};

/// What an adapter does to a weight.
template <real S>
using weight_change =
    std::variant<low_rank<S>, scaled_change<S>, magnitude_change<S>, row_change, added_rows_change, replacement<S>>;

/// True if the change is a sum W + D with a D that does not depend on W: then the order of several does not matter.
template <real S>
[[nodiscard]] bool is_sum(const weight_change<S>& change) {
    return std::holds_alternative<low_rank<S>>(change) || std::holds_alternative<added_rows_change>(change);
}

/// The factors in a change, scaled or not; null where there are none.
template <real S>
[[nodiscard]] const low_rank<S>* factors_of(const weight_change<S>& change) {
    if (const auto* scaled = std::get_if<scaled_change<S>>(&change)) {
        return &scaled->delta;
    }
    const auto* lengths = std::get_if<magnitude_change<S>>(&change);
    return lengths != nullptr ? &lengths->delta : std::get_if<low_rank<S>>(&change);
}

namespace detail {

/// 1 + t (scale - 1); an empty scale stays empty.
template <real S>
[[nodiscard]] vector<S> scale_at_strength(const vector<S>& scale, double t);

/// W -> diag(row_scale) (W + delta) diag(column_scale), with an inverse where no scale is zero.
template <real S>
struct scaled_rows {
    scaled_change<S> change;

    [[nodiscard]] bool fits(index out, index in) const;
    void forward(index first, column_view<double> rows, workspace& ws) const;
    void backward(index first, column_view<double> rows, workspace& ws) const;

private:
    void add_delta(double factor, index first, column_view<double> rows) const;
    [[nodiscard]] double scale(index i, index j) const;
};

/// W -> W + t (R - W). It has no inverse here: the receipt of a merge then holds the old weight.
template <real S>
struct replaced_rows {
    replacement<S> change;

    [[nodiscard]] bool fits(index out, index in) const;
    void forward(index first, column_view<double> rows, workspace& ws) const;
    void backward(index /*first*/, column_view<double> /*rows*/, workspace& /*ws*/) const {}
};

/// Any number of products of one shape side by side: their sum as one product.
template <real S>
[[nodiscard]] low_rank<S> side_by_side(std::span<const low_rank<S>* const> all, index rows, index cols);

template <class... F>
struct overloaded : F... {
    using F::operator()...;
};
template <class... F>
overloaded(F...) -> overloaded<F...>;

}  // namespace detail

/// W + t (W' - W) from W'. \cost copies nothing but what the strength is put into.
template <real S>
[[nodiscard]] weight_change<S> at_strength(weight_change<S> change, double t);

/// A magnitude as scales, given the lengths of the rows (or columns) of W + delta. A row of length 0 becomes 0 whatever
/// its magnitude.
template <real S>
[[nodiscard]] scaled_change<S> resolved(magnitude_change<S> change, const vector<double>& lengths);

/// The same change of W^T.
template <real S>
[[nodiscard]] weight_change<S> transposed(weight_change<S> change);

/// Two products side by side: their sum as one product.
template <real S>
[[nodiscard]] low_rank<S> stacked(const low_rank<S>& a, const low_rank<S>& b);

/// W + D + E from W + D and W + E. \pre Both are sums (`is_sum`), and act on the rows or the columns alike if both are
/// added rows.
template <real S>
[[nodiscard]] weight_change<S> sum(const weight_change<S>& a, const weight_change<S>& b);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/change.ipp>
#endif

#endif  // LOWRANK_LORA_CHANGE_HPP
