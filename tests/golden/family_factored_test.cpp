// SPDX-License-Identifier: MIT
// Families "adalora", "vera", "loha", "lokr" and "ia3".
#include <memory>

#include <lowrank/core/linear_operator.hpp>
#include <lowrank/lora/algebra/tucker.hpp>
#include <lowrank/lora/kinds/adalora.hpp>
#include <lowrank/lora/kinds/ia3.hpp>
#include <lowrank/lora/kinds/loha.hpp>
#include <lowrank/lora/kinds/lokr.hpp>
#include <lowrank/lora/kinds/vera.hpp>
#include <lowrank/lora/merge/merge.hpp>

#include "adalora_training.hpp"
#include "golden_case.hpp"
#include "layer.hpp"

namespace {

using namespace lowrank;
using namespace lowrank_tests;

/// The one active adapter of a case, at one layer.
template <class S>
struct at_layer {
    at_layer(const golden_case& c, const layer<S>& l)
        : name(c.info.at("active").at(0)), adapter(c.adapters.at(name)), module(peft_prefix + l.name() + ".") {}

    [[nodiscard]] bool has(const std::string& key) const { return adapter.weights.count(module + key) != 0; }
    [[nodiscard]] matrix<S> operator()(const std::string& key) const {
        return adapter.weights.at(module + key).template weight<S>();
    }
    [[nodiscard]] std::string gradient(const std::string& key) const { return "grad[" + name + "]." + module + key; }

