// SPDX-License-Identifier: MIT
#ifndef LLAMA_BACKWARD_HPP
#define LLAMA_BACKWARD_HPP

/// \file
/// The backward pass through the whole stack, from the loss or from given logit gradients.
///
///     llama::tape<float> tape;
///     llama::forward(m, batch, ws, {.record = &tape});
///     llama::backward(m, batch, tape, ws, {.on_linear = [&](const std::string& name, auto x, auto dy) {
///         gradient[name] += dy * x.transpose();                // or B^T dy x^T, or u_i^T dy x^T v_i
///     }});
///
/// The gradient of a weight is dW = dY X^T with the layer's input X and the gradient dY of its output. The pass hands
/// out X and dY at every linear layer, so that adapter, full-weight and singular-value gradients are one mechanism.

#include <functional>
#include <string>
#include <unordered_map>
#include <vector>

#include "contract.hpp"
#include "forward.hpp"

namespace llama {

/// Called with the module path, the layer's input (in x n) and the gradient of its output (out x n). An untied lm_head
/// is handed out in several groups of columns; add them up.
template <real S>
using linear_hook = std::function<void(const std::string& name, const_column_view<S> x, const_column_view<S> dy)>;

/// Gradients of the adapters that train, by the adapter they belong to; backward adds to them.
template <real S>
using adapter_gradients = std::unordered_map<const lowrank::any_adapter<S>*, lowrank::adapter_gradient<S>>;

template <real S>
struct backward_options {
    linear_hook<S> on_linear = {};
    adapter_gradients<S>* adapters = nullptr;  ///< Adapters not in it are frozen.
    model<S>* gradients = nullptr;             ///< Of all weights, added to; start from zero_model(m.shape).
    const dropout_step* dropout = nullptr;     ///< The one the forward pass was given.
    double scale = 0;  ///< The loss is scale * sum of the targets' NLL; 0 stands for 1 / number of targets.
};

namespace detail {

/// dx += W^T dy with all adapters; hands out (x, dy) and adds the gradients that are asked for.
template <real S>
void project_backward(const projection<S>& p, projection<S>* gradient, const_column_view<S> x, const_column_view<S> dy,
                      column_view<S> dx, const backward_options<S>& options, workspace& ws) {
    if (options.on_linear) {
        options.on_linear(p.name, x, dy);
    }
    if (gradient != nullptr) {
        gradient->weight.noalias() += dy * x.transpose();
        if (p.bias.size() > 0) {
            gradient->bias += dy.rowwise().sum();
        }
    }
    const auto gradient_of = [&](const lowrank::any_adapter<S>& adapter) -> lowrank::adapter_gradient<S>* {
        if (options.adapters == nullptr) {
            return nullptr;
        }
        const auto at = options.adapters->find(&adapter);
        return at == options.adapters->end() ? nullptr : &at->second;
    };
    const auto key = mask_of(p, options.dropout == nullptr ? dropout_step{} : *options.dropout);
    p.with_base([&](lowrank::operator_reference<S> w) {
        lowrank::adapted_backward<S>(w, p.adapters, x, dy, gradient_of, &dx, ws,
                                     options.dropout == nullptr ? nullptr : &key);
    });
}

/// Through one layer: `dx` comes in as the gradient of its output and leaves as the gradient of its input.
template <real S>
void layer_backward(const model<S>& m, const batch& b, std::size_t number, const layer_tape<S>& t, column_view<S> dx,
                    const_column_view<S> table, const backward_options<S>& options, workspace& ws) {
    const config& c = m.shape;
    const layer<S>& l = m.layers[number];
    layer<S>* g = options.gradients == nullptr ? nullptr : &options.gradients->layers[number];
    const auto of = [g](projection<S> layer<S>::*member) { return g == nullptr ? nullptr : &(g->*member); };
    const index n = dx.cols();
    const workspace::frame scope(ws);
    column_view<S> normed = ws.take<S>(c.hidden_size, n);
    column_view<S> dnormed = ws.take<S>(c.hidden_size, n);
    {
        const workspace::frame inner_scope(ws);
        column_view<S> inner = ws.take<S>(c.intermediate_size, n);
        column_view<S> dinner = ws.take<S>(c.intermediate_size, n);
        column_view<S> dgate = ws.take<S>(c.intermediate_size, n);
        swiglu<S>(t.gate, t.up, inner);
        dinner.setZero();
        project_backward<S>(l.down_proj, of(&layer<S>::down_proj), inner, dx, dinner, options, ws);
        swiglu_backward<S>(t.gate, t.up, dinner, dgate, dinner);  // dinner now holds dup
        rms_norm<S>(t.x_mid, l.post_attention_layernorm, c.rms_norm_eps, normed);
        dnormed.setZero();
        project_backward<S>(l.gate_proj, of(&layer<S>::gate_proj), normed, dgate, dnormed, options, ws);
        project_backward<S>(l.up_proj, of(&layer<S>::up_proj), normed, dinner, dnormed, options, ws);
        rms_norm_backward<S>(t.x_mid, l.post_attention_layernorm, c.rms_norm_eps, dnormed, dx,
                             g == nullptr ? nullptr : &g->post_attention_layernorm);
    }
    column_view<S> dattended = ws.take<S>(c.query_size(), n);
    column_view<S> dq = ws.take<S>(c.query_size(), n);
    column_view<S> dk = ws.take<S>(c.key_size(), n);
    column_view<S> dv = ws.take<S>(c.key_size(), n);
    dattended.setZero();
    project_backward<S>(l.o_proj, of(&layer<S>::o_proj), t.attended, dx, dattended, options, ws);
    dq.setZero();
    dk.setZero();
    dv.setZero();
    for (index s = 0; s < b.sequences(); ++s) {
        const index at = b.first(s);
        const index len = b.length(s);
        column_view<S> dqs = dq.middleCols(at, len);
        column_view<S> dks = dk.middleCols(at, len);
        attend_backward<S>(c, t.q.middleCols(at, len), t.k.middleCols(at, len), t.v.middleCols(at, len),
                           t.attended.middleCols(at, len), t.lse.middleRows(at, len), dattended.middleCols(at, len),
                           dqs, dks, dv.middleCols(at, len), ws);
        rotate<S>(table.leftCols(len), dqs, S(-1));
        rotate<S>(table.leftCols(len), dks, S(-1));
    }
    rms_norm<S>(t.x, l.input_layernorm, c.rms_norm_eps, normed);
    dnormed.setZero();
    project_backward<S>(l.q_proj, of(&layer<S>::q_proj), normed, dq, dnormed, options, ws);
    project_backward<S>(l.k_proj, of(&layer<S>::k_proj), normed, dk, dnormed, options, ws);
    project_backward<S>(l.v_proj, of(&layer<S>::v_proj), normed, dv, dnormed, options, ws);
    rms_norm_backward<S>(t.x, l.input_layernorm, c.rms_norm_eps, dnormed, dx,
                         g == nullptr ? nullptr : &g->input_layernorm);
}

/// From the gradient of some columns' logits to that of the stack's output at these columns; `x` and `normed` are the
/// final norm's input and output there.
template <real S>
void head_backward(const model<S>& m, const_column_view<S> x, const_column_view<S> normed, const_column_view<S> dlogits,
                   column_view<S> dx, const backward_options<S>& options, workspace& ws) {
    const workspace::frame scope(ws);
    column_view<S> dnormed = ws.take<S>(x.rows(), x.cols());
    dnormed.setZero();
    if (m.shape.tie_word_embeddings && !m.lm_head.base) {
        lowrank::as_operator(m.embed_tokens).add_transposed_product(S(1), dlogits, dnormed, ws);
        if (options.gradients != nullptr) {
            options.gradients->embed_tokens.noalias() += dlogits * normed.transpose();
        }
    } else {
        backward_options<S> head = options;
        head.dropout = nullptr;  // the forward pass drops nothing here
        project_backward<S>(m.lm_head, options.gradients == nullptr ? nullptr : &options.gradients->lm_head, normed,
                            dlogits, dnormed, head, ws);
    }
    dx.setZero();
    rms_norm_backward<S>(x, m.norm, m.shape.rms_norm_eps, dnormed, dx,
                         options.gradients == nullptr ? nullptr : &options.gradients->norm);
}

}  // namespace detail

/// Backward through the layers `first` to `last` - 1: `dhidden` comes in as the gradient of the output of layer `last` - 1
/// and leaves as that of the input of layer `first`.
///
/// \pre `t` records these layers in a forward pass of the same model and batch.
template <real S>
void backward_between(const model<S>& m, const batch& b, const tape<S>& t, index first, index last,
                      column_view<S> dhidden, workspace& ws, const backward_options<S>& options = {}) {
    expects(t.layers.size() == m.layers.size(), "llama::backward: the tape must record every layer");
    expects_in_range("llama::backward", "last", last, 0, static_cast<index>(m.layers.size()));
    expects_in_range("llama::backward", "first", first, 0, last);
    expects_shape("llama::backward", "dhidden", dhidden.rows(), dhidden.cols(), m.shape.hidden_size, b.size());
    const workspace::frame scope(ws);
    const auto table = rope_table<S>(m.shape, 0, detail::longest(b), ws);
    for (index l = last; l-- > first;) {
        const auto at = static_cast<std::size_t>(l);
        detail::layer_backward<S>(m, b, at, t.layers[at], dhidden, table, options, ws);
    }
}

/// Backward through the layers and the embedding from `dhidden`, the gradient of the last layer's output.
///
/// \pre `t` records a forward pass of the same model and batch from layer 0.
/// \cost about twice the forward pass; with `gradients` three times.
template <real S>
void backward_from_hidden(const model<S>& m, const batch& b, const tape<S>& t, matrix<S> dhidden, workspace& ws,
                          const backward_options<S>& options = {}) {
    expects(t.layers.size() == m.layers.size(), "llama::backward: the tape must record every layer");
    expects_shape("llama::backward", "dhidden", dhidden.rows(), dhidden.cols(), t.last.rows(), t.last.cols());
    expects_shape("llama::backward", "tape", t.last.rows(), t.last.cols(), m.shape.hidden_size, b.size());
    backward_between<S>(m, b, t, 0, static_cast<index>(m.layers.size()), dhidden, ws, options);
    if (options.gradients != nullptr) {
        for (index i = 0; i < b.size(); ++i) {
            options.gradients->embed_tokens.row(b.tokens[static_cast<std::size_t>(i)]) += dhidden.col(i).transpose();
        }
    }
}

/// Backward from `dlogits` (vocab x tokens), for losses of one's own.
template <real S>
void backward_from_logits(const model<S>& m, const batch& b, const tape<S>& t, const matrix<S>& dlogits, workspace& ws,
                          const backward_options<S>& options = {}) {
    expects_shape("llama::backward_from_logits", "dlogits", dlogits.rows(), dlogits.cols(), m.shape.vocab_size,
                  b.size());
    matrix<S> dhidden(t.last.rows(), t.last.cols());
    {
        const workspace::frame scope(ws);
        column_view<S> normed = ws.take<S>(t.last.rows(), t.last.cols());
        rms_norm<S>(t.last, m.norm, m.shape.rms_norm_eps, normed);
        detail::head_backward<S>(m, t.last, normed, dlogits, dhidden, options, ws);
    }
    backward_from_hidden<S>(m, b, t, std::move(dhidden), ws, options);
}

/// The negative log-likelihood of the batch's targets from `hidden`, the output of the last layer, and its gradient there;
/// returns the summed NLL (not scaled).
template <real S>
double head_gradient(const model<S>& m, const batch& b, const matrix<S>& hidden, matrix<S>& dhidden, workspace& ws,
                     const backward_options<S>& options = {}) {
    const double scale = options.scale != 0 ? options.scale : 1 / std::max(1.0, static_cast<double>(b.target_count()));
    double nll = 0;
    dhidden.setZero(m.shape.hidden_size, b.size());
    detail::for_target_logits<S>(m, b, hidden, ws,
                                 [&](const std::vector<index>& columns, const_column_view<S> x,
                                     const_column_view<S> normed, column_view<S> logits) {
                                     for (std::size_t i = 0; i < columns.size(); ++i) {
                                         auto z = logits.col(static_cast<index>(i));
                                         const index target = b.targets[static_cast<std::size_t>(columns[i])];
                                         const double lse = detail::log_sum_exp(z);
                                         nll += lse - static_cast<double>(z(target));
                                         z.array() = static_cast<S>(scale) * (z.array() - static_cast<S>(lse)).exp();
                                         z(target) -= static_cast<S>(scale);
                                     }
                                     const workspace::frame scope(ws);
                                     column_view<S> dx = ws.take<S>(x.rows(), x.cols());
                                     detail::head_backward<S>(m, x, normed, logits, dx, options, ws);
                                     for (std::size_t i = 0; i < columns.size(); ++i) {
                                         dhidden.col(columns[i]) = dx.col(static_cast<index>(i));
                                     }
                                 });
    return nll;
}

/// Backward from the negative log-likelihood of the batch's targets; returns their summed NLL (not scaled).
template <real S>
double backward(const model<S>& m, const batch& b, const tape<S>& t, workspace& ws,
                const backward_options<S>& options = {}) {
    matrix<S> dhidden;
    const double nll = head_gradient(m, b, t.last, dhidden, ws, options);
    backward_from_hidden<S>(m, b, t, std::move(dhidden), ws, options);
    return nll;
}

}  // namespace llama

#endif  // LLAMA_BACKWARD_HPP
