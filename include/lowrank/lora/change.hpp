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
/// The alternatives: a low-rank sum, scales around one, lengths of rows or columns (DoRA), a transform of rows
/// (rotations, entrywise products), added rows, another weight. `at_strength` is the one place that says what a
/// strength t means: W + t (W' - W).

#include <concepts>
#include <functional>
#include <memory>
#include <type_traits>
#include <utility>
#include <variant>

#include <lowrank/core/check.hpp>
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
    void add_rows(double factor, index first, column_view<double> to) const {
        for (index i = 0; i < to.cols(); ++i) {
            const vector<double> row = left.row(first + i).template cast<double>();
            for (index j = 0; j < to.rows(); ++j) {
                double sum = 0;
                for (index k = 0; k < left.cols(); ++k) {
                    sum += row(k) * static_cast<double>(right(k, j));
                }
                to(j, i) += factor * sum;
            }
        }
    }
};

/// diag(row_scale) (W + delta) diag(column_scale). Empty scales are ones.
template <real S>
struct scaled_change {
    low_rank<S> delta = {};
    vector<S> row_scale = {};
    vector<S> column_scale = {};
};

/// DoRA: W + strength (diag(magnitude / n) (W + delta) - W) with n the lengths of the rows of W + delta, or the same
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
[[nodiscard]] vector<S> scale_at_strength(const vector<S>& scale, double t) {
    vector<S> out(scale.size());
    for (index i = 0; i < scale.size(); ++i) {
        out(i) = t == 1 ? scale(i) : static_cast<S>(1 + t * (static_cast<double>(scale(i)) - 1));
    }
    return out;
}

/// diag(k) (W + D) at strength t as diag(c) (W + diag(t k / c) D) with c = 1 + t (k - 1), for rows or columns. A c of
/// zero, which would lose D, becomes a number that only D survives.
template <real S>
[[nodiscard]] scaled_change<S> one_sided_at_strength(low_rank<S> delta, const vector<double>& k, bool of_columns,
                                                     double t) {
    vector<S> c(k.size());
    for (index i = 0; i < k.size(); ++i) {
        c(i) = static_cast<S>(1 + t * (k(i) - 1));
        if (delta.rank() == 0 || t == 1) {
            continue;
        }
        c(i) = c(i) != S(0) ? c(i) : S(1e-30F);
        const auto factor = static_cast<S>(t * k(i) / static_cast<double>(c(i)));
        if (of_columns) {
            delta.right.col(i) *= factor;
        } else {
            delta.left.row(i) *= factor;
        }
    }
    return of_columns ? scaled_change<S>{.delta = std::move(delta), .column_scale = std::move(c)}
                      : scaled_change<S>{.delta = std::move(delta), .row_scale = std::move(c)};
}

/// W -> W + t (f(W) - W). It has no inverse here: the receipt of a merge then holds the old weight.
struct rows_at_strength {
    any_row_transform f;
    double t;

    [[nodiscard]] bool fits(index out, index in) const { return f.fits(out, in); }
    void forward(index first, column_view<double> rows, workspace& ws) const {
        const workspace::frame scope(ws);
        auto all = ws.take<double>(rows.rows(), rows.cols());
        all = rows;
        f.forward(first, all, ws);
        rows += t * (all - rows);
    }
    void backward(index, column_view<double>, workspace&) const {}
};

/// W -> W + t D from W -> W + D, with its inverse.
struct added_at_strength {
    any_row_transform f;
    double t;

    [[nodiscard]] bool fits(index out, index in) const { return f.fits(out, in); }
    void forward(index first, column_view<double> rows, workspace& ws) const { add(t, first, rows, ws); }
    void backward(index first, column_view<double> rows, workspace& ws) const { add(-t, first, rows, ws); }

private:
    void add(double factor, index first, column_view<double> rows, workspace& ws) const {
        const workspace::frame scope(ws);
        auto d = ws.take<double>(rows.rows(), rows.cols());
        d.setZero();
        f.forward(first, d, ws);
        rows += factor * d;
    }
};

/// W -> W + D + E from W -> W + D and W -> W + E.
struct sum_of_added {
    any_row_transform d;
    any_row_transform e;

