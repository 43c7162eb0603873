// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_INIT_SPECTRAL_INIT_HPP
#define LOWRANK_LORA_INIT_SPECTRAL_INIT_HPP

/// \file
/// Initializations of a LoRA adapter from the weight itself: PiSSA, OLoRA, MiCA.
///
///     auto adapter = lowrank::pissa(spec, {.r = 16, .lora_alpha = 32});  // spec: the spectrum of W
///     auto receipt = lowrank::subtract_init(lowrank::weight_view<float>(w), adapter);
///     auto trained = adapter;                              // train it on W - scaling B A, which is in w now
///     auto plain = lowrank::plain_lora(trained, adapter);  // LoRA on the original W
///
/// The model does not change: the initial change of the adapter is subtracted from the base. The receipt restores the
/// base bit for bit.
///
/// Meng, Wang, Zhang, PiSSA, arXiv 2404.02948. Buyukakyuz, OLoRA, arXiv 2406.01775. MiCA, arXiv 2604.01694.

#include <utility>

#include <lowrank/core/config.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/orthonormalize.hpp>
#include <lowrank/factor/sketched/randomized_svd.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/lora/kinds/lora.hpp>
#include <lowrank/lora/merge/merge.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// How an initialization treats a scaling other than 1, where the original method ignores it.
enum class init_scaling {
    exact,  ///< scaling B A is the part of W that the method names.
    peft,   ///< B A is that part, as in PEFT; with a scaling other than 1 the change is not what the method means.
};

namespace detail {

/// An adapter with the options' settings and the given factors.
template <real S>
[[nodiscard]] lora_adapter<S> with_factors(matrix<S> a, matrix<S> b, const lora_options& options) {
    return {.lora_A = std::move(a),
            .lora_B = std::move(b),
            .lora_alpha = options.lora_alpha,
            .use_rslora = options.use_rslora,
            .lora_dropout = options.lora_dropout};
}

LOWRANK_API void expects_init(const char* function, index rows, index cols, const lora_options& options);

/// sqrt(s / scaling) on both sides of U V^T.
template <real S>
[[nodiscard]] lora_adapter<S> balanced_init(matrix<S> u, const vector<S>& s, const matrix<S>& v,
                                            const lora_options& options);

/// B = Q and A = R, divided as the rule says, from Q and R^T = W^T Q.
template <real S>
[[nodiscard]] lora_adapter<S> olora_of(matrix<S> q, const matrix<S>& r_t, const lora_options& options,
                                       init_scaling rule);

}  // namespace detail

/// PiSSA: scaling B A is the best rank-r part of W, B = U sqrt(S / scaling), A = sqrt(S / scaling) V^T.
/// \pre 1 <= r <= min(out, in), lora_alpha > 0 \cost Copies the leading singular vectors.
template <real S>
[[nodiscard]] lora_adapter<S> pissa(const decomposition<S>& w, const lora_options& options);

/// The same from the weight, out x in. \return, \cost As `svd`; with a spectrum at hand, pass that.
template <detail::dense_weight W>
[[nodiscard]] result<lora_adapter<weight_scalar<W>>> pissa(const W& w, const lora_options& options) {
    detail::expects_init("pissa", w.rows(), w.cols(), options);
    const auto spec = svd(w);
    if (!spec) {
        return spec.why;
    }
    return pissa(spec, options);
}

/// The same by randomized subspace iteration, of any linear operator: "pissa_niter_[n]" with n = power_iterations.
/// \return, \cost As `randomized_svd`.
template <operator_like M>
[[nodiscard]] result<lora_adapter<operator_scalar<M>>> pissa_fast(const M& w, const lora_options& options,
                                                                  const randomized_svd_options& sketch = {
                                                                      .oversample = 16, .power_iterations = 4}) {
    using S = operator_scalar<M>;
    const auto& map = as_operator(w);
    detail::expects_init("pissa_fast", map.rows(), map.cols(), options);
    auto f = randomized_svd(w, options.r, sketch);
    if (!f) {
        return std::move(f.why);
    }
    return detail::balanced_init<S>(std::move(f.u), f.s, f.v, options);
}

/// OLoRA: with W = Q R, B holds the first r columns of Q and A the first r rows of R, divided so that scaling B A is
/// their product. `init_scaling::peft` omits the division.
///
/// Only r columns are reflected: the first r columns of Q are those of the first r columns of W, and R follows as
/// Q^T W. Signs of the rows are not unique.
/// \pre    1 <= r <= min(out, in), lora_alpha > 0
/// \return `non_finite` if W holds NaN or infinity.
/// \cost   2 r out in flops.
template <detail::dense_weight W>
[[nodiscard]] result<lora_adapter<weight_scalar<W>>> olora(const W& w, const lora_options& options,
                                                           init_scaling rule = init_scaling::exact) {
    using S = weight_scalar<W>;
    detail::expects_init("olora", w.rows(), w.cols(), options);
    if (!all_finite(w)) {
        return status{errc::non_finite, "olora: the weight holds NaN or infinity; repair or exclude it"};
    }
    matrix<S> q = thin_qr<S>(copy_in<S>(dense_view<const typename W::Scalar>(w).middle_cols(0, options.r))).q;
    const matrix<S> r_t = apply_transposed(w, q);
    return detail::olora_of<S>(std::move(q), r_t, options, rule);
}

/// MiCA: B holds the left singular vectors of the r smallest singular values, A is zero. Train A alone; W stays.
/// \pre 1 <= r <= min(out, in)
template <real S>
[[nodiscard]] lora_adapter<S> mica(const decomposition<S>& w, const lora_options& options);

/// The same from the weight, out x in. \return, \cost As `svd`.
template <detail::dense_weight W>
[[nodiscard]] result<lora_adapter<weight_scalar<W>>> mica(const W& w, const lora_options& options) {
    detail::expects_init("mica", w.rows(), w.cols(), options);
    const auto spec = svd(w);
    if (!spec) {
        return spec.why;
    }
    return mica(spec, options);
}

/// W <- W - scaling B A in place, with one rounding: the base under an adapter that does not start at zero. `unmerge`
/// with the receipt and `initial.delta(-1)` restores the bits.
///
/// \return As `merge`. For weights stored transposed, pass the transpose of the adapter (convert.hpp).
template <storage T>
[[nodiscard]] result<merge_receipt> subtract_init(weight_view<T> w, const lora_adapter<compute_t<T>>& initial) {
    return merge(w, initial.delta(compute_t<T>(-1)));
}

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/init/spectral_init.ipp>
#endif

#endif  // LOWRANK_LORA_INIT_SPECTRAL_INIT_HPP
