// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_SHARED_RANDLORA_HPP
#define LOWRANK_LORA_KINDS_SHARED_RANDLORA_HPP

/// \file
/// RandLoRA: a change of full rank from frozen random bases that all layers share; only diagonal scales are trained.
///
///     auto shared = lowrank::make_randlora_projections<float>(4096, 4096, {.r = 32});   // for the largest layer
///     auto a = lowrank::make_randlora(shared, out, in);             // lambda = 0: changes nothing yet
///     auto change = a.delta();
///
/// Albert et al., arXiv 2502.00987; shapes, scaling and slicing as in PEFT. With d the smaller and D the larger side of
/// a layer and m = ceil(d / r) bases, the r m rows lambda(k, b) A(k, :) o gamma(b, :), at k m + b, meet columns of B at
/// b' r + k'. (So in PEFT, whose files this reads, row and column of one product come from different bases.)

#include <cstdint>
#include <memory>
#include <string_view>
#include <utility>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/lora/adapter.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/new_adapter.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The frozen random factors of all layers, drawn for the largest.
template <real S>
struct randlora_projections {
    matrix<S> randlora_A = {};  ///< r x largest d
    matrix<S> randlora_B = {};  ///< largest D x (r m), basis after basis
};

/// How entries are drawn before they are scaled to deviation 1.
enum class randlora_kind {
    uniform,
    sparse,       ///< -1, 0, 1 with probabilities 1/6, 2/3, 1/6
    very_sparse,  ///< the same with 1 / (2 sqrt d) at either end
};

struct randlora_options {
    index r = 32;
    randlora_kind kind = randlora_kind::uniform;
    std::uint64_t seed = 0;
};

/// Factors for layers of at most max_out x max_in (PEFT's distributions, not its stream).
template <real S>
[[nodiscard]] std::shared_ptr<const randlora_projections<S>> make_randlora_projections(
    index max_out, index max_in, const randlora_options& options = {});

/// The change of rank up to min(out, in); a `factored_adapter` with m (r + min(out, in)) parameters.
template <real S>
struct randlora_adapter {
    using scalar = S;

    std::shared_ptr<const randlora_projections<S>> shared = {};
    matrix<S> lambda = {};  ///< r x m
    matrix<S> gamma = {};   ///< m x min(out, in)
    index out = 0;
    index in = 0;
    double randlora_alpha = 640;

    [[nodiscard]] S scaling() const { return static_cast<S>(randlora_alpha / static_cast<double>(lambda.rows())); }

    /// B times the scaled A where the inputs are the smaller side, the transposes in the other order where not.
    [[nodiscard]] low_rank<S> delta() const;

    /// d lambda(k, b) = <dA'_kb, A_k o gamma_b>, d gamma(b, :) = sum_k lambda(k, b) dA'_kb o A_k for the scaled rows
    /// A'.
    [[nodiscard]] randlora_adapter pull_back(const delta_gradient<S>& g) const;

private:
    void check() const;
    [[nodiscard]] matrix<S> scaled() const;
};

/// A new adapter: lambda = 0, so that it changes nothing yet, and gamma = 1 / max(m, min(out, in)).
template <real S>
[[nodiscard]] randlora_adapter<S> make_randlora(std::shared_ptr<const randlora_projections<S>> shared, index out,
                                                index in, double randlora_alpha = 640);

/// Trains the two scales; the shared bases are frozen.
template <real S>
struct adapter_kind<randlora_adapter<S>> {
    static constexpr std::string_view name = "randlora";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("randlora_lambda"), a.lambda);
        f(std::string_view("randlora_gamma"), a.gamma);
    }
    static constexpr double learning_rate = 2e-3;  // for a scaling of 20
    static auto maker(const adapted_layers& all, const lora_options& options) {
        return [shared = make_randlora_projections<S>(all.max_out, all.max_in, {.r = options.r, .seed = options.seed}),
                alpha = 20.0 * static_cast<double>(options.r)](const target_layer<S>& layer) {
            return make_randlora(shared, layer.base.rows(), layer.base.cols(), alpha);
        };
    }
    using applied = applied_factors<randlora_adapter<S>>;
};

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/kinds/shared/randlora.ipp>
#endif

#endif  // LOWRANK_LORA_KINDS_SHARED_RANDLORA_HPP
