// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_WEIGHTED_STATISTICS_IPP
#define LOWRANK_FACTOR_WEIGHTED_STATISTICS_IPP

#include <lowrank/factor/weighted/statistics.hpp>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/factor/orthonormalize.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// sqrt(sums / count) of each coordinate.
LOWRANK_API [[nodiscard]] vector<double> root_mean(const vector<double>& sums, double count);

LOWRANK_BODY vector<double> root_mean(const vector<double>& sums, double count) {
    vector<double> out(sums.size());
    for (index i = 0; i < out.size(); ++i) {
        out(i) = std::sqrt(sums(i) / count);
    }
    return out;
}

}  // namespace detail

template <real S>
void gram_accumulator::add_batch(const dense_view<const S>& x) {
    detail::gemm<double, S, S>(1.0, x, transposed(x), dense_view<double>(sum_), true);
}

LOWRANK_BODY void gram_accumulator::merge(const gram_accumulator& other) {
    detail::expects_shape("gram_accumulator::merge", "other", other.dimension(), index{1}, dimension(), index{1});
    sum_ += other.sum_;
    count_ += other.count_;
}

LOWRANK_BODY matrix<double> gram_accumulator::sum() const {
    matrix<double> out = sum_;
    for (index j = 1; j < out.cols(); ++j) {
        for (index i = 0; i < j; ++i) {
            out(i, j) = out(j, i);
        }
    }
    return out;
}

template <real S>
void qr_accumulator::add_batch(const dense_view<const S>& x) {
    append(copy_in<double>(transposed(x)));
}

LOWRANK_BODY void qr_accumulator::merge(const qr_accumulator& other) {
    detail::expects_shape("qr_accumulator::merge", "other", other.dimension(), index{1}, dimension(), index{1});
    append(other.triangle_);
    count_ += other.count_;
}

LOWRANK_BODY void qr_accumulator::append(const matrix<double>& rows) {
    matrix<double> stacked(triangle_.rows() + rows.rows(), dimension());
    stacked.topRows(triangle_.rows()) = triangle_;
    stacked.bottomRows(rows.rows()) = rows;
    triangle_ = triangular_factor(std::move(stacked));
}

template <real S>
void moment_accumulator::add_batch(const dense_view<const S>& x) {
    for (index j = 0; j < x.cols(); ++j) {
        for (index i = 0; i < x.rows(); ++i) {
            const double size = std::abs(static_cast<double>(x(i, j)));
            sum_abs_(i) += size;
            sum_square_(i) += size * size;
            max_abs_(i) = std::max(max_abs_(i), size);
        }
    }
}

LOWRANK_BODY void moment_accumulator::merge(const moment_accumulator& other) {
    detail::expects_shape("moment_accumulator::merge", "other", other.dimension(), index{1}, dimension(), index{1});
    sum_abs_ += other.sum_abs_;
    sum_square_ += other.sum_square_;
    for (index i = 0; i < max_abs_.size(); ++i) {
        max_abs_(i) = std::max(max_abs_(i), other.max_abs_(i));
    }
    count_ += other.count_;
}

LOWRANK_BODY vector<double> moment_accumulator::mean_abs() const {
    vector<double> out = sum_abs_;
    out /= divisor();
    return out;
}

LOWRANK_BODY vector<double> moment_accumulator::root_mean_square() const {
    return detail::root_mean(sum_square_, divisor());
}

LOWRANK_BODY status fisher_accumulator::add_gradient(const matrix<double>& g) {
    detail::expects_shape("fisher_accumulator::add", "g", g.rows(), g.cols(), rows_.size(), cols_.size());
    if (!all_finite(g)) {
        return {errc::non_finite, "fisher_accumulator::add: the gradient holds NaN or infinity; skip it"};
    }
    detail::add_column_squares<double>(1.0, transposed(g), rows_.data());
    detail::add_column_squares<double>(1.0, dense_view<const double>(g), cols_.data());
    ++count_;
    return {};
}

LOWRANK_BODY void fisher_accumulator::merge(const fisher_accumulator& other) {
    detail::expects_shape("fisher_accumulator::merge", "other", other.rows_.size(), other.cols_.size(), rows_.size(),
                          cols_.size());
    rows_ += other.rows_;
    cols_ += other.cols_;
    count_ += other.count_;
}

LOWRANK_BODY vector<double> fisher_accumulator::row_weights() const { return detail::root_mean(rows_, divisor()); }

LOWRANK_BODY vector<double> fisher_accumulator::column_weights() const { return detail::root_mean(cols_, divisor()); }

#ifdef LOWRANK_COMPILED
template void gram_accumulator::add_batch(const dense_view<const float>&);
template void gram_accumulator::add_batch(const dense_view<const double>&);
template void qr_accumulator::add_batch(const dense_view<const float>&);
template void qr_accumulator::add_batch(const dense_view<const double>&);
template void moment_accumulator::add_batch(const dense_view<const float>&);
template void moment_accumulator::add_batch(const dense_view<const double>&);
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_WEIGHTED_STATISTICS_IPP
