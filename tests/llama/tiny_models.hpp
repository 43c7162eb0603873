// SPDX-License-Identifier: MIT
#ifndef LOWRANK_TESTS_LLAMA_TINY_MODELS_HPP
#define LOWRANK_TESTS_LLAMA_TINY_MODELS_HPP

/// \file
/// Small random models and batches of odd sizes, the same in every test.
///
///     auto m = tiny::model<double>({.tied = false});
///     auto b = tiny::batch(m.shape, {5, 1, 7});

#include <llama/batch.hpp>
#include <llama/model.hpp>

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <vector>

#include <lowrank/core/philox.hpp>
#include <lowrank/lora/kinds/lora.hpp>

namespace tiny {

struct options {
    bool tied = true;
    bool bias = false;
    llama::index heads = 4;
    llama::index key_heads = 2;
    llama::index head_dim = 6;
    llama::index hidden = 13;
    llama::index between = 17;  ///< intermediate_size
    llama::index layers = 2;
    std::uint64_t seed = 1;
};

inline llama::config shape(const options& o = {}) {
    return {.vocab_size = 23,
            .hidden_size = o.hidden,
            .intermediate_size = o.between,
            .num_hidden_layers = o.layers,
            .num_attention_heads = o.heads,
            .num_key_value_heads = o.key_heads,
            .head_dim = o.head_dim,
            .max_position_embeddings = 128,
            .rms_norm_eps = 1e-5,
            .rope_theta = 100,
            .tie_word_embeddings = o.tied,
            .attention_bias = o.bias,
            .mlp_bias = o.bias};
}

/// Random weights; norms and biases too are no longer one and zero.
template <lowrank::real S>
llama::model<S> model(const options& o = {}) {
    llama::model<S> m = llama::random_model<S>(shape(o), o.seed);
    std::uint64_t stream = 1000;
    llama::for_each_weight(m, [&](const std::string&, lowrank::weight_view<S> w) {
        if (w.cols() == 1) {
            const S middle = w(0, 0);
            lowrank::fill_uniform(w, middle - S(0.3), middle + S(0.3), lowrank::philox(o.seed, ++stream));
        }
    });
    return m;
}

/// Sequences of random tokens of these lengths; each column has a target, except every fifth.
inline llama::batch batch(const llama::config& c, std::initializer_list<llama::index> lengths, std::uint64_t seed = 5) {
    const lowrank::philox rng(seed);
    std::uint64_t at = 0;
    llama::batch b;
    for (const llama::index n : lengths) {
        std::vector<int> tokens, targets;
        for (llama::index i = 0; i < n; ++i) {
            const auto vocab = static_cast<std::uint64_t>(c.vocab_size);
            tokens.push_back(static_cast<int>(rng.below(vocab, at++)));
            targets.push_back(at % 5 == 0 ? -1 : static_cast<int>(rng.below(vocab, 1000 + at)));
        }
        b.append(tokens, targets);
    }
    return b;
}

/// An adapter whose B is random too, so that it changes something.
template <lowrank::real S>
std::shared_ptr<lowrank::lora_adapter<S>> adapter(const llama::projection<S>& p, lowrank::lora_options o) {
    o.stream = p.number;
    auto a = std::make_shared<lowrank::lora_adapter<S>>(lowrank::make_lora<S>(p.rows(), p.cols(), o));
    lowrank::fill_uniform(a->lora_B, S(-0.4), S(0.4), lowrank::philox(o.seed + 77, p.number));
    return a;
}

/// The same as the engine takes it.
template <lowrank::real S>
std::shared_ptr<lowrank::any_adapter<S>> any_adapter(const llama::projection<S>& p, const lowrank::lora_options& o) {
    return std::make_shared<lowrank::any_adapter<S>>(*adapter(p, o));
}

}  // namespace tiny

#endif  // LOWRANK_TESTS_LLAMA_TINY_MODELS_HPP
