// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_SHARED_VBLORA_IPP
#define LOWRANK_LORA_KINDS_SHARED_VBLORA_IPP

#include <lowrank/lora/kinds/shared/vblora.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/lora/adapter_kind.ipp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// The vectors of one piece and their weights.
template <real S>
struct vblora_mixture {
    std::vector<index> chosen = {};
    std::vector<S> weights = {};
};

template <real S>
void check_vblora(const vblora_pieces<S>& p, const matrix<S>& bank, index topk) {
    if (p.is_fixed()) {
        expects(p.indices.cols() == topk && p.weights.rows() == p.indices.rows() && p.weights.cols() == topk - 1,
                "vblora_adapter: a fixed choice needs topk indices and topk - 1 weights a piece");
        for (index i = 0; i < p.indices.size(); ++i) {
            expects_in_range("vblora_adapter", "index", index{p.indices.data()[i]}, index{0}, bank.rows() - 1);
        }
    } else {
        expects(p.logits.cols() == bank.rows() && topk <= bank.rows(),
                "vblora_adapter: logits need one column for every vector of the bank, which are topk at least");
    }
}

/// The mixture of piece i; of equal logits the first are chosen.
template <real S>
void choose_vectors(const vblora_pieces<S>& p, index i, index topk, vblora_mixture<S>& out) {
    const auto k = static_cast<std::size_t>(topk);
    out.weights.resize(k);
    if (p.is_fixed()) {
        out.chosen.resize(k);
        S last = 1;
        for (index t = 0; t < topk; ++t) {
            out.chosen[static_cast<std::size_t>(t)] = p.indices(i, t);
            const S weight = t + 1 < topk ? p.weights(i, t) : last;
            out.weights[static_cast<std::size_t>(t)] = weight;
            last -= weight;
        }
        return;
    }
    out.chosen.resize(static_cast<std::size_t>(p.logits.cols()));
    std::iota(out.chosen.begin(), out.chosen.end(), index{0});
    std::partial_sort(out.chosen.begin(), out.chosen.begin() + topk, out.chosen.end(), [&](index a, index b) {
        return p.logits(i, a) > p.logits(i, b) || (p.logits(i, a) == p.logits(i, b) && a < b);
    });
    out.chosen.resize(k);
    const S largest = p.logits(i, out.chosen.front());
    S sum = 0;
    for (std::size_t t = 0; t < k; ++t) {
        out.weights[t] = std::exp(p.logits(i, out.chosen[t]) - largest);
        sum += out.weights[t];
    }
    for (S& weight : out.weights) {
        weight /= sum;
    }
}

/// Calls `body(piece, its first entry)` for the pieces of a factor. Entry l of a piece of A is `stride` entries on.
template <real S, class F>
void for_pieces_of_a(matrix<S>& a, index length, F&& body) {
    const index pieces = a.cols() / length;
    for (index i = 0; i < a.rows(); ++i) {
        for (index t = 0; t < pieces; ++t) {
            body(i * pieces + t, a.data() + i + t * length * a.rows());
        }
    }
}
template <real S, class F>
void for_pieces_of_b(matrix<S>& b, index length, F&& body) {
    for (index t = 0; t < b.rows() / length; ++t) {
        for (index j = 0; j < b.cols(); ++j) {
            body(t * b.cols() + j, b.data() + t * length + j * b.rows());
        }
    }
}

/// The gradient of a piece, into those of its logits and of the bank.
template <real S>
void pull_back_piece(const vblora_pieces<S>& p, const matrix<S>& bank, index i, const vblora_mixture<S>& mix,
                     const S* piece, index stride, vblora_pieces<S>& d, matrix<S>& d_bank) {
    std::vector<S> slopes(mix.chosen.size(), S(0));
    S mean = 0;
    for (std::size_t t = 0; t < mix.chosen.size(); ++t) {
        const index at = mix.chosen[t];
        for (index l = 0; l < bank.cols(); ++l) {
            const S g = piece[l * stride];
            slopes[t] += bank(at, l) * g;
            d_bank(at, l) += mix.weights[t] * g;
        }
        mean += mix.weights[t] * slopes[t];
    }
    if (!p.is_fixed()) {
        for (std::size_t t = 0; t < mix.chosen.size(); ++t) {
            d.logits(i, mix.chosen[t]) += mix.weights[t] * (slopes[t] - mean);
        }
    }
}

}  // namespace detail

