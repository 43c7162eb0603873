// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_SHARED_VERA_HPP
#define LOWRANK_LORA_KINDS_SHARED_VERA_HPP

/// \file
/// VeRA: diag(lambda_b) B diag(lambda_d) A with random A and B that are frozen and shared by all layers.
///
///     auto shared = lowrank::make_vera_projections<float>(4096, 4096, 256, seed);   // of the largest layer
///     auto a = lowrank::make_vera(shared, out, in);            // lambda_d = 0.1, lambda_b = 0
///     auto change = a.delta();
///
/// Kopiczko, Blankevoort, Asano, arXiv 2310.11454. A layer uses A[:, :in] and B[:out, :], as in PEFT.

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

/// The frozen random factors of all layers.
template <real S>
struct vera_projections {
    matrix<S> vera_A = {};  ///< r x largest in
    matrix<S> vera_B = {};  ///< largest out x r
};

/// Uniform in +-sqrt(6 / fan_in), fan_in being the largest in for A and r for B (PEFT's distribution, not its stream).
template <real S>
[[nodiscard]] std::shared_ptr<const vera_projections<S>> make_vera_projections(index max_out, index max_in, index r,
                                                                               std::uint64_t seed = 0);

/// The change diag(lambda_b) B diag(lambda_d) A; a `factored_adapter` with r + out parameters.
template <real S>
struct vera_adapter {
    using scalar = S;

    std::shared_ptr<const vera_projections<S>> shared = {};
    vector<S> lambda_b = {};  ///< out
    vector<S> lambda_d = {};  ///< r
    index in = 0;

    /// left = diag(lambda_b) B[:out, :], right = diag(lambda_d) A[:, :in].
    [[nodiscard]] low_rank<S> delta() const;

    /// d lambda_b = rowsum(dL o B), d lambda_d = rowsum(dR o A).
    [[nodiscard]] vera_adapter pull_back(const delta_gradient<S>& g) const;

private:
    void check() const;
};

/// A new adapter: lambda_d = d_initial, lambda_b = 0, so that it changes nothing yet.
template <real S>
[[nodiscard]] vera_adapter<S> make_vera(std::shared_ptr<const vera_projections<S>> shared, index out, index in,
                                        double d_initial = 0.1);

/// Trains the two scales; the shared projections are frozen.
template <real S>
struct adapter_kind<vera_adapter<S>> {
    static constexpr std::string_view name = "vera";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("vera_lambda_b"), a.lambda_b);
        f(std::string_view("vera_lambda_d"), a.lambda_d);
    }
    static constexpr double learning_rate = 5e-2;
    static auto maker(const adapted_layers& all, const lora_options& options) {
        return [shared = make_vera_projections<S>(all.max_out, all.max_in, options.r, options.seed)](
                   const target_layer<S>& layer) { return make_vera(shared, layer.base.rows(), layer.base.cols()); };
    }
    using applied = applied_factors<vera_adapter<S>>;
};

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/kinds/shared/vera.ipp>
#endif

#endif  // LOWRANK_LORA_KINDS_SHARED_VERA_HPP
