// SPDX-License-Identifier: MIT
// Family "lora": forward, gradients and merged weights of layers under LoRA adapters.
#include <memory>

#include <lowrank/core/linear_map.hpp>
#include <lowrank/lora/adapted_linear.hpp>
#include <lowrank/lora/merge.hpp>

#include "golden_case.hpp"

namespace {

using namespace lowrank;
using namespace lowrank_tests;

const std::string prefix = "base_model.model.";

/// The active adapters that touch a layer, in order.
template <class S>
struct layer_adapter {
    std::string name;
    lora_adapter<S> lora;
    vector<S> bias;  ///< of B; empty without lora_bias
};

template <class S>
std::vector<layer_adapter<S>> adapters_of(const golden_case& c, const std::string& layer) {
    std::vector<layer_adapter<S>> all;
    for (const auto& active : c.info.at("active")) {
        const std::string name = active;
        const auto& a = c.adapters.at(name);
        const auto weight = [&](const std::string& key) -> const tensor* {
            const auto found = a.weights.find(prefix + layer + key);
            return found == a.weights.end() ? nullptr : &found->second;
        };
        if (weight(".lora_A.weight") == nullptr) {
            continue;
        }
        layer_adapter<S> one{.name = name, .lora = {}, .bias = {}};
        one.lora.lora_A = weight(".lora_A.weight")->template weight<S>();
        one.lora.lora_B = weight(".lora_B.weight")->template weight<S>();
        one.lora.lora_alpha = pattern_value(a.config, "alpha_pattern", "lora_alpha", layer);
        one.lora.use_rslora = a.config.value("use_rslora", false);
        if (const auto* b = weight(".lora_B.bias")) {
            one.bias = b->template vector<S>();
        }
        all.push_back(std::move(one));
    }
    return all;
}

/// A tensor of the layer: of the active adapter that replaces it (modules_to_save, trained biases), else the base's.
const tensor* layer_tensor(const golden_case& c, const std::string& layer, const std::string& key) {
    const tensor* found = nullptr;
    if (const auto base = c.base.find(layer + "." + key); base != c.base.end()) {
        found = &base->second;
    }
    for (const auto& active : c.info.at("active")) {
        const auto& weights = c.adapters.at(active).weights;
        for (const std::string& spelling : {prefix + layer + "." + key, prefix + layer + ".base_layer." + key}) {
            if (const auto own = weights.find(spelling); own != weights.end()) {
                found = &own->second;
            }
        }
    }
    return found;
}

/// Linear and Conv1D (the same with the weight stored in x out).
template <class S>
void run_linear(const golden_case& c, const std::string& layer, bool transposed, computed<S>& out) {
    row_matrix<S> stored = layer_tensor(c, layer, "weight")->template weight<S>();
    const row_matrix<S> w = transposed ? row_matrix<S>(stored.transpose()) : stored;
    const auto* bias = layer_tensor(c, layer, "bias");
    const auto adapters = adapters_of<S>(c, layer);

    adapted_linear<S> map{.base = map_of(w), .adapters = {}};
    vector<S> total_bias = bias != nullptr ? bias->vector<S>() : vector<S>::Zero(w.rows());
    for (const auto& a : adapters) {
        map.adapters.push_back({.adapter = std::make_shared<const lora_adapter<S>>(a.lora)});
        if (a.bias.size() > 0) {
            total_bias += a.lora.scaling() * a.bias;
        }
    }
    const matrix<S> x = c.inputs.at("x." + layer).columns<S>();
    matrix<S> y = apply(map, x);
    y.colwise() += total_bias;
    out.put_columns("y." + layer, y);

    if (const auto g = c.inputs.find("g." + layer); g != c.inputs.end()) {
        const matrix<S> dy = g->second.columns<S>();
        out.put_columns("grad.x." + layer, apply_transposed(map, dy));
        workspace ws;
        for (const auto& a : adapters) {
            auto gradient = zero_gradient(a.lora);
            lora_backward(a.lora, S(1), x, dy, gradient, nullptr, ws);
            const std::string key = "grad[" + a.name + "]." + prefix + layer;
            out.put(key + ".lora_A.weight", gradient.lora_A);
            out.put(key + ".lora_B.weight", gradient.lora_B);
            if (a.bias.size() > 0) {
                out.put(key + ".lora_B.bias", matrix<S>(a.lora.scaling() * dy.rowwise().sum()));
            }
        }
    }

    const row_matrix<S> before = stored;
    std::vector<std::pair<low_rank<S>, merge_receipt>> done;
    for (const auto& a : adapters) {
        auto delta = a.lora.delta();
        if (transposed) {
            delta = {.left = delta.right.transpose(), .right = delta.left.transpose()};
        }
        auto receipt = merge(weight_view<S>(stored), delta).value();
        done.emplace_back(std::move(delta), std::move(receipt));
    }
    out.put("merged." + layer + ".weight", stored);
    out.put("merged." + layer + ".bias", total_bias);
    for (; !done.empty(); done.pop_back()) {
        throw_if_failed(unmerge(weight_view<S>(stored), done.back().second, done.back().first));
    }
    if (!(stored.array() == before.array()).all()) {
        out.fail("merge and unmerge of " + layer + " do not give the same bits");
    }
}

template <class S>
void run(const golden_case& c, computed<S>& out) {
    for (const auto& [layer, description] : c.info.at("layers").items()) {
        const std::string type = description.at("type");
        if (type == "Linear" || type == "Conv1D") {
            run_linear<S>(c, layer, type == "Conv1D", out);
        }
    }
}

const register_family lora("lora", run<float>, run<double>);

}  // namespace
