// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_ADALORA_HPP
#define LOWRANK_LORA_KINDS_ADALORA_HPP

/// \file
/// AdaLoRA: scaling * B diag(E) A, a factored change whose triplets can be switched off one by one.
///
///     auto a = lowrank::make_adalora<float>(out, in, {.init_r = 12, .lora_alpha = 16});
///     auto change = a.delta();
///
/// Zhang et al., arXiv 2303.10512. As in PEFT the scaling is lora_alpha / (ranknum + 1e-5) with the INITIAL rank.

#include <cstdint>
#include <string_view>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/lora/adapter.hpp>
#include <lowrank/lora/adapter_kind.hpp>

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

/// PEFT's defaults.
struct adalora_options {
    index init_r = 12;
    double lora_alpha = 8;
    std::uint64_t seed = 0;
    std::uint64_t stream = 0;
};

/// A new adapter for an out x in weight: A and B normal of deviation 0.02, E zero, so that it changes nothing yet.
template <real S>
[[nodiscard]] adalora_adapter<S> make_adalora(index out, index in, const adalora_options& options = {}) {
    detail::expects(out >= 0 && in >= 0 && options.init_r >= 1,
                    "make_adalora: out and in must not be negative, init_r must be at least 1");
    adalora_adapter<S> a{.lora_A = matrix<S>(options.init_r, in),
                         .lora_B = matrix<S>(out, options.init_r),
                         .lora_E = vector<S>::Zero(options.init_r),
                         .lora_alpha = options.lora_alpha,
                         .ranknum = static_cast<double>(options.init_r)};
    fill_normal(a.lora_A, S(0.02), philox(options.seed, 2 * options.stream));
    fill_normal(a.lora_B, S(0.02), philox(options.seed, 2 * options.stream + 1));
    return a;
}

/// Of three parameters, named as in PEFT; a product of factors.
template <real S>
struct adapter_kind<adalora_adapter<S>> {
    static constexpr std::string_view name = "adalora";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("lora_A"), a.lora_A);
        f(std::string_view("lora_B"), a.lora_B);
        f(std::string_view("lora_E"), a.lora_E);
    }
    using applied = applied_factors<adalora_adapter<S>>;
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_ADALORA_HPP
