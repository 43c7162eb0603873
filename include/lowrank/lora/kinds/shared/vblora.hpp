// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_SHARED_VBLORA_HPP
#define LOWRANK_LORA_KINDS_SHARED_VBLORA_HPP

/// \file
/// VB-LoRA: B A whose rows and columns are put together from pieces, each a mixture of a few vectors of a bank that all
/// layers share.
///
///     auto a = lowrank::make_vblora<float>(12, 8, {.r = 2, .num_vectors = 16, .vector_length = 4});
///     auto change = a.delta();                             // left = B, right = A, mixed from a.bank
///
/// Every piece keeps the topk largest of its logits and takes their softmax as weights. A saved adapter may hold the choice
/// and the weights instead of the logits; then only the bank can train.
///
/// Li, Han, Ji: VB-LoRA: Extreme Parameter Efficient Fine-Tuning with Vector Banks, arXiv 2405.15179; shapes as in PEFT.

#include <cstdint>
#include <string>
#include <string_view>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/lora/adapter.hpp>
#include <lowrank/lora/adapter_kind.hpp>
#include <lowrank/lora/new_adapter.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Which vectors of the bank make the pieces of a factor: logits, or the choice that they came to. One row a piece.
template <real S>
struct vblora_pieces {
    matrix<S> logits = {};              ///< pieces x num_vectors; nothing where the choice is fixed
    matrix<std::int32_t> indices = {};  ///< pieces x topk, of a fixed choice
    matrix<S> weights = {};             ///< pieces x topk - 1, of a fixed choice: the last weight is 1 minus their sum

    [[nodiscard]] bool is_fixed() const noexcept { return logits.size() == 0; }
    [[nodiscard]] index count() const noexcept { return is_fixed() ? indices.rows() : logits.rows(); }
};

/// The product of B and A as vectors of a bank make them up, with b entries a vector.
///
/// Pieces of A: piece i in / b + t is entries t b ... of row i. Pieces of B: piece t r + j is entries t b ... of column j.
/// \pre every piece has at least topk logits, and indices are of the bank.
/// \cost 2 topk r (in + out) flops, and the search for the largest logits.
template <real S>
[[nodiscard]] low_rank<S> vblora_delta(const vblora_pieces<S>& a, const vblora_pieces<S>& b, const matrix<S>& bank,
                                       index r, index topk);

/// The change B A; a `factored_adapter`.
template <real S>
struct vblora_adapter {
    using scalar = S;

    vblora_pieces<S> A = {};
    vblora_pieces<S> B = {};
    matrix<S> bank = {};  ///< num_vectors x vector_length; equal in all layers
    index r = 4;
    index topk = 2;
    double dropout = 0;  ///< Used by training only.

    [[nodiscard]] low_rank<S> delta() const { return vblora_delta(A, B, bank, r, topk); }

    /// Logits that are not among the topk have no gradient.
    [[nodiscard]] vblora_adapter pull_back(const delta_gradient<S>& g) const;
};

/// What a new adapter looks like.
struct vblora_options {
    index r = 4;
    index num_vectors = 256;
    index vector_length = 256;
    index topk = 2;
    double bound = 0.02;  ///< Of the entries of the bank.
    double dropout = 0;
    std::uint64_t seed = 0;    ///< Same seed, same bank.
    std::uint64_t stream = 0;  ///< One per layer: same seed and stream, same logits.
};

/// A new adapter for an out x in weight. The vectors of the bank are opposite in pairs, and every piece of B starts with
/// pairs, so that it changes nothing yet and learns all the same; the pieces of A start at random.
///
/// \pre vector_length divides out and in; num_vectors and topk are even, topk at most num_vectors.
template <real S>
[[nodiscard]] vblora_adapter<S> make_vblora(index out, index in, const vblora_options& options = {});

/// Logits of every layer, and the bank of all.
template <real S>
struct adapter_kind<vblora_adapter<S>> {
    static constexpr std::string_view name = "vblora";
    template <class A, class F>
    static void visit(A& a, F&& f) {
        if (!a.A.is_fixed()) {
            f(std::string_view("vblora_logits_A"), a.A.logits);
            f(std::string_view("vblora_logits_B"), a.B.logits);
        }
        f(bank_name, a.bank);
    }
    static std::string shared_name(const vblora_adapter<S>&, std::string_view parameter) {
        return std::string(parameter == bank_name ? bank_name : std::string_view());
    }
    static double dropout(const vblora_adapter<S>& a) { return a.dropout; }
    static constexpr double learning_rate = 2e-2;
    /// Vectors as long as divides every side of every layer, 256 entries at most.
    static auto maker(const adapted_layers& all, const lora_options& options) {
        index length = 256;
        while (all.common_size() % length != 0) {
            --length;
        }
        return [options, length](const target_layer<S>& layer) {
            return make_vblora<S>(layer.base.rows(), layer.base.cols(),
                                  {.r = options.r,
                                   .num_vectors = 64,
                                   .vector_length = length,
                                   .bound = 0.2,
                                   .dropout = options.lora_dropout,
                                   .seed = options.seed,
                                   .stream = layer.number});
        };
    }
    using applied = applied_factors<vblora_adapter<S>>;

private:
    static constexpr std::string_view bank_name = "vblora_vector_bank";
};

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/lora/kinds/shared/vblora.ipp>
#endif

#endif  // LOWRANK_LORA_KINDS_SHARED_VBLORA_HPP
