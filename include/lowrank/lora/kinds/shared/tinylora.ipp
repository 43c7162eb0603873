// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_SHARED_TINYLORA_IPP
#define LOWRANK_LORA_KINDS_SHARED_TINYLORA_IPP

#include <lowrank/lora/kinds/shared/tinylora.hpp>

#include <algorithm>
#include <cmath>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/factor/sketched/krylov_svd.hpp>
#include <lowrank/lora/adapter_kind.ipp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
void tinylora_adapter<S>::check() const {
    const index k = tinylora_A.rows();
    detail::expects(
        tinylora_B.cols() == k && tinylora_P.cols() == k && tinylora_P.rows() == v.size() * k,
        "tinylora_adapter: tinylora_B must have as many columns as tinylora_A rows, and tinylora_P u matrices "
        "of that size");
}

template <real S>
low_rank<S> tinylora_adapter<S>::delta() const {
    check();
    const index k = tinylora_A.rows();
    matrix<S> mix;
    mix.setZero(k, k);
    const dense_view<const S> all = tinylora_P;
    for (index i = 0; i < v.size(); ++i) {
        add_scaled(v(i), all.middle_rows(i * k, k), mix);
    }
    return {.left = product(tinylora_B, mix), .right = tinylora_A};
}

template <real S>
tinylora_adapter<S> tinylora_adapter<S>::pull_back(const delta_gradient<S>& g) const {
    check();
    const index k = tinylora_A.rows();
    const matrix<S> mix = product(transposed(tinylora_B), g.left);
    tinylora_adapter d = {.v = v};
    for (index i = 0; i < v.size(); ++i) {
        S sum = 0;
        for (index column = 0; column < k; ++column) {
            for (index row = 0; row < k; ++row) {
                sum += tinylora_P(i * k + row, column) * mix(row, column);
            }
        }
        d.v(i) = sum;
    }
    return d;
}

template <real S>
tinylora_adapter<S> make_tinylora(operator_reference<S> w, const tinylora_options& options) {
    detail::expects(options.r >= 1 && options.u >= 1, "make_tinylora: r and u must be at least 1");
    detail::expects(0 <= options.dropout && options.dropout < 1, "make_tinylora: dropout must be in [0, 1)");
    const index k = std::min({options.r, w.rows(), w.cols()});
    const auto f = krylov_svd(w, k);
    detail::expects(static_cast<bool>(f), "make_tinylora: the weight must be finite");
    tinylora_adapter<S> a{.tinylora_A = copy_in<S>(transposed(f.v)),
                          .tinylora_B = f.u,
                          .tinylora_P = matrix<S>(options.u * k, k),
                          .group = options.group,
                          .r = options.r,
                          .dropout = options.dropout};
    vector<S> roots(k);
    for (index i = 0; i < k; ++i) {
        roots(i) = std::sqrt(std::max(f.s(i), S(0)));
    }
    scale_rows(roots, a.tinylora_A);
    scale_cols(a.tinylora_B, roots);
    fill_normal(a.tinylora_P, static_cast<S>(1 / std::sqrt(static_cast<double>(k))),
                philox(options.seed, options.stream));
    a.v.setZero(options.u);
    return a;
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_TINYLORA_OF(S)           \
    template struct tinylora_adapter<S>; \
    template tinylora_adapter<S> make_tinylora<S>(operator_reference<S>, const tinylora_options&);
LOWRANK_TINYLORA_OF(float)
LOWRANK_TINYLORA_OF(double)
#undef LOWRANK_TINYLORA_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_SHARED_TINYLORA_IPP
