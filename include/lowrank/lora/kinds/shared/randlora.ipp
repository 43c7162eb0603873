// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_SHARED_RANDLORA_IPP
#define LOWRANK_LORA_KINDS_SHARED_RANDLORA_IPP

#include <lowrank/lora/kinds/shared/randlora.hpp>

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/lora/adapter_kind.ipp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

template <real S>
void fill_randlora(matrix<S>& x, randlora_kind kind, double sparsity, const philox& rng) {
    fill_uniform(x, S(0), S(1), rng);
    const auto end = static_cast<S>(1 / (2 * sparsity));
    double sum = 0;
    for (S& u : entries(x)) {
        if (kind == randlora_kind::uniform) {
            u -= S(0.5);
        } else {
            u = u < end ? S(-1) : u > S(1) - end ? S(1) : S(0);
        }
        sum += static_cast<double>(u);
    }
    const double n = static_cast<double>(x.size());
    double squares = 0;
    for (const S u : entries(x)) {
        squares += (static_cast<double>(u) - sum / n) * (static_cast<double>(u) - sum / n);
    }
    const double deviation = n > 1 ? std::sqrt(squares / (n - 1)) : 0.0;
    if (deviation > 0) {
        scale_cols(x, [s = static_cast<S>(1 / deviation)](index) { return s; });
    }
}

}  // namespace detail

template <real S>
std::shared_ptr<const randlora_projections<S>> make_randlora_projections(index max_out, index max_in,
                                                                         const randlora_options& options) {
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

template <real S>
void randlora_adapter<S>::check() const {
    detail::expects(shared != nullptr, "randlora_adapter: needs its shared projections");
    const index d = std::min(out, in);
    detail::expects(lambda.rows() == shared->randlora_A.rows() && lambda.cols() == gamma.rows() && gamma.cols() == d &&
                        d <= shared->randlora_A.cols() && std::max(out, in) <= shared->randlora_B.rows() &&
                        lambda.size() <= shared->randlora_B.cols(),
                    "randlora_adapter: the shared projections are too small or of another rank");
}

template <real S>
matrix<S> randlora_adapter<S>::scaled() const {
    const index bases = lambda.cols();
    matrix<S> a(lambda.size(), gamma.cols());
    for (index j = 0; j < gamma.cols(); ++j) {
        for (index k = 0; k < lambda.rows(); ++k) {
            for (index b = 0; b < bases; ++b) {
                a(k * bases + b, j) = lambda(k, b) * (shared->randlora_A(k, j) * gamma(b, j));
            }
        }
    }
    return a;
}

template <real S>
low_rank<S> randlora_adapter<S>::delta() const {
    check();
    const matrix<S> a = scaled();
    const dense_view<const S> b = dense_view<const S>(shared->randlora_B).block(0, 0, std::max(out, in), a.rows());
    low_rank<S> d = in <= out ? low_rank<S>{.left = copy_in<S>(b), .right = a}
                              : low_rank<S>{.left = copy_in<S>(transposed(a)), .right = copy_in<S>(transposed(b))};
    scale_cols(d.left, [s = scaling()](index) { return s; });
    return d;
}

template <real S>
randlora_adapter<S> randlora_adapter<S>::pull_back(const delta_gradient<S>& g) const {
    check();
    const dense_view<const S> d = in <= out ? dense_view<const S>(g.right) : transposed(g.left);
    const S factor = in <= out ? S(1) : scaling();
    const index bases = lambda.cols();
    detail::expects_shape("randlora_adapter::pull_back", "gradient", d.rows(), d.cols(), lambda.rows() * bases,
                          gamma.cols());
    randlora_adapter o = detail::with_zero_parameters(*this);
    for (index j = 0; j < gamma.cols(); ++j) {
        for (index k = 0; k < lambda.rows(); ++k) {
            const S a = factor * shared->randlora_A(k, j);
            for (index b = 0; b < bases; ++b) {
                const S entry = d(k * bases + b, j) * a;
                o.lambda(k, b) += entry * gamma(b, j);
                o.gamma(b, j) += entry * lambda(k, b);
            }
        }
    }
    return o;
}

template <real S>
randlora_adapter<S> make_randlora(std::shared_ptr<const randlora_projections<S>> shared, index out, index in,
                                  double randlora_alpha) {
    detail::expects(shared != nullptr && out >= 1 && in >= 1, "make_randlora: needs shared projections and a shape");
    const index r = shared->randlora_A.rows();
    const index d = std::min(out, in);
    const index bases = (d + r - 1) / r;
    randlora_adapter<S> a{.out = out, .in = in, .randlora_alpha = randlora_alpha};
    a.shared = std::move(shared);
    a.lambda.setZero(r, bases);
    a.gamma.setConstant(bases, d, S(1) / static_cast<S>(std::max(bases, d)));
    return a;
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_RANDLORA_OF(S)                                                                                     \
    template std::shared_ptr<const randlora_projections<S>> make_randlora_projections<S>(index, index,             \
                                                                                         const randlora_options&); \
    template struct randlora_adapter<S>;                                                                           \
    template randlora_adapter<S> make_randlora<S>(std::shared_ptr<const randlora_projections<S>>, index, index, double);
LOWRANK_RANDLORA_OF(float)
LOWRANK_RANDLORA_OF(double)
#undef LOWRANK_RANDLORA_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_SHARED_RANDLORA_IPP
