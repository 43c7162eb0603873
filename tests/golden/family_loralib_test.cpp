// SPDX-License-Identifier: MIT
// Family "loralib": A and B by the layer's own conventions, which no file of the library's readers has.
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/factored_algebra.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/lora/kinds/lora_forms/conv_lora.hpp>
#include <lowrank/lora/kinds/lora_forms/merged_linear.hpp>
#include <lowrank/lora/layers/embedding.hpp>
#include <lowrank/lora/merge/merge.hpp>

#include "golden_case.hpp"
#include "layer.hpp"

namespace {

using namespace lowrank;
using namespace lowrank_tests;

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
                                        .out = l.weight().rows(),
                                        .in = l.weight().cols(),
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

const register_family loralib("loralib", run_loralib<float>, run_loralib<double>);

}  // namespace
