// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_SKETCHED_SINGLE_PASS_SVD_IPP
#define LOWRANK_FACTOR_SKETCHED_SINGLE_PASS_SVD_IPP

#include <lowrank/factor/sketched/single_pass_svd.hpp>

#include <algorithm>
#include <cmath>
#include <utility>

#include <lowrank/core/finite.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/factor/orthonormalize.hpp>
#include <lowrank/factor/ranks/rank_rules.hpp>
#include <lowrank/factor/sketched/sketch.hpp>
#include <lowrank/factor/svd.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
single_pass_sketch<S>::single_pass_sketch(index rows, index cols, index rank, const single_pass_options& options)
    : rows_(rows), cols_(cols), rank_(rank), seed_(options.seed) {
    detail::expects_rank("single_pass_sketch", rank, rows, cols);
    detail::expects(options.range >= 0 && options.corange >= 0 && options.error_samples >= 0,
                    "single_pass_sketch: no option may be negative");
    const index range = options.range > 0 ? options.range : rank + std::max<index>(rank / 2, 8);
    range_ = std::min({std::max(rank, range), rows, cols});
    // Of the range that was asked for, not of what a narrow matrix has of it: few rows of signs may all miss a vector.
    corange_ = std::min(rows, std::max(range_, options.corange > 0 ? options.corange : 2 * range + 1));
    samples_ = options.error_samples;
    omega_ = detail::range_sketch<S>(cols, range_, 0, philox(seed_, 0));
    y_.setZero(rows, range_);
    z_.setZero(corange_ + samples_, cols);
}

template <real S>
status single_pass_sketch<S>::add_panel(index first, const matrix<S>& panel, S scale) {
    if (!all_finite(panel)) {
        return {errc::non_finite, "single_pass_sketch::add_rows: the panel holds NaN or infinity"};
    }
    add_product(scale, panel, omega_, dense_view<S>(y_).middle_rows(first, panel.rows()));
    add_product(scale, transposed(signs(first, panel.rows())), panel, z_);
    return {};
}

template <real S>
void single_pass_sketch<S>::merge(const single_pass_sketch& other) {
    detail::expects(rows_ == other.rows_ && cols_ == other.cols_ && range_ == other.range_ &&
                        corange_ == other.corange_ && samples_ == other.samples_ && seed_ == other.seed_,
                    "single_pass_sketch::merge: sketches must share shape, rank, options and seed");
    y_ += other.y_;
    z_ += other.z_;
}

template <real S>
decomposition<S> single_pass_sketch<S>::finish(index k) const {
    detail::expects_in_range("single_pass_sketch::finish", "rank", k, index{0}, rank_);
    if (!all_finite(y_) || !all_finite(z_)) {
        return status{errc::non_finite, "single_pass_sketch::finish: a sketch overflowed; scale the data down"};
    }
    matrix<S> q = y_;
    orthonormalize(q);
    // Psi Q X = Psi A in the least squares sense, in double: X is then the coordinates of A in Q. Directions of Q that
    // Psi does not see, as when it is not much taller than Q is wide, get none instead of magnified rounding.
    const matrix<double> all = signed_rows(q);
    constexpr const char* name = "single_pass_sketch::finish";
    auto seen =
        detail::svd_of_dense<double>(name, copy_in<double>(dense_view<const double>(all).middle_rows(0, corange_)));
    if (!seen) {
        return std::move(seen.why);
    }
    const index rank = rank_above_ratio(seen.s, 1e-8);
    matrix<double> x = product_in<double>(transposed(dense_view<const S>(z_).middle_rows(0, corange_)),
                                          dense_view<const double>(seen.u).middle_cols(0, rank));
    for (index i = 0; i < rank; ++i) {
        x.col(i) /= seen.s(i);
    }
    auto f = detail::svd_of_dense<double>(
        name, product(x, transposed(dense_view<const double>(seen.v).middle_cols(0, rank))));
    if (!f) {
        return std::move(f.why);
    }
    decomposition<S> out;
    const matrix<double> turn = columns_of(f.v, 0, k);
    out.u = product(q, copy_in<S>(turn));
    out.s = head_in<S>(f.s, k);
    if (!all_finite(out.s)) {
        return detail::value_beyond_range(name);
    }
    out.v = copy_in<S>(dense_view<const double>(f.u).middle_cols(0, k));
    detail::fix_signs(out.u, out.v);
    out.error = evidence(out);
    return out;
}

template <real S>
matrix<S> single_pass_sketch<S>::signs(index first, index count) const {
    const index width = corange_ + samples_;
    const index words = (width + 31) / 32;
    const philox rng(seed_, 1);
    matrix<S> out(count, width);
    for (index i = 0; i < count; ++i) {
        detail::fill_signs(rng, static_cast<std::uint64_t>((first + i) * words), width, out.data() + i, count);
        // As many sketched rows as there are rows: the rows themselves, for a square matrix of signs may be singular.
        for (index j = 0; corange_ == rows_ && j < corange_; ++j) {
            out(i, j) = j == first + i ? S(1) : S(0);
        }
    }
    return out;
}

template <real S>
matrix<double> single_pass_sketch<S>::signed_rows(const matrix<S>& x) const {
    constexpr index panel = 512;
    matrix<double> out;
    out.setZero(corange_ + samples_, x.cols());
    for (index first = 0; first < rows_; first += panel) {
        const index count = std::min(panel, rows_ - first);
        add_product(1.0, transposed(signs(first, count)), dense_view<const S>(x).middle_rows(first, count), out);
    }
    return out;
}

template <real S>
error_evidence single_pass_sketch<S>::evidence(const decomposition<S>& f) const {
    error_evidence e{.how = error_source::sampled};
    // The error seen by the rows held back: Theta A - (Theta U) diag(s) V^T.
    const matrix<double> theta_a = copy_in<double>(dense_view<const S>(z_).middle_rows(corange_, samples_));
    const matrix<double> all = signed_rows(f.u);
    matrix<double> theta_u = copy_in<double>(dense_view<const double>(all).middle_rows(corange_, samples_));
    scale_cols(theta_u, f.s);
    matrix<double> rest = theta_a;
    add_product(-1.0, theta_u, transposed(f.v), rest);
    const double count = static_cast<double>(std::max<index>(samples_, 1));
    e.frobenius = norm_of(rest) / std::sqrt(count);
    const double norm = norm_of(theta_a) / std::sqrt(count);
    e.relative = norm > 0.0 ? e.frobenius / norm : 0.0;
    e.deviation = samples_ > 0 ? std::sqrt(0.5 / count) : 1.0;
    return e;
}

#ifdef LOWRANK_COMPILED
template class single_pass_sketch<float>;
template class single_pass_sketch<double>;
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_SKETCHED_SINGLE_PASS_SVD_IPP
