// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_LOHA_HPP
#define LOWRANK_LORA_KINDS_LOHA_HPP

/// \file
/// LoHa: the entrywise product of two low-rank products, (w1_a w1_b) o (w2_a w2_b) * alpha / r.
///
///     lowrank::loha_adapter<float> a{.w1_a = lora_B, .w1_b = lora_A, .w2_a = lora_B, .w2_b = lora_A, .alpha = 8};
///     auto change = a.delta();                         // exact, with r^2 columns; never forms out x in
///
/// Hyeon-Woo et al., FedPara, arXiv 2108.06098; LyCORIS, PEFT. An entrywise product of rank-r matrices is a product of
/// factors whose columns and rows are the entrywise products of all pairs (Khatri-Rao), so LoHa serves, merges and
/// combines like any other adapter.

#include <cmath>
#include <cstdint>
#include <string_view>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/lora/adapter.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The change alpha / r * (w1_a w1_b) o (w2_a w2_b); a `factored_adapter`. For "effective conv2d" tensors w1_b is
/// tucker_right(t1, b1, taps) and w1_a the transpose of the file's (tucker.hpp).
template <real S>
struct loha_adapter {
    using scalar = S;

    matrix<S> w1_a = {};  ///< out x r
    matrix<S> w1_b = {};  ///< r x in
    matrix<S> w2_a = {};
    matrix<S> w2_b = {};
    double alpha = 8;

    [[nodiscard]] S scaling() const { return static_cast<S>(lora_scaling(alpha, w1_b.rows(), false)); }

    /// left[:, p r + q] = scaling * w1_a[:, p] o w2_a[:, q], right[p r + q, :] = w1_b[p, :] o w2_b[q, :].
    [[nodiscard]] low_rank<S> delta() const {
        check();
        const index r1 = w1_a.cols();
        const index r2 = w2_a.cols();
        low_rank<S> d{.left = matrix<S>(w1_a.rows(), r1 * r2), .right = matrix<S>(r1 * r2, w1_b.cols())};
        for (index p = 0; p < r1; ++p) {
            for (index q = 0; q < r2; ++q) {
                d.left.col(p * r2 + q) = scaling() * w1_a.col(p).cwiseProduct(w2_a.col(q));
                d.right.row(p * r2 + q) = w1_b.row(p).cwiseProduct(w2_b.row(q));
            }
        }
        return d;
    }

    [[nodiscard]] index rows() const noexcept { return w1_a.rows(); }
    [[nodiscard]] index cols() const noexcept { return w1_b.cols(); }

    /// Adds rows first, first + 1, ... of the change, one a column, times a factor. \cost 4 r in flops a row.
    void add_rows(double factor, index first, column_view<double> to) const {
        check();
        const auto rows_of = [&](const matrix<S>& a, const matrix<S>& b) {
            return matrix<double>(b.transpose().template cast<double>() *
                                  a.middleRows(first, to.cols()).transpose().template cast<double>());
        };
        to += factor * lora_scaling(alpha, w1_b.rows(), false) * rows_of(w1_a, w1_b).cwiseProduct(rows_of(w2_a, w2_b));
    }

    /// The product rule on each pair.
    [[nodiscard]] loha_adapter pull_back(const delta_gradient<S>& g) const {
        check();
        loha_adapter out{.w1_a = matrix<S>::Zero(w1_a.rows(), w1_a.cols()),
                         .w1_b = matrix<S>::Zero(w1_b.rows(), w1_b.cols()),
                         .w2_a = matrix<S>::Zero(w2_a.rows(), w2_a.cols()),
                         .w2_b = matrix<S>::Zero(w2_b.rows(), w2_b.cols()),
                         .alpha = alpha};
        const index r2 = w2_a.cols();
        for (index p = 0; p < w1_a.cols(); ++p) {
            for (index q = 0; q < r2; ++q) {
                const auto dl = g.left.col(p * r2 + q);
                const auto dr = g.right.row(p * r2 + q);
                out.w1_a.col(p) += scaling() * dl.cwiseProduct(w2_a.col(q));
                out.w2_a.col(q) += scaling() * dl.cwiseProduct(w1_a.col(p));
                out.w1_b.row(p) += dr.cwiseProduct(w2_b.row(q));
                out.w2_b.row(q) += dr.cwiseProduct(w1_b.row(p));
            }
        }
        return out;
    }

private:
    void check() const {
        detail::expects(w1_a.cols() == w1_b.rows() && w2_a.cols() == w2_b.rows() && w1_a.rows() == w2_a.rows() &&
                            w1_b.cols() == w2_b.cols(),
                        "loha_adapter: both products must exist and have one shape");
    }
};

/// What a new adapter looks like. PEFT's defaults.
struct loha_options {
    index r = 8;
    double alpha = 8;
    std::uint64_t seed = 0;    ///< Same seed and stream, same values, on every machine.
    std::uint64_t stream = 0;  ///< One per layer.
};

/// A new adapter for an out x in weight: w1_a, w1_b, w2_b uniform in +-1/sqrt(columns), w2_a zero, so that it changes
/// nothing yet.
template <real S>
[[nodiscard]] loha_adapter<S> make_loha(index out, index in, const loha_options& options = {}) {
    detail::expects(out >= 0 && in >= 1 && options.r >= 1, "make_loha: in and r must be at least 1");
    loha_adapter<S> a{.w1_a = matrix<S>(out, options.r),
                      .w1_b = matrix<S>(options.r, in),
                      .w2_a = matrix<S>::Zero(out, options.r),
                      .w2_b = matrix<S>(options.r, in),
                      .alpha = options.alpha};
    std::uint64_t part = 3 * options.stream;
    for (matrix<S>* m : {&a.w1_a, &a.w1_b, &a.w2_b}) {
        const auto bound = static_cast<S>(1 / std::sqrt(static_cast<double>(m->cols())));
        fill_uniform(*m, -bound, bound, philox(options.seed, part++));
    }
    return a;
}

/// Four factors, applied as the product they make.
template <real S>
struct adapter_kind<loha_adapter<S>> {
    static constexpr std::string_view name = "loha";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("hada_w1_a"), a.w1_a);
        f(std::string_view("hada_w1_b"), a.w1_b);
        f(std::string_view("hada_w2_a"), a.w2_a);
        f(std::string_view("hada_w2_b"), a.w2_b);
    }
    using applied = applied_factors<loha_adapter<S>>;
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_LOHA_HPP
