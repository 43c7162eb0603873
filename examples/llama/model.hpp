// SPDX-License-Identifier: MIT
#ifndef LLAMA_MODEL_HPP
#define LLAMA_MODEL_HPP

/// \file
/// A Llama-architecture model as a value: weights under their Hugging Face names, adapters beside them.
///
///     auto* q = llama::find_projection(m, "model.layers.0.self_attn.q_proj");
///     q->adapters.push_back({.adapter = poet, .strength = 0.5F});     // adapts; of any kind
///     q->base = lowrank::any_operator<float>(truncated);                   // multiplies by something else
///     lowrank::weight_view<float> w = *llama::find_weight(m, "model.layers.0.self_attn.q_proj.weight");
///
/// Weights are `out x in` row-major as in the checkpoint. A copy of a model copies its weights and shares its adapters.

#include <cmath>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <lowrank/core/finite.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/operator_reference.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/lora/adapter_stack.hpp>

#include "config.hpp"

namespace llama {

using lowrank::column_view;
using lowrank::const_column_view;
using lowrank::matrix;
using lowrank::real;
using lowrank::row_matrix;
using lowrank::used_adapter;
using lowrank::vector;
using lowrank::weight_view;
using lowrank::workspace;

/// One linear layer, y = (W + sum of what adapters change) x + bias. Without the bias it is a linear operator of the
/// library.
template <real S>
struct projection {
    using scalar = S;

    std::string name = {};                              ///< Module path: "model.layers.0.self_attn.q_proj".
    row_matrix<S> weight = {};                          ///< out x in
    vector<S> bias = {};                                ///< out, or empty.
    std::optional<lowrank::any_operator<S>> base = {};  ///< If set, multiplied in the place of `weight`.
    std::vector<used_adapter<S>> adapters = {};  ///< Of any kind, each with its strength, in no particular order.
    std::uint64_t number = 0;                    ///< Its place in the model; names its dropout masks.

    [[nodiscard]] index rows() const { return base ? base->rows() : weight.rows(); }
    [[nodiscard]] index cols() const { return base ? base->cols() : weight.cols(); }

    /// Y += alpha (adapted base) X.
    void add_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
        with_base([&](lowrank::operator_reference<S> w) {
            scaled(alpha, x, ws,
                   [&](const_column_view<S> in) { lowrank::add_adapted_product<S>(w, adapters, in, y, ws); });
        });
    }

    /// Y += alpha (adapted base)^T X.
    void add_transposed_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
        with_base([&](lowrank::operator_reference<S> w) {
            scaled(alpha, x, ws, [&](const_column_view<S> in) {
                lowrank::add_adapted_transposed_product<S>(w, adapters, in, y, ws);
            });
        });
    }

    /// Calls `use` with what is multiplied where there are no adapters.
    template <class F>
    void with_base(F&& use) const {
        if (base) {
            use(lowrank::operator_reference<S>(*base));
        } else {
            const auto dense = lowrank::as_operator(weight);
            use(lowrank::operator_reference<S>(dense));
        }
    }
    /// The same as a map that shares `base` or borrows `weight`.
    [[nodiscard]] lowrank::any_operator<S> base_map() const {
        return base ? *base : lowrank::any_operator<S>(lowrank::as_operator(weight));
    }

private:
    template <class F>
    static void scaled(S alpha, const_column_view<S> x, workspace& ws, F&& use) {
        if (alpha == S(1)) {
            use(x);
            return;
        }
        const workspace::frame scope(ws);
        auto in = ws.take<S>(x.rows(), x.cols());
        in = alpha * x;
        use(const_column_view<S>(in));
    }
};

template <real S>
struct layer {
    vector<S> input_layernorm = {};
    projection<S> q_proj = {}, k_proj = {}, v_proj = {}, o_proj = {};
    vector<S> post_attention_layernorm = {};
    projection<S> gate_proj = {}, up_proj = {}, down_proj = {};
};

template <real S>
struct model {
    using scalar = S;

    config shape = {};
    row_matrix<S> embed_tokens = {};  ///< vocab x hidden
    std::vector<layer<S>> layers = {};
    vector<S> norm = {};
    projection<S> lm_head = {};  ///< 0 x 0 when the embeddings are tied.
};

namespace detail {

template <class M>
using scalar_of = typename std::remove_cvref_t<M>::scalar;

}  // namespace detail

