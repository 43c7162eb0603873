// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_WEIGHTED_STATISTICS_HPP
#define LOWRANK_FACTOR_WEIGHTED_STATISTICS_HPP

/// \file
/// What a weighted factorization needs to know of activations and gradients, collected batch by batch in double.
///
///     lowrank::gram_accumulator c(w.cols()), shard(w.cols());
///     for (const auto& x : batches) lowrank::throw_if_failed(c.add(x));     // x: in x tokens
///     c.merge(shard);                                   // the same as having seen its batches, too
///
/// Every accumulator is a sum, so shards merge in any grouping, equal to rounding. A batch with NaN or infinity is
/// refused and leaves the sums as they were. Float sums over 1e5 tokens lose the definiteness of a Gram matrix.

#include <cstdint>
#include <string>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// The border of an accumulator of batches: any matrix or expression comes in, a finite view with the right number of
/// rows goes to `add_batch`.
template <class Accumulator>
class batch_border {
public:
    /// Columns seen.
    [[nodiscard]] std::int64_t count() const noexcept { return count_; }

    /// Adds the columns of X (dimension x N), of any storage order and type. \return `non_finite`, with nothing added.
    template <dense_expression X>
    status add(const X& x) {
        using S = compute_t<typename X::Scalar>;
        decltype(auto) batch = evaluated(x);
        auto& self = static_cast<Accumulator&>(*this);
        expects_shape(Accumulator::function, "batch", batch.rows(), batch.cols(), self.dimension(), batch.cols());
        if (!all_finite(batch)) {
            return failed_in(Accumulator::function, errc::non_finite,
                             "the batch holds NaN or infinity; skip or repair it");
        }
        if (batch.cols() > 0) {
            if constexpr (real<typename X::Scalar>) {
                self.add_batch(dense_view<const S>(batch));
            } else {
                const matrix<S> wide = copy_in<S>(batch);
                self.add_batch(dense_view<const S>(wide));
            }
            count_ += batch.cols();
        }
        return {};
    }

protected:
    [[nodiscard]] double divisor() const { return count_ > 0 ? static_cast<double>(count_) : 1.0; }

    std::int64_t count_ = 0;
};

}  // namespace detail

/// sum x x^T over columns x, in double: the full weighting of a layer's inputs (or of its output gradients).
class gram_accumulator : public detail::batch_border<gram_accumulator> {
public:
    gram_accumulator() = default;
    explicit gram_accumulator(index dimension) : sum_(matrix<double>::Zero(dimension, dimension)) {}

    [[nodiscard]] index dimension() const noexcept { return sum_.rows(); }

    /// Adding N columns costs N n^2 flops in double.
    using batch_border::add;

    /// \pre other.dimension() == dimension()
    LOWRANK_API void merge(const gram_accumulator& other);

    /// sum x x^T, symmetric.
    LOWRANK_API [[nodiscard]] matrix<double> sum() const;

private:
    friend detail::batch_border<gram_accumulator>;
    static constexpr const char* function = "gram_accumulator::add";
    template <real S>
    void add_batch(const dense_view<const S>& x);

    matrix<double> sum_ = {};  ///< Lower triangle.
};

/// The triangle T with T^T T = sum x x^T, kept by QR instead of by squaring: directions 1e-16 times weaker than the
/// strongest survive, where a Gram matrix ends at 1e-8.
class qr_accumulator : public detail::batch_border<qr_accumulator> {
public:
    qr_accumulator() = default;
    explicit qr_accumulator(index dimension) : triangle_(0, dimension) {}

    [[nodiscard]] index dimension() const noexcept { return triangle_.cols(); }
    /// Adding N columns costs 2 n^2 (n + N) flops in double: best with batches of N >= n.
    using batch_border::add;

    /// \pre other.dimension() == dimension()
    LOWRANK_API void merge(const qr_accumulator& other);

    /// T, upper trapezoidal, min(count, dimension) x dimension.
    [[nodiscard]] const matrix<double>& triangle() const noexcept { return triangle_; }

private:
    friend detail::batch_border<qr_accumulator>;
    static constexpr const char* function = "qr_accumulator::add";
    template <real S>
    void add_batch(const dense_view<const S>& x);
    LOWRANK_API void append(const matrix<double>& rows);

    matrix<double> triangle_ = {};
};

/// Per coordinate: mean |x|, mean x^2, max |x|. The diagonal weightings of ASVD, LQER and Wanda.
class moment_accumulator : public detail::batch_border<moment_accumulator> {
public:
    moment_accumulator() = default;
    explicit moment_accumulator(index dimension)
        : sum_abs_(vector<double>::Zero(dimension)),
          sum_square_(vector<double>::Zero(dimension)),
          max_abs_(vector<double>::Zero(dimension)) {}

    [[nodiscard]] index dimension() const noexcept { return sum_abs_.size(); }

    /// \pre other.dimension() == dimension()
    LOWRANK_API void merge(const moment_accumulator& other);

    /// E|x_j|, and 0 before the first column.
    LOWRANK_API [[nodiscard]] vector<double> mean_abs() const;
    /// sqrt(E x_j^2): the diagonal of the Gram weighting, what QERA-approx and Wanda use.
    LOWRANK_API [[nodiscard]] vector<double> root_mean_square() const;
    /// max |x_j|.
    [[nodiscard]] const vector<double>& max_abs() const noexcept { return max_abs_; }

private:
    friend detail::batch_border<moment_accumulator>;
    static constexpr const char* function = "moment_accumulator::add";
    template <real S>
    void add_batch(const dense_view<const S>& x);

    vector<double> sum_abs_ = {};
    vector<double> sum_square_ = {};
    vector<double> max_abs_ = {};
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
    template <detail::dense_expression G>
    status add(const G& g) {
        return add_gradient(copy_in<double>(detail::evaluated(g)));
    }

    /// \pre Both have one shape.
    LOWRANK_API void merge(const fisher_accumulator& other);

    /// sqrt(sum_j E g_ij^2) for each output i.
    LOWRANK_API [[nodiscard]] vector<double> row_weights() const;
    /// sqrt(sum_i E g_ij^2) for each input j.
    LOWRANK_API [[nodiscard]] vector<double> column_weights() const;

private:
    LOWRANK_API status add_gradient(const matrix<double>& g);
    [[nodiscard]] double divisor() const { return count_ > 0 ? static_cast<double>(count_) : 1.0; }

    vector<double> rows_ = {};
    vector<double> cols_ = {};
    std::int64_t count_ = 0;
};

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/factor/weighted/statistics.ipp>
#endif

#endif  // LOWRANK_FACTOR_WEIGHTED_STATISTICS_HPP
