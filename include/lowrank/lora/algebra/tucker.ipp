// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_ALGEBRA_TUCKER_IPP
#define LOWRANK_LORA_ALGEBRA_TUCKER_IPP

#include <lowrank/lora/algebra/tucker.hpp>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
matrix<S> tucker_right(const matrix<S>& t, const matrix<S>& b, index taps) {
    detail::expects(taps >= 1 && t.cols() == b.rows() * taps, "tucker_right: t must have rows of b times taps columns");
    matrix<S> m;
    m.setZero(t.rows(), b.cols() * taps);
    const index block = t.rows() * taps;  // entries of one index j of t, or q of m, which lie together
    for (index q = 0; q < b.cols(); ++q) {
        for (index j = 0; j < b.rows(); ++j) {
            detail::axpy(b(j, q), t.data() + j * block, m.data() + q * block, block);
        }
    }
    return m;
}

template <real S>
tucker_gradient<S> tucker_backward(const matrix<S>& t, const matrix<S>& b, index taps, const matrix<S>& dm) {
    detail::expects_shape("tucker_backward", "dm", dm.rows(), dm.cols(), t.rows(), b.cols() * taps);
    tucker_gradient<S> g;
    g.t.setZero(t.rows(), t.cols());
    g.b.setZero(b.rows(), b.cols());
    const index block = t.rows() * taps;
    for (index q = 0; q < b.cols(); ++q) {
        const S* part = dm.data() + q * block;
        for (index j = 0; j < b.rows(); ++j) {
            detail::axpy(b(j, q), part, g.t.data() + j * block, block);
            g.b(j, q) = detail::dot_of(part, t.data() + j * block, block);
        }
    }
    return g;
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_TUCKER_OF(S)                                                       \
    template matrix<S> tucker_right<S>(const matrix<S>&, const matrix<S>&, index); \
    template tucker_gradient<S> tucker_backward<S>(const matrix<S>&, const matrix<S>&, index, const matrix<S>&);
LOWRANK_TUCKER_OF(float)
LOWRANK_TUCKER_OF(double)
#undef LOWRANK_TUCKER_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_ALGEBRA_TUCKER_IPP
