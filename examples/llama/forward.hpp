// SPDX-License-Identifier: MIT
#ifndef LLAMA_FORWARD_HPP
#define LLAMA_FORWARD_HPP

/// \file
/// The forward pass over packed sequences, from any layer on, and what it is judged by.
///
///     lowrank::workspace ws;
///     auto hidden = llama::forward(m, batch, ws);              // hidden x tokens, before the final norm
///     auto logits = llama::logits(m, hidden, ws);              // vocab x tokens
///     double nll = llama::score(m, batch, hidden, ws).mean_nll();
///
/// `forward_from(m, batch, l, inputs[l], ws)` runs only layers l and up, on inputs kept from an earlier pass: what a
/// search over edits of one layer needs. Everything is bit-equal for one binary and CPU.

#include <atomic>
#include <cmath>
#include <cstdint>
#include <limits>
#include <mutex>
#include <utility>
#include <vector>

#include <lowrank/core/parallel.hpp>
#include <lowrank/core/progress.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/adapter_stack.hpp>

#include "batch.hpp"
#include "contract.hpp"
#include "kernels.hpp"
#include "model.hpp"

namespace llama {

/// What a backward pass needs of one layer; norms and SwiGLU are computed again from it.
template <real S>
struct layer_tape {
    matrix<S> x;         ///< Input of the layer, hidden x n.
    matrix<S> q, k, v;   ///< After the rotation.
    matrix<S> attended;  ///< Input of o_proj.
    matrix<S> lse;       ///< Logarithm of each softmax's denominator, n x heads.
    matrix<S> x_mid;     ///< Input of the MLP half, hidden x n.
    matrix<S> gate, up;
};

/// Records a forward pass. Reused with the same shapes it allocates nothing.
template <real S>
struct tape {
    std::vector<layer_tape<S>> layers = {};
    matrix<S> last = {};  ///< Output of the last layer.
};

/// Names the dropout masks of one training step. Without one (null) nothing is dropped.
struct dropout_step {
    std::uint64_t seed = 0;
    std::uint64_t step = 0;
    index first_column = 0;  ///< Tokens of the step that earlier micro-batches held.
};

template <real S>
struct forward_options {
    tape<S>* record = nullptr;              ///< Written if given.
    const dropout_step* dropout = nullptr;  ///< Training only: adapters drop with their own `lora_dropout`.
};

namespace detail {

/// Where the masks of a projection's adapters are; each adapter has its own probability.
template <real S>
[[nodiscard]] lowrank::dropout_key mask_of(const projection<S>& p, const dropout_step& step) {
    return {.seed = step.seed, .layer = p.number, .step = step.step, .first_column = step.first_column};
}

/// y = projection of x, bias included.
template <real S>
void project(const projection<S>& p, const_column_view<S> x, column_view<S> y, workspace& ws,
             const dropout_step* dropout) {
    if (p.bias.size() > 0) {
        y.colwise() = p.bias;
    } else {
        y.setZero();
    }
    const auto key = mask_of(p, dropout == nullptr ? dropout_step{} : *dropout);
    p.with_base([&](lowrank::operator_reference<S> w) {
        lowrank::add_adapted_product<S>(w, p.adapters, x, y, ws, dropout == nullptr ? nullptr : &key);
    });
}

inline void expect_batch(const char* function, const config& c, const batch& b) {
    expects(b.tokens.size() == b.targets.size() && b.starts.size() > 0 && b.starts.front() == 0 &&
                b.starts.back() == b.size() && std::ranges::is_sorted(b.starts),
            "llama: a batch's targets and starts must fit its tokens");
    for (std::size_t i = 0; i < b.tokens.size(); ++i) {
        expects_in_range(function, "token", b.tokens[i], 0, c.vocab_size - 1);
        expects_in_range(function, "target", b.targets[i], -1, c.vocab_size - 1);
    }
}

inline index longest(const batch& b) {
    index n = 0;
    for (index s = 0; s < b.sequences(); ++s) {
        n = std::max(n, b.length(s));
    }
    return n;
}

/// The views one layer writes into: a tape's matrices, or scratch.
template <real S>
struct layer_buffers {
    column_view<S> q, k, v, attended, lse, gate, up;
};

template <real S>
layer_buffers<S> buffers_on(layer_tape<S>& t, const config& c, index n) {
    t.q.resize(c.query_size(), n);
    t.k.resize(c.key_size(), n);
    t.v.resize(c.key_size(), n);
    t.attended.resize(c.query_size(), n);
    t.lse.resize(n, c.num_attention_heads);
    t.gate.resize(c.intermediate_size, n);
    t.up.resize(c.intermediate_size, n);
    return {t.q, t.k, t.v, t.attended, t.lse, t.gate, t.up};
}

template <real S>
layer_buffers<S> buffers_in(workspace& ws, const config& c, index n) {
    const index kv = c.key_size();
    return {ws.take<S>(c.query_size(), n),     ws.take<S>(kv, n), ws.take<S>(kv, n),
            ws.take<S>(c.query_size(), n),     ws.take<S>(0, 0),  ws.take<S>(c.intermediate_size, n),
            ws.take<S>(c.intermediate_size, n)};
}

/// First half of a layer up to the rotated q, k, v.
template <real S>
void attention_inputs(const config& c, const layer<S>& l, const_column_view<S> x, const layer_buffers<S>& buffers,
                      const dropout_step* dropout, workspace& ws) {
    const workspace::frame scope(ws);
    column_view<S> a = ws.take<S>(x.rows(), x.cols());
    rms_norm<S>(x, l.input_layernorm, c.rms_norm_eps, a);
    project<S>(l.q_proj, a, buffers.q, ws, dropout);
    project<S>(l.k_proj, a, buffers.k, ws, dropout);
    project<S>(l.v_proj, a, buffers.v, ws, dropout);
}

/// x += o_proj(attended)
template <real S>
void add_attention(const layer<S>& l, column_view<S> x, const layer_buffers<S>& buffers, const dropout_step* dropout,
                   workspace& ws) {
    const workspace::frame scope(ws);
    column_view<S> y = ws.take<S>(x.rows(), x.cols());
    project<S>(l.o_proj, buffers.attended, y, ws, dropout);
    x += y;
}

/// x += down_proj(silu(gate_proj(norm x)) * up_proj(norm x))
template <real S>
void add_mlp(const config& c, const layer<S>& l, column_view<S> x, const layer_buffers<S>& buffers,
             const dropout_step* dropout, workspace& ws) {
    const workspace::frame scope(ws);
    column_view<S> y = ws.take<S>(x.rows(), x.cols());
    rms_norm<S>(x, l.post_attention_layernorm, c.rms_norm_eps, y);
    project<S>(l.gate_proj, y, buffers.gate, ws, dropout);
    project<S>(l.up_proj, y, buffers.up, ws, dropout);
    column_view<S> inner = ws.take<S>(c.intermediate_size, x.cols());
    swiglu<S>(buffers.gate, buffers.up, inner);
    project<S>(l.down_proj, inner, y, ws, dropout);
    x += y;
}

/// Rotates q and k of every sequence (those that are not rotated yet) and attends.
template <real S>
void attend_sequences(const config& c, const batch& b, const layer_buffers<S>& buffers, const_column_view<S> table,
                      workspace& ws, bool rotate_q = true, bool rotate_k = true) {
    for (index s = 0; s < b.sequences(); ++s) {
        const index at = b.first(s);
        const index n = b.length(s);
        const auto positions = table.leftCols(n);
        column_view<S> q = column_view<S>(buffers.q).middleCols(at, n);
        column_view<S> k = column_view<S>(buffers.k).middleCols(at, n);
        if (rotate_q) {
            rotate<S>(positions, q, S(1));
        }
        if (rotate_k) {
            rotate<S>(positions, k, S(1));
        }
        column_view<S> lse =
            column_view<S>(buffers.lse).middleRows(buffers.lse.size() > 0 ? at : 0, buffers.lse.size() > 0 ? n : 0);
        attend<S>(c, q, k, buffers.v.middleCols(at, n), column_view<S>(buffers.attended).middleCols(at, n), lse, ws);
    }
}

template <real S>
void layer_forward(const model<S>& m, const batch& b, std::size_t number, column_view<S> x, const_column_view<S> table,
                   const forward_options<S>& options, workspace& ws) {
    const config& c = m.shape;
    const layer<S>& l = m.layers[number];
    const workspace::frame scope(ws);
    layer_tape<S>* record = options.record == nullptr ? nullptr : &options.record->layers[number];
    layer_buffers<S> buffers = record != nullptr ? buffers_on(*record, c, x.cols()) : buffers_in<S>(ws, c, x.cols());
    if (record != nullptr) {
        record->x = x;
    }
    attention_inputs<S>(c, l, x, buffers, options.dropout, ws);
    attend_sequences<S>(c, b, buffers, table, ws);
    add_attention<S>(l, x, buffers, options.dropout, ws);
    if (record != nullptr) {
        record->x_mid = x;
    }
    add_mlp<S>(c, l, x, buffers, options.dropout, ws);
}

}  // namespace detail

/// Rows of the embedding matrix as columns: the input of layer 0, hidden x n.
template <real S>
[[nodiscard]] matrix<S> embed(const model<S>& m, const batch& b) {
    detail::expect_batch("llama::embed", m.shape, b);
    matrix<S> x(m.shape.hidden_size, b.size());
    for (index i = 0; i < b.size(); ++i) {
        x.col(i) = m.embed_tokens.row(b.tokens[static_cast<std::size_t>(i)]).transpose();
    }
    return x;
}

/// Runs layers `first` to `last` - 1 on `hidden`, the input of layer `first`; returns the input of layer `last`.
///
/// \pre 0 <= first <= last <= layers; hidden is hidden_size x tokens of the batch.
template <real S>
[[nodiscard]] matrix<S> forward_between(const model<S>& m, const batch& b, index first, index last, matrix<S> hidden,
                                        workspace& ws, const forward_options<S>& options = {}) {
    detail::expect_batch("llama::forward_from", m.shape, b);
    expects_in_range("llama::forward_from", "last", last, 0, static_cast<index>(m.layers.size()));
    expects_in_range("llama::forward_from", "first", first, 0, last);
    expects_shape("llama::forward_from", "hidden", hidden.rows(), hidden.cols(), m.shape.hidden_size, b.size());
    const workspace::frame scope(ws);
    const auto table = rope_table<S>(m.shape, 0, detail::longest(b), ws);
    if (options.record != nullptr) {
        options.record->layers.resize(m.layers.size());
    }
    for (index l = first; l < last; ++l) {
        detail::layer_forward<S>(m, b, static_cast<std::size_t>(l), hidden, table, options, ws);
    }
    if (options.record != nullptr) {
        options.record->last = hidden;
    }
    return hidden;
}

/// Runs layers `first`, first + 1, ... on `hidden`, the input of layer `first`; returns the output of the last one.
///
/// \pre first in [0, layers]; hidden is hidden_size x tokens of the batch.
template <real S>
[[nodiscard]] matrix<S> forward_from(const model<S>& m, const batch& b, index first, matrix<S> hidden, workspace& ws,
                                     const forward_options<S>& options = {}) {
    return forward_between<S>(m, b, first, static_cast<index>(m.layers.size()), std::move(hidden), ws, options);
}

/// Runs the whole stack: the output of the last layer, before the final norm, hidden x tokens.
template <real S>
[[nodiscard]] matrix<S> forward(const model<S>& m, const batch& b, workspace& ws,
                                const forward_options<S>& options = {}) {
    return forward_from<S>(m, b, 0, embed(m, b), ws, options);
}

/// The input of every layer and, last, the output of the stack: what `forward_from` starts from. Memory: (layers + 1)
/// hidden x tokens.
template <real S>
[[nodiscard]] std::vector<matrix<S>> layer_inputs(const model<S>& m, const batch& b, workspace& ws) {
    std::vector<matrix<S>> inputs{embed(m, b)};
    const workspace::frame scope(ws);
    const auto table = rope_table<S>(m.shape, 0, detail::longest(b), ws);
    for (std::size_t l = 0; l < m.layers.size(); ++l) {
        matrix<S> x = inputs.back();
        detail::layer_forward<S>(m, b, l, x, table, {}, ws);
        inputs.push_back(std::move(x));
    }
    return inputs;
}

namespace detail {

inline constexpr index head_columns = 256;  // Columns of logits that exist at a time.

/// y = W x of the output layer, which is the embedding matrix when tied, unless something replaces it.
template <real S>
void head_product(const model<S>& m, const_column_view<S> x, column_view<S> y, workspace& ws) {
    if (m.shape.tie_word_embeddings && !m.lm_head.base) {
        y.setZero();
        lowrank::as_operator(m.embed_tokens).add_product(S(1), x, y, ws);
    } else {
        project<S>(m.lm_head, x, y, ws, nullptr);
    }
}

/// Calls `body(columns, x, logits)` for groups of the columns that have a target: their numbers, their entries of
/// `hidden`, and their logits.
template <real S, class F>
void for_target_logits(const model<S>& m, const batch& b, const_column_view<S> hidden, workspace& ws, F&& body) {
    expects_shape("llama", "hidden", hidden.rows(), hidden.cols(), m.shape.hidden_size, b.size());
    std::vector<index> columns;
    columns.reserve(static_cast<std::size_t>(head_columns));
    const auto flush = [&] {
        const auto n = static_cast<index>(columns.size());
        const workspace::frame scope(ws);
        column_view<S> x = ws.take<S>(hidden.rows(), n);
        column_view<S> normed = ws.take<S>(hidden.rows(), n);
        column_view<S> logits = ws.take<S>(m.shape.vocab_size, n);
        for (index i = 0; i < n; ++i) {
            x.col(i) = hidden.col(columns[static_cast<std::size_t>(i)]);
        }
        rms_norm<S>(x, m.norm, m.shape.rms_norm_eps, normed);
        head_product<S>(m, normed, logits, ws);
        body(std::as_const(columns), const_column_view<S>(x), const_column_view<S>(normed), logits);
        columns.clear();
    };
    for (index i = 0; i < b.size(); ++i) {
        if (b.targets[static_cast<std::size_t>(i)] >= 0) {
            columns.push_back(i);
            if (static_cast<index>(columns.size()) == head_columns) {
                flush();
            }
        }
    }
    if (!columns.empty()) {
        flush();
    }
}

/// log sum exp of a column, in double.
template <class C>
[[nodiscard]] double log_sum_exp(const C& column) {
    const auto top = column.maxCoeff();
    return static_cast<double>(top) + std::log(static_cast<double>((column.array() - top).exp().sum()));
}

}  // namespace detail

/// vocab x n logits of every column of `hidden` (the output of the last layer).
template <real S>
[[nodiscard]] matrix<S> logits(const model<S>& m, const matrix<S>& hidden, workspace& ws) {
    expects_shape("llama::logits", "hidden", hidden.rows(), hidden.cols(), m.shape.hidden_size, hidden.cols());
    matrix<S> out(m.shape.vocab_size, hidden.cols());
    const workspace::frame scope(ws);
    column_view<S> normed = ws.take<S>(hidden.rows(), hidden.cols());
    rms_norm<S>(hidden, m.norm, m.shape.rms_norm_eps, normed);
    detail::head_product<S>(m, normed, out, ws);
    return out;
}

/// What the model thought of each target.
struct scores {
    std::vector<double> log_probability = {};  ///< Per column; 0 where there is no target.
    std::vector<bool> top1 = {};               ///< Per column: the target had the largest logit.
    std::vector<double> sequence_nll = {};     ///< Summed over each sequence.
    std::vector<index> sequence_targets = {};  ///< Targets of each sequence.

