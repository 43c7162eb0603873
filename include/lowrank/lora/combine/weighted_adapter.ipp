// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_COMBINE_WEIGHTED_ADAPTER_IPP
#define LOWRANK_LORA_COMBINE_WEIGHTED_ADAPTER_IPP

#include <lowrank/lora/combine/weighted_adapter.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/factor/factored_algebra.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/lora/convert/extract.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_BODY std::optional<combination_type> combination_type_from_name(std::string_view name) {
    constexpr std::string_view names[] = {"linear",
                                          "cat",
                                          "ties",
                                          "dare_linear",
                                          "dare_ties",
                                          "magnitude_prune",
                                          "svd",
                                          "ties_svd",
                                          "dare_linear_svd",
                                          "dare_ties_svd",
                                          "magnitude_prune_svd"};
    for (std::size_t i = 0; i < std::size(names); ++i) {
        if (names[i] == name) {
            return static_cast<combination_type>(i);
        }
    }
    return std::nullopt;
}

namespace detail {

LOWRANK_API combine_rule entry_rule(combination_type t) {
    switch (t) {
        case combination_type::ties:
        case combination_type::ties_svd: return combine_rule::ties;
        case combination_type::dare_linear:
        case combination_type::dare_linear_svd: return combine_rule::dare_linear;
        case combination_type::dare_ties:
        case combination_type::dare_ties_svd: return combine_rule::dare_ties;
        case combination_type::magnitude_prune:
        case combination_type::magnitude_prune_svd: return combine_rule::magnitude_prune;
        default: return combine_rule::linear;
    }
}

/// B = U diag(s), A = V^T of rank k; ranks the decomposition lacks are zero.
template <real S>
lora_adapter<S> adapter_of_rank(const decomposition<S>& spec, index k) {
    const index kept = std::min(k, spec.size());
    auto part = spec.truncate(kept, sigma_split::left);
    lora_adapter<S> a;
    a.lora_A.setZero(k, spec.cols());
    a.lora_B.setZero(spec.rows(), k);
    for (index j = 0; j < spec.cols(); ++j) {
        std::copy_n(part.right.data() + j * kept, kept, a.lora_A.data() + j * k);
    }
    std::copy_n(part.left.data(), part.left.size(), a.lora_B.data());
    return a;
}

}  // namespace detail

