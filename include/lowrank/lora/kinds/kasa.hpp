// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_KASA_HPP
#define LOWRANK_LORA_KINDS_KASA_HPP

/// \file
/// KaSA: the change scaling * B diag(d) A on a weight without its r smallest singular components.
///
///     auto [adapter, noise] = lowrank::kasa(spec, {.r = 8, .lora_alpha = 16, .seed = 1});
///     auto receipt = lowrank::merge(lowrank::weight_view<float>(w), lowrank::scale(noise, -1.0F));   // W <- W - noise
///
/// Wang et al., KaSA: Knowledge-Aware Singular-Value Adaptation, arXiv 2412.06071. Penalties as in PEFT's KasaConfig.

#include <cmath>
#include <cstdint>
#include <string_view>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/decomposition.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/lora/adapter.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The change scaling * B diag(d) A; a `factored_adapter`.
template <real S>
struct kasa_adapter {
    using scalar = S;

    matrix<S> lora_A = {};     ///< r x in
    matrix<S> lora_B = {};     ///< out x r
    vector<S> lora_diag = {};  ///< r
    double lora_alpha = 8;
    bool use_rslora = false;

    [[nodiscard]] S scaling() const { return static_cast<S>(lora_scaling(lora_alpha, lora_A.rows(), use_rslora)); }

    [[nodiscard]] low_rank<S> delta() const {
        check();
        return {.left = scaling() * lora_B * lora_diag.asDiagonal(), .right = lora_A};
    }

    /// dB = s dL diag(d), dd_i = s B_i . dL_i, dA = dR.
    [[nodiscard]] kasa_adapter pull_back(const delta_gradient<S>& g) const {
        check();
        return {.lora_A = g.right,
                .lora_B = scaling() * g.left * lora_diag.asDiagonal(),
                .lora_diag = scaling() * lora_B.cwiseProduct(g.left).colwise().sum().transpose(),
                .lora_alpha = lora_alpha,
                .use_rslora = use_rslora};
    }

private:
    void check() const {
        detail::expects(lora_diag.size() == lora_A.rows() && lora_B.cols() == lora_A.rows(),
                        "kasa_adapter: lora_A, lora_B and lora_diag must agree in r");
    }
};

/// A new KaSA adapter and the part of W it replaces.
template <real S>
struct kasa_start {
    kasa_adapter<S> adapter = {};
    low_rank<S> noise = {};  ///< The r smallest singular components of W: subtract them from the base.
};

/// A uniform in +-1/sqrt(in), B zero, d standard normal. \pre 1 <= r < min(out, in)
template <real S>
[[nodiscard]] kasa_start<S> kasa(const decomposition<S>& w, const lora_options& options) {
    detail::expects_in_range("kasa", "r", options.r, index{1}, w.size() - 1);
    auto lora = make_lora<S>(w.rows(), w.cols(), options);
    kasa_start<S> start{.adapter = {.lora_A = std::move(lora.lora_A),
                                    .lora_B = std::move(lora.lora_B),
                                    .lora_diag = vector<S>(options.r),
                                    .lora_alpha = options.lora_alpha,
                                    .use_rslora = options.use_rslora},
                        .noise = w.dropped(w.size() - options.r)};
    fill_normal(start.adapter.lora_diag, S(1), philox(options.seed, options.stream + (std::uint64_t{1} << 62)));
    return start;
}

/// beta ||d||^2 + gamma (||B^T B - I||_F + ||A A^T - I||_F), and its gradient, added to `gradient`.
///
/// \pre `gradient` has the shapes of the adapter.
template <real S>
double kasa_penalty(const kasa_adapter<S>& a, kasa_adapter<S>& gradient, double beta = 1e-4, double gamma = 1e-3) {
    const auto eye = matrix<S>::Identity(a.lora_A.rows(), a.lora_A.rows());
    const matrix<S> of_b = a.lora_B.transpose() * a.lora_B - eye;
    const matrix<S> of_a = a.lora_A * a.lora_A.transpose() - eye;
    const S norm_b = of_b.norm();
    const S norm_a = of_a.norm();
    // d ||X^T X - I||_F = 2 X (X^T X - I) / ||X^T X - I||_F; no gradient at the minimum.
    gradient.lora_diag += static_cast<S>(2 * beta) * a.lora_diag;
    if (norm_b > S(0)) {
        gradient.lora_B.noalias() += (static_cast<S>(2 * gamma) / norm_b) * (a.lora_B * of_b);
    }
    if (norm_a > S(0)) {
        gradient.lora_A.noalias() += (static_cast<S>(2 * gamma) / norm_a) * (of_a * a.lora_A);
    }
    return beta * static_cast<double>(a.lora_diag.squaredNorm()) + gamma * static_cast<double>(norm_a + norm_b);
}

/// Three parameters; a product of factors.
template <real S>
struct adapter_kind<kasa_adapter<S>> {
    static constexpr std::string_view name = "kasa";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("lora_A"), a.lora_A);
        f(std::string_view("lora_B"), a.lora_B);
        f(std::string_view("lora_diag"), a.lora_diag);
    }
    using applied = applied_factors<kasa_adapter<S>>;
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_KASA_HPP
