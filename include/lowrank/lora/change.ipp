// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_CHANGE_IPP
#define LOWRANK_LORA_CHANGE_IPP

#include <lowrank/lora/change.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>
#include <utility>
#include <variant>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
void product_rows<S>::add_rows(double factor, index first, column_view<double> to) const {
    detail::add_rows_of_product(factor, left, right, first, to);
}

namespace detail {

template <real S>
void add_rows_of_product(double factor, const matrix<S>& left, const matrix<S>& right, index first,
                         column_view<double> to) {
    for (index i = 0; i < to.cols(); ++i) {
        for (index j = 0; j < to.rows(); ++j) {
            double sum = 0;
            for (index k = 0; k < left.cols(); ++k) {
                sum += static_cast<double>(left(first + i, k)) * static_cast<double>(right(k, j));
            }
            to(j, i) += factor * sum;
        }
    }
}

template <real S>
low_rank<S> side_by_side(std::span<const low_rank<S>* const> all, index rows, index cols) {
    index rank = 0;
    for (const auto* d : all) {
        rank += d->rank();
    }
    low_rank<S> sum{.left = matrix<S>(rows, rank), .right = matrix<S>(rank, cols)};
    index at = 0;
    for (const auto* d : all) {
        const index k = d->rank();
        std::copy_n(d->left.data(), rows * k, sum.left.data() + at * rows);
        for (index j = 0; j < cols; ++j) {
            std::copy_n(d->right.data() + j * k, k, sum.right.data() + j * rank + at);
        }
        at += k;
    }
    return sum;
}

/// A copy of some rows in the workspace.
LOWRANK_INLINE column_view<double> copy_of(const column_view<double>& rows, workspace& ws) {
    auto copy = ws.take<double>(rows.rows(), rows.cols());
    for (index i = 0; i < rows.cols(); ++i) {
        for (index j = 0; j < rows.rows(); ++j) {
            copy(j, i) = rows(j, i);
        }
    }
    return copy;
}

template <real S>
vector<S> scale_at_strength(const vector<S>& scale, double t) {
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
        const dense_view<S> part =
            of_columns ? dense_view<S>(delta.right).middle_cols(i, 1) : dense_view<S>(delta.left).middle_rows(i, 1);
        for (index j = 0; j < part.cols(); ++j) {
            for (index k_row = 0; k_row < part.rows(); ++k_row) {
                part(k_row, j) *= factor;
            }
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
        auto all = copy_of(rows, ws);
        f.forward(first, all, ws);
        for (index i = 0; i < rows.cols(); ++i) {
            for (index j = 0; j < rows.rows(); ++j) {
                rows(j, i) += t * (all(j, i) - rows(j, i));
            }
        }
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
        add_scaled(factor, d, rows);
    }
};

/// W -> W + D + E from W -> W + D and W -> W + E.
struct both_added {
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

LOWRANK_BODY any_row_transform sum_of_added(any_row_transform d, any_row_transform e) {
    return both_added{std::move(d), std::move(e)};
}

template <real S>
bool scaled_rows<S>::fits(index out, index in) const {
    const auto one = [](index factors, index scale, index has) {
        return (factors == 0 || factors == has) && (scale == 0 || scale == has);
    };
    return one(change.delta.rows(), change.row_scale.size(), out) &&
           one(change.delta.cols(), change.column_scale.size(), in);
}

template <real S>
void scaled_rows<S>::forward(index first, column_view<double> rows, workspace&) const {
    add_delta(1, first, rows);
    for (index i = 0; i < rows.cols(); ++i) {
        for (index j = 0; j < rows.rows(); ++j) {
            rows(j, i) *= scale(first + i, j);
        }
    }
}

template <real S>
void scaled_rows<S>::backward(index first, column_view<double> rows, workspace&) const {
    for (index i = 0; i < rows.cols(); ++i) {
        for (index j = 0; j < rows.rows(); ++j) {
            const double s = scale(first + i, j);
            rows(j, i) = s == 0 ? 0 : rows(j, i) / s;
        }
    }
    add_delta(-1, first, rows);
}

template <real S>
void scaled_rows<S>::add_delta(double factor, index first, column_view<double> rows) const {
    if (change.delta.rank() > 0) {
        product_rows<S>{change.delta.left, change.delta.right}.add_rows(factor, first, rows);
    }
}

template <real S>
double scaled_rows<S>::scale(index i, index j) const {
    return (change.row_scale.size() == 0 ? 1.0 : static_cast<double>(change.row_scale(i))) *
           (change.column_scale.size() == 0 ? 1.0 : static_cast<double>(change.column_scale(j)));
}

template <real S>
bool replaced_rows<S>::fits(index out, index in) const {
    return out == change.weight.rows() && in == change.weight.cols();
}

template <real S>
void replaced_rows<S>::forward(index first, column_view<double> rows, workspace&) const {
    for (index i = 0; i < rows.cols(); ++i) {
        for (index j = 0; j < rows.rows(); ++j) {
            const auto wanted = static_cast<double>(change.weight(first + i, j));
            rows(j, i) = change.strength == 1 ? wanted : rows(j, i) + change.strength * (wanted - rows(j, i));
        }
    }
}

}  // namespace detail

template <real S>
weight_change<S> at_strength(weight_change<S> change, double t) {
    if (t == 1) {
        return change;
    }
    using result_type = weight_change<S>;
    return std::visit(
        detail::overloaded{
            [&](low_rank<S>& d) -> result_type {
                for (S& x : std::span(d.left.data(), static_cast<std::size_t>(d.left.size()))) {
                    x *= static_cast<S>(t);
                }
                return std::move(d);
            },
            [&](scaled_change<S>& c) -> result_type {
                const bool rows = c.row_scale.size() != 0;
                const bool columns = c.column_scale.size() != 0;
                if ((rows && columns) || (!rows && !columns)) {
                    return row_change{detail::rows_at_strength{detail::scaled_rows<S>{std::move(c)}, t}};
                }
                const vector<S>& scale = columns ? c.column_scale : c.row_scale;
                const vector<double> k = head_in<double>(scale, scale.size());
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

template <real S>
scaled_change<S> resolved(magnitude_change<S> change, const vector<double>& lengths) {
    detail::expects(lengths.size() == change.magnitude.size(), "resolved: as many lengths as magnitudes");
    vector<double> k(lengths.size());
    for (index i = 0; i < k.size(); ++i) {
        k(i) = lengths(i) == 0 ? 0 : static_cast<double>(change.magnitude(i)) / lengths(i);  // NaN stays NaN
    }
    return detail::one_sided_at_strength(std::move(change.delta), k, change.of_columns, change.strength);
}

template <real S>
weight_change<S> transposed(weight_change<S> change) {
    using result_type = weight_change<S>;
    const auto flip = [](low_rank<S>& d) {
        return low_rank<S>{.left = copy_in<S>(transposed(d.right)), .right = copy_in<S>(transposed(d.left))};
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
                return replacement<S>{copy_in<S>(transposed(c.weight)), c.strength};
            }},
        change);
}

template <real S>
low_rank<S> stacked(const low_rank<S>& a, const low_rank<S>& b) {
    detail::expects_shape("stacked", "b", b.rows(), b.cols(), a.rows(), a.cols());
    const std::array<const low_rank<S>*, 2> both{&a, &b};
    return detail::side_by_side<S>(both, a.rows(), a.cols());
}

template <real S>
weight_change<S> sum(const weight_change<S>& a, const weight_change<S>& b) {
    detail::expects(is_sum(a) && is_sum(b), "sum: both changes must be sums");
    const auto* d = std::get_if<low_rank<S>>(&a);
    const auto* e = std::get_if<low_rank<S>>(&b);
    if (d != nullptr && e != nullptr) {
        return stacked(*d, *e);
    }
    const bool flip = std::get<added_rows_change>(d == nullptr ? a : b).acts_on_transpose;
    const auto rows_of = [flip](const weight_change<S>& c) -> any_row_transform {
        if (const auto* f = std::get_if<low_rank<S>>(&c)) {
            return flip ? added_rows(product_rows<S>{copy_in<S>(transposed(f->right)), copy_in<S>(transposed(f->left))})
                        : added_rows(product_rows<S>{f->left, f->right});
        }
        const auto& rows = std::get<added_rows_change>(c);
        detail::expects(rows.acts_on_transpose == flip, "sum: one change adds rows, the other columns");
        return rows.rows;
    };
    return added_rows_change{detail::sum_of_added(rows_of(a), rows_of(b)), flip};
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_CHANGE_OF(S)                                                                         \
    template struct product_rows<S>;                                                                 \
    template vector<S> detail::scale_at_strength<S>(const vector<S>&, double);                       \
    template void detail::add_rows_of_product<S>(double, const matrix<S>&, const matrix<S>&, index,  \
                                                 column_view<double>);                               \
    template struct detail::scaled_rows<S>;                                                          \
    template struct detail::replaced_rows<S>;                                                        \
    template low_rank<S> detail::side_by_side<S>(std::span<const low_rank<S>* const>, index, index); \
    template weight_change<S> at_strength<S>(weight_change<S>, double);                              \
    template scaled_change<S> resolved<S>(magnitude_change<S>, const vector<double>&);               \
    template weight_change<S> transposed<S>(weight_change<S>);                                       \
    template low_rank<S> stacked<S>(const low_rank<S>&, const low_rank<S>&);                         \
    template weight_change<S> sum<S>(const weight_change<S>&, const weight_change<S>&);
LOWRANK_CHANGE_OF(float)
LOWRANK_CHANGE_OF(double)
#undef LOWRANK_CHANGE_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_CHANGE_IPP