/// Calls `visit(projection)` for the seven of each layer in the order q k v o gate up down, then for an untied lm_head.
template <class M, class F>
void for_each_projection(M& m, F&& visit) {
    for (auto& l : m.layers) {
        for (auto* p : {&l.q_proj, &l.k_proj, &l.v_proj, &l.o_proj, &l.gate_proj, &l.up_proj, &l.down_proj}) {
            visit(*p);
        }
    }
    if (!m.shape.tie_word_embeddings) {
        visit(m.lm_head);
    }
}

/// Calls `visit(name, view)` for every weight under its checkpoint name; vectors are n x 1. The views are writable if
/// the model is.
template <class M, class F>
void for_each_weight(M& m, F&& visit) {
    using S = detail::scalar_of<M>;
    using view = std::conditional_t<std::is_const_v<M>, lowrank::const_weight_view<S>, weight_view<S>>;
    const auto vector_view = [](auto& v) { return view(v.data(), v.size(), 1); };
    const auto projection_views = [&](auto& p) {
        visit(p.name + ".weight", view(p.weight));
        if (p.bias.size() > 0) {
            visit(p.name + ".bias", vector_view(p.bias));
        }
    };
    visit(std::string("model.embed_tokens.weight"), view(m.embed_tokens));
    for (std::size_t i = 0; i < m.layers.size(); ++i) {
        auto& l = m.layers[i];
        const std::string prefix = "model.layers." + std::to_string(i) + ".";
        visit(prefix + "input_layernorm.weight", vector_view(l.input_layernorm));
        for (auto* p : {&l.q_proj, &l.k_proj, &l.v_proj, &l.o_proj}) {
            projection_views(*p);
        }
        visit(prefix + "post_attention_layernorm.weight", vector_view(l.post_attention_layernorm));
        for (auto* p : {&l.gate_proj, &l.up_proj, &l.down_proj}) {
            projection_views(*p);
        }
    }
    visit(std::string("model.norm.weight"), vector_view(m.norm));
    if (!m.shape.tie_word_embeddings) {
        projection_views(m.lm_head);
    }
}

/// Module paths of all projections.
template <real S>
[[nodiscard]] std::vector<std::string> projection_names(const model<S>& m) {
    std::vector<std::string> names;
    for_each_projection(m, [&](const projection<S>& p) { names.push_back(p.name); });
    return names;
}

/// Checkpoint names of all weights.
template <real S>
[[nodiscard]] std::vector<std::string> weight_names(const model<S>& m) {
    std::vector<std::string> names;
    for_each_weight(m, [&](const std::string& name, lowrank::const_weight_view<S>) { names.push_back(name); });
    return names;
}

/// The projection of that module path, with or without ".weight" behind it; null if there is none.
template <class M>
[[nodiscard]] auto* find_projection(M& m, std::string_view name) {
    using P = std::conditional_t<std::is_const_v<M>, const projection<detail::scalar_of<M>>,
                                 projection<detail::scalar_of<M>>>;
    constexpr std::string_view suffix = ".weight";
    if (name.ends_with(suffix)) {
        name.remove_suffix(suffix.size());
    }
    P* found = nullptr;
    for_each_projection(m, [&](P& p) {
        if (p.name == name) {
            found = &p;
        }
    });
    return found;
}

/// A view of the weight with that checkpoint name: read it, edit it in place, put saved values back.
template <class M>
[[nodiscard]] auto find_weight(M& m, std::string_view name) {
    using S = detail::scalar_of<M>;
    using view = std::conditional_t<std::is_const_v<M>, lowrank::const_weight_view<S>, weight_view<S>>;
    std::optional<view> found;
    for_each_weight(m, [&](const std::string& each, view w) {
        if (each == name) {
            found.emplace(w);
        }
    });
    return found;
}

