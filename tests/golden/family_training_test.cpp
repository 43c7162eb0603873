// SPDX-License-Identifier: MIT
// Family "training": complete runs of y = l1(relu(l0(x))) under LoRA and DoRA with AdamW, LoRA+ rates, mini-batches,
// clipping and schedules. Cases with another model or optimizer produce nothing here.
#include <cmath>

#include <lowrank/core/linear_map.hpp>
#include <lowrank/lora/adamw.hpp>
#include <lowrank/lora/dora.hpp>
#include <lowrank/lora/gradient.hpp>

#include "golden_case.hpp"

namespace {

using namespace lowrank;
using namespace lowrank_tests;

template <class S>
struct trained_layer {
    std::string key;
    row_matrix<S> weight;
    vector<S> bias;
    lora_adapter<S> lora;
    lora_gradient<S> gradient;
    matrix<S> magnitude;  ///< of DoRA; empty for LoRA
    matrix<S> magnitude_gradient;
    vector<double> base_norms2;

    trained_layer(const golden_case& c, const golden_adapter& a, const std::string& name)
        : key("base_model.model." + name),
          weight(c.base.at(name + ".weight").template weight<S>()),
          bias(c.base.at(name + ".bias").template vector<S>()),
          base_norms2(squared_row_norms(weight)) {
        lora.lora_A = a.weights.at(key + ".lora_A.weight").template weight<S>();
        lora.lora_B = a.weights.at(key + ".lora_B.weight").template weight<S>();
        lora.lora_alpha = a.config.at("lora_alpha");
        lora.use_rslora = a.config.value("use_rslora", false);
        gradient = zero_gradient(lora);
        if (const auto m = a.weights.find(key + ".lora_magnitude_vector"); m != a.weights.end()) {
            magnitude = m->second.template vector<S>();
            magnitude_gradient = matrix<S>::Zero(magnitude.rows(), 1);
        }
    }

    [[nodiscard]] vector<S> norms() const { return adapted_row_norms(weight, base_norms2, lora.delta()); }
    [[nodiscard]] dora_linear<S> dora(const vector<S>& n) const {
        return {.base = map_of(weight), .change = lora.delta(), .scale = dora_scale<S>(magnitude.col(0), n)};
    }

    [[nodiscard]] matrix<S> forward(const matrix<S>& x) const {
        matrix<S> y = magnitude.size() > 0 ? apply(dora(norms()), x) : matrix<S>(apply(weight, x) + apply(lora, x));
        y.colwise() += bias;
        return y;
    }

    /// Sets the gradients; returns that of x.
    matrix<S> backward(const matrix<S>& x, const matrix<S>& dy) {
        workspace ws;
        gradient.set_zero();
        matrix<S> dx = matrix<S>::Zero(x.rows(), x.cols());
        column_view<S> dx_view = dx;
        if (magnitude.size() == 0) {
            map_of(weight).add_transposed_product(S(1), dy, dx, ws);
            lora_backward(lora, S(1), x, dy, gradient, &dx_view, ws);
            return dx;
        }
        const vector<S> n = norms();
        const auto layer = dora(n);
        auto g = zero_gradient(layer.change);
        vector<S> dm = vector<S>::Zero(n.size());
        dora_backward(layer, n, x, dy, g, dm, &dx_view, ws);
        magnitude_gradient.col(0) = dm;
        gradient.lora_A = g.right;
        gradient.lora_B = lora.scaling() * g.left;
        return dx;
    }

    /// In group 0, B and the magnitude in group 1.
    [[nodiscard]] std::vector<trainable<S>> parameters() {
        std::vector<trainable<S>> list;
        append(list, lora, gradient, 0, 1);
        if (magnitude.size() > 0) {
            list.push_back(make_trainable(magnitude, magnitude_gradient, 1));
        }
        return list;
    }
};

template <class S>
void run(const golden_case& c, computed<S>& out) {
    const auto& training = c.info.at("training");
    if (training.at("optimizer") != "AdamW" ||
        c.info.at("model").get<std::string>().rfind("y = l1(relu(l0(x)))", 0) != 0) {
        return;
    }
    const auto adapter = c.read_adapter("adapter_init");
    trained_layer<S> l0(c, adapter, "l0");
    trained_layer<S> l1(c, adapter, "l1");
    const matrix<S> x = c.inputs.at("x").template columns<S>();
    const matrix<S> t = c.inputs.at("t").template columns<S>();
    const auto mean_square = [](const matrix<S>& e) {
        return e.template cast<double>().squaredNorm() / static_cast<double>(e.size());
    };

    adamw_options options{.epsilon = training.value("eps", c.info.at("optimizer_defaults").at("eps").get<double>())};
    const json betas = training.value("betas", c.info.at("optimizer_defaults").at("betas"));
    options.beta1 = betas.at(0);
    options.beta2 = betas.at(1);
    const double ratio = training.value("loraplus_lr_ratio", 1.0);

    // The state holds one entry per tensor in this order; gradients keep their memory from step to step.
    std::vector<trainable<S>> list = l0.parameters();
    for (const auto& p : l1.parameters()) {
        list.push_back(p);
    }
    auto state = make_adamw_state(list);
    std::vector<double> losses;
    std::vector<double> norms;
    const int steps = training.at("steps");
    for (int s = 0; s < steps; ++s) {
        const auto at = static_cast<std::size_t>(s);
        const lowrank::index begin = c.info.at("batches").at(at).at(0);
        const lowrank::index end = c.info.at("batches").at(at).at(1);
        const matrix<S> xs = x.middleCols(begin, end - begin);
        const matrix<S> h = l0.forward(xs);
        const matrix<S> a = h.cwiseMax(S(0));
        const matrix<S> error = l1.forward(a) - t.middleCols(begin, end - begin);
        losses.push_back(mean_square(error));
        const matrix<S> da = l1.backward(a, error * (S(2) / static_cast<S>(error.size())));
        l0.backward(xs, (h.array() > S(0)).select(da, S(0)));
        list = l0.parameters();
        for (const auto& p : l1.parameters()) {
            list.push_back(p);
        }
        norms.push_back(training.contains("clip") ? clip_gradients(list, training["clip"].get<double>())
                                                  : gradient_norm(list));
        const double lr = c.info.at("learning_rates").at(at);
        const double decay = training.value("weight_decay", 0.0);
        options.groups = {{.learning_rate = lr, .weight_decay = decay},
                          {.learning_rate = lr * ratio, .weight_decay = decay}};
        adamw_step(list, state, options);
    }
    losses.push_back(mean_square(l1.forward(matrix<S>(l0.forward(x).cwiseMax(S(0)))) - t));
    out.put_values("loss", losses);
    out.put_values("grad_norm", norms);
    for (const auto* l : {&l0, &l1}) {
        out.put("final." + l->key + ".lora_A.weight", l->lora.lora_A);
        out.put("final." + l->key + ".lora_B.weight", l->lora.lora_B);
        if (l->magnitude.size() > 0) {
            out.put("final." + l->key + ".lora_magnitude_vector", l->magnitude);
        }
    }
}

const register_family training("training", run<float>, run<double>);

}  // namespace
