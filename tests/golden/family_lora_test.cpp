// SPDX-License-Identifier: MIT
// Families "lora" and "loralib": forward, gradients and merged weights of layers under LoRA adapters.
#include <memory>

#include <lowrank/core/linear_operator.hpp>
#include <lowrank/factor/factored_algebra.hpp>
#include <lowrank/lora/adapted_linear.hpp>
#include <lowrank/lora/kinds/conv_lora.hpp>
#include <lowrank/lora/kinds/embedding.hpp>
#include <lowrank/lora/merge/merge.hpp>
#include <lowrank/lora/merge/merged_linear.hpp>
#include <lowrank/lora/mixed_batch.hpp>

#include "golden_case.hpp"
#include "layer.hpp"

namespace {

using namespace lowrank;
using namespace lowrank_tests;

template <class S>
struct named_adapter {
    std::string name = {};
    lora_adapter<S> lora = {};
    vector<S> bias = {};     ///< of B; empty without lora_bias
    std::string key_A = {};  ///< the names of the factors in the adapter's file
    std::string key_B = {};
};

/// The adapter `name` at a layer, or nothing.
template <class S>
std::vector<named_adapter<S>> adapter_at(const golden_case& c, const std::string& name, const layer<S>& l) {
    const auto& a = c.adapters.at(name);
    const std::string module = peft_prefix + l.name();
    named_adapter<S> one{.name = name};
    one.key_A = module + (l.is_embedding() ? ".lora_embedding_A" : ".lora_A.weight");
    one.key_B = module + (l.is_embedding() ? ".lora_embedding_B" : ".lora_B.weight");
    if (a.weights.count(one.key_A) == 0) {
        return {};
    }
    one.lora.lora_A = a.weights.at(one.key_A).template weight<S>();
    one.lora.lora_B = expand_groups<S>(a.weights.at(one.key_B).template weight<S>(), l.groups());
    one.lora.lora_alpha = pattern_value(a.config, "alpha_pattern", "lora_alpha", l.name());
    one.lora.use_rslora = a.config.value("use_rslora", false);
    if (const auto b = a.weights.find(module + ".lora_B.bias"); b != a.weights.end()) {
        one.bias = b->second.template vector<S>();
    }
    return {one};
}

template <class S>
void run_layer(const golden_case& c, const std::string& name, computed<S>& out) {
    const layer<S> l(c, name);
    std::vector<named_adapter<S>> adapters;
    for (const auto& active : c.info.at("active")) {
        for (auto& a : adapter_at<S>(c, active, l)) {
            adapters.push_back(std::move(a));
        }
    }
    workspace ws;
    vector<S> bias = l.bias();
    for (const auto& a : adapters) {
        if (a.bias.size() > 0) {
            bias += a.lora.scaling() * a.bias;
        }
    }
    const auto put_gradient = [&](const named_adapter<S>& a, const lora_gradient<S>& gradient) {
        out.put("grad[" + a.name + "]." + a.key_A, row_matrix<S>(gradient.lora_A));
        out.put("grad[" + a.name + "]." + a.key_B, row_matrix<S>(collect_groups<S>(gradient.lora_B, l.groups())));
    };
    if (l.is_embedding()) {
        const row_matrix<S> table = l.weight().transpose();
        matrix<S> y(table.cols(), static_cast<lowrank::index>(l.ids().size()));
        embedding_lookup<S>(table, l.ids(), y);
        for (const auto& a : adapters) {
            embedding_forward(a.lora, S(1), l.ids(), y, ws);
            auto gradient = zero_gradient(a.lora);
            embedding_backward(a.lora, S(1), l.ids(), l.dy(), gradient, ws, {.padding_index = l.padding_index()});
            put_gradient(a, gradient);
        }
        l.put_output(out, y);
    } else {
        adapted_linear<S> map{.base = l.base(), .adapters = {}};
        for (const auto& a : adapters) {
            map.adapters.push_back({.adapter = std::make_shared<const lora_adapter<S>>(a.lora)});
        }
        matrix<S> y = apply(map, l.x());
        y.colwise() += bias;
        l.put_output(out, y);
        if (l.has_gradient()) {
            l.put_input_gradient(out, apply_transposed(map, l.dy()));
            for (const auto& a : adapters) {
                auto gradient = zero_gradient(a.lora);
                lora_backward(a.lora, S(1), l.x(), l.dy(), gradient, nullptr, ws);
                put_gradient(a, gradient);
                if (a.bias.size() > 0) {
                    out.put("grad[" + a.name + "]." + peft_prefix + name + ".lora_B.bias",
                            matrix<S>(a.lora.scaling() * l.dy().rowwise().sum()));
                }
            }
        }
    }
    if (l.groups() > 1) {
        return;
    }
    // Merge into the layer's own storage, and back.
    const bool turned = l.is_transposed() || l.is_embedding();
    row_matrix<S> stored = turned ? row_matrix<S>(l.weight().transpose()) : l.weight();
    const row_matrix<S> before = stored;
    std::vector<std::pair<low_rank<S>, merge_receipt>> done;
    for (const auto& a : adapters) {
        auto delta = turned ? transpose(a.lora.delta()) : a.lora.delta();
        auto receipt = merge(weight_view<S>(stored), delta).value();
        done.emplace_back(std::move(delta), std::move(receipt));
    }
    out.put("merged." + name + ".weight", stored);
    out.put("merged." + name + ".bias", bias);
    for (; !done.empty(); done.pop_back()) {
        throw_if_failed(unmerge(weight_view<S>(stored), done.back().second, done.back().first));
    }
    if (!(stored.array() == before.array()).all()) {
        out.fail("merge and unmerge of " + name + " do not give the same bits");
    }
}

/// One batch whose rows use different adapters.
template <class S>
void run_mixed(const golden_case& c, const std::string& name, computed<S>& out) {
    const layer<S> l(c, name);
    std::vector<std::string> names;
    std::vector<active_adapter<S>> adapters;
    for (const auto& [adapter, data] : c.adapters) {
        for (auto& a : adapter_at<S>(c, adapter, l)) {
            names.push_back(adapter);
            adapters.push_back({.adapter = std::make_shared<const lora_adapter<S>>(a.lora)});
        }
    }
    matrix<S> y;
    matrix<S> x = l.x();
    if (l.is_embedding()) {
        const row_matrix<S> table = l.weight().transpose();
        y.resize(table.cols(), static_cast<lowrank::index>(l.ids().size()));
        embedding_lookup<S>(table, l.ids(), y);
        x = matrix<S>::Zero(table.rows(), y.cols());
        for (lowrank::index j = 0; j < y.cols(); ++j) {
            x(static_cast<lowrank::index>(l.ids()[static_cast<std::size_t>(j)]), j) = S(1);
        }
    } else {
        y = apply(l.base(), x);
        y.colwise() += l.bias();
    }
    std::vector<lowrank::index> which;
    for (lowrank::index j = 0; j < y.cols(); ++j) {
        const std::string wanted = c.info.at("adapter_names").at(static_cast<std::size_t>(l.row_of_column(j)));
        const auto found = std::find(names.begin(), names.end(), wanted);
        which.push_back(found == names.end() ? -1 : static_cast<lowrank::index>(found - names.begin()));
    }
    workspace ws;
    mixed_forward<S>(adapters, which, x, y, ws);
    l.put_output(out, y);
}

template <class S>
void run(const golden_case& c, computed<S>& out) {
    for (const auto& [name, description] : c.info.at("layers").items()) {
        if (c.info.contains("adapter_names")) {
            run_mixed<S>(c, name, out);
        } else {
            run_layer<S>(c, name, out);
        }
    }
}

// loralib: A and B by the layer's own conventions.

template <class S>
void run_loralib_layer(const golden_case& c, const std::string& name, computed<S>& out) {
    const layer<S> l(c, name);
    const std::string key_A = name + ".lora_A";
    const std::string key_B = name + ".lora_B";
    const matrix<S> a = c.lora.at(key_A).template weight<S>();
    const matrix<S> b = c.lora.at(key_B).template weight<S>();
    const double alpha = l.info().at("lora_alpha");
    const auto put_gradient = [&](const matrix<S>& da, const matrix<S>& db) {
        out.put("grad." + key_A, da);
        out.put("grad." + key_B, db);
    };
    workspace ws;
    if (l.is_embedding()) {
        const lora_adapter<S> lora{.lora_A = a, .lora_B = b, .lora_alpha = alpha};
        row_matrix<S> table = l.weight().transpose();
        matrix<S> y(table.cols(), static_cast<lowrank::index>(l.ids().size()));
        embedding_lookup<S>(table, l.ids(), y);
        embedding_forward(lora, S(1), l.ids(), y, ws);
        l.put_output(out, y);
        auto gradient = zero_gradient(lora);
        embedding_backward(lora, S(1), l.ids(), l.dy(), gradient, ws, {.padding_index = l.padding_index()});
        put_gradient(gradient.lora_A, gradient.lora_B);
        (void)merge(weight_view<S>(table), transpose(lora.delta())).value();
        out.put("merged." + name + ".weight", table);
        return;
    }
    if (l.is_conv()) {
        const conv_lora_adapter<S> conv{.lora_A = a,
                                        .lora_B = b,
                                        .rows = l.weight().rows(),
                                        .cols = l.weight().cols(),
                                        .r = l.info().at("r"),
                                        .lora_alpha = alpha};
        const row_matrix<S> merged = l.weight() + conv.dense_delta();
        const grouped_operator<S> map(merged, l.groups());
        matrix<S> y = apply(map, l.x());
        y.colwise() += l.bias();
        l.put_output(out, y);
        l.put_input_gradient(out, apply_transposed(map, l.dy()));
        const auto gradient = conv.pull_back(weight_gradient<S>(l.x(), l.dy(), l.groups()));
        put_gradient(gradient.lora_A, gradient.lora_B);
        l.put_weight(out, "merged." + name + ".weight", merged);
        return;
    }
    low_rank<S> change;
    merged_linear_adapter<S> fused;
    lora_adapter<S> plain;
    const bool is_fused = l.info().contains("enable_lora");
    if (is_fused) {
        fused = {.lora_A = a,
                 .lora_B = b,
                 .enable = l.info()["enable_lora"].template get<std::vector<bool>>(),
                 .lora_alpha = alpha};
        change = fused.delta();
    } else {
        plain = {.lora_A = a, .lora_B = b, .lora_alpha = alpha};
        change = plain.delta();
    }
    const operator_sum<S> map({{.map = l.base()}, {.map = change}});
    matrix<S> y = apply(map, l.x());
    y.colwise() += l.bias();
    l.put_output(out, y);
    l.put_input_gradient(out, apply_transposed(map, l.dy()));
    if (is_fused) {
        auto g = zero_gradient(change);
        delta_backward(change, l.x(), l.dy(), g, nullptr, ws);
        const auto gradient = fused.pull_back(g);
        put_gradient(gradient.lora_A, gradient.lora_B);
    } else {
        auto gradient = zero_gradient(plain);
        lora_backward(plain, S(1), l.x(), l.dy(), gradient, nullptr, ws);
        put_gradient(gradient.lora_A, gradient.lora_B);
    }
    row_matrix<S> stored = l.is_transposed() ? row_matrix<S>(l.weight().transpose()) : l.weight();
    (void)merge(weight_view<S>(stored), l.is_transposed() ? transpose(change) : change).value();
    out.put("merged." + name + ".weight", stored);
}

template <class S>
void run_loralib(const golden_case& c, computed<S>& out) {
    for (const auto& [name, description] : c.info.at("layers").items()) {
        run_loralib_layer<S>(c, name, out);
    }
}

const register_family lora("lora", run<float>, run<double>);
const register_family loralib("loralib", run_loralib<float>, run_loralib<double>);

}  // namespace
