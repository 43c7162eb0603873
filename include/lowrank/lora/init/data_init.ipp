// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_INIT_DATA_INIT_IPP
#define LOWRANK_LORA_INIT_DATA_INIT_IPP

#include <lowrank/lora/init/data_init.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/factor/factored_algebra.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/factor/symmetric_eigen.hpp>
#include <lowrank/factor/weighted/weighted.hpp>
#include <lowrank/factor/weighted/weighting.hpp>
#include <lowrank/lora/init/spectral_init.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// `corda_weighting::root`: the part of W that the spectrum weighted by the covariance names.
template <real S>
result<lora_adapter<S>> corda_by_root(const matrix<S>& w, const matrix<double>& covariance, double scaling,
                                      const lora_options& options, bool knowledge_preserving) {
    const index r = options.r;
    const auto weighting = gram_weighting(covariance);
    if (!weighting) {
        return weighting.error();
    }
    const auto f = weighted_svd(w, {.right = *weighting});
    if (!f) {
        return f.why;
    }
    expects_in_range("corda", "r", r, index{1}, f.size());
    // U_r U_r^T W, which is all of W in these directions, also where no input has seen them.
    matrix<S> left = columns_of(f.u, knowledge_preserving ? f.size() - r : 0, r);
    const matrix<double> seen = product_in<double>(transposed(left), w);
    auto balanced = resize(low_rank<S>{.left = std::move(left), .right = copy_in<S>(seen)}, r);
    if (!balanced) {
        return std::move(balanced.why);
    }
    const S root = static_cast<S>(std::sqrt(scaling));
    matrix<S> a;
    matrix<S> b;
    a.setZero(r, w.cols());
    b.setZero(w.rows(), r);
    const low_rank<S> factors = balanced.product(sigma_split::square);
    for (index k = 0; k < factors.rank(); ++k) {  // r, unless the product has lower rank by its shape
        for (index j = 0; j < a.cols(); ++j) {
            a(k, j) = factors.right(k, j) / root;
        }
        for (index i = 0; i < b.rows(); ++i) {
            b(i, k) = factors.left(i, k) / root;
        }
    }
    return with_factors<S>(std::move(a), std::move(b), options);
}

/// C' = C + damp level I with the smallest damp, doubled from the one given, for which C' C'^-1 is I within 0.05;
/// `inverse` becomes C'^-1. False if there is none.
LOWRANK_API bool damp_until_invertible(matrix<double>& c, double damp, double level, matrix<double>& inverse) {
    const index n = c.rows();
    const matrix<double> given = c;
    for (;; damp *= 2) {
        c = given;
        for (index i = 0; i < n; ++i) {
            c(i, i) += damp * level;
        }
        matrix<double> l = c;
        if (cholesky(l)) {
            matrix<double> l_t_inverse;  // C'^-1 = L^-T L^-1
            l_t_inverse.setIdentity(n, n);
            solve_right_lower_transposed(l, l_t_inverse);
            inverse = gram(transposed(l_t_inverse));
            matrix<double> gap = product(c, inverse);
            for (index i = 0; i < n; ++i) {
                gap(i, i) -= 1.0;
            }
            if (all_finite(gap) && norm_of(gap) < 0.05) {
                return true;
            }
        }
        if (damp > 1e6) {
            return false;
        }
    }
}

template <real S>
result<lora_adapter<S>> corda_of(const matrix<S>& w, const matrix<double>& covariance, const lora_options& options,
                                 const corda_options& how) {
    const index n = w.cols();
    const index r = options.r;
    expects_init("corda", w.rows(), n, options);
    expects_shape("corda", "covariance", covariance.rows(), covariance.cols(), n, n);
    expects(how.damp > 0, "corda: damp must be positive");
    if (!all_finite(w) || !all_finite(covariance)) {
        return status{errc::non_finite, "corda: the weight or the covariance holds NaN or infinity"};
    }
    const double scaling = lora_scaling(options.lora_alpha, r, options.use_rslora);
    if (how.weighting == corda_weighting::root) {
        return corda_by_root<S>(w, covariance, scaling, options, how.knowledge_preserving);
    }
    double level = 0;  // mean(diag C)
    for (index i = 0; i < n; ++i) {
        level += covariance(i, i) / static_cast<double>(n);
    }
    if (!(level > 0)) {
        return status{errc::mismatch, "corda: the covariance has no positive diagonal; were any inputs added to it?"};
    }
    matrix<double> damped = covariance;
    matrix<double> inverse;
    if (!damp_until_invertible(damped, how.damp, level, inverse)) {
        return status{errc::mismatch, "corda: the covariance is not positive semidefinite"};
    }
    const auto f = svd(product_in<double>(w, damped));
    if (!f) {
        return f.why;
    }
    const index first = how.knowledge_preserving ? f.s.size() - r : 0;
    vector<double> root(r);
    for (index i = 0; i < r; ++i) {
        root(i) = std::sqrt(f.s(first + i) / scaling);
    }
    matrix<double> a = product(transposed(dense_view<const double>(f.v).middle_cols(first, r)), inverse);
    matrix<double> b = columns_of(f.u, first, r);
    scale_rows(root, a);
    scale_cols(b, root);
    return with_factors<S>(copy_in<S>(a), copy_in<S>(b), options);
}

}  // namespace detail

