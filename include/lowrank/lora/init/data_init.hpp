// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_INIT_DATA_INIT_HPP
#define LOWRANK_LORA_INIT_DATA_INIT_HPP

/// \file
/// Initializations of a LoRA adapter from data: CorDA and EVA from a layer's inputs, LoRA-GA from the gradient of its
/// weight.
///
///     lowrank::gram_accumulator c(w.cols());                                       // fed with the layer's inputs
///     auto corda = lowrank::corda(w, c.sum() / double(c.count()), {.r = 16, .lora_alpha = 16});
///     lowrank::input_statistics x(w.cols());                                       // fed with the layer's inputs
///     auto eva = lowrank::eva(lowrank::principal_components(x, 32).value(), w.rows(), {.r = 16});
///     auto ga = lowrank::lora_ga(lowrank::svd(dw).value(), {.r = 16, .lora_alpha = 16});              // dw = dL/dW
///
/// CorDA and LoRA-GA start with a change that is not zero: `subtract_init` (spectral_init.hpp) subtracts it from the
/// base.
///
/// Yang et al., CorDA, arXiv 2406.05223. Paischer et al., EVA, arXiv 2410.07170. Wang, Yu, Li, LoRA-GA, arXiv
/// 2407.05000.

#include <cstdint>
#include <span>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/factor/weighted/statistics.hpp>
#include <lowrank/lora/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

// ---- CorDA

/// The weighting in which CorDA decomposes W.
enum class corda_weighting {
    covariance,  ///< SVD of W C', undone by C'^-1, C' = C + damp mean(diag C) I: the paper and PEFT.
    root,        ///< The best rank r for the outputs, min ||(W - W') X||_F; C may be singular.
};

struct corda_options {
    bool knowledge_preserving = false;  ///< The last r components ("kpm") instead of the first ("ipm").
    corda_weighting weighting = corda_weighting::covariance;
    double damp = 0.01;  ///< Of `covariance`; doubled until C' C'^-1 is I within 0.05, as in PEFT.
};

namespace detail {

template <real S>
[[nodiscard]] result<lora_adapter<S>> corda_of(const matrix<S>& w, const matrix<double>& covariance,
                                               const lora_options& options, const corda_options& how);

}  // namespace detail

/// scaling B A = the part of W that matters most (least) for inputs with E x x^T = C.
///
/// With `covariance`, B = U sqrt(S / scaling) and A = sqrt(S / scaling) V^T C'^-1 for W C' = U S V^T. Scaling C only
/// moves size between A and B.
/// \pre    C is symmetric in x in; 1 <= r <= min(out, in), lora_alpha > 0, damp > 0.
/// \return `non_finite` for NaN or infinity in W or C, `mismatch` for a C with negative eigenvalues.
/// \cost   That of a double `svd` of W and in^3 flops.
template <detail::dense_weight W>
[[nodiscard]] result<lora_adapter<weight_scalar<W>>> corda(const W& w, const matrix<double>& covariance,
                                                           const lora_options& options, const corda_options& how = {}) {
    using S = weight_scalar<W>;
    return detail::corda_of<S>(copy_in<S>(w), covariance, options, how);
}

// ---- EVA

/// Sum and second moments of a layer's inputs, in double; shards merge.
class input_statistics {
public:
    input_statistics() = default;
    LOWRANK_API explicit input_statistics(index dimension);

    [[nodiscard]] index dimension() const noexcept { return sum_.size(); }
    [[nodiscard]] std::int64_t count() const noexcept { return gram_.count(); }

    /// Adds the columns of X (dimension x N). \return `non_finite`, with nothing added.
    template <real S>
    status add(const matrix<S>& x);

    /// \pre other.dimension() == dimension()
    LOWRANK_API void merge(const input_statistics& other);

    /// sum x x^T, or sum (x - mean)(x - mean)^T.
    LOWRANK_API [[nodiscard]] matrix<double> scatter(bool centered) const;

private:
    gram_accumulator gram_ = {};
    vector<double> sum_ = {};
};

