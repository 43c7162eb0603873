// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_WEIGHTED_STATISTICS_HPP
#define LOWRANK_FACTOR_WEIGHTED_STATISTICS_HPP

/// \file
/// What a weighted factorization needs to know of activations and gradients, collected batch by batch in double.
///
///     lowrank::gram_accumulator c(w.cols());
///     for (const auto& x : batches) throw_if_failed(c.add(x));     // x: in x tokens
///     c.merge(other_shard);                                        // the same as having seen its batches, too
///
/// Every accumulator is a sum, so shards merge in any grouping, equal to rounding. A batch with NaN or infinity is
/// refused and leaves the sums as they were. Float sums over 1e5 tokens lose the definiteness of a Gram matrix.

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <string>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/orthonormalize.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

template <class D>
[[nodiscard]] status check_batch(const char* function, const D& x, index dimension) {
    expects_shape(function, "batch", x.rows(), x.cols(), dimension, x.cols());
    if (!all_finite(x)) {
        return {errc::non_finite, std::string(function) + ": the batch holds NaN or infinity; skip or repair it"};
    }
    return {};
}

}  // namespace detail

/// sum x x^T over columns x, in double: the full weighting of a layer's inputs (or of its output gradients).
class gram_accumulator {
public:
    gram_accumulator() = default;
    explicit gram_accumulator(index dimension) : sum_(matrix<double>::Zero(dimension, dimension)) {}

    [[nodiscard]] index dimension() const noexcept { return sum_.rows(); }
    /// Columns seen.
    [[nodiscard]] std::int64_t count() const noexcept { return count_; }

    /// Adds the columns of X (dimension x N). \return `non_finite`, with nothing added. \cost N n^2 flops in double.
    template <real S>
    status add(const_column_view<S> x) {
        status why = detail::check_batch("gram_accumulator::add", x, dimension());
        if (why && x.cols() > 0) {
            const matrix<double> wide = x.template cast<double>();
            sum_.selfadjointView<Eigen::Lower>().rankUpdate(wide);
            count_ += x.cols();
        }
        return why;
    }
    template <real S>
    status add(const matrix<S>& x) {
        return add(const_column_view<S>(x));
    }

    /// \pre other.dimension() == dimension()
    void merge(const gram_accumulator& other) {
        detail::expects_shape("gram_accumulator::merge", "other", other.dimension(), index{1}, dimension(), index{1});
        sum_ += other.sum_;
        count_ += other.count_;
    }

    /// sum x x^T, symmetric.
    [[nodiscard]] matrix<double> sum() const { return sum_.selfadjointView<Eigen::Lower>(); }

private:
    matrix<double> sum_ = {};  ///< Lower triangle.
    std::int64_t count_ = 0;
};

/// The triangle T with T^T T = sum x x^T, kept by QR instead of by squaring: directions 1e-16 times weaker than the
/// strongest survive, where a Gram matrix ends at 1e-8.
class qr_accumulator {
public:
    qr_accumulator() = default;
    explicit qr_accumulator(index dimension) : triangle_(0, dimension) {}

    [[nodiscard]] index dimension() const noexcept { return triangle_.cols(); }
    [[nodiscard]] std::int64_t count() const noexcept { return count_; }

    /// Adds the columns of X (dimension x N). \return `non_finite`, with nothing added.
    /// \cost 2 n^2 (n + N) flops in double: best with batches of N >= n.
    template <real S>
    status add(const_column_view<S> x) {
        status why = detail::check_batch("qr_accumulator::add", x, dimension());
        if (why && x.cols() > 0) {
            append<double>(x.transpose().template cast<double>());
            count_ += x.cols();
        }
        return why;
    }
    template <real S>
    status add(const matrix<S>& x) {
        return add(const_column_view<S>(x));
    }

    /// \pre other.dimension() == dimension()
    template <std::same_as<double> S = double>  // compiled only where it is called
    void merge(const qr_accumulator& other) {
        detail::expects_shape("qr_accumulator::merge", "other", other.dimension(), index{1}, dimension(), index{1});
        append<S>(other.triangle_);
        count_ += other.count_;
    }

    /// T, upper trapezoidal, min(count, dimension) x dimension.
    [[nodiscard]] const matrix<double>& triangle() const noexcept { return triangle_; }

private:
    template <std::same_as<double> S>
    void append(const matrix<S>& rows) {
        matrix<S> stacked(triangle_.rows() + rows.rows(), dimension());
        stacked.topRows(triangle_.rows()) = triangle_;
        stacked.bottomRows(rows.rows()) = rows;
        triangle_ = triangular_factor(std::move(stacked));
    }

