// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_CONVERT_CONVERT_IPP
#define LOWRANK_LORA_CONVERT_CONVERT_IPP

#include <lowrank/lora/convert/convert.hpp>

#include <algorithm>
#include <cmath>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/factor/factored_algebra.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
lora_adapter<S> as_lora(low_rank<S> change, bool use_rslora) {
    detail::expects_factors("as_lora", change);
    const auto k = static_cast<double>(change.rank());
    return {.lora_A = std::move(change.right),
            .lora_B = std::move(change.left),
            .lora_alpha = use_rslora ? std::sqrt(k) : k,
            .use_rslora = use_rslora};
}

template <real S>
lora_conversion<S> detail::conversion_at(const decomposition<S>& change, index k, sigma_split split) {
    const error_evidence e = change.evidence_at(k);
    lora_conversion<S> out;
    out.adapter = as_lora(change.truncate(k, split));
    out.error = e.frobenius;
    out.relative = e.relative;
    out.how = e.how;
    return out;
}

template <real S>
lora_conversion<S> to_lora(const decomposition<S>& change, const rank_choice& choice, sigma_split split) {
    const auto k = rank_within(change, choice);
    if (!k) {
        return {{.why = k.error()}};
    }
    return detail::conversion_at(change, *k, split);
}

template <real S>
lora_conversion<S> to_lora(const low_rank<S>& change, const rank_choice& choice, sigma_split split) {
    const auto spec = svd(change);
    if (!spec) {
        return {{.why = spec.why}};
    }
    return to_lora(spec, choice, split);
}

namespace detail {

LOWRANK_BODY index first_directions(const rank_choice& choice, index rows, index cols) {
    expects(choice.min_rank >= 0 && choice.max_rank >= choice.min_rank && is_finite(choice.value),
            "to_lora_fast: needs 0 <= min_rank <= max_rank and a finite value in a rank_choice");
    const double wanted = choice.rule == rank_rule::fixed ? choice.value : 16.0;
    const auto limit = static_cast<double>(std::min({choice.max_rank, rows, cols}));
    return static_cast<index>(std::min(std::max(wanted, static_cast<double>(choice.min_rank)), limit));
}

}  // namespace detail

template <real S>
lora_adapter<S> plain_lora(const lora_adapter<S>& trained, const lora_adapter<S>& initial) {
    const index r = trained.rank();
    detail::expects_shape("plain_lora", "initial.lora_A", initial.lora_A.rows(), initial.lora_A.cols(), r,
                          trained.cols());
    detail::expects_shape("plain_lora", "initial.lora_B", initial.lora_B.rows(), initial.lora_B.cols(), trained.rows(),
                          r);
    detail::expects(trained.lora_alpha == initial.lora_alpha && trained.use_rslora == initial.use_rslora,
                    "plain_lora: lora_alpha and use_rslora of the two adapters must agree");
    lora_adapter<S> plain{.lora_A = matrix<S>(2 * r, trained.cols()),
                          .lora_B = matrix<S>(trained.rows(), 2 * r),
                          .lora_alpha = trained.lora_alpha * (trained.use_rslora ? std::sqrt(2.0) : 2.0),
                          .use_rslora = trained.use_rslora,
                          .lora_dropout = trained.lora_dropout};
    for (index j = 0; j < trained.cols(); ++j) {
        S* to = plain.lora_A.data() + j * 2 * r;
        std::copy_n(initial.lora_A.data() + j * r, r, std::copy_n(trained.lora_A.data() + j * r, r, to));
    }
    S* to = std::copy_n(trained.lora_B.data(), trained.lora_B.size(), plain.lora_B.data());
    std::transform(initial.lora_B.data(), initial.lora_B.data() + initial.lora_B.size(), to, [](S x) { return -x; });
    return plain;
}

template <real S>
lora_adapter<S> transpose(const lora_adapter<S>& a) {
    lora_adapter<S> t = a;
    t.lora_A = copy_in<S>(transposed(a.lora_B));
    t.lora_B = copy_in<S>(transposed(a.lora_A));
    return t;
}

template <real S>
lora_adapter<S> pad_rank(const lora_adapter<S>& a, index rank) {
    detail::expects(rank >= a.rank(), "pad_rank: the new rank must not be smaller; resize_lora makes adapters smaller");
    lora_adapter<S> out = a;
    out.lora_A.setZero(rank, a.cols());
    for (index j = 0; j < a.cols(); ++j) {
        std::copy_n(a.lora_A.data() + j * a.rank(), a.rank(), out.lora_A.data() + j * rank);
    }
    out.lora_B.setZero(a.rows(), rank);
    std::copy_n(a.lora_B.data(), a.lora_B.size(), out.lora_B.data());
    if (a.rank() > 0) {
        const double grown = static_cast<double>(rank) / static_cast<double>(a.rank());
        out.lora_alpha = a.lora_alpha * (a.use_rslora ? std::sqrt(grown) : grown);
    }
    return out;
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_CONVERT_OF(S)                                                                          \
    template lora_adapter<S> as_lora<S>(low_rank<S>, bool);                                            \
    template lora_conversion<S> to_lora<S>(const decomposition<S>&, const rank_choice&, sigma_split);  \
    template lora_conversion<S> to_lora<S>(const low_rank<S>&, const rank_choice&, sigma_split);       \
    template lora_conversion<S> detail::conversion_at<S>(const decomposition<S>&, index, sigma_split); \
    template lora_adapter<S> plain_lora<S>(const lora_adapter<S>&, const lora_adapter<S>&);            \
    template lora_adapter<S> transpose<S>(const lora_adapter<S>&);                                     \
    template lora_adapter<S> pad_rank<S>(const lora_adapter<S>&, index);
LOWRANK_CONVERT_OF(float)
LOWRANK_CONVERT_OF(double)
#undef LOWRANK_CONVERT_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_CONVERT_CONVERT_IPP