/// The leading principal directions of a layer's inputs.
struct input_components {
    matrix<double> directions = {};       ///< in x k, orthonormal
    vector<double> singular_values = {};  ///< of the matrix of (centered) inputs
    vector<double> explained = {};        ///< share of the variance, of all k
};

/// PCA of everything added, exact, where EVA's incremental PCA depends on the batches. PEFT centers; the paper does
/// not.
///
/// \pre    max_rank >= 1
/// \return As `symmetric_eigen`; at most min(max_rank, in, count) components.
LOWRANK_API [[nodiscard]] result<input_components> principal_components(const input_statistics& x, index max_rank,
                                                                        bool centered = true);

/// EVA's ranks: the budget r times the number of layers goes to the components that explain most, of whichever layer.
///
/// \param  rho  A layer gets at most round(r rho). \pre r >= 1, rho >= 1
/// \return One rank per layer, which may be 0: such a layer needs no adapter.
LOWRANK_API [[nodiscard]] std::vector<index> eva_ranks(std::span<const vector<double>> explained, index r,
                                                       double rho = 2.0);

struct eva_options {
    bool whiten = false;         ///< A / sqrt(S): directions of strong inputs do not dominate.
    bool adjust_scaling = true;  ///< lora_alpha * rank / r, so that all layers keep one scaling alpha / r.
};

/// A = the first `rank` directions, B = 0: the change starts at zero. `options.r` is the common rank before
/// `eva_ranks`. \pre 1 <= rank <= the number of components
template <real S = float>
[[nodiscard]] lora_adapter<S> eva(const input_components& x, index out, const lora_options& options, index rank,
                                  const eva_options& how = {});

/// At the rank of the options.
template <real S = float>
[[nodiscard]] lora_adapter<S> eva(const input_components& x, index out, const lora_options& options) {
    return eva<S>(x, out, options, options.r);
}

// ---- LoRA-GA

/// Which of the 2 r leading singular directions of the gradient initialize A and B.
enum class lora_ga_direction {
    a_first,      ///< A the first r right ones, B the next r left ones: "ArB2r", the default.
    b_first,      ///< B the first r, A the next r: "A2rBr".
    alternating,  ///< B the even, A the odd ones: "ArBr".
    random,       ///< r of them, the same for both, from the seed.
};

/// How these directions are scaled.
enum class lora_ga_scale {
    paper,       ///< Orthonormal directions times out^(1/4) / sqrt(gamma) on both sides.
    stable,      ///< PEFT's "stable": B = U diag(S) out^(1/4) / sqrt(gamma), A = V^T.
    weight_svd,  ///< PEFT's: B = U diag(S) sigma_1(W) / S_1, A = V^T.
    gd_scale,    ///< PEFT's: B = U diag(S) / scaling, A = V^T / scaling.
    unit,        ///< PEFT's: B = U diag(S), A = V^T.
};

struct lora_ga_options {
    lora_ga_direction direction = lora_ga_direction::a_first;
    lora_ga_scale scale = lora_ga_scale::stable;
    double gamma = 16;         ///< Of `stable` and `paper`.
    double weight_sigma1 = 0;  ///< Largest singular value of W, of `weight_svd`.
};

/// LoRA-GA from the spectrum of the gradient dL/dW (out x in): the first step of training B and A follows the gradient
/// of the full weight. Subtract the initial change from the base with `subtract_init`.
///
/// \pre 2 r <= min(out, in), lora_alpha > 0, gamma > 0; weight_sigma1 > 0 for `weight_svd`.
template <real S>
[[nodiscard]] lora_adapter<S> lora_ga(const decomposition<S>& gradient, const lora_options& options,
                                      const lora_ga_options& how = {});

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/init/data_init.ipp>
#endif

#endif  // LOWRANK_LORA_INIT_DATA_INIT_HPP