    matrix<double> triangle_ = {};
    std::int64_t count_ = 0;
};

/// Per coordinate: mean |x|, mean x^2, max |x|. The diagonal weightings of ASVD, LQER and Wanda.
class moment_accumulator {
public:
    moment_accumulator() = default;
    explicit moment_accumulator(index dimension)
        : sum_abs_(vector<double>::Zero(dimension)),
          sum_square_(vector<double>::Zero(dimension)),
          max_abs_(vector<double>::Zero(dimension)) {}

    [[nodiscard]] index dimension() const noexcept { return sum_abs_.size(); }
    [[nodiscard]] std::int64_t count() const noexcept { return count_; }

    /// Adds the columns of X (dimension x N). \return `non_finite`, with nothing added.
    template <real S>
    status add(const_column_view<S> x) {
        status why = detail::check_batch("moment_accumulator::add", x, dimension());
        if (why && x.cols() > 0) {
            const matrix<double> wide = x.template cast<double>();
            sum_abs_ += wide.cwiseAbs().rowwise().sum();
            sum_square_ += wide.rowwise().squaredNorm();
            max_abs_ = max_abs_.cwiseMax(wide.cwiseAbs().rowwise().maxCoeff());
            count_ += x.cols();
        }
        return why;
    }
    template <real S>
    status add(const matrix<S>& x) {
        return add(const_column_view<S>(x));
    }

    /// \pre other.dimension() == dimension()
    void merge(const moment_accumulator& other) {
        detail::expects_shape("moment_accumulator::merge", "other", other.dimension(), index{1}, dimension(), index{1});
        sum_abs_ += other.sum_abs_;
        sum_square_ += other.sum_square_;
        max_abs_ = max_abs_.cwiseMax(other.max_abs_);
        count_ += other.count_;
    }

    /// E|x_j|, and 0 before the first column.
    [[nodiscard]] vector<double> mean_abs() const { return sum_abs_ / divisor(); }
    /// sqrt(E x_j^2): the diagonal of the Gram weighting, what QERA-approx and Wanda use.
    [[nodiscard]] vector<double> root_mean_square() const { return (sum_square_ / divisor()).cwiseSqrt(); }
    /// max |x_j|.
    [[nodiscard]] const vector<double>& max_abs() const noexcept { return max_abs_; }

private:
    [[nodiscard]] double divisor() const { return static_cast<double>(std::max<std::int64_t>(count_, 1)); }

    vector<double> sum_abs_ = {};
    vector<double> sum_square_ = {};
    vector<double> max_abs_ = {};
    std::int64_t count_ = 0;
};

/// Row and column sums of G o G over gradients G (m x n): the diagonal Fisher weighting of FWSVD on either side.
class fisher_accumulator {
public:
    fisher_accumulator() = default;
    fisher_accumulator(index rows, index cols) : rows_(vector<double>::Zero(rows)), cols_(vector<double>::Zero(cols)) {}

    /// Gradients seen.
    [[nodiscard]] std::int64_t count() const noexcept { return count_; }

    /// Adds one gradient, of a sample or of a batch: which of the two is the caller's to keep the same.
    /// \return `non_finite`, with nothing added.
    template <real S>
    status add(const matrix<S>& g) {
        detail::expects_shape("fisher_accumulator::add", "g", g.rows(), g.cols(), rows_.size(), cols_.size());
        if (!all_finite(g)) {
            return {errc::non_finite, "fisher_accumulator::add: the gradient holds NaN or infinity; skip it"};
        }
        const matrix<double> square = g.template cast<double>().cwiseAbs2();
        rows_ += square.rowwise().sum();
        cols_ += square.colwise().sum().transpose();
        ++count_;
        return {};
    }

    /// \pre Both have one shape.
    void merge(const fisher_accumulator& other) {
        detail::expects_shape("fisher_accumulator::merge", "other", other.rows_.size(), other.cols_.size(),
                              rows_.size(), cols_.size());
        rows_ += other.rows_;
        cols_ += other.cols_;
        count_ += other.count_;
    }

    /// sqrt(sum_j E g_ij^2) for each output i.
    [[nodiscard]] vector<double> row_weights() const { return (rows_ / divisor()).cwiseSqrt(); }
    /// sqrt(sum_i E g_ij^2) for each input j.
    [[nodiscard]] vector<double> column_weights() const { return (cols_ / divisor()).cwiseSqrt(); }

private:
    [[nodiscard]] double divisor() const { return static_cast<double>(std::max<std::int64_t>(count_, 1)); }

    vector<double> rows_ = {};
    vector<double> cols_ = {};
    std::int64_t count_ = 0;
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_FACTOR_WEIGHTED_STATISTICS_HPP
