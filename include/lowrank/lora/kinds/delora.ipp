// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_DELORA_IPP
#define LOWRANK_LORA_KINDS_DELORA_IPP

#include <lowrank/lora/kinds/delora.hpp>

#include <algorithm>
#include <cmath>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/operator_columns.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/lora/adapter_kind.ipp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

inline constexpr double shortest_delora_length = 1e-4;

}  // namespace detail

template <real S>
void delora_adapter<S>::check() const {
    detail::expects(
        rank() >= 1 && delora_B.cols() == rank() && delora_lambda.size() == 1 &&
            delora_w_norm.size() == delora_A.cols(),
        "delora_adapter: A and B must have one rank of at least 1, with one lambda and a w_norm for each input");
}

template <real S>
vector<double> delora_adapter<S>::lengths_of_a() const {
    vector<double> all(rank());
    for (index i = 0; i < rank(); ++i) {
        all(i) = std::max(norm_of(dense_view<const S>(delora_A).middle_rows(i, 1)), detail::shortest_delora_length);
    }
    return all;
}

template <real S>
vector<double> delora_adapter<S>::lengths_of_b() const {
    vector<double> all(rank());
    for (index i = 0; i < rank(); ++i) {
        all(i) = std::max(norm_of(dense_view<const S>(delora_B).middle_cols(i, 1)), detail::shortest_delora_length);
    }
    return all;
}

template <real S>
low_rank<S> delora_adapter<S>::delta() const {
    check();
    const vector<double> a = lengths_of_a();
    const vector<double> b = lengths_of_b();
    const double each = static_cast<double>(delora_lambda(0)) / static_cast<double>(rank());
    low_rank<S> d{.left = delora_B, .right = delora_A};
    scale_cols(d.left, [&](index i) { return each / (a(i) * b(i)); });
    scale_cols(d.right, delora_w_norm);
    return d;
}

template <real S>
delora_adapter<S> delora_adapter<S>::pull_back(const delta_gradient<S>& g) const {
    check();
    detail::expects_shape("delora_adapter::pull_back", "gradient.left", g.left.rows(), g.left.cols(), delora_B.rows(),
                          rank());
    detail::expects_shape("delora_adapter::pull_back", "gradient.right", g.right.rows(), g.right.cols(), rank(),
                          delora_A.cols());
    const vector<double> a = lengths_of_a();
    const vector<double> b = lengths_of_b();
    const auto r = static_cast<double>(rank());
    const auto lambda = static_cast<double>(delora_lambda(0));
    delora_adapter d = detail::with_zero_parameters(*this);
    double of_lambda = 0;
    for (index i = 0; i < rank(); ++i) {
        const double scale = lambda / (r * a(i) * b(i));
        double of_scale = 0;  // left_i = scale_i B_i
        for (index o = 0; o < delora_B.rows(); ++o) {
            of_scale += static_cast<double>(g.left(o, i)) * static_cast<double>(delora_B(o, i));
        }
        of_lambda += of_scale / (r * a(i) * b(i));
        // d scale_i = -scale_i A_i / |A_i|^2, unless the length is cut off.
        const auto along = [&](double length) {
            return length > detail::shortest_delora_length ? of_scale * scale / (length * length) : 0.0;
        };
        const double along_a = along(a(i));
        const double along_b = along(b(i));
        for (index j = 0; j < delora_A.cols(); ++j) {
            d.delora_A(i, j) =
                static_cast<S>(static_cast<double>(g.right(i, j)) * static_cast<double>(delora_w_norm(j)) -
                               along_a * static_cast<double>(delora_A(i, j)));
        }
        for (index o = 0; o < delora_B.rows(); ++o) {
            d.delora_B(o, i) = static_cast<S>(scale * static_cast<double>(g.left(o, i)) -
                                              along_b * static_cast<double>(delora_B(o, i)));
        }
    }
    d.delora_lambda(0) = static_cast<S>(of_lambda);
    return d;
}

template <real S>
delora_adapter<S> make_delora(operator_reference<S> base, const delora_options& options) {
    detail::expects(base.cols() >= 1 && options.r >= 1 && options.module_dropout >= 0 && options.module_dropout < 1,
                    "make_delora: the base needs inputs, r must be at least 1 and the dropout in [0, 1)");
    delora_adapter<S> a{.delora_A = matrix<S>(options.r, base.cols()), .module_dropout = options.module_dropout};
    a.delora_B.setZero(base.rows(), options.r);
    a.delora_lambda.setConstant(1, static_cast<S>(options.delora_lambda));
    a.delora_w_norm.resize(base.cols());
    for_column_panels<S>(base, [&](index first, const const_column_view<S>& columns) {
        for (index j = 0; j < columns.cols(); ++j) {
            a.delora_w_norm(first + j) = static_cast<S>(norm_of(dense_view<const S>(columns).middle_cols(j, 1)));
        }
    });
    const auto bound = static_cast<S>(1 / std::sqrt(static_cast<double>(base.cols())));
    fill_uniform(a.delora_A, -bound, bound, philox(options.seed, options.stream));
    return a;
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_DELORA_OF(S)           \
    template struct delora_adapter<S>; \
    template delora_adapter<S> make_delora<S>(operator_reference<S>, const delora_options&);
LOWRANK_DELORA_OF(float)
LOWRANK_DELORA_OF(double)
#undef LOWRANK_DELORA_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_DELORA_IPP
