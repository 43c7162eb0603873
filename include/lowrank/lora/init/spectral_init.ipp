// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_INIT_SPECTRAL_INIT_IPP
#define LOWRANK_LORA_INIT_SPECTRAL_INIT_IPP

#include <lowrank/lora/init/spectral_init.hpp>

#include <algorithm>
#include <cmath>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

LOWRANK_BODY void expects_init(const char* function, index rows, index cols, const lora_options& options) {
    expects_in_range(function, "r", options.r, index{1}, std::min(rows, cols));
    expects(options.lora_alpha > 0, "init: lora_alpha must be positive");
}

template <real S>
lora_adapter<S> balanced_init(matrix<S> u, const vector<S>& s, const matrix<S>& v, const lora_options& options) {
    const auto scaling = static_cast<S>(lora_scaling(options.lora_alpha, options.r, options.use_rslora));
    vector<S> root(s.size());
    for (index i = 0; i < s.size(); ++i) {
        root(i) = std::sqrt(s(i) / scaling);
    }
    matrix<S> v_t = copy_in<S>(transposed(v));
    scale_rows(root, v_t);
    scale_cols(u, root);
    return with_factors<S>(std::move(v_t), std::move(u), options);
}

template <real S>
lora_adapter<S> olora_of(matrix<S> q, const matrix<S>& r_t, const lora_options& options, init_scaling rule) {
    matrix<S> r = copy_in<S>(transposed(r_t));
    for (index j = 0; j < options.r; ++j) {
        for (index i = j + 1; i < options.r; ++i) {
            r(i, j) = S(0);  // below the diagonal is rounding
        }
    }
    if (rule == init_scaling::exact) {
        r /= static_cast<S>(lora_scaling(options.lora_alpha, options.r, options.use_rslora));
    }
    return with_factors<S>(std::move(r), std::move(q), options);
}

}  // namespace detail

template <real S>
lora_adapter<S> pissa(const decomposition<S>& w, const lora_options& options) {
    detail::expects_init("pissa", w.rows(), w.cols(), options);
    const index r = options.r;
    return detail::balanced_init<S>(columns_of(w.u, 0, r), head_in<S>(w.s, r), columns_of(w.v, 0, r), options);
}

template <real S>
lora_adapter<S> mica(const decomposition<S>& w, const lora_options& options) {
    detail::expects_init("mica", w.rows(), w.cols(), options);
    matrix<S> a;
    a.setZero(options.r, w.cols());
    return detail::with_factors<S>(std::move(a), columns_of(w.u, w.size() - options.r, options.r), options);
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_SPECTRAL_INIT_OF(S)                                                                               \
    template lora_adapter<S> detail::balanced_init<S>(matrix<S>, const vector<S>&, const matrix<S>&,              \
                                                      const lora_options&);                                       \
    template lora_adapter<S> detail::olora_of<S>(matrix<S>, const matrix<S>&, const lora_options&, init_scaling); \
    template lora_adapter<S> pissa<S>(const decomposition<S>&, const lora_options&);                              \
    template lora_adapter<S> mica<S>(const decomposition<S>&, const lora_options&);
LOWRANK_SPECTRAL_INIT_OF(float)
LOWRANK_SPECTRAL_INIT_OF(double)
#undef LOWRANK_SPECTRAL_INIT_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_INIT_SPECTRAL_INIT_IPP
