// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_INIT_DATA_INIT_HPP
#define LOWRANK_LORA_INIT_DATA_INIT_HPP

/// \file
/// Starts of a LoRA adapter from data: CorDA and EVA from a layer's inputs, LoRA-GA from the gradient of its weight.
///
///     lowrank::gram_accumulator c(w.cols());                                       // fed with the layer's inputs
///     auto corda = lowrank::corda(w, c.sum() / double(c.count()), {.r = 16, .lora_alpha = 16});
///     lowrank::input_statistics x(w.cols());                                       // fed with the layer's inputs
///     auto eva = lowrank::eva(lowrank::principal_components(x, 32).value(), w.rows(), {.r = 16});
///     auto ga = lowrank::lora_ga(lowrank::make_spectrum(gradient).value(), {.r = 16, .lora_alpha = 16});
///
/// CorDA and LoRA-GA start at a change that is not zero: `subtract_init` (spectral_init.hpp) takes it out of the base.
///
/// Yang et al., CorDA, arXiv 2406.05223. Paischer et al., EVA, arXiv 2410.07170. Wang, Yu, Li, LoRA-GA, arXiv
/// 2407.05000.

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include <Eigen/Cholesky>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/factored_algebra.hpp>
#include <lowrank/factor/spectrum.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/factor/symmetric_eigen.hpp>
#include <lowrank/factor/weighted/statistics.hpp>
#include <lowrank/factor/weighted/weighted.hpp>
#include <lowrank/factor/weighted/weighting.hpp>
#include <lowrank/lora/init/spectral_init.hpp>
#include <lowrank/lora/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {

// ---- CorDA

/// In which weighting CorDA decomposes W.
enum class corda_weighting {
    covariance,  ///< SVD of W C', undone by C'^-1, C' = C + damp mean(diag C) I: the paper and PEFT.
    root,        ///< The best rank r for the outputs, min ||(W - W') X||_F; C may be singular.
};

struct corda_options {
    bool knowledge_preserving = false;  ///< The last r components ("kpm") instead of the first ("ipm").
    corda_weighting weighting = corda_weighting::covariance;
    double damp = 0.01;  ///< Of `covariance`; doubled until C' C'^-1 is I within 0.05, as in PEFT.
};

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
    const index n = w.cols();
    const index r = options.r;
    detail::expects_init("corda", w.rows(), n, options);
    detail::expects_shape("corda", "covariance", covariance.rows(), covariance.cols(), n, n);
    detail::expects(how.damp > 0, "corda: damp must be positive");
    if (!all_finite(w) || !all_finite(covariance)) {
        return status{errc::non_finite, "corda: the weight or the covariance holds NaN or infinity"};
    }
    const double scaling = lora_scaling(options.lora_alpha, r, options.use_rslora);
    if (how.weighting == corda_weighting::root) {
        const auto weighting = gram_weighting(covariance);
        if (!weighting) {
            return weighting.error();
        }
        const auto spec = make_weighted_spectrum(w, {.right = *weighting});
        if (!spec) {
            return spec.error();
        }
        detail::expects_in_range("corda", "r", r, index{1}, spec->size());
        const auto all = spec->truncate(spec->size());
        low_rank<S> part{.left = all.left.leftCols(r), .right = all.right.topRows(r)};
        if (how.knowledge_preserving) {
            part = {.left = all.left.rightCols(r), .right = all.right.bottomRows(r)};
        }
        auto balanced = resize(part, r);
        if (!balanced) {
            return std::move(balanced.why);
        }
        const S root = static_cast<S>(std::sqrt(scaling));
        const index kept = balanced.product.rank();  // r, unless the product has lower rank by its shape
        matrix<S> a = matrix<S>::Zero(r, n);
        matrix<S> b = matrix<S>::Zero(w.rows(), r);
        a.topRows(kept) = balanced.product.right / root;
        b.leftCols(kept) = balanced.product.left / root;
        return detail::with_factors<S>(std::move(a), std::move(b), options);
    }
    const double level = covariance.diagonal().mean();
    if (!(level > 0)) {
        return status{errc::mismatch, "corda: the covariance has no positive diagonal; were any inputs added to it?"};
    }
    matrix<double> damped;
    matrix<double> inverse;
    for (double damp = how.damp;; damp *= 2) {
        damped = covariance;
        damped.diagonal().array() += damp * level;
        const Eigen::LLT<matrix<double>> cholesky(damped);
        if (cholesky.info() == Eigen::Success) {
            inverse = cholesky.solve(matrix<double>::Identity(n, n));
            if ((damped * inverse - matrix<double>::Identity(n, n)).norm() < 0.05) {
                break;
            }
        }
        if (damp > 1e6) {
            return status{errc::mismatch, "corda: the covariance is not positive semidefinite"};
        }
    }
    const matrix<double> wide = w.template cast<double>() * damped;
    const auto f = svd(wide);
    if (!f) {
        return f.why;
    }
    const index first = how.knowledge_preserving ? f.s.size() - r : 0;
    const vector<double> root = (f.s.segment(first, r) / scaling).cwiseSqrt();
    matrix<double> a = root.asDiagonal() * (f.v.middleCols(first, r).transpose() * inverse);
    matrix<double> b = f.u.middleCols(first, r) * root.asDiagonal();
    return detail::with_factors<S>(a.template cast<S>(), b.template cast<S>(), options);
}

