// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_SKETCHED_DETAIL_SKETCHED_OPERATOR_HPP
#define LOWRANK_FACTOR_SKETCHED_DETAIL_SKETCHED_OPERATOR_HPP

/// \file
/// A linear operator behind one type for the time of a call: its products, and the evidence its weight gives. The
/// sketched methods see no other type, so each is compiled once for a scalar.

#include <string>

#include <lowrank/core/config.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/error_evidence.hpp>
#include <lowrank/factor/sketched/detail/evidence.hpp>

namespace lowrank::inline LOWRANK_ABI::detail {

/// Has a dense weight behind it.
template <class M>
concept operator_with_weight = linear_operator<M> && requires(const M& m) {
    {m.weight()};
    requires dense_weight<decltype(m.weight())>;
};

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

    [[nodiscard]] index rows() const noexcept { return rows_; }
    [[nodiscard]] index cols() const noexcept { return cols_; }
    [[nodiscard]] workspace& scratch() const noexcept { return *ws_; }
    /// Whether norm and error can be computed from a weight.
    [[nodiscard]] bool has_weight() const noexcept { return norm_ != nullptr; }
    /// ||W||_F. \pre has_weight()
    [[nodiscard]] double norm() const { return norm_(self_); }

    /// A X.
    [[nodiscard]] matrix<S> times(const matrix<S>& x) const {
        matrix<S> y;
        y.setZero(rows_, x.cols());
        multiply_(self_, x, y, false, *ws_);
        return y;
    }
    /// A^T X.
    [[nodiscard]] matrix<S> transposed_times(const matrix<S>& x) const {
        matrix<S> y;
        y.setZero(cols_, x.cols());
        multiply_(self_, x, y, true, *ws_);
        return y;
    }

    /// How far off U diag(s) V^T is, for U^T A = diag(s) V^T. `samples` is A G for signs G that had no part in U.
    [[nodiscard]] error_evidence evidence(const matrix<S>& samples, const matrix<S>& u, const vector<S>& s,
                                          const matrix<S>& v) const {
        return evidence_ != nullptr ? evidence_(self_, u, s, v) : sampled_evidence<S>(samples, u, s);
    }

private:
    const void* self_;
    index rows_, cols_;
    workspace* ws_;
    void (*multiply_)(const void*, const_column_view<S>, column_view<S>, bool, workspace&) = nullptr;
    error_evidence (*evidence_)(const void*, const matrix<S>&, const vector<S>&, const matrix<S>&) = nullptr;
    double (*norm_)(const void*) = nullptr;
};

[[nodiscard]] inline status non_finite_operator(const char* function) {
    return failed_in(function, errc::non_finite,
                     "a product with the map holds NaN or infinity; repair or exclude the weight");
}

}  // namespace lowrank::inline LOWRANK_ABI::detail

#endif  // LOWRANK_FACTOR_SKETCHED_DETAIL_SKETCHED_OPERATOR_HPP
