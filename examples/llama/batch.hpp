// SPDX-License-Identifier: MIT
#ifndef LLAMA_BATCH_HPP
#define LLAMA_BATCH_HPP

/// \file
/// Several token sequences packed one after another: each token is one column of every activation matrix.
///
///     llama::batch b = llama::windows(ids, 256, bos);      // what "mean NLL" is measured on
///     for (const llama::batch& part : llama::split(b, 1024)) ...

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include "config.hpp"
#include "contract.hpp"

namespace llama {

/// Sequence s is the columns [starts[s], starts[s + 1]); its positions count from 0. `targets[i]` is the token that
/// column i should predict, or -1 where nothing is asked.
struct batch {
    std::vector<int> tokens = {};
    std::vector<int> targets = {};
    std::vector<index> starts = {0};

    [[nodiscard]] index size() const noexcept { return static_cast<index>(tokens.size()); }
    [[nodiscard]] index sequences() const noexcept { return static_cast<index>(starts.size()) - 1; }
    [[nodiscard]] index first(index s) const { return starts[static_cast<std::size_t>(s)]; }
    [[nodiscard]] index length(index s) const { return first(s + 1) - first(s); }
    [[nodiscard]] index target_count() const {
        return static_cast<index>(targets.size()) - static_cast<index>(std::ranges::count(targets, -1));
    }

    /// Appends a sequence. `wanted` is empty (no targets) or as long as `sequence`.
    void append(std::span<const int> sequence, std::span<const int> wanted = {}) {
        expects(wanted.empty() || wanted.size() == sequence.size(),
                "batch::append: one target per token, or none at all");
        tokens.insert(tokens.end(), sequence.begin(), sequence.end());
        if (wanted.empty()) {
            targets.resize(tokens.size(), -1);
        } else {
            targets.insert(targets.end(), wanted.begin(), wanted.end());
        }
        starts.push_back(size());
    }

    /// Appends a sequence in which `bos` predicts the first token and each token the next: n tokens, n targets.
    void append_next_token(std::span<const int> sequence, int bos) {
        if (sequence.empty()) {
            return;
        }
        std::vector<int> input(sequence.begin(), sequence.end() - 1);
        input.insert(input.begin(), bos);
        append(input, sequence);
    }
};

/// One sequence, nothing to predict: a prompt.
[[nodiscard]] inline batch prompt(std::span<const int> tokens) {
    batch b;
    b.append(tokens);
    return b;
}

/// Cuts a stream of tokens into windows of `length` (the last may be shorter), each started by `bos`. Every token of
/// the stream is a target once.
[[nodiscard]] inline batch windows(std::span<const int> stream, index length, int bos) {
    expects(length >= 1, "windows: length must be at least 1");
    batch b;
    for (std::size_t at = 0; at < stream.size(); at += static_cast<std::size_t>(length)) {
        b.append_next_token(stream.subspan(at, std::min(static_cast<std::size_t>(length), stream.size() - at)), bos);
    }
    return b;
}

/// The chosen sequences, in that order.
[[nodiscard]] inline batch select(const batch& b, std::span<const index> sequences) {
    batch out;
    for (const index s : sequences) {
        expects_in_range("select", "sequence", s, 0, b.sequences() - 1);
        const auto at = static_cast<std::size_t>(b.first(s));
        const auto n = static_cast<std::size_t>(b.length(s));
        out.append(std::span(b.tokens).subspan(at, n), std::span(b.targets).subspan(at, n));
    }
    return out;
}

/// Consecutive sequences in groups of at most `max_tokens` tokens, at least one sequence each: the memory a pass needs
/// grows with the tokens of its batch.
[[nodiscard]] inline std::vector<batch> split(const batch& b, index max_tokens) {
    std::vector<batch> parts;
    for (index s = 0; s < b.sequences(); ++s) {
        if (parts.empty() || parts.back().size() + b.length(s) > max_tokens) {
            parts.emplace_back();
        }
        const auto at = static_cast<std::size_t>(b.first(s));
        const auto n = static_cast<std::size_t>(b.length(s));
        parts.back().append(std::span(b.tokens).subspan(at, n), std::span(b.targets).subspan(at, n));
    }
    return parts;
}

/// Fails with one sentence if a token or target is not in the vocabulary, or a sequence is longer than the model's
/// positions. Data that a user brought is checked here once; the passes take it as their precondition.
[[nodiscard]] inline status check(const batch& b, const config& c) {
    for (const int t : b.tokens) {
        if (t < 0 || t >= c.vocab_size) {
            return {errc::mismatch, "token id " + std::to_string(t) + " is not in the vocabulary of " +
                                        std::to_string(c.vocab_size) + " tokens"};
        }
    }
    for (const int t : b.targets) {
        if (t < -1 || t >= c.vocab_size) {
            return {errc::mismatch, "target id " + std::to_string(t) + " is not in the vocabulary of " +
                                        std::to_string(c.vocab_size) + " tokens"};
        }
    }
    for (index s = 0; s < b.sequences(); ++s) {
        if (b.length(s) > c.max_position_embeddings) {
            return {errc::mismatch, "a sequence has " + std::to_string(b.length(s)) + " tokens, but the model only " +
                                        std::to_string(c.max_position_embeddings) + " positions; use shorter windows"};
        }
    }
    return {};
}

}  // namespace llama

#endif  // LLAMA_BATCH_HPP
