// SPDX-License-Identifier: MIT
#ifndef LLAMA_LAYER_BY_RANKS_HPP
#define LLAMA_LAYER_BY_RANKS_HPP

/// \file
/// One layer at several ranks of one of its projections: what the ranks share is computed once.
///
///     lowrank::nested_ranks<float> nested(spectrum, {1, 6, 25});
///     llama::layer_by_ranks(m, batch, 3, &llama::layer<float>::gate_proj, nested, input, ws,
///                           [&](lowrank::index i, auto output) { states[i] = output; });
///
/// The products of the edited projection are those of lowrank::nested_ranks; of the rest of the layer only what comes
/// after it is run again for each rank.

#include <lowrank/laser/edits/nested_ranks.hpp>

#include "contract.hpp"
#include "forward.hpp"

namespace llama {

/// Calls `body(i, output)` once for each rank, in no particular order, with the output of layer `number` (hidden x n)
/// where its projection `which` has rank nested.ranks()[i]; `input` is the layer's input.
///
/// \pre `which` has no adapters; what it multiplies by is the weight of the spectrum
template <real S, class F>
void layer_by_ranks(const model<S>& m, const batch& b, index number, projection<S> layer<S>::*which,
                    const lowrank::nested_ranks<S>& nested, const_column_view<S> input, workspace& ws, F&& body) {
    const config& c = m.shape;
    const layer<S>& l = m.layers[static_cast<std::size_t>(number)];
    const projection<S>& p = l.*which;
    expects(p.adapters.empty(), "llama::layer_by_ranks: the projection must not have adapters");
    const index n = input.cols();
    const workspace::frame scope(ws);
    const auto table = rope_table<S>(c, 0, detail::longest(b), ws);
    detail::layer_buffers<S> buffers = detail::buffers_in<S>(ws, c, n);
    column_view<S> x = ws.take<S>(c.hidden_size, n), normed = ws.take<S>(c.hidden_size, n);
    column_view<S> y = ws.take<S>(c.hidden_size, n), inner = ws.take<S>(c.intermediate_size, n);
    const auto project_unless_edited = [&](projection<S> layer<S>::*each, const_column_view<S> in, column_view<S> out) {
        if (each != which) {
            detail::project<S>(l.*each, in, out, ws, nullptr);
        }
    };
    // out = the edited projection of `in`, bias included, then `go_on(i)`, for each rank.
    const auto each_rank = [&](const_column_view<S> in, column_view<S> out, auto&& go_on) {
        const auto full = [&](column_view<S> wx) {
            p.with_base([&](lowrank::operator_reference<S> w) { w.add_product(S(1), in, wx, ws); });
        };
        nested.for_each(in, full, ws, [&](index i, const_column_view<S> wx) {
            out = wx;
            if (p.bias.size() > 0) {
                out.colwise() += p.bias;
            }
            go_on(i);
        });
    };

    rms_norm<S>(input, l.input_layernorm, c.rms_norm_eps, normed);
    project_unless_edited(&layer<S>::q_proj, normed, buffers.q);
    project_unless_edited(&layer<S>::k_proj, normed, buffers.k);
    project_unless_edited(&layer<S>::v_proj, normed, buffers.v);
    const bool q = which == &layer<S>::q_proj, k = which == &layer<S>::k_proj, v = which == &layer<S>::v_proj;
    if (q || k || v) {
        bool rotate_others = true;
        each_rank(normed,
                  q   ? buffers.q
                  : k ? buffers.k
                      : buffers.v,
                  [&](index i) {
                      detail::attend_sequences<S>(c, b, buffers, table, ws, q || rotate_others, k || rotate_others);
                      rotate_others = false;
                      x = input;
                      detail::add_attention<S>(l, x, buffers, nullptr, ws);
                      detail::add_mlp<S>(c, l, x, buffers, nullptr, ws);
                      body(i, const_column_view<S>(x));
                  });
        return;
    }
    detail::attend_sequences<S>(c, b, buffers, table, ws);
    if (which == &layer<S>::o_proj) {
        each_rank(buffers.attended, y, [&](index i) {
            x = input + y;
            detail::add_mlp<S>(c, l, x, buffers, nullptr, ws);
            body(i, const_column_view<S>(x));
        });
        return;
    }
    x = input;
    detail::add_attention<S>(l, x, buffers, nullptr, ws);
    rms_norm<S>(x, l.post_attention_layernorm, c.rms_norm_eps, normed);
    project_unless_edited(&layer<S>::gate_proj, normed, buffers.gate);
    project_unless_edited(&layer<S>::up_proj, normed, buffers.up);
    if (which == &layer<S>::down_proj) {
        swiglu<S>(buffers.gate, buffers.up, inner);
        each_rank(inner, y, [&](index i) {
            y += x;
            body(i, const_column_view<S>(y));
        });
        return;
    }
    each_rank(normed, which == &layer<S>::gate_proj ? buffers.gate : buffers.up, [&](index i) {
        swiglu<S>(buffers.gate, buffers.up, inner);
        detail::project<S>(l.down_proj, inner, y, ws, nullptr);
        y += x;
        body(i, const_column_view<S>(y));
    });
}

}  // namespace llama

#endif  // LLAMA_LAYER_BY_RANKS_HPP
