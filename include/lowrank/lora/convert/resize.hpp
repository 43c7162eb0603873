// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_CONVERT_RESIZE_HPP
#define LOWRANK_LORA_CONVERT_RESIZE_HPP

/// \file
/// The best approximation of a LoRA adapter at a smaller rank and the same scaling, with its errors.
///
///     auto small = lowrank::resize_lora(adapter, lowrank::fixed_rank(8));
///     auto kohya = lowrank::resize_lora(adapter, {.rule = lowrank::rank_rule::kohya_ratio, .value = 5});
///     log(kohya.frobenius_retained, kohya.max_ratio);  // what kohya's script reports
///
/// B = Q_b R_b and A^T = Q_a R_a turn the SVD of the out x in product into that of an r x r core, which is exact and,
/// at 4096 x 4096 and r = 64, thousands of times cheaper than the dense SVD of the scripts.
///
/// kohya sd-scripts, networks/resize_lora.py (rules, alpha, reported numbers).

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/decomposition.hpp>
#include <lowrank/factor/ranks/rank_choice.hpp>
#include <lowrank/lora/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The smaller adapter and its errors.
template <real S>
struct lora_resize : fallible {
    lora_adapter<S> adapter = {};     ///< scaling as before; lora_alpha = scaling * r (scaling * sqrt(r) with rsLoRA).
    double error = 0.0;               ///< ||scaling B A - scaling' B' A'||_F.
    double relative = 0.0;            ///< The same over ||scaling B A||_F.
    double sum_retained = 1.0;        ///< sum of the kept singular values over that of all.
    double frobenius_retained = 1.0;  ///< ||B' A'||_F / ||B A||_F.
    double max_ratio = 1.0;           ///< Largest over smallest kept singular value; infinity if that is 0.
};

/// The best approximation of an adapter's change at the rank the rule gives, at the same scaling.
///
/// Rules read the singular values of B A without the scaling, as kohya's do. B' = U diag(s) and A' = V^T by default,
/// also as there; `sigma_split::square` gives factors of equal norm, better to train on.
/// \return `non_finite` if a factor holds NaN or infinity. A rank above that of the change gives it at its own,
///         min(out, in, r).
/// \cost   6 r^2 (out + in) flops.
template <real S>
[[nodiscard]] lora_resize<S> resize_lora(const lora_adapter<S>& a, const rank_choice& choice,
                                         sigma_split split = sigma_split::left);

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/convert/resize.ipp>
#endif

#endif  // LOWRANK_LORA_CONVERT_RESIZE_HPP
