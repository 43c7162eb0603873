// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_LOHA_IPP
#define LOWRANK_LORA_KINDS_LOHA_IPP

#include <lowrank/lora/kinds/loha.hpp>

#include <cmath>
#include <cstdint>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/lora/adapter_kind.ipp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
void loha_adapter<S>::check() const {
    detail::expects(w1_a.cols() == w1_b.rows() && w2_a.cols() == w2_b.rows() && w1_a.rows() == w2_a.rows() &&
                        w1_b.cols() == w2_b.cols(),
                    "loha_adapter: both products must exist and have one shape");
}

template <real S>
low_rank<S> loha_adapter<S>::delta() const {
    check();
    const index r1 = w1_a.cols();
    const index r2 = w2_a.cols();
    const S s = scaling();
    low_rank<S> d{.left = matrix<S>(w1_a.rows(), r1 * r2), .right = matrix<S>(r1 * r2, w1_b.cols())};
    for (index p = 0; p < r1; ++p) {
        for (index q = 0; q < r2; ++q) {
            for (index i = 0; i < w1_a.rows(); ++i) {
                d.left(i, p * r2 + q) = s * (w1_a(i, p) * w2_a(i, q));
            }
        }
    }
    for (index j = 0; j < w1_b.cols(); ++j) {
        for (index p = 0; p < r1; ++p) {
            for (index q = 0; q < r2; ++q) {
                d.right(p * r2 + q, j) = w1_b(p, j) * w2_b(q, j);
            }
        }
    }
    return d;
}

template <real S>
void loha_adapter<S>::add_rows(double factor, index first, column_view<double> to) const {
    check();
    const auto rows_of = [&](const matrix<S>& a, const matrix<S>& b) {
        const dense_view<const S> some = dense_view<const S>(a).middle_rows(first, to.cols());
        return product_in<double>(transposed(b), transposed(some));
    };
    const double scale = factor * lora_scaling(alpha, w1_b.rows(), false);
    const matrix<double> one = rows_of(w1_a, w1_b);
    const matrix<double> two = rows_of(w2_a, w2_b);
    for (index i = 0; i < to.cols(); ++i) {
        for (index j = 0; j < to.rows(); ++j) {
            to(j, i) += scale * (one(j, i) * two(j, i));
        }
    }
}

template <real S>
loha_adapter<S> loha_adapter<S>::pull_back(const delta_gradient<S>& g) const {
    check();
    loha_adapter out = detail::with_zero_parameters(*this);
    const index r2 = w2_a.cols();
    const S s = scaling();
    for (index p = 0; p < w1_a.cols(); ++p) {
        for (index q = 0; q < r2; ++q) {
            for (index i = 0; i < w1_a.rows(); ++i) {
                const S d = s * g.left(i, p * r2 + q);
                out.w1_a(i, p) += d * w2_a(i, q);
                out.w2_a(i, q) += d * w1_a(i, p);
            }
        }
    }
    for (index j = 0; j < w1_b.cols(); ++j) {
        for (index p = 0; p < w1_b.rows(); ++p) {
            for (index q = 0; q < r2; ++q) {
                const S d = g.right(p * r2 + q, j);
                out.w1_b(p, j) += d * w2_b(q, j);
                out.w2_b(q, j) += d * w1_b(p, j);
            }
        }
    }
    return out;
}

template <real S>
loha_adapter<S> make_loha(index out, index in, const loha_options& options) {
    detail::expects(out >= 0 && in >= 1 && options.r >= 1, "make_loha: in and r must be at least 1");
    loha_adapter<S> a{.w1_a = matrix<S>(out, options.r),
                      .w1_b = matrix<S>(options.r, in),
                      .w2_b = matrix<S>(options.r, in),
                      .alpha = options.alpha};
    a.w2_a.setZero(out, options.r);
    std::uint64_t part = 3 * options.stream;
    for (matrix<S>* m : {&a.w1_a, &a.w1_b, &a.w2_b}) {
        const auto bound = static_cast<S>(1 / std::sqrt(static_cast<double>(m->cols())));
        fill_uniform(*m, -bound, bound, philox(options.seed, part++));
    }
    return a;
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_LOHA_OF(S)           \
    template struct loha_adapter<S>; \
    template loha_adapter<S> make_loha<S>(index, index, const loha_options&);
LOWRANK_LOHA_OF(float)
LOWRANK_LOHA_OF(double)
#undef LOWRANK_LOHA_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_LOHA_IPP