template <real S>
result<lora_adapter<S>> weighted_adapter(
    std::span<const lora_adapter<S>> adapters, std::span<const double> weights, const weighted_options& options,
    const std::function<keep_mask(masked_tensor, std::size_t, index, index)>& mask_of) {
    detail::expects(!adapters.empty() && adapters.size() == weights.size(),
                    "weighted_adapter: needs at least one adapter, and one weight for each");
    const auto type = adapters.size() == 1 && options.single_is_linear ? combination_type::linear : options.type;
    index largest = 0;
    for (const auto& a : adapters) {
        detail::expects_shape("weighted_adapter", "every adapter", a.rows(), a.cols(), adapters[0].rows(),
                              adapters[0].cols());
        largest = std::max(largest, a.rank());
        if (!all_finite(a.lora_A) || !all_finite(a.lora_B)) {
            return status{errc::non_finite, "weighted_adapter: a factor holds NaN or infinity; repair or exclude it"};
        }
    }
    const combine_options entries{
        .rule = detail::entry_rule(type), .density = options.density, .election = options.election};
    const auto masks_of = [&](masked_tensor which) {
        return [&mask_of, which](std::size_t i, index rows, index cols) { return mask_of(which, i, rows, cols); };
    };

    lora_adapter<S> out;
    if (type == combination_type::cat) {
        std::vector<low_rank<S>> terms;
        std::vector<S> ones;
        for (std::size_t i = 0; i < adapters.size(); ++i) {
            const auto factor = static_cast<S>(weights[i] * static_cast<double>(adapters[i].scaling()));
            terms.push_back({.left = adapters[i].lora_B, .right = adapters[i].lora_A});
            terms.back().right *= factor;
            ones.push_back(S(1));
        }
        out = as_lora(weighted_sum<S>(terms, ones));
    } else if (!detail::is_svd_type(type)) {
        std::vector<matrix<S>> a;
        std::vector<matrix<S>> b;
        std::vector<double> of_a;
        std::vector<double> of_b;
        for (std::size_t i = 0; i < adapters.size(); ++i) {
            detail::expects(adapters[i].rank() == largest,
                            "weighted_adapter: this type needs adapters of one rank; use cat or an svd type");
            const double w = weights[i] * static_cast<double>(adapters[i].scaling());
            of_b.push_back(std::sqrt(std::abs(w)));
            of_a.push_back(w < 0 ? -of_b.back() : of_b.back());
            a.push_back(adapters[i].lora_A);
            b.push_back(adapters[i].lora_B);
        }
        out.lora_A = combine_entries<S>(std::move(a), of_a, entries, masks_of(masked_tensor::lora_A));
        out.lora_B = combine_entries<S>(std::move(b), of_b, entries, masks_of(masked_tensor::lora_B));
    } else {
        const index rank = options.svd_rank > 0 ? options.svd_rank : largest;
        const index full = std::min(adapters[0].rows(), adapters[0].cols());
        detail::expects_in_range("weighted_adapter", "svd_rank", options.svd_rank, index{0}, full);
        std::vector<double> w;
        std::vector<low_rank<S>> changes;
        for (std::size_t i = 0; i < adapters.size(); ++i) {
            const auto scaling = static_cast<double>(adapters[i].scaling());
            w.push_back(options.rule == weighted_rule::peft_0_20 ? weights[i] * scaling : weights[i]);
            changes.push_back(adapters[i].delta());
        }
        decomposition<S> spec;
        if (type == combination_type::svd) {
            const std::vector<S> as_scalar(w.begin(), w.end());
            spec = svd(weighted_sum<S>(changes, std::span<const S>(as_scalar)));
        } else {
            std::vector<matrix<S>> dense;
            for (const auto& change : changes) {
                dense.push_back(change.dense());
            }
            spec = svd(combine_entries<S>(std::move(dense), w, entries, masks_of(masked_tensor::delta)));
        }
        if (!spec) {
            return std::move(spec.why);
        }
        out = detail::adapter_of_rank(spec, std::min(rank, full));
        detail::clamp_factors(out, options.svd_clamp);
    }
    const auto r = static_cast<double>(out.rank());
    out.use_rslora = adapters[0].use_rslora;
    out.lora_dropout = adapters[0].lora_dropout;
    out.lora_alpha = out.use_rslora && options.rule == weighted_rule::fixed ? std::sqrt(r) : r;
    return out;
}

template <real S>
result<lora_adapter<S>> weighted_adapter(std::span<const lora_adapter<S>> adapters, std::span<const double> weights,
                                         const weighted_options& options) {
    return weighted_adapter<S>(adapters, weights, options,
                               [&](masked_tensor which, std::size_t i, index rows, index cols) {
                                   const auto stream = options.stream + 4 * i + static_cast<std::uint64_t>(which);
                                   return random_mask(rows, cols, options.density, philox(options.seed, stream));
                               });
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_WEIGHTED_ADAPTER_OF(S)                                                                              \
    template result<lora_adapter<S>> weighted_adapter<S>(                                                           \
        std::span<const lora_adapter<S>>, std::span<const double>, const weighted_options&,                         \
        const std::function<keep_mask(masked_tensor, std::size_t, index, index)>&);                                 \
    template result<lora_adapter<S>> weighted_adapter<S>(std::span<const lora_adapter<S>>, std::span<const double>, \
                                                         const weighted_options&);
LOWRANK_WEIGHTED_ADAPTER_OF(float)
LOWRANK_WEIGHTED_ADAPTER_OF(double)
#undef LOWRANK_WEIGHTED_ADAPTER_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_COMBINE_WEIGHTED_ADAPTER_IPP
