// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_ADALORA_HPP
#define LOWRANK_LORA_ADALORA_HPP

/// \file
/// AdaLoRA: scaling * B diag(E) A, a factored change whose triplets can be switched off one by one.
///
///     lowrank::adalora_adapter<float> a{.lora_A = A, .lora_B = B, .lora_E = E, .lora_alpha = 16, .ranknum = 12};
///     auto change = a.delta();
///
/// Zhang et al., arXiv 2303.10512. As in PEFT the scaling is lora_alpha / (ranknum + 1e-5) with the INITIAL rank.

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/lora/adapter.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The change scaling * B diag(E) A; a `factored_adapter`. Masked triplets have E = 0.
template <real S>
struct adalora_adapter {
    using scalar = S;

    matrix<S> lora_A = {};  ///< r x in
    matrix<S> lora_B = {};  ///< out x r
    vector<S> lora_E = {};  ///< r
    double lora_alpha = 8;
    double ranknum = 12;  ///< The initial rank of the configuration, whatever has been masked since.

    [[nodiscard]] S scaling() const { return static_cast<S>(lora_alpha / (ranknum + 1e-5)); }

    /// left = scaling * B, right = diag(E) A.
    [[nodiscard]] low_rank<S> delta() const {
        check();
        return {.left = scaling() * lora_B, .right = lora_E.asDiagonal() * lora_A};
    }

    /// dB = scaling dL, dA = diag(E) dR, dE = rowsum(dR o A).
    [[nodiscard]] adalora_adapter pull_back(const delta_gradient<S>& g) const {
        check();
        return {.lora_A = lora_E.asDiagonal() * g.right,
                .lora_B = scaling() * g.left,
                .lora_E = g.right.cwiseProduct(lora_A).rowwise().sum(),
                .lora_alpha = lora_alpha,
                .ranknum = ranknum};
    }

private:
    void check() const {
        detail::expects(lora_A.rows() == lora_B.cols() && lora_E.size() == lora_A.rows(),
                        "adalora_adapter: A, B and E must have one rank");
    }
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_ADALORA_HPP
