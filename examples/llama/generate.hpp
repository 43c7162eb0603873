// SPDX-License-Identifier: MIT
#ifndef LLAMA_GENERATE_HPP
#define LLAMA_GENERATE_HPP

/// \file
/// Greedy generation with a cache of keys and values: each new token costs one column.
///
///     auto ids = llama::generate(m, prompt_ids, {.max_new_tokens = 100});
///     if (ids) std::puts(tokenizer.decode(*ids).c_str());

#include <functional>
#include <span>
#include <vector>

#include "contract.hpp"
#include "forward.hpp"

namespace llama {

/// Keys (rotated) and values of the positions seen so far, per layer key_size x capacity.
template <real S>
class kv_cache {
public:
    /// Room for `capacity` positions.
    kv_cache(const config& c, index capacity) : capacity_(capacity) {
        for (index l = 0; l < c.num_hidden_layers; ++l) {
            keys_.emplace_back(c.key_size(), capacity);
            values_.emplace_back(c.key_size(), capacity);
        }
    }
    [[nodiscard]] index length() const noexcept { return length_; }
    [[nodiscard]] index capacity() const noexcept { return capacity_; }
    /// Forgets all positions from `length` on. \pre length in [0, length()]
    void truncate(index length) {
        expects_in_range("kv_cache::truncate", "length", length, 0, length_);
        length_ = length;
    }

    /// Runs `tokens` at the next positions and returns the stack's output there, hidden x tokens.
    /// \pre they fit in the cache; tokens are in the vocabulary.
    [[nodiscard]] matrix<S> extend(const model<S>& m, std::span<const int> tokens, workspace& ws) {
        const config& c = m.shape;
        const auto n = static_cast<index>(tokens.size());
        expects_in_range("kv_cache::extend", "tokens", n, 0, capacity_ - length_);
        matrix<S> x = embed(m, prompt(tokens));
        const workspace::frame scope(ws);
        const auto table = rope_table<S>(c, length_, n, ws);
        for (std::size_t l = 0; l < m.layers.size(); ++l) {
            const workspace::frame layer_scope(ws);
            auto buffers = detail::buffers_in<S>(ws, c, n);
            detail::attention_inputs<S>(c, m.layers[l], x, buffers, nullptr, ws);
            rotate<S>(table, buffers.q, S(1));
            rotate<S>(table, buffers.k, S(1));
            keys_[l].middleCols(length_, n) = buffers.k;
            values_[l].middleCols(length_, n) = buffers.v;
            attend<S>(c, buffers.q, keys_[l].leftCols(length_ + n), values_[l].leftCols(length_ + n), buffers.attended,
                      buffers.lse, ws);
            detail::add_attention<S>(m.layers[l], x, buffers, nullptr, ws);
            detail::add_mlp<S>(c, m.layers[l], x, buffers, nullptr, ws);
        }
        length_ += n;
        return x;
    }

private:
    std::vector<matrix<S>> keys_ = {};
    std::vector<matrix<S>> values_ = {};
    index capacity_ = 0;
    index length_ = 0;
};

struct generate_options {
    index max_new_tokens = 256;
    bool stop_at_end = true;                       ///< Stop before an end-of-text or a second begin-of-text token.
    std::function<bool(int token)> on_token = {};  ///< Called with each new token; false stops.
};

/// Continues `tokens` greedily: always the token with the largest logit, the smaller id among equals. Ends at the
/// model's last position at the latest. Returns the prompt and what follows.
/// \return mismatch if the prompt is empty, too long or not in the vocabulary; non_finite if logits are NaN.
template <real S>
[[nodiscard]] result<std::vector<int>> generate(const model<S>& m, std::vector<int> tokens,
                                                const generate_options& options = {}) {
    if (tokens.empty()) {
        return status{errc::mismatch, "generation needs at least one token to start from, usually begin-of-text"};
    }
    if (status why = check(prompt(tokens), m.shape); !why) {
        return why;
    }
    workspace ws;
    const auto given = static_cast<index>(tokens.size());
    const index end = std::min(m.shape.max_position_embeddings, given + std::max<index>(0, options.max_new_tokens));
    kv_cache<S> cache(m.shape, end);
    std::span<const int> news = tokens;
    while (static_cast<index>(tokens.size()) < end) {
        const matrix<S> hidden = cache.extend(m, news, ws);
        const matrix<S> z = logits<S>(m, hidden.rightCols(1), ws);
        if (!lowrank::all_finite(z)) {
            return status{errc::non_finite, "the model's logits are not finite; a weight or an adapter must be broken"};
        }
        index best = 0;
        z.col(0).maxCoeff(&best);
        const int next = static_cast<int>(best);
        if (options.stop_at_end && (next == m.shape.bos_token_id || next == m.shape.eos_token_id)) {
            break;
        }
        tokens.push_back(next);
        news = std::span<const int>(tokens).last(1);
        if (options.on_token && !options.on_token(next)) {
            break;
        }
    }
    return tokens;
}

}  // namespace llama

#endif  // LLAMA_GENERATE_HPP
