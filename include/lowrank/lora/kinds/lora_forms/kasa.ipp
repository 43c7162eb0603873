// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_LORA_FORMS_KASA_IPP
#define LOWRANK_LORA_KINDS_LORA_FORMS_KASA_IPP

#include <lowrank/lora/kinds/lora_forms/kasa.hpp>

#include <cstdint>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/lora/adapter_kind.ipp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
void kasa_adapter<S>::check() const {
    detail::expects(lora_diag.size() == lora_A.rows() && lora_B.cols() == lora_A.rows(),
                    "kasa_adapter: lora_A, lora_B and lora_diag must agree in r");
}

template <real S>
low_rank<S> kasa_adapter<S>::delta() const {
    check();
    low_rank<S> d{.left = lora_B, .right = lora_A};
    scale_cols(d.left, [&, s = scaling()](index k) { return s * lora_diag(k); });
    return d;
}

template <real S>
kasa_adapter<S> kasa_adapter<S>::pull_back(const delta_gradient<S>& g) const {
    check();
    const S s = scaling();
    kasa_adapter d = *this;
    d.lora_A = g.right;
    d.lora_B = g.left;
    scale_cols(d.lora_B, [&](index k) { return s * lora_diag(k); });
    d.lora_diag.setZero();
    add_row_dots(transposed(lora_B), transposed(g.left), d.lora_diag);
    scale_rows([s](index) { return s; }, d.lora_diag);
    return d;
}

template <real S>
kasa_start<S> kasa(const decomposition<S>& w, const lora_options& options) {
    detail::expects_in_range("kasa", "r", options.r, index{1}, w.size() - 1);
    auto lora = make_lora<S>(w.rows(), w.cols(), options);
    kasa_start<S> start{.adapter = {.lora_A = std::move(lora.lora_A),
                                    .lora_B = std::move(lora.lora_B),
                                    .lora_diag = vector<S>(options.r),
                                    .lora_alpha = options.lora_alpha,
                                    .use_rslora = options.use_rslora,
                                    .lora_dropout = options.lora_dropout},
                        .noise = w.dropped(w.size() - options.r)};
    fill_normal(start.adapter.lora_diag, S(1), philox(options.seed, options.stream + (std::uint64_t{1} << 62)));
    return start;
}

template <real S>
double kasa_penalty(const kasa_adapter<S>& a, kasa_adapter<S>& gradient, double beta, double gamma) {
    const auto less_identity = [](matrix<S> m) {
        for (index k = 0; k < m.rows(); ++k) {
            m(k, k) -= S(1);
        }
        return m;
    };
    const matrix<S> of_b = less_identity(product(transposed(a.lora_B), a.lora_B));
    const matrix<S> of_a = less_identity(product(a.lora_A, transposed(a.lora_A)));
    const double norm_b = norm_of(of_b);
    const double norm_a = norm_of(of_a);
    const double norm_d = norm_of(a.lora_diag);
    // d ||X^T X - I||_F = 2 X (X^T X - I) / ||X^T X - I||_F; no gradient at the minimum.
    add_scaled(static_cast<S>(2 * beta), a.lora_diag, gradient.lora_diag);
    if (norm_b > 0) {
        add_product(static_cast<S>(2 * gamma / norm_b), a.lora_B, of_b, gradient.lora_B);
    }
    if (norm_a > 0) {
        add_product(static_cast<S>(2 * gamma / norm_a), of_a, a.lora_A, gradient.lora_A);
    }
    return beta * norm_d * norm_d + gamma * (norm_a + norm_b);
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_KASA_OF(S)                                                        \
    template struct kasa_adapter<S>;                                              \
    template kasa_start<S> kasa<S>(const decomposition<S>&, const lora_options&); \
    template double kasa_penalty<S>(const kasa_adapter<S>&, kasa_adapter<S>&, double, double);
LOWRANK_KASA_OF(float)
LOWRANK_KASA_OF(double)
#undef LOWRANK_KASA_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_LORA_FORMS_KASA_IPP
