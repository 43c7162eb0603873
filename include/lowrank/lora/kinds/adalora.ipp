// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_ADALORA_IPP
#define LOWRANK_LORA_KINDS_ADALORA_IPP

#include <lowrank/lora/kinds/adalora.hpp>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/lora/adapter_kind.ipp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
void adalora_adapter<S>::check() const {
    detail::expects(lora_A.rows() == lora_B.cols() && lora_E.size() == lora_A.rows(),
                    "adalora_adapter: A, B and E must have one rank");
}

template <real S>
low_rank<S> adalora_adapter<S>::delta() const {
    check();
    low_rank<S> d{.left = lora_B, .right = lora_A};
    scale_cols(d.left, [s = scaling()](index) { return s; });
    scale_rows(lora_E, d.right);
    return d;
}

template <real S>
adalora_adapter<S> adalora_adapter<S>::pull_back(const delta_gradient<S>& g) const {
    check();
    adalora_adapter d = *this;
    d.lora_A = g.right;
    scale_rows(lora_E, d.lora_A);
    d.lora_B = g.left;
    scale_cols(d.lora_B, [s = scaling()](index) { return s; });
    d.lora_E.setZero();
    add_row_dots(g.right, lora_A, d.lora_E);
    return d;
}

template <real S>
adalora_adapter<S> make_adalora(index out, index in, const adalora_options& options) {
    detail::expects(out >= 0 && in >= 0 && options.init_r >= 1,
                    "make_adalora: out and in must not be negative, init_r must be at least 1");
    adalora_adapter<S> a{.lora_A = matrix<S>(options.init_r, in),
                         .lora_B = matrix<S>(out, options.init_r),
                         .lora_alpha = options.lora_alpha,
                         .ranknum = static_cast<double>(options.init_r),
                         .lora_dropout = options.lora_dropout};
    a.lora_E.setZero(options.init_r);
    fill_normal(a.lora_A, S(0.02), philox(options.seed, 2 * options.stream));
    fill_normal(a.lora_B, S(0.02), philox(options.seed, 2 * options.stream + 1));
    return a;
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_ADALORA_OF(S)           \
    template struct adalora_adapter<S>; \
    template adalora_adapter<S> make_adalora<S>(index, index, const adalora_options&);
LOWRANK_ADALORA_OF(float)
LOWRANK_ADALORA_OF(double)
#undef LOWRANK_ADALORA_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_ADALORA_IPP
