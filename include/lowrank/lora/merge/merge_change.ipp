// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_MERGE_MERGE_CHANGE_IPP
#define LOWRANK_LORA_MERGE_MERGE_CHANGE_IPP

#include <lowrank/lora/merge/merge_change.hpp>

#include <utility>
#include <variant>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/merge/merge_transformed.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// Calls `sum(delta, options)` for what `merge` does, `rows(transform, options)` for what `merge_transformed` does.
template <real S, class Sum, class Rows>
auto merge_as(const weight_change<S>& change, const executor& run, Sum&& sum, Rows&& rows) {
    using result_type = decltype(sum(low_rank<S>{}, merge_options<S>{}));
    return std::visit(
        overloaded{[&](const low_rank<S>& d) -> result_type { return sum(d, merge_options<S>{.exec = run}); },
                   [&](const scaled_change<S>& c) -> result_type {
                       return sum(c.delta, merge_options<S>{.row_scale = entries(c.row_scale),
                                                            .column_scale = entries(c.column_scale),
                                                            .exec = run});
                   },
                   [&](const magnitude_change<S>&) -> result_type {
                       fail_contract("merge: a magnitude needs the lengths of the rows first: see resolved()");
                   },
                   [&](const row_change& c) -> result_type {
                       return rows(c.rows, transformed_merge_options{.transposed = c.acts_on_transpose, .exec = run});
                   },
                   [&](const added_rows_change& c) -> result_type {
                       return rows(c.rows, transformed_merge_options{.transposed = c.acts_on_transpose, .exec = run});
                   },
                   [&](const replacement<S>& c) -> result_type {
                       return rows(replaced_rows<S>{c}, transformed_merge_options{.exec = run});
                   }},
        change);
}

}  // namespace detail

template <storage T>
result<merge_receipt> merge(weight_view<T> w, const std::type_identity_t<weight_change<compute_t<T>>>& change,
                            const change_merge_options& options) {
    return detail::merge_as(
        change, options.exec, [&](const auto& delta, const auto& how) { return merge(w, delta, how); },
        [&](const auto& rows, const auto& how) { return merge_transformed(w, rows, how); });
}

template <storage T>
status unmerge(weight_view<T> w, const merge_receipt& receipt,
               const std::type_identity_t<weight_change<compute_t<T>>>& change, const change_merge_options& options) {
    return detail::merge_as(
        change, options.exec, [&](const auto& delta, const auto& how) { return unmerge(w, receipt, delta, how); },
        [&](const auto& rows, const auto& how) { return unmerge_transformed(w, receipt, rows, how); });
}

template <real S>
bool fits_weight(const weight_change<S>& change, index out, index in) {
    const auto factors = [&](const low_rank<S>& d) {
        return d.left.cols() == d.right.rows() && d.rows() == out && d.cols() == in;
    };
    const auto scale = [](const vector<S>& s, index size) { return s.size() == 0 || s.size() == size; };
    const auto rows = [&](const any_row_transform& f, bool acts_on_transpose) {
        return acts_on_transpose ? f.fits(in, out) : f.fits(out, in);
    };
    return std::visit(
        detail::overloaded{[&](const low_rank<S>& d) { return factors(d); },
                           [&](const scaled_change<S>& c) {
                               return ((c.delta.rows() == 0 && c.delta.cols() == 0) || factors(c.delta)) &&
                                      scale(c.row_scale, out) && scale(c.column_scale, in);
                           },
                           [&](const magnitude_change<S>& c) {
                               return factors(c.delta) && c.magnitude.size() == (c.of_columns ? in : out);
                           },
                           [&](const row_change& c) { return rows(c.rows, c.acts_on_transpose); },
                           [&](const added_rows_change& c) { return rows(c.rows, c.acts_on_transpose); },
                           [&](const replacement<S>& c) { return c.weight.rows() == out && c.weight.cols() == in; }},
        change);
}

template <real S>
matrix<double> changed(const weight_change<S>& change, const matrix<double>& w) {
    const auto through = [&](const auto& rows, bool acts_on_transpose) {
        detail::expects(acts_on_transpose ? rows.fits(w.cols(), w.rows()) : rows.fits(w.rows(), w.cols()),
                        "changed: the change is for a weight of another shape");
        workspace ws;
        matrix<double> columns = acts_on_transpose ? w : copy_in<double>(transposed(w));
        rows.forward(0, columns, ws);
        return acts_on_transpose ? columns : copy_in<double>(transposed(columns));
    };
    const auto no_factors = [&](low_rank<S> d) {  // scales alone may come without
        return d.rows() == 0 && d.cols() == 0 ? low_rank<S>{matrix<S>(w.rows(), 0), matrix<S>(0, w.cols())} : d;
    };
    const auto of_scaled = [&](scaled_change<S> c) {
        c.delta = no_factors(std::move(c.delta));
        return through(detail::scaled_rows<S>{std::move(c)}, false);
    };
    return std::visit(
        detail::overloaded{
            [&](const low_rank<S>& d) {
                return through(added_rows(product_rows<S>{d.left, d.right}), false);
            },
            [&](const scaled_change<S>& c) { return of_scaled(c); },
            [&](const magnitude_change<S>& c) {
                const matrix<double> sum = through(added_rows(product_rows<S>{c.delta.left, c.delta.right}), false);
                vector<double> lengths(c.of_columns ? sum.cols() : sum.rows());
                const dense_view<const double> all(sum);
                for (index i = 0; i < lengths.size(); ++i) {
                    lengths(i) = norm_of(c.of_columns ? all.middle_cols(i, 1) : all.middle_rows(i, 1));
                }
                return of_scaled(resolved(c, lengths));
            },
            [&](const row_change& c) { return through(c.rows, c.acts_on_transpose); },
            [&](const added_rows_change& c) { return through(c.rows, c.acts_on_transpose); },
            [&](const replacement<S>& c) { return through(detail::replaced_rows<S>{c}, false); }},
        change);
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_MERGE_CHANGE_OF(T)                                                                       \
    template result<merge_receipt> merge<T>(weight_view<T>, const weight_change<compute_t<T>>&,          \
                                            const change_merge_options&);                                \
    template status unmerge<T>(weight_view<T>, const merge_receipt&, const weight_change<compute_t<T>>&, \
                               const change_merge_options&);
LOWRANK_MERGE_CHANGE_OF(float)
LOWRANK_MERGE_CHANGE_OF(double)
LOWRANK_MERGE_CHANGE_OF(half)
LOWRANK_MERGE_CHANGE_OF(bfloat16)
#undef LOWRANK_MERGE_CHANGE_OF
template bool fits_weight<float>(const weight_change<float>&, index, index);
template bool fits_weight<double>(const weight_change<double>&, index, index);
template matrix<double> changed<float>(const weight_change<float>&, const matrix<double>&);
template matrix<double> changed<double>(const weight_change<double>&, const matrix<double>&);
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_MERGE_MERGE_CHANGE_IPP