// ---- EVA

/// Sum and second moments of a layer's inputs, in double; shards merge.
class input_statistics {
public:
    input_statistics() = default;
    explicit input_statistics(index dimension) : gram_(dimension), sum_(vector<double>::Zero(dimension)) {}

    [[nodiscard]] index dimension() const noexcept { return sum_.size(); }
    [[nodiscard]] std::int64_t count() const noexcept { return gram_.count(); }

    /// Adds the columns of X (dimension x N). \return `non_finite`, with nothing added.
    template <real S>
    status add(const matrix<S>& x) {
        status why = gram_.add(x);
        if (why) {
            sum_ += x.template cast<double>().rowwise().sum();
        }
        return why;
    }

    /// \pre other.dimension() == dimension()
    void merge(const input_statistics& other) {
        gram_.merge(other.gram_);
        sum_ += other.sum_;
    }

    /// sum x x^T, or sum (x - mean)(x - mean)^T.
    [[nodiscard]] matrix<double> scatter(bool centered) const {
        matrix<double> c = gram_.sum();
        if (centered && count() > 0) {
            c -= sum_ * sum_.transpose() / static_cast<double>(count());
        }
        return c;
    }

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
/// \pre    most >= 1
/// \return As `symmetric_eigen`; at most min(in, count) components.
template <std::same_as<double> S = double>  // compiled only where it is called
[[nodiscard]] result<input_components> principal_components(const input_statistics& x, index most,
                                                            bool centered = true) {
    detail::expects(most >= 1, "principal_components: most must be at least 1");
    auto eigen = symmetric_eigen<S>(x.scatter(centered));
    if (!eigen) {
        return std::move(eigen.why);
    }
    const index k = std::min({most, x.dimension(), static_cast<index>(x.count())});
    const double total = eigen.values.cwiseMax(0.0).sum();
    input_components out{.directions = eigen.vectors.leftCols(k),
                         .singular_values = eigen.values.head(k).cwiseMax(0.0).cwiseSqrt(),
                         .explained = eigen.values.head(k).cwiseMax(0.0)};
    if (total > 0) {
        out.explained /= total;
    }
    return out;
}

/// EVA's ranks: the budget r times the number of layers goes to the components that explain most, of whichever layer.
///
/// \param  rho  A layer gets at most round(r rho). \pre r >= 1, rho >= 1
/// \return One rank per layer, which may be 0: such a layer needs no adapter.
[[nodiscard]] inline std::vector<index> eva_ranks(std::span<const vector<double>> explained, index r,
                                                  double rho = 2.0) {
    detail::expects(r >= 1 && rho >= 1.0, "eva_ranks: r and rho must be at least 1");
    const auto cap = static_cast<index>(std::lround(static_cast<double>(r) * rho));
    std::vector<std::pair<double, std::size_t>> all;
    for (std::size_t layer = 0; layer < explained.size(); ++layer) {
        for (index i = 0; i < std::min(cap, explained[layer].size()); ++i) {
            all.emplace_back(explained[layer](i), layer);
        }
    }
    std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
    std::vector<index> ranks(explained.size(), 0);
    const auto budget = std::min(all.size(), explained.size() * static_cast<std::size_t>(r));
    for (std::size_t i = 0; i < budget; ++i) {
        ++ranks[all[i].second];
    }
    return ranks;
}

struct eva_options {
    bool whiten = false;         ///< A / sqrt(S): directions of strong inputs do not dominate.
    bool adjust_scaling = true;  ///< lora_alpha * rank / r, so that all layers keep one scaling alpha / r.
};

/// A = the first `rank` directions, B = 0: the change starts at zero. `options.r` is the common rank before
/// `eva_ranks`. \pre 1 <= rank <= the number of components
template <real S = float>
[[nodiscard]] lora_adapter<S> eva(const input_components& x, index out, const lora_options& options, index rank,
                                  const eva_options& how = {}) {
    detail::expects_in_range("eva", "rank", rank, index{1}, x.directions.cols());
    matrix<double> a = x.directions.leftCols(rank).transpose();
    if (how.whiten) {
        for (index i = 0; i < rank; ++i) {
            const double s = x.singular_values(i);
            a.row(i) *= s > 0 ? 1 / std::sqrt(s) : 0.0;
        }
    }
    auto adapter = detail::with_factors<S>(a.template cast<S>(), matrix<S>::Zero(out, rank), options);
    if (how.adjust_scaling) {
        adapter.lora_alpha *= static_cast<double>(rank) / static_cast<double>(options.r);
    }
    return adapter;
}

/// At the rank of the options.
template <real S = float>
[[nodiscard]] lora_adapter<S> eva(const input_components& x, index out, const lora_options& options) {
    return eva<S>(x, out, options, options.r);
}

// ---- LoRA-GA

/// Which of the 2 r leading singular directions of the gradient A and B start with.
enum class lora_ga_direction {
    a_first,      ///< A the first r right ones, B the next r left ones: "ArB2r", the default.
    b_first,      ///< B the first r, A the next r: "A2rBr".
    alternating,  ///< B the even, A the odd ones: "ArBr".
    random,       ///< r of them, the same for both, from the seed.
};

/// How large they start.
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
/// of the full weight. Take the start out of the base with `subtract_init`.
///
/// \pre 2 r <= min(out, in), lora_alpha > 0, gamma > 0; weight_sigma1 > 0 for `weight_svd`.
template <real S>
[[nodiscard]] lora_adapter<S> lora_ga(const spectrum<S>& gradient, const lora_options& options,
                                      const lora_ga_options& how = {}) {
    const index r = options.r;
    detail::expects_init("lora_ga", gradient.rows(), gradient.cols(), options);
    detail::expects(2 * r <= gradient.size(), "lora_ga: needs 2 r <= min(out, in) singular values of the gradient");
    detail::expects(how.gamma > 0, "lora_ga: gamma must be positive");
    std::vector<index> of_a(static_cast<std::size_t>(r));
    std::vector<index> of_b(static_cast<std::size_t>(r));
    std::vector<index> shuffled(static_cast<std::size_t>(2 * r));
    std::iota(shuffled.begin(), shuffled.end(), index{0});
    if (how.direction == lora_ga_direction::random) {
        const philox rng(options.seed, options.stream);
        for (std::size_t i = 0; i < static_cast<std::size_t>(r); ++i) {
            std::swap(shuffled[i], shuffled[i + static_cast<std::size_t>(rng.below(shuffled.size() - i, i))]);
        }
    }
    for (index i = 0; i < r; ++i) {
        const auto at = static_cast<std::size_t>(i);
        switch (how.direction) {
            case lora_ga_direction::a_first: of_a[at] = i, of_b[at] = r + i; break;
            case lora_ga_direction::b_first: of_a[at] = r + i, of_b[at] = i; break;
            case lora_ga_direction::alternating: of_a[at] = 2 * i + 1, of_b[at] = 2 * i; break;
            case lora_ga_direction::random: of_a[at] = of_b[at] = shuffled[at]; break;
        }
    }
    matrix<S> a(r, gradient.cols());
    matrix<S> b(gradient.rows(), r);
    for (index i = 0; i < r; ++i) {
        const auto at = static_cast<std::size_t>(i);
        a.row(i) = gradient.v().col(of_a[at]).transpose();
        b.col(i) = gradient.u().col(of_b[at]);
        if (how.scale != lora_ga_scale::paper) {
            b.col(i) *= gradient.values()(of_b[at]);
        }
    }
    const double scaling = lora_scaling(options.lora_alpha, r, options.use_rslora);
    const double stable = std::pow(static_cast<double>(gradient.rows()), 0.25) / std::sqrt(how.gamma);
    const auto largest = static_cast<double>(gradient.values()(of_b[0]));
    switch (how.scale) {
        case lora_ga_scale::paper: a *= static_cast<S>(stable); [[fallthrough]];
        case lora_ga_scale::stable: b *= static_cast<S>(stable); break;
        case lora_ga_scale::weight_svd:
            detail::expects(how.weight_sigma1 > 0,
                            "lora_ga: weight_svd needs the largest singular value of the weight");
            b *= static_cast<S>(largest > 0 ? how.weight_sigma1 / largest : 1.0);
            break;
        case lora_ga_scale::gd_scale:
            a /= static_cast<S>(scaling);
            b /= static_cast<S>(scaling);
            break;
        case lora_ga_scale::unit: break;
    }
    return detail::with_factors<S>(std::move(a), std::move(b), options);
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_INIT_DATA_INIT_HPP