    std::string name;
    const golden_adapter& adapter;
    std::string module;
};

/// Forward, input gradient, merge and unmerge of base + change; returns the gradients of the factors.
template <class S>
delta_gradient<S> run_change(const layer<S>& l, const low_rank<S>& change, computed<S>& out) {
    const operator_sum<S> map({{.map = l.base()}, {.map = change}});
    matrix<S> y = apply(map, l.x());
    y.colwise() += l.bias();
    l.put_output(out, y);
    auto g = zero_gradient(change);
    matrix<S> dx = apply_transposed(l.base(), l.dy());
    column_view<S> dx_view = dx;
    workspace ws;
    delta_backward(change, l.x(), l.dy(), g, &dx_view, ws);
    l.put_input_gradient(out, dx);

    row_matrix<S> w = l.weight();
    const auto receipt = merge(weight_view<S>(w), change).value();
    l.put_weight(out, "merged." + l.name() + ".weight", w);
    throw_if_failed(unmerge(weight_view<S>(w), receipt, change));
    if (!(w.array() == l.weight().array()).all()) {
        out.fail("merge and unmerge of " + l.name() + " do not give the same bits");
    }
    return g;
}

template <class S>
void run_adalora(const golden_case& c, computed<S>& out) {
    if (!c.info.contains("layers")) {
        adalora_training<S>(c, out).run();
        return;
    }
    for (const auto& [name, description] : c.info.at("layers").items()) {
        const layer<S> l(c, name);
        const at_layer<S> t(c, l);
        const adalora_adapter<S> a{.lora_A = t("lora_A"),
                                   .lora_B = t("lora_B"),
                                   .lora_E = t("lora_E"),
                                   .lora_alpha = t.adapter.config.at("lora_alpha"),
                                   .ranknum = t.adapter.config.at("init_r")};
        const auto g = a.pull_back(run_change(l, a.delta(), out));
        out.put(t.gradient("lora_A"), g.lora_A);
        out.put(t.gradient("lora_B"), g.lora_B);
        out.put(t.gradient("lora_E"), g.lora_E);
    }
}

template <class S>
void run_vera(const golden_case& c, computed<S>& out) {
    for (const auto& [name, description] : c.info.at("layers").items()) {
        const layer<S> l(c, name);
        const at_layer<S> t(c, l);
        const auto& weights = t.adapter.weights;
        const auto shared = std::make_shared<const vera_projections<S>>(
            vera_projections<S>{.vera_A = weights.at("base_model.vera_A").template weight<S>(),
                                .vera_B = weights.at("base_model.vera_B").template weight<S>()});
        const vera_adapter<S> a{
            .shared = shared, .lambda_b = t("vera_lambda_b"), .lambda_d = t("vera_lambda_d"), .in = l.weight().cols()};
        const auto g = a.pull_back(run_change(l, a.delta(), out));
        out.put(t.gradient("vera_lambda_b"), g.lambda_b);
        out.put(t.gradient("vera_lambda_d"), g.lambda_d);
    }
}

template <class S>
void run_loha(const golden_case& c, computed<S>& out) {
    for (const auto& [name, description] : c.info.at("layers").items()) {
        const layer<S> l(c, name);
        const at_layer<S> t(c, l);
        const bool tucker = t.has("hada_t1");
        const lowrank::index taps = tucker ? t("hada_t1").cols() / t("hada_w1_b").rows() : 1;
        const auto left = [&](const char* key) { return tucker ? matrix<S>(t(key).transpose()) : t(key); };
        const auto right = [&](const char* core, const char* key) {
            return tucker ? tucker_right<S>(t(core), t(key), taps) : t(key);
        };
        const loha_adapter<S> a{.w1_a = left("hada_w1_a"),
                                .w1_b = right("hada_t1", "hada_w1_b"),
                                .w2_a = left("hada_w2_a"),
                                .w2_b = right("hada_t2", "hada_w2_b"),
                                .alpha = t.adapter.config.at("alpha")};
        const auto g = a.pull_back(run_change(l, a.delta(), out));
        const auto put = [&](const std::string& n, const matrix<S>& da, const matrix<S>& db) {
            if (!tucker) {
                out.put(t.gradient("hada_w" + n + "_a"), da);
                out.put(t.gradient("hada_w" + n + "_b"), db);
                return;
            }
            const auto inner = tucker_backward<S>(t("hada_t" + n), t("hada_w" + n + "_b"), taps, db);
            out.put(t.gradient("hada_w" + n + "_a"), matrix<S>(da.transpose()));
            out.put(t.gradient("hada_w" + n + "_b"), inner.b);
            out.put(t.gradient("hada_t" + n), inner.t);
        };
        put("1", g.w1_a, g.w1_b);
        put("2", g.w2_a, g.w2_b);
    }
}

template <class S>
void run_lokr(const golden_case& c, computed<S>& out) {
    for (const auto& [name, description] : c.info.at("layers").items()) {
        const layer<S> l(c, name);
        const at_layer<S> t(c, l);
        const bool tucker = t.has("lokr_t2");
        const lowrank::index taps = tucker ? t("lokr_t2").cols() / t("lokr_w2_b").rows() : 1;
        const auto factor = [&](const std::string& n) -> lokr_factor<S> {
            if (t.has("lokr_w" + n)) {
                return {.left = t("lokr_w" + n)};
            }
            const matrix<S> a = t("lokr_w" + n + "_a");
            const matrix<S> b = t("lokr_w" + n + "_b");
            if (n == "2" && tucker) {
                return {.left = a.transpose(), .right = tucker_right<S>(t("lokr_t2"), b, taps)};
            }
            return {.left = a, .right = b};
        };
        const lokr_adapter<S> a{
            .w1 = factor("1"), .w2 = factor("2"), .alpha = t.adapter.config.at("alpha"), .r = t.adapter.config.at("r")};
        const auto g = a.pull_back(run_change(l, a.delta(), out));
        matrix<S> by_map = apply(l.base(), l.x()) + apply(a.map(), l.x());
        by_map.colwise() += l.bias();
        l.put_output(out, by_map);  // the reshaping product is what serves
        for (const std::string n : {"1", "2"}) {
            const auto& d = n == "1" ? g.w1 : g.w2;
            if (t.has("lokr_w" + n)) {
                out.put(t.gradient("lokr_w" + n), d.left);
            } else if (n == "2" && tucker) {
                const auto inner = tucker_backward<S>(t("lokr_t2"), t("lokr_w2_b"), taps, d.right);
                out.put(t.gradient("lokr_w2_a"), matrix<S>(d.left.transpose()));
                out.put(t.gradient("lokr_w2_b"), inner.b);
                out.put(t.gradient("lokr_t2"), inner.t);
            } else {
                out.put(t.gradient("lokr_w" + n + "_a"), d.left);
                out.put(t.gradient("lokr_w" + n + "_b"), d.right);
            }
        }
    }
}

template <class S>
void run_ia3(const golden_case& c, computed<S>& out) {
    const auto& forward_names = c.info.at("feedforward_modules");
    for (const auto& [name, description] : c.info.at("layers").items()) {
        const layer<S> l(c, name);
        const at_layer<S> t(c, l);
        const bool feedforward =
            std::find(forward_names.begin(), forward_names.end(), json(name)) != forward_names.end();
        const vector<S> scale = t.adapter.weights.at(t.module + "ia3_l").template vector<S>();
        // A scale per input channel is one per tap of that channel.
        const lowrank::index taps = feedforward ? l.x().rows() / scale.size() : 1;
        vector<S> full(scale.size() * taps);
        for (lowrank::index i = 0; i < full.size(); ++i) {
            full(i) = scale(i / taps);
        }
        scaled_operator<S> map{.base = l.base()};
        (feedforward ? map.input_scale : map.output_scale) = full;
        const vector<S> bias = feedforward ? l.bias() : vector<S>(l.bias().cwiseProduct(scale));
        matrix<S> y = apply(map, l.x());
        y.colwise() += bias;
        l.put_output(out, y);
        l.put_input_gradient(out, apply_transposed(map, l.dy()));
        vector<S> g = vector<S>::Zero(full.size());
        workspace ws;
        if (feedforward) {
            input_scale_backward(map.base, l.x(), l.dy(), g, ws);
        } else {
            output_scale_backward(map.base, l.bias(), l.x(), l.dy(), g, ws);
        }
        out.put(t.gradient("ia3_l"), matrix<S>(g.reshaped(taps, scale.size()).colwise().sum()));

        row_matrix<S> w = l.weight();
        const low_rank<S> none{.left = matrix<S>(w.rows(), 0), .right = matrix<S>(0, w.cols())};
        const std::span<const S> span(full.data(), static_cast<std::size_t>(full.size()));
        const auto options = feedforward ? merge_options<S>{.column_scale = span} : merge_options<S>{.row_scale = span};
        const auto receipt = merge(weight_view<S>(w), none, options).value();
        l.put_weight(out, "merged." + name + ".weight", w);
        out.put("merged." + name + ".bias", bias);
        throw_if_failed(unmerge(weight_view<S>(w), receipt, none, options));
        if (!(w.array() == l.weight().array()).all()) {
            out.fail("merge and unmerge of " + name + " do not give the same bits");
        }
    }
}

const register_family adalora("adalora", run_adalora<float>, run_adalora<double>);
const register_family vera("vera", run_vera<float>, run_vera<double>);
const register_family loha("loha", run_loha<float>, run_loha<double>);
const register_family lokr("lokr", run_lokr<float>, run_lokr<double>);
const register_family ia3("ia3", run_ia3<float>, run_ia3<double>);

}  // namespace
