// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_SKETCHED_DETAIL_SKETCHED_OPERATOR_HPP
#define LOWRANK_FACTOR_SKETCHED_DETAIL_SKETCHED_OPERATOR_HPP

/// \file
/// A linear operator behind one type for the time of a call: its products, and the evidence its weight gives. The
/// sketched methods see no other type, so each is compiled once for a scalar, and none of them needs to know of the range of
/// the scalar.

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include <lowrank/core/config.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/decomposition.hpp>
#include <lowrank/factor/error_evidence.hpp>
#include <lowrank/factor/orthonormalize.hpp>
#include <lowrank/factor/sketched/detail/evidence.hpp>
#include <lowrank/factor/svd.hpp>

namespace lowrank::inline LOWRANK_ABI::detail {

/// Has a dense weight behind it.
template <class M>
concept operator_with_weight = linear_operator<M> && requires(const M& m) {
    {m.weight()};
    requires dense_weight<decltype(m.weight())>;
};

/// A = unit M, or unit M^T for a tall M: of few rows, so that an orthonormal basis of as many columns holds all of it,
/// and of a size whose products keep their digits.
template <real S>
class sketched_operator {
public:
    /// Borrows both.
    template <linear_operator M>
    sketched_operator(const M& m, workspace& ws) : self_(&m), rows_(m.rows()), cols_(m.cols()), ws_(&ws) {
        multiply_ = [](const void* self, const_column_view<S> x, column_view<S> y, bool transposed,
                       workspace& scratch) {
            const M& a = *static_cast<const M*>(self);
            if (transposed) {
                a.add_transposed_product(S(1), x, y, scratch);
            } else {
                a.add_product(S(1), x, y, scratch);
            }
        };
        if constexpr (operator_with_weight<M>) {
            using T = typename plain_t<decltype(m.weight())>::Scalar;
            evidence_ = [](const void* self, const matrix<S>& u, const vector<S>& s, const matrix<S>& v) {
                return dense_evidence<S, T>(static_cast<const M*>(self)->weight(), u, s, v);
            };
            norm_ = [](const void* self) { return norm_of(static_cast<const M*>(self)->weight()); };
        }
    }

    [[nodiscard]] index rows() const noexcept { return std::min(rows_, cols_); }
    [[nodiscard]] index cols() const noexcept { return std::max(rows_, cols_); }
    [[nodiscard]] workspace& scratch() const noexcept { return *ws_; }
    /// Whether norm and error can be computed from a weight.
    [[nodiscard]] bool has_weight() const noexcept { return norm_ != nullptr; }
    /// ||M||_F. \pre has_weight()
    [[nodiscard]] double norm() const { return norm_(self_); }
    /// A power of two: 1 unless products are near an end of the range of S, where digits are lost or sums overflow. The
    /// first product that is not zero finds it.
    [[nodiscard]] double unit() const noexcept { return static_cast<double>(unit_); }

    /// A X.
    [[nodiscard]] matrix<S> times(const matrix<S>& x) { return product_with(x, rows_ > cols_); }
    /// A^T X.
    [[nodiscard]] matrix<S> transposed_times(const matrix<S>& x) { return product_with(x, rows_ <= cols_); }

    /// The decomposition of M from that of A, for U^T A = diag(s) V^T, with evidence of what is missing. `samples` is A G
    /// for signs G that had no part in U. A failure if a value or the error does not fit its scalar.
    [[nodiscard]] decomposition<S> finished(const char* function, decomposition<S> f, const matrix<S>& samples) const {
        if (!f) {
            return f;
        }
        const vector<S> in_unit = f.s;
        f.s /= unit_;
        if (!all_finite(f.s)) {
            return value_beyond_range(function);
        }
        carry_rounding(in_unit, f);
        f.error = evidence_ == nullptr ? sampled_evidence<S>(samples, unit(), f.u, f.s) : error_evidence{};
        if (rows_ > cols_) {
            f.u.swap(f.v);
            fix_signs(f.u, f.v);
        }
        if (evidence_ != nullptr) {
            f.error = evidence_(self_, f.u, f.s, f.v);
        }
        if (!is_finite(f.error.frobenius)) {
            return value_beyond_range(function);
        }
        return f;
    }

private:
    /// Near the smallest numbers of S a value keeps few digits. Its columns of U and V take the factor that is lost, half
    /// each, as long as U^T U and V^T V stay 1 to 150 sqrt(k) units of rounding: U diag(s) V^T is then as exact as with
    /// normal values.
    void carry_rounding(const vector<S>& in_unit, decomposition<S>& f) const {
        constexpr S most = S(150) * std::numeric_limits<S>::epsilon();
        S left = most * most * static_cast<S>(f.s.size());
        for (index i = 0; i < f.s.size(); ++i) {
            const S kept = f.s[i] * unit_, lost = in_unit[i] - kept;
            if (lost == S(0) || kept == S(0) || lost * lost > left * kept * kept) {
                continue;
            }
            left -= lost / kept * (lost / kept);
            const S half = std::sqrt(in_unit[i] / kept);
            f.u.col(i) *= half;
            f.v.col(i) *= half;
        }
    }
    [[nodiscard]] matrix<S> product_with(const matrix<S>& x, bool transposed) {
        matrix<S> y = unit_ == S(1) ? plain_product(x, transposed) : plain_product(x * unit_, transposed);
        if (!unit_known_) {
            using limits = std::numeric_limits<S>;
            constexpr int tiny = limits::min_exponent + limits::digits + 16, huge = limits::max_exponent - 24;
            const S largest = all_finite(y) ? max_abs(y) : limits::max();
            unit_known_ = largest > S(0);
            if (unit_known_ && (largest < std::ldexp(S(1), tiny) || largest > std::ldexp(S(1), huge))) {
                // Not smaller than this, or the numbers of X would lose digits instead.
                unit_ = std::max(power_of_two_scale(largest), std::ldexp(S(1), -limits::max_exponent * 3 / 5));
                y = plain_product(x * unit_, transposed);
            }
        }
        return y;
    }
    [[nodiscard]] matrix<S> plain_product(const matrix<S>& x, bool transposed) const {
        matrix<S> y;
        y.setZero(transposed ? cols_ : rows_, x.cols());
        multiply_(self_, x, y, transposed, *ws_);
        return y;
    }

    const void* self_;
    index rows_, cols_;
    workspace* ws_;
    void (*multiply_)(const void*, const_column_view<S>, column_view<S>, bool, workspace&) = nullptr;
    error_evidence (*evidence_)(const void*, const matrix<S>&, const vector<S>&, const matrix<S>&) = nullptr;
    double (*norm_)(const void*) = nullptr;
    S unit_ = S(1);
    bool unit_known_ = false;
};

[[nodiscard]] inline status non_finite_operator(const char* function) {
    return failed_in(function, errc::non_finite,
                     "a product with the map holds NaN or infinity; repair or exclude the weight");
}

}  // namespace lowrank::inline LOWRANK_ABI::detail

#endif  // LOWRANK_FACTOR_SKETCHED_DETAIL_SKETCHED_OPERATOR_HPP