    [[nodiscard]] bool fits(index out, index in) const { return d.fits(out, in) && e.fits(out, in); }
    void forward(index first, column_view<double> rows, workspace& ws) const {
        d.forward(first, rows, ws);
        e.forward(first, rows, ws);
    }
    void backward(index first, column_view<double> rows, workspace& ws) const {
        d.backward(first, rows, ws);
        e.backward(first, rows, ws);
    }
};

/// W -> diag(row_scale) (W + delta) diag(column_scale), with an inverse where no scale is zero.
template <real S>
struct scaled_rows {
    scaled_change<S> change;

    [[nodiscard]] bool fits(index out, index in) const {
        const auto one = [](index factors, index scale, index has) {
            return (factors == 0 || factors == has) && (scale == 0 || scale == has);
        };
        return one(change.delta.rows(), change.row_scale.size(), out) &&
               one(change.delta.cols(), change.column_scale.size(), in);
    }
    void forward(index first, column_view<double> rows, workspace&) const {
        add_delta(1, first, rows);
        for (index i = 0; i < rows.cols(); ++i) {
            for (index j = 0; j < rows.rows(); ++j) {
                rows(j, i) *= scale(first + i, j);
            }
        }
    }
    void backward(index first, column_view<double> rows, workspace&) const {
        for (index i = 0; i < rows.cols(); ++i) {
            for (index j = 0; j < rows.rows(); ++j) {
                const double s = scale(first + i, j);
                rows(j, i) = s == 0 ? 0 : rows(j, i) / s;
            }
        }
        add_delta(-1, first, rows);
    }

private:
    void add_delta(double factor, index first, column_view<double> rows) const {
        if (change.delta.rank() > 0) {
            product_rows<S>{change.delta.left, change.delta.right}.add_rows(factor, first, rows);
        }
    }
    [[nodiscard]] double scale(index i, index j) const {
        return (change.row_scale.size() == 0 ? 1.0 : static_cast<double>(change.row_scale(i))) *
               (change.column_scale.size() == 0 ? 1.0 : static_cast<double>(change.column_scale(j)));
    }
};

/// W -> W + t (R - W). Without an inverse, as `rows_at_strength`.
template <real S>
struct replaced_rows {
    replacement<S> change;

    [[nodiscard]] bool fits(index out, index in) const {
        return out == change.weight.rows() && in == change.weight.cols();
    }
    void forward(index first, column_view<double> rows, workspace&) const {
        for (index i = 0; i < rows.cols(); ++i) {
            for (index j = 0; j < rows.rows(); ++j) {
                const auto wanted = static_cast<double>(change.weight(first + i, j));
                rows(j, i) = change.strength == 1 ? wanted : rows(j, i) + change.strength * (wanted - rows(j, i));
            }
        }
    }
    void backward(index, column_view<double>, workspace&) const {}
};

template <class... F>
struct overloaded : F... {
    using F::operator()...;
};
template <class... F>
overloaded(F...) -> overloaded<F...>;

}  // namespace detail

/// W + t (W' - W) from W'. \cost copies nothing but what the strength is put into.
template <real S>
[[nodiscard]] weight_change<S> at_strength(weight_change<S> change, double t) {
    if (t == 1) {
        return change;
    }
    using result_type = weight_change<S>;
    return std::visit(
        detail::overloaded{
            [&](low_rank<S>& d) -> result_type {
                d.left *= static_cast<S>(t);
                return std::move(d);
            },
            [&](scaled_change<S>& c) -> result_type {
                const bool rows = c.row_scale.size() != 0;
                const bool columns = c.column_scale.size() != 0;
                if ((rows && columns) || (!rows && !columns)) {
                    return row_change{detail::rows_at_strength{detail::scaled_rows<S>{std::move(c)}, t}};
                }
                const vector<double> k = (columns ? c.column_scale : c.row_scale).template cast<double>();
                return detail::one_sided_at_strength(std::move(c.delta), k, columns, t);
            },
            [&](magnitude_change<S>& c) -> result_type {
                c.strength *= t;
                return std::move(c);
            },
            [&](row_change& c) -> result_type {
                return row_change{detail::rows_at_strength{std::move(c.rows), t}, c.acts_on_transpose};
            },
            [&](added_rows_change& c) -> result_type {
                return added_rows_change{detail::added_at_strength{std::move(c.rows), t}, c.acts_on_transpose};
            },
            [&](replacement<S>& c) -> result_type {
                c.strength *= t;
                return std::move(c);
            }},
        change);
}