/// All weights of the shapes of `c` and their names; every entry zero. Also what a gradient starts from: it has the
/// shape of the model it is the gradient of. Without `with_matrices` the matrices are 0 x 0: their memory is elsewhere.
/// \pre check(c)
template <real S>
[[nodiscard]] model<S> zero_model(const config& c, bool with_matrices = true) {
    model<S> m{.shape = c};
    std::uint64_t number = 0;
    const auto matrix_of = [&](row_matrix<S>& w, index out, index in) {
        if (with_matrices) {
            w = row_matrix<S>::Zero(out, in);
        }
    };
    const auto make = [&](projection<S>& p, std::string name, index out, index in, bool bias) {
        p.name = std::move(name);
        matrix_of(p.weight, out, in);
        p.bias = vector<S>::Zero(bias ? out : 0);
        p.number = number++;
    };
    matrix_of(m.embed_tokens, c.vocab_size, c.hidden_size);
    m.layers.resize(static_cast<std::size_t>(c.num_hidden_layers));
    for (std::size_t i = 0; i < m.layers.size(); ++i) {
        auto& l = m.layers[i];
        const std::string prefix = "model.layers." + std::to_string(i) + ".";
        make(l.q_proj, prefix + "self_attn.q_proj", c.query_size(), c.hidden_size, c.attention_bias);
        make(l.k_proj, prefix + "self_attn.k_proj", c.key_size(), c.hidden_size, c.attention_bias);
        make(l.v_proj, prefix + "self_attn.v_proj", c.key_size(), c.hidden_size, c.attention_bias);
        make(l.o_proj, prefix + "self_attn.o_proj", c.hidden_size, c.query_size(), c.attention_bias);
        make(l.gate_proj, prefix + "mlp.gate_proj", c.intermediate_size, c.hidden_size, c.mlp_bias);
        make(l.up_proj, prefix + "mlp.up_proj", c.intermediate_size, c.hidden_size, c.mlp_bias);
        make(l.down_proj, prefix + "mlp.down_proj", c.hidden_size, c.intermediate_size, c.mlp_bias);
        l.input_layernorm = vector<S>::Zero(c.hidden_size);
        l.post_attention_layernorm = vector<S>::Zero(c.hidden_size);
    }
    m.norm = vector<S>::Zero(c.hidden_size);
    m.lm_head.name = "lm_head";
    m.lm_head.number = number;
    if (!c.tie_word_embeddings) {
        matrix_of(m.lm_head.weight, c.vocab_size, c.hidden_size);
    }
    return m;
}

/// A model to train from scratch: each weight normal with deviation 1/sqrt(in), those that end a residual branch
/// smaller by sqrt(2 layers), norms one, biases zero.
/// \pre  check(c)
/// \note A function of `c` and `seed`; equal on every machine to about one unit in the last place.
template <real S>
[[nodiscard]] model<S> random_model(const config& c, std::uint64_t seed = 0) {
    model<S> m = zero_model<S>(c);
    const auto fill = [&](row_matrix<S>& w, double gain, std::uint64_t stream) {
        const double deviation = gain / std::sqrt(static_cast<double>(w.cols()));
        lowrank::fill_normal(w, static_cast<S>(deviation), lowrank::philox(seed, stream));
    };
    for_each_projection(m, [&](projection<S>& p) {
        const bool ends_branch = p.name.ends_with("o_proj") || p.name.ends_with("down_proj");
        fill(p.weight, ends_branch ? 1 / std::sqrt(2.0 * static_cast<double>(c.num_hidden_layers)) : 1, p.number + 1);
    });
    fill(m.embed_tokens, 1, 0);
    for (auto& l : m.layers) {
        l.input_layernorm.setOnes();
        l.post_attention_layernorm.setOnes();
    }
    m.norm.setOnes();
    return m;
}

/// The same model in another scalar. Adapters and replaced bases are not carried over.
template <real To, real From>
[[nodiscard]] model<To> cast(const model<From>& m) {
    model<To> out = zero_model<To>(m.shape);
    std::vector<weight_view<To>> views;
    for_each_weight(out, [&](const std::string&, weight_view<To> w) { views.push_back(w); });
    std::size_t i = 0;
    for_each_weight(
        m, [&](const std::string&, lowrank::const_weight_view<From> w) { views[i++] = w.template cast<To>(); });
    return out;
}

/// Fails with one sentence unless every weight is finite.
template <real S>
[[nodiscard]] status check(const model<S>& m) {
    status why = {};
    for_each_weight(m, [&](const std::string& name, lowrank::const_weight_view<S> w) {
        if (why && !lowrank::all_finite(w)) {
            why = {errc::non_finite, "the weight " + name + " contains NaN or infinity"};
        }
    });
    return why;
}

}  // namespace llama

#endif  // LLAMA_MODEL_HPP
