// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_ROTATIONS_OFT_IPP
#define LOWRANK_LORA_KINDS_ROTATIONS_OFT_IPP

#include <lowrank/lora/kinds/rotations/oft.hpp>

#include <cmath>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/lora/algebra/cayley.hpp>
#include <lowrank/lora/algebra/rotation.ipp>

namespace lowrank::inline LOWRANK_ABI {

template <real S>
index oft_adapter<S>::block_size() const {
    return static_cast<index>(std::lround((1 + std::sqrt(1 + 8 * static_cast<double>(oft_R.cols()))) / 2));
}

template <real S>
void oft_adapter<S>::check() const {
    const index b = block_size();
    detail::expects(b * (b - 1) / 2 == oft_R.cols(), "oft_adapter: oft_R needs b (b - 1) / 2 columns for some b");
    detail::expects(in % b == 0 && (oft_R.rows() == in / b || oft_R.rows() == 1),
                    "oft_adapter: oft_R needs one row, or one for each block of the inputs");
}

/// By how much COFT scales block k.
template <real S>
double oft_adapter<S>::shrink(index k) const {
    if (!coft) {
        return 1;
    }
    const double norm = std::sqrt(2.0) * norm_of(dense_view<const S>(oft_R).middle_rows(k, 1));
    const double largest = eps / std::sqrt(static_cast<double>(oft_R.rows()));
    return norm <= largest ? 1.0 : largest / norm;
}

/// A factor times Q of block k.
template <real S>
matrix<double> oft_adapter<S>::skew(index k, double factor) const {
    vector<double> entries(oft_R.cols());
    for (index i = 0; i < entries.size(); ++i) {
        entries(i) = factor * shrink(k) * static_cast<double>(oft_R(k, i));
    }
    return skew_from_upper(entries, block_size());
}

template <real S>
block_rotation<S> oft_adapter<S>::rotation() const {
    check();
    const index b = block_size();
    rotation_factor<S> factor{.blocks = matrix<S>(b, b * oft_R.rows())};
    for (index k = 0; k < oft_R.rows(); ++k) {
        const matrix<double> block =
            use_cayley_neumann ? cayley_neumann(skew(k, -1), num_cayley_neumann_terms) : cayley(skew(k, 1));
        for (index i = 0; i < b * b; ++i) {
            factor.blocks.data()[k * b * b + i] = static_cast<S>(block.data()[i]);
        }
    }
    block_rotation<S> r{.size = in};
    r.factors.push_back(std::move(factor));
    return r;
}

template <real S>
oft_adapter<S> oft_adapter<S>::pull_back(const rotated_gradient<block_rotation<S>>& g) const {
    check();
    const index b = block_size();
    detail::expects(g.rotation.factors.size() == 1, "oft_adapter::pull_back: the gradient is not of this rotation");
    const matrix<S>& blocks = g.rotation.factors.front().blocks;
    detail::expects_shape("oft_adapter::pull_back", "gradient blocks", blocks.rows(), blocks.cols(), b,
                          b * oft_R.rows());
    oft_adapter out = *this;
    for (index k = 0; k < oft_R.rows(); ++k) {
        const matrix<double> dr = copy_in<double>(dense_view<const S>(blocks).middle_cols(k * b, b));
        const matrix<double> q = skew(k, use_cayley_neumann ? -1 : 1);
        const vector<double> d =
            skew_backward(use_cayley_neumann ? cayley_neumann_backward(q, num_cayley_neumann_terms, dr)
                                             : cayley_backward(q, cayley(q), dr));
        for (index i = 0; i < d.size(); ++i) {
            out.oft_R(k, i) = static_cast<S>(use_cayley_neumann ? -d(i) : d(i));
        }
    }
    return out;
}

template <real S>
void oft_adapter<S>::project() {
    for (index k = 0; k < oft_R.rows(); ++k) {
        const double factor = shrink(k);
        for (index i = 0; i < oft_R.cols() && factor < 1; ++i) {
            oft_R(k, i) = static_cast<S>(factor * static_cast<double>(oft_R(k, i)));
        }
    }
}

template <real S>
oft_adapter<S> make_oft(index /*out*/, index in, const oft_options& options) {
    const index b = options.block_size;
    detail::expects(b >= 1 && in >= 1 && in % b == 0,
                    "make_oft: block_size must divide the inputs; rotation_block_size gives the nearest that does");
    detail::expects(options.num_cayley_neumann_terms >= 1, "make_oft: num_cayley_neumann_terms must be at least 1");
    oft_adapter<S> a{.in = in,
                     .coft = options.coft,
                     .eps = options.eps,
                     .use_cayley_neumann = options.use_cayley_neumann,
                     .num_cayley_neumann_terms = options.num_cayley_neumann_terms};
    a.oft_R.setZero(options.block_share ? 1 : in / b, b * (b - 1) / 2);
    return a;
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_OFT_OF(S)           \
    template struct oft_adapter<S>; \
    template oft_adapter<S> make_oft<S>(index, index, const oft_options&);
LOWRANK_OFT_OF(float)
LOWRANK_OFT_OF(double)
#undef LOWRANK_OFT_OF
template class applied_rotation<oft_adapter<float>>;
template class applied_rotation<oft_adapter<double>>;
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_ROTATIONS_OFT_IPP