    [[nodiscard]] index targets() const {
        index n = 0;
        for (const index t : sequence_targets) {
            n += t;
        }
        return n;
    }
    [[nodiscard]] double total_nll() const {
        double sum = 0;
        for (const double x : sequence_nll) {
            sum += x;
        }
        return sum;
    }
    /// Mean negative log-likelihood per target; NaN without targets.
    [[nodiscard]] double mean_nll() const {
        const index n = targets();
        return n > 0 ? total_nll() / static_cast<double>(n) : std::numeric_limits<double>::quiet_NaN();
    }
    /// Share of targets that had the largest logit.
    [[nodiscard]] double accuracy() const {
        const index n = targets();
        return n > 0 ? static_cast<double>(std::ranges::count(top1, true)) / static_cast<double>(n)
                     : std::numeric_limits<double>::quiet_NaN();
    }
    void append(const scores& more) {
        log_probability.insert(log_probability.end(), more.log_probability.begin(), more.log_probability.end());
        top1.insert(top1.end(), more.top1.begin(), more.top1.end());
        sequence_nll.insert(sequence_nll.end(), more.sequence_nll.begin(), more.sequence_nll.end());
        sequence_targets.insert(sequence_targets.end(), more.sequence_targets.begin(), more.sequence_targets.end());
    }
};

/// Scores the targets of `b` from the output of the last layer. Keeps 256 columns of logits at a time.
template <real S>
[[nodiscard]] scores score(const model<S>& m, const batch& b, const matrix<S>& hidden, workspace& ws) {
    const auto n = static_cast<std::size_t>(b.size());
    scores out{.log_probability = std::vector<double>(n, 0.0), .top1 = std::vector<bool>(n, false)};
    detail::for_target_logits<S>(
        m, b, hidden, ws, [&](const std::vector<index>& columns, auto, auto, column_view<S> logits) {
            for (std::size_t i = 0; i < columns.size(); ++i) {
                const auto column = static_cast<std::size_t>(columns[i]);
                const auto z = logits.col(static_cast<index>(i));
                const index target = b.targets[column];
                index best = 0;
                z.maxCoeff(&best);
                out.log_probability[column] = static_cast<double>(z(target)) - detail::log_sum_exp(z);
                out.top1[column] = best == target;
            }
        });
    for (index s = 0; s < b.sequences(); ++s) {
        double nll = 0;
        index count = 0;
        for (index i = b.first(s); i < b.first(s + 1); ++i) {
            if (b.targets[static_cast<std::size_t>(i)] >= 0) {
                nll -= out.log_probability[static_cast<std::size_t>(i)];
                ++count;
            }
        }
        out.sequence_nll.push_back(nll);
        out.sequence_targets.push_back(count);
    }
    return out;
}

/// Scores all sequences of `b` in groups of about `group_tokens`, the groups in parallel on `run`; memory grows with
/// the group, results do not depend on the executor. `on_progress` hears of every group, one call at a time, and may
/// cancel.
/// \return mismatch if a token or a length does not fit the model; non_finite if a loss is not a number; cancelled.
template <real S>
[[nodiscard]] result<scores> evaluate(const model<S>& m, const batch& b, const lowrank::executor& run = {},
                                      index group_tokens = 1024, const lowrank::progress_callback& on_progress = {}) {
    if (status why = check(b, m.shape); !why) {
        return why;
    }
    const std::vector<batch> groups = split(b, group_tokens);
    std::vector<scores> parts(groups.size());
    std::atomic<bool> cancelled = false;
    std::mutex reporting;
    index done = 0;
    lowrank::parallel_for(run, static_cast<index>(groups.size()), [&](index g) {
        if (cancelled) {
            return;
        }
        const auto at = static_cast<std::size_t>(g);
        workspace ws;
        parts[at] = score(m, groups[at], forward(m, groups[at], ws), ws);
        const std::lock_guard lock(reporting);
        if (!lowrank::report(on_progress, {.done = ++done, .total = static_cast<index>(groups.size())})) {
            cancelled = true;
        }
    });
    if (cancelled) {
        return status{errc::cancelled, "the evaluation was cancelled"};
    }
    scores all;
    for (const scores& part : parts) {
        all.append(part);
    }
    if (!lowrank::is_finite(all.total_nll())) {
        return status{errc::non_finite, "the model's loss is not a number; a weight or an adapter must be broken"};
    }
    return all;
}

}  // namespace llama

#endif  // LLAMA_FORWARD_HPP