LOWRANK_BODY input_statistics::input_statistics(index dimension) : gram_(dimension) { sum_.setZero(dimension); }

template <real S>
status input_statistics::add(const matrix<S>& x) {
    status why = gram_.add(x);
    if (why) {
        for (index j = 0; j < x.cols(); ++j) {
            for (index i = 0; i < x.rows(); ++i) {
                sum_(i) += static_cast<double>(x(i, j));
            }
        }
    }
    return why;
}

LOWRANK_BODY void input_statistics::merge(const input_statistics& other) {
    gram_.merge(other.gram_);
    for (index i = 0; i < sum_.size(); ++i) {
        sum_(i) += other.sum_(i);
    }
}

LOWRANK_BODY matrix<double> input_statistics::scatter(bool centered) const {
    matrix<double> c = gram_.sum();
    if (centered && count() > 0) {
        for (index j = 0; j < c.cols(); ++j) {
            for (index i = 0; i < c.rows(); ++i) {
                c(i, j) -= sum_(i) * sum_(j) / static_cast<double>(count());
            }
        }
    }
    return c;
}

LOWRANK_BODY result<input_components> principal_components(const input_statistics& x, index max_rank, bool centered) {
    detail::expects(max_rank >= 1, "principal_components: max_rank must be at least 1");
    auto eigen = symmetric_eigen(x.scatter(centered));
    if (!eigen) {
        return std::move(eigen.why);
    }
    const index k = std::min({max_rank, x.dimension(), static_cast<index>(x.count())});
    double total = 0;
    for (index i = 0; i < eigen.values.size(); ++i) {
        total += std::max(eigen.values(i), 0.0);
    }
    input_components out{.directions = columns_of(eigen.vectors, 0, k),
                         .singular_values = vector<double>(k),
                         .explained = vector<double>(k)};
    for (index i = 0; i < k; ++i) {
        const double variance = std::max(eigen.values(i), 0.0);
        out.singular_values(i) = std::sqrt(variance);
        out.explained(i) = total > 0 ? variance / total : variance;
    }
    return out;
}

LOWRANK_BODY std::vector<index> eva_ranks(std::span<const vector<double>> explained, index r, double rho) {
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

template <real S>
lora_adapter<S> eva(const input_components& x, index out, const lora_options& options, index rank,
                    const eva_options& how) {
    detail::expects_in_range("eva", "rank", rank, index{1}, x.directions.cols());
    matrix<S> a(rank, x.directions.rows());
    for (index i = 0; i < rank; ++i) {
        const double s = x.singular_values(i);
        const double size = !how.whiten ? 1.0 : s > 0 ? 1 / std::sqrt(s) : 0.0;
        for (index j = 0; j < a.cols(); ++j) {
            a(i, j) = static_cast<S>(x.directions(j, i) * size);
        }
    }
    matrix<S> b;
    b.setZero(out, rank);
    auto adapter = detail::with_factors<S>(std::move(a), std::move(b), options);
    if (how.adjust_scaling) {
        adapter.lora_alpha *= static_cast<double>(rank) / static_cast<double>(options.r);
    }
    return adapter;
}

template <real S>
lora_adapter<S> lora_ga(const decomposition<S>& gradient, const lora_options& options, const lora_ga_options& how) {
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
        const S size = how.scale == lora_ga_scale::paper ? S(1) : gradient.s(of_b[at]);
        for (index j = 0; j < a.cols(); ++j) {
            a(i, j) = gradient.v(j, of_a[at]);
        }
        for (index j = 0; j < b.rows(); ++j) {
            b(j, i) = size * gradient.u(j, of_b[at]);
        }
    }
    const double scaling = lora_scaling(options.lora_alpha, r, options.use_rslora);
    const double stable = std::pow(static_cast<double>(gradient.rows()), 0.25) / std::sqrt(how.gamma);
    const auto largest = static_cast<double>(gradient.s(of_b[0]));
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

#ifdef LOWRANK_COMPILED
#define LOWRANK_DATA_INIT_OF(S)                                                                                        \
    template result<lora_adapter<S>> detail::corda_of<S>(const matrix<S>&, const matrix<double>&, const lora_options&, \
                                                         const corda_options&);                                        \
    template status input_statistics::add<S>(const matrix<S>&);                                                        \
    template lora_adapter<S> eva<S>(const input_components&, index, const lora_options&, index, const eva_options&);   \
    template lora_adapter<S> lora_ga<S>(const decomposition<S>&, const lora_options&, const lora_ga_options&);
LOWRANK_DATA_INIT_OF(float)
LOWRANK_DATA_INIT_OF(double)
#undef LOWRANK_DATA_INIT_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_INIT_DATA_INIT_IPP