template <real S>
low_rank<S> vblora_delta(const vblora_pieces<S>& a, const vblora_pieces<S>& b, const matrix<S>& bank, index r,
                         index topk) {
    detail::expects(r >= 1 && topk >= 1 && a.count() % r == 0 && b.count() % r == 0 && bank.cols() >= 1,
                    "vblora_adapter: r must divide the pieces of both factors");
    detail::check_vblora(a, bank, topk);
    detail::check_vblora(b, bank, topk);
    const index length = bank.cols();
    low_rank<S> d;
    d.left.setZero(b.count() / r * length, r);
    d.right.setZero(r, a.count() / r * length);
    detail::vblora_mixture<S> mix;
    const auto fill = [&](const vblora_pieces<S>& p, index stride) {
        return [&, stride](index i, S* piece) {
            detail::choose_vectors(p, i, topk, mix);
            for (std::size_t t = 0; t < mix.chosen.size(); ++t) {
                for (index l = 0; l < length; ++l) {
                    piece[l * stride] += mix.weights[t] * bank(mix.chosen[t], l);
                }
            }
        };
    };
    detail::for_pieces_of_a(d.right, length, fill(a, r));
    detail::for_pieces_of_b(d.left, length, fill(b, 1));
    return d;
}

template <real S>
vblora_adapter<S> vblora_adapter<S>::pull_back(const delta_gradient<S>& g) const {
    vblora_adapter d = detail::with_zero_parameters(*this);
    detail::vblora_mixture<S> mix;
    const index length = bank.cols();
    detail::expects(g.right.rows() == r && g.left.cols() == r && g.right.cols() == A.count() / r * length &&
                        g.left.rows() == B.count() / r * length,
                    "vblora_adapter::pull_back: the gradient is of other factors");
    delta_gradient<S> read = g;
    const auto back = [&](const vblora_pieces<S>& p, vblora_pieces<S>& to, index stride) {
        return [&, stride](index i, const S* piece) {
            detail::choose_vectors(p, i, topk, mix);
            detail::pull_back_piece(p, bank, i, mix, piece, stride, to, d.bank);
        };
    };
    detail::for_pieces_of_a(read.right, length, back(A, d.A, r));
    detail::for_pieces_of_b(read.left, length, back(B, d.B, 1));
    return d;
}

template <real S>
vblora_adapter<S> make_vblora(index out, index in, const vblora_options& options) {
    const index length = options.vector_length;
    const index vectors = options.num_vectors;
    detail::expects(out >= 1 && in >= 1 && options.r >= 1 && length >= 1 && out % length == 0 && in % length == 0,
                    "make_vblora: vector_length must divide out and in, and r be at least 1");
    detail::expects(
        vectors >= 2 && vectors % 2 == 0 && options.topk >= 2 && options.topk % 2 == 0 && options.topk <= vectors,
        "make_vblora: num_vectors and topk must be even, topk at most num_vectors");
    detail::expects(0 <= options.dropout && options.dropout < 1, "make_vblora: dropout must be in [0, 1)");
    vblora_adapter<S> a{.A = {.logits = matrix<S>(options.r * (in / length), vectors)},
                        .B = {.logits = matrix<S>(options.r * (out / length), vectors)},
                        .bank = matrix<S>(vectors, length),
                        .r = options.r,
                        .topk = options.topk,
                        .dropout = options.dropout};
    const auto bound = static_cast<S>(options.bound);
    fill_uniform(a.bank, -bound, bound, philox(options.seed, 0));
    for (index j = 0; j < length; ++j) {
        for (index i = 0; i < vectors; i += 2) {
            a.bank(i + 1, j) = -a.bank(i, j);
        }
    }
    fill_normal(a.A.logits, S(0.1), philox(options.seed, 2 * options.stream + 1));
    fill_normal(a.B.logits, S(0.1), philox(options.seed, 2 * options.stream + 2));
    const index pairs = options.topk / 2;
    for (index i = 0; i < a.B.logits.rows(); ++i) {
        for (index p = 0; p < pairs; ++p) {
            const index first = (i * pairs + p) % (vectors / 2) * 2;
            a.B.logits(i, first) = a.B.logits(i, first + 1) = S(1);
        }
    }
    return a;
}

#ifdef LOWRANK_COMPILED
#define LOWRANK_VBLORA_OF(S)                                                                                        \
    template low_rank<S> vblora_delta<S>(const vblora_pieces<S>&, const vblora_pieces<S>&, const matrix<S>&, index, \
                                         index);                                                                    \
    template struct vblora_adapter<S>;                                                                              \
    template vblora_adapter<S> make_vblora<S>(index, index, const vblora_options&);
LOWRANK_VBLORA_OF(float)
LOWRANK_VBLORA_OF(double)
#undef LOWRANK_VBLORA_OF
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_SHARED_VBLORA_IPP
