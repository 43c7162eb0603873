// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_RANDLORA_HPP
#define LOWRANK_LORA_KINDS_RANDLORA_HPP

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

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <string_view>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/lora/adapter.hpp>
#include <lowrank/lora/adapter_kind.hpp>

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

namespace detail {

template <real S>
void fill_randlora(matrix<S>& x, randlora_kind kind, double sparsity, const philox& rng) {
    fill_uniform(x, S(0), S(1), rng);
    if (kind == randlora_kind::uniform) {
        x.array() -= S(0.5);
    } else {
        const auto end = static_cast<S>(1 / (2 * sparsity));
        x = x.unaryExpr([end](S u) { return u < end ? S(-1) : u > S(1) - end ? S(1) : S(0); }).eval();
    }
    const double n = static_cast<double>(x.size());
    const double mean = n > 0 ? x.template cast<double>().mean() : 0.0;
    const double deviation =
        n > 1 ? std::sqrt((x.template cast<double>().array() - mean).square().sum() / (n - 1)) : 0.0;
    if (deviation > 0) {
        x *= static_cast<S>(1 / deviation);
    }
}

}  // namespace detail

/// Factors for layers of at most max_out x max_in (PEFT's distributions, not its stream).
template <real S>
[[nodiscard]] std::shared_ptr<const randlora_projections<S>> make_randlora_projections(
    index max_out, index max_in, const randlora_options& options = {}) {
    detail::expects(max_out >= 1 && max_in >= 1 && options.r >= 1, "make_randlora_projections: sizes must be positive");
    const index d = std::min(max_out, max_in);
    const index bases = (d + options.r - 1) / options.r;
    randlora_projections<S> p{.randlora_A = matrix<S>(options.r, d),
                              .randlora_B = matrix<S>(std::max(max_out, max_in), options.r * bases)};
    const double sparsity = options.kind == randlora_kind::sparse ? 3.0 : std::sqrt(static_cast<double>(d));
    detail::fill_randlora(p.randlora_A, options.kind, sparsity, philox(options.seed, 0));
    detail::fill_randlora(p.randlora_B, options.kind, sparsity, philox(options.seed, 1));
    return std::make_shared<const randlora_projections<S>>(std::move(p));
}

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
    [[nodiscard]] low_rank<S> delta() const {
        check();
        const matrix<S> a = scaled();
        const auto b = shared->randlora_B.topLeftCorner(std::max(out, in), a.rows());
        if (in <= out) {
            return {.left = scaling() * b, .right = a};
        }
        return {.left = scaling() * a.transpose(), .right = b.transpose()};
    }

    /// d lambda(k, b) = <dA'_kb, A_k o gamma_b>, d gamma(b, :) = sum_k lambda(k, b) dA'_kb o A_k for the scaled rows
    /// A'.
    [[nodiscard]] randlora_adapter pull_back(const delta_gradient<S>& g) const {
        check();
        const matrix<S> d = in <= out ? g.right : matrix<S>(scaling() * g.left.transpose());
        const index bases = lambda.cols();
        detail::expects_shape("randlora_adapter::pull_back", "gradient", d.rows(), d.cols(), lambda.rows() * bases,
                              gamma.cols());
        randlora_adapter o{.shared = shared,
                           .lambda = matrix<S>(lambda.rows(), bases),
                           .gamma = matrix<S>::Zero(bases, gamma.cols()),
                           .out = out,
                           .in = in,
                           .randlora_alpha = randlora_alpha};
        for (index k = 0; k < lambda.rows(); ++k) {
            const auto a = shared->randlora_A.row(k).head(gamma.cols());
            for (index b = 0; b < bases; ++b) {
                const auto row = d.row(k * bases + b);
                o.lambda(k, b) = row.cwiseProduct(a).dot(gamma.row(b));
                o.gamma.row(b) += lambda(k, b) * row.cwiseProduct(a);
            }
        }
        return o;
    }

private:
    void check() const {
        detail::expects(shared != nullptr, "randlora_adapter: needs its shared projections");
        const index d = std::min(out, in);
        detail::expects(lambda.rows() == shared->randlora_A.rows() && lambda.cols() == gamma.rows() &&
                            gamma.cols() == d && d <= shared->randlora_A.cols() &&
                            std::max(out, in) <= shared->randlora_B.rows() &&
                            lambda.size() <= shared->randlora_B.cols(),
                        "randlora_adapter: the shared projections are too small or of another rank");
    }
    [[nodiscard]] matrix<S> scaled() const {
        const index bases = lambda.cols();
        matrix<S> a(lambda.size(), gamma.cols());
        for (index k = 0; k < lambda.rows(); ++k) {
            for (index b = 0; b < bases; ++b) {
                a.row(k * bases + b) =
                    lambda(k, b) * shared->randlora_A.row(k).head(gamma.cols()).cwiseProduct(gamma.row(b));
            }
        }
        return a;
    }
};

/// A new adapter: lambda = 0, so that it changes nothing yet, and gamma = 1 / max(m, min(out, in)).
template <real S>
[[nodiscard]] randlora_adapter<S> make_randlora(std::shared_ptr<const randlora_projections<S>> shared, index out,
                                                index in, double randlora_alpha = 640) {
    detail::expects(shared != nullptr && out >= 1 && in >= 1, "make_randlora: needs shared projections and a shape");
    const index r = shared->randlora_A.rows();
    const index d = std::min(out, in);
    const index bases = (d + r - 1) / r;
    return {.shared = std::move(shared),
            .lambda = matrix<S>::Zero(r, bases),
            .gamma = matrix<S>::Constant(bases, d, S(1) / static_cast<S>(std::max(bases, d))),
            .out = out,
            .in = in,
            .randlora_alpha = randlora_alpha};
}

/// Trains the two scales; the shared bases are frozen.
template <real S>
struct adapter_kind<randlora_adapter<S>> {
    static constexpr std::string_view name = "randlora";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        f(std::string_view("randlora_lambda"), a.lambda);
        f(std::string_view("randlora_gamma"), a.gamma);
    }
    using applied = applied_factors<randlora_adapter<S>>;
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_RANDLORA_HPP
