// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_ROTATIONS_BOFT_IPP
#define LOWRANK_LORA_KINDS_ROTATIONS_BOFT_IPP

#include <lowrank/lora/kinds/rotations/boft.hpp>

#include <cstddef>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/lora/algebra/cayley.hpp>
#include <lowrank/lora/algebra/rotation.ipp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_BODY std::vector<index> butterfly_places(index size, index b, index i) {
    const index stretch = b << i;
    detail::expects(b >= 2 && b % 2 == 0 && size % stretch == 0,
                    "butterfly_places: b must be even and b 2^i must divide the inputs");
    const index step = b / 2;  // half a block
    const index halves = stretch / step;
    std::vector<index> places(static_cast<std::size_t>(size));
    for (index first = 0; first < size; first += stretch) {
        for (index h = 0; h < halves; ++h) {
            const index coordinate = first + (h % 2 == 0 ? h / 2 : halves / 2 + h / 2) * step;
            for (index k = 0; k < step; ++k) {
                places[static_cast<std::size_t>(first + h * step + k)] = coordinate + k;
            }
        }
    }
    return places;
}

template <real S>
void boft_adapter<S>::check() const {
    const index b = block_size();
    detail::expects(in >= 1 && b >= 1 && in % b == 0 && boft_R.rows() > 0 && boft_R.rows() % in == 0,
                    "boft_adapter: boft_R needs b columns and m * in rows, with b dividing in");
}

/// (B - B^T) / 2 of the block that begins in a row.
template <real S>
matrix<double> boft_adapter<S>::skew(index row) const {
    const index b = block_size();
    matrix<double> k(b, b);
    for (index j = 0; j < b; ++j) {
        for (index i = 0; i < b; ++i) {
            k(i, j) = 0.5 * (static_cast<double>(boft_R(row + i, j)) - static_cast<double>(boft_R(row + j, i)));
        }
    }
    return k;
}

template <real S>
block_rotation<S> boft_adapter<S>::rotation() const {
    check();
    const index b = block_size();
    const index m = factor_count();
    block_rotation<S> r{.size = in};
    for (index i = m; i-- > 0;) {  // the last factor meets the inputs first
        rotation_factor<S> factor{.blocks = matrix<S>(b, in)};
        for (index first = 0; first < in; first += b) {
            const matrix<double> block = cayley(skew(i * in + first));
            for (index e = 0; e < b * b; ++e) {
                factor.blocks.data()[first * b + e] = static_cast<S>(block.data()[e]);
            }
        }
        if (m > 1 && i > 0) {
            factor.places = butterfly_places(in, b, i);
        }
        r.factors.push_back(std::move(factor));
    }
    return r;
}

template <real S>
boft_adapter<S> boft_adapter<S>::pull_back(const rotated_gradient<block_rotation<S>>& g) const {
    check();
    const index b = block_size();
    const index m = factor_count();
    detail::expects(static_cast<index>(g.rotation.factors.size()) == m && g.output_scale.size() == boft_s.size(),
                    "boft_adapter::pull_back: the gradient is not of this rotation");
    boft_adapter out{.boft_R = matrix<S>(boft_R.rows(), b), .boft_s = g.output_scale, .in = in};
    for (index i = 0; i < m; ++i) {
        const dense_view<const S> blocks(g.rotation.factors[static_cast<std::size_t>(m - 1 - i)].blocks);
        for (index first = 0; first < in; first += b) {
            const matrix<double> k = skew(i * in + first);
            const matrix<double> dk = cayley_backward(k, cayley(k), copy_in<double>(blocks.middle_cols(first, b)));
            for (index column = 0; column < b; ++column) {
                for (index row = 0; row < b; ++row) {
                    out.boft_R(i * in + first + row, column) =
                        static_cast<S>(0.5 * (dk(row, column) - dk(column, row)));
                }
            }
        }
    }
    return out;
}

template <real S>
boft_adapter<S> make_boft(index out, index in, const boft_options& options) {
    detail::expects((options.block_size == 0) != (options.block_num == 0),
                    "make_boft: give block_size or block_num, the other is 0");
    detail::expects(options.block_size > 0 || (options.block_num > 0 && in % options.block_num == 0),
                    "make_boft: block_num must divide the inputs");
    const index b = options.block_size > 0 ? options.block_size : in / options.block_num;
    const index m = options.n_butterfly_factor;
    detail::expects_in_range("make_boft", "n_butterfly_factor", m, index{1}, index{32});
    detail::expects(out >= 0 && in >= 1 && in % b == 0, "make_boft: block_size must divide the inputs");
    detail::expects(m == 1 || (b % 2 == 0 && in % (b << (m - 1)) == 0),
                    "make_boft: several factors need an even block size, and block_size * 2^(factors - 1) dividing in");
    boft_adapter<S> a{.in = in};
    a.boft_R.setZero(m * in, b);
    a.boft_s.setOnes(out);
    return a;
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_BOFT_OF(S)           \
    template struct boft_adapter<S>; \
    template boft_adapter<S> make_boft<S>(index, index, const boft_options&);
LOWRANK_BOFT_OF(float)
LOWRANK_BOFT_OF(double)
#undef LOWRANK_BOFT_OF
template class applied_rotation<boft_adapter<float>>;
template class applied_rotation<boft_adapter<double>>;
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_ROTATIONS_BOFT_IPP