/// A magnitude as scales, given the lengths of the rows (or columns) of W + delta. A row of length 0 becomes 0 whatever
/// its magnitude.
template <real S>
[[nodiscard]] scaled_change<S> resolved(magnitude_change<S> change, const vector<double>& lengths) {
    detail::expects(lengths.size() == change.magnitude.size(), "resolved: as many lengths as magnitudes");
    vector<double> k(lengths.size());
    for (index i = 0; i < k.size(); ++i) {
        k(i) = lengths(i) == 0 ? 0 : static_cast<double>(change.magnitude(i)) / lengths(i);  // NaN stays NaN
    }
    return detail::one_sided_at_strength(std::move(change.delta), k, change.of_columns, change.strength);
}

/// The same change of W^T.
template <real S>
[[nodiscard]] weight_change<S> transposed(weight_change<S> change) {
    using result_type = weight_change<S>;
    const auto flip = [](low_rank<S>& d) {
        return low_rank<S>{.left = d.right.transpose(), .right = d.left.transpose()};
    };
    return std::visit(
        detail::overloaded{
            [&](low_rank<S>& d) -> result_type { return flip(d); },
            [&](scaled_change<S>& c) -> result_type {
                return scaled_change<S>{flip(c.delta), std::move(c.column_scale), std::move(c.row_scale)};
            },
            [&](magnitude_change<S>& c) -> result_type {
                return magnitude_change<S>{flip(c.delta), std::move(c.magnitude), !c.of_columns, c.strength};
            },
            [](row_change& c) -> result_type {
                return row_change{std::move(c.rows), !c.acts_on_transpose};
            },
            [](added_rows_change& c) -> result_type {
                return added_rows_change{std::move(c.rows), !c.acts_on_transpose};
            },
            [](replacement<S>& c) -> result_type {
                return replacement<S>{matrix<S>(c.weight.transpose()), c.strength};
            }},
        change);
}

/// Two factors side by side: their sum as one product.
template <real S>
[[nodiscard]] low_rank<S> stacked(const low_rank<S>& a, const low_rank<S>& b) {
    detail::expects_shape("stacked", "b", b.rows(), b.cols(), a.rows(), a.cols());
    low_rank<S> sum{.left = matrix<S>(a.rows(), a.rank() + b.rank()),
                    .right = matrix<S>(a.rank() + b.rank(), a.cols())};
    sum.left.leftCols(a.rank()) = a.left;
    sum.left.rightCols(b.rank()) = b.left;
    sum.right.topRows(a.rank()) = a.right;
    sum.right.bottomRows(b.rank()) = b.right;
    return sum;
}

/// W + D + E from W + D and W + E. \pre Both are sums (`is_sum`), and act on the rows or the columns alike if both are
/// added rows.
template <real S>
[[nodiscard]] weight_change<S> sum(const weight_change<S>& a, const weight_change<S>& b) {
    detail::expects(is_sum(a) && is_sum(b), "sum: both changes must be sums");
    const auto* d = std::get_if<low_rank<S>>(&a);
    const auto* e = std::get_if<low_rank<S>>(&b);
    if (d != nullptr && e != nullptr) {
        return stacked(*d, *e);
    }
    const bool flip = std::get<added_rows_change>(d == nullptr ? a : b).acts_on_transpose;
    const auto rows_of = [flip](const weight_change<S>& c) -> any_row_transform {
        if (const auto* f = std::get_if<low_rank<S>>(&c)) {
            return flip ? added_rows(product_rows<S>{f->right.transpose(), f->left.transpose()})
                        : added_rows(product_rows<S>{f->left, f->right});
        }
        const auto& rows = std::get<added_rows_change>(c);
        detail::expects(rows.acts_on_transpose == flip, "sum: one change adds rows, the other columns");
        return rows.rows;
    };
    return added_rows_change{detail::sum_of_added{rows_of(a), rows_of(b)}, flip};
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_CHANGE_HPP
