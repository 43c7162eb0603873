// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_COMBINE_ARITHMETIC_HPP
#define LOWRANK_LORA_COMBINE_ARITHMETIC_HPP

/// \file
/// Arithmetic on adapters as vectors of weight space: negate, subtract, average, project out, orthogonalize.
///
///     auto skill = lowrank::subtract(tuned, style);                        // an adapter of rank r1 + r2, exact
///     auto forget = lowrank::negate(toxic);
///     auto clean = lowrank::project_out(task.delta(), style.delta());      // <clean, style> = 0
///     auto small = lowrank::to_lora(clean, lowrank::fixed_rank(8));        // at a rank again (convert.hpp)
///
/// Everything is exact on the factors and of small cost; nothing is ever out x in. Functions on `low_rank` serve the
/// `delta()` of every adapter. `add` and `scale` of `low_rank` are in factored_algebra.hpp.
///
/// Ilharco et al., Editing Models with Task Arithmetic, arXiv 2212.04089. Wang et al., O-LoRA, arXiv 2310.14152.

#include <cmath>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/factored_algebra.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/factor/orthonormalize.hpp>
#include <lowrank/lora/convert/convert.hpp>
#include <lowrank/lora/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

// ---- On adapters. Results of two adapters have scaling 1.

/// alpha times the change, by B. Bit-exact for powers of two and -1.
template <real S>
[[nodiscard]] lora_adapter<S> scale(lora_adapter<S> a, std::type_identity_t<S> alpha) {
    a.lora_B *= alpha;
    return a;
}

/// The opposite change. Bit-exact.
template <real S>
[[nodiscard]] lora_adapter<S> negate(const lora_adapter<S>& a) {
    return scale(a, S(-1));
}

/// alpha a + beta b, of rank ra + rb. \pre One shape.
template <real S>
[[nodiscard]] lora_adapter<S> add(const lora_adapter<S>& a, const lora_adapter<S>& b,
                                  std::type_identity_t<S> alpha = S(1), std::type_identity_t<S> beta = S(1)) {
    return as_lora(add(a.delta(), b.delta(), alpha, beta));
}

/// a - b, of rank ra + rb. \pre One shape.
template <real S>
[[nodiscard]] lora_adapter<S> subtract(const lora_adapter<S>& a, const lora_adapter<S>& b) {
    return add(a, b, S(1), S(-1));
}

/// The mean of the changes, of rank sum r_i. \pre At least one, of one shape.
template <real S>
[[nodiscard]] lora_adapter<S> average(std::span<const lora_adapter<S>> adapters) {
    detail::expects(!adapters.empty(), "average: needs at least one adapter");
    std::vector<low_rank<S>> terms;
    for (const auto& a : adapters) {
        terms.push_back(a.delta());
    }
    const std::vector<S> weights(adapters.size(), S(1) / static_cast<S>(adapters.size()));
    return as_lora(weighted_sum<S>(terms, std::span<const S>(weights)));
}

// ---- On changes.

/// <A, B> / (||A||_F ||B||_F), and 0 if one of them is 0: do two adapters pull the same way? \pre One shape.
template <real S>
[[nodiscard]] double cosine(const low_rank<S>& a, const low_rank<S>& b) {
    const double size = frobenius_norm(a) * frobenius_norm(b);
    return size > 0 ? inner_product(a, b) / size : 0.0;
}

/// A - <A, B> / <B, B> B: what of A is not along B. A itself for B = 0. \pre One shape.
template <real S>
[[nodiscard]] low_rank<S> project_out(const low_rank<S>& a, const low_rank<S>& b) {
    const double size = inner_product(b, b);
    if (!(size > 0)) {
        return a;
    }
    return add(a, b, S(1), static_cast<S>(-inner_product(a, b) / size));
}

/// (I - Q Q^T) A for the range Q of `directions` (out x k): the change no longer writes there. The rank stays.
/// \pre directions.rows() == A.rows(), finite.
template <real S>
[[nodiscard]] low_rank<S> project_out_outputs(low_rank<S> a, matrix<S> directions) {
    detail::expects_shape("project_out_outputs", "directions", directions.rows(), directions.cols(), a.rows(),
                          directions.cols());
    orthonormalize(directions);
    const matrix<S> inside = directions.transpose() * a.left;
    a.left.noalias() -= directions * inside;
    return a;
}

/// A (I - Q Q^T) for the range Q of `directions` (in x k): the change no longer reads there. The rank stays.
/// \pre directions.rows() == A.cols(), finite.
template <real S>
[[nodiscard]] low_rank<S> project_out_inputs(low_rank<S> a, matrix<S> directions) {
    detail::expects_shape("project_out_inputs", "directions", directions.rows(), directions.cols(), a.cols(),
                          directions.cols());
    orthonormalize(directions);
    const matrix<S> inside = a.right * directions;
    a.right.noalias() -= inside * directions.transpose();
    return a;
}

/// Gram and Schmidt in the order given: each change minus what lies along the ones before it, so that all are
/// orthogonal as vectors of weight space. The sum of the first i spans what it spanned.
///
/// Coefficients are solved for in double against the original changes, so result i is a combination of changes 0..i of
/// rank sum k. A change in the span of the ones before it becomes (numerically) zero.
/// \pre One shape. \cost The Gram matrix of all changes.
template <real S>
[[nodiscard]] std::vector<low_rank<S>> orthogonalize(std::span<const low_rank<S>> changes) {
    const auto n = static_cast<index>(changes.size());
    const auto at = [&](index i) -> const low_rank<S>& { return changes[static_cast<std::size_t>(i)]; };
    matrix<double> gram(n, n);
    for (index i = 0; i < n; ++i) {
        for (index j = 0; j <= i; ++j) {
            gram(i, j) = gram(j, i) = inner_product(at(i), at(j));
        }
    }
    matrix<double> combination = matrix<double>::Identity(n, n);  // row i: result i in terms of the changes
    std::vector<low_rank<S>> out;
    for (index i = 0; i < n; ++i) {
        for (int pass = 0; pass < 2; ++pass) {  // the second removes what rounding of the first left
            for (index j = 0; j < i; ++j) {
                const double size = combination.row(j) * gram * combination.row(j).transpose();
                if (size > 1e-24 * gram(j, j)) {
                    const double along = combination.row(i) * gram * combination.row(j).transpose();
                    combination.row(i) -= along / size * combination.row(j);
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

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_COMBINE_ARITHMETIC_HPP
