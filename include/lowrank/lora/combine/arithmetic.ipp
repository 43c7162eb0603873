// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_COMBINE_ARITHMETIC_IPP
#define LOWRANK_LORA_COMBINE_ARITHMETIC_IPP

#include <lowrank/lora/combine/arithmetic.hpp>

#include <cstddef>
#include <span>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/factor/factored_algebra.hpp>
#include <lowrank/factor/orthonormalize.hpp>
#include <lowrank/lora/convert/convert.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
lora_adapter<S> add(const lora_adapter<S>& a, const lora_adapter<S>& b, std::type_identity_t<S> alpha,
                    std::type_identity_t<S> beta) {
    return as_lora(add(a.delta(), b.delta(), alpha, beta));
}

template <real S>
lora_adapter<S> average(std::span<const lora_adapter<S>> adapters) {
    detail::expects(!adapters.empty(), "average: needs at least one adapter");
    std::vector<low_rank<S>> terms;
    for (const auto& a : adapters) {
        terms.push_back(a.delta());
    }
    const std::vector<S> weights(adapters.size(), S(1) / static_cast<S>(adapters.size()));
    return as_lora(weighted_sum<S>(terms, std::span<const S>(weights)));
}

template <real S>
double cosine(const low_rank<S>& a, const low_rank<S>& b) {
    const double size = frobenius_norm(a) * frobenius_norm(b);
    return size > 0 ? inner_product(a, b) / size : 0.0;
}

template <real S>
low_rank<S> project_out(const low_rank<S>& a, const low_rank<S>& b) {
    const double size = inner_product(b, b);
    if (!(size > 0)) {
        return a;
    }
    return add(a, b, S(1), static_cast<S>(-inner_product(a, b) / size));
}

template <real S>
low_rank<S> project_out_outputs(low_rank<S> a, matrix<S> directions) {
    detail::expects_shape("project_out_outputs", "directions", directions.rows(), directions.cols(), a.rows(),
                          directions.cols());
    orthonormalize(directions);
    const matrix<S> inside = product(transposed(directions), a.left);
    add_product(S(-1), directions, inside, a.left);
    return a;
}

template <real S>
low_rank<S> project_out_inputs(low_rank<S> a, matrix<S> directions) {
    detail::expects_shape("project_out_inputs", "directions", directions.rows(), directions.cols(), a.cols(),
                          directions.cols());
    orthonormalize(directions);
    const matrix<S> inside = product(a.right, directions);
    add_product(S(-1), inside, transposed(directions), a.right);
    return a;
}

template <real S>
std::vector<low_rank<S>> orthogonalize(std::span<const low_rank<S>> changes) {
    const auto n = static_cast<index>(changes.size());
    const auto at = [&](index i) -> const low_rank<S>& { return changes[static_cast<std::size_t>(i)]; };
    matrix<double> gram(n, n);
    for (index i = 0; i < n; ++i) {
        for (index j = 0; j <= i; ++j) {
            gram(i, j) = gram(j, i) = inner_product(at(i), at(j));
        }
    }
    matrix<double> combination;  // row i: result i in terms of the changes
    combination.setIdentity(n, n);
    const auto inner = [&](index i, index j) {  // <result i, result j>
        double sum = 0;
        for (index p = 0; p < n; ++p) {
            for (index q = 0; q < n; ++q) {
                sum += combination(i, p) * gram(p, q) * combination(j, q);
            }
        }
        return sum;
    };
    std::vector<low_rank<S>> out;
    for (index i = 0; i < n; ++i) {
        for (int pass = 0; pass < 2; ++pass) {  // the second removes what rounding of the first left
            for (index j = 0; j < i; ++j) {
                const double size = inner(j, j);
                if (size > 1e-24 * gram(j, j)) {
                    const double share = inner(i, j) / size;
                    for (index k = 0; k < n; ++k) {
                        combination(i, k) -= share * combination(j, k);
                    }
                }
            }
        }
        std::vector<low_rank<S>> terms;
        std::vector<S> weights;
        for (index j = 0; j <= i; ++j) {
            if (combination(i, j) != 0) {
                terms.push_back(at(j));
                weights.push_back(static_cast<S>(combination(i, j)));
            }
        }
        out.push_back(weighted_sum<S>(terms, std::span<const S>(weights)));
    }
    return out;
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_ARITHMETIC_OF(S)                                                           \
    template lora_adapter<S> add<S>(const lora_adapter<S>&, const lora_adapter<S>&, S, S); \
    template lora_adapter<S> average<S>(std::span<const lora_adapter<S>>);                 \
    template double cosine<S>(const low_rank<S>&, const low_rank<S>&);                     \
    template low_rank<S> project_out<S>(const low_rank<S>&, const low_rank<S>&);           \
    template low_rank<S> project_out_outputs<S>(low_rank<S>, matrix<S>);                   \
    template low_rank<S> project_out_inputs<S>(low_rank<S>, matrix<S>);                    \
    template std::vector<low_rank<S>> orthogonalize<S>(std::span<const low_rank<S>>);
LOWRANK_ARITHMETIC_OF(float)
LOWRANK_ARITHMETIC_OF(double)
#undef LOWRANK_ARITHMETIC_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_COMBINE_ARITHMETIC_IPP
