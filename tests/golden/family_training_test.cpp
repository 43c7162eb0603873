// SPDX-License-Identifier: MIT
// Family "training": complete runs of y = l1(relu(l0(x))) under LoRA, DoRA and loralib's layers, and of a classifier
// on an embedding, with AdamW, Adam, SGD, LoRA+ rates, mini-batches, clipping and schedules.
#include <cmath>
#include <span>

#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/lora/kinds/dora.hpp>
#include <lowrank/lora/kinds/lora.hpp>
#include <lowrank/lora/kinds/lora_forms/merged_linear.hpp>
#include <lowrank/lora/layers/embedding.hpp>
#include <lowrank/lora/train/adamw.hpp>
#include <lowrank/lora/train/sgd.hpp>

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
        return {.base = as_operator(weight), .change = lora.delta(), .scale = dora_scale<S>(magnitude.col(0), n)};
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
            as_operator(weight).add_transposed_product(S(1), dy, dx, ws);
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
    void put_final(computed<S>& out) const {
        out.put("final." + key + ".lora_A.weight", lora.lora_A);
        out.put("final." + key + ".lora_B.weight", lora.lora_B);
        if (magnitude.size() > 0) {
            out.put("final." + key + ".lora_magnitude_vector", magnitude);
        }
    }
};

template <class S>
double mean_square(const matrix<S>& e) {
    return e.template cast<double>().squaredNorm() / static_cast<double>(e.size());
}

/// y = l1(relu(l0(x))), mean square error. `Layer` has forward, backward, parameters and put_final.
template <class S, class Layer>
struct two_layers {
    Layer l0, l1;
    matrix<S> x, t;

    double loss(lowrank::index begin, lowrank::index end) const {
        const matrix<S> h = l0.forward(x.middleCols(begin, end - begin)).cwiseMax(S(0));
        return mean_square<S>(l1.forward(h) - t.middleCols(begin, end - begin));
    }
    double differentiate(lowrank::index begin, lowrank::index end) {
        const matrix<S> xs = x.middleCols(begin, end - begin);
        const matrix<S> h = l0.forward(xs);
        const matrix<S> a = h.cwiseMax(S(0));
        const matrix<S> error = l1.forward(a) - t.middleCols(begin, end - begin);
        const matrix<S> da = l1.backward(a, error * (S(2) / static_cast<S>(error.size())));
        l0.backward(xs, (h.array() > S(0)).select(da, S(0)));
        return mean_square(error);
    }
    std::vector<trainable<S>> parameters() {
        std::vector<trainable<S>> list = l0.parameters();
        for (const auto& p : l1.parameters()) {
            list.push_back(p);
        }
        return list;
    }
    void put_final(computed<S>& out) const {
        l0.put_final(out);
        l1.put_final(out);
    }
    [[nodiscard]] lowrank::index samples() const { return x.cols(); }
};

/// loralib's Linear and MergedLinear, whose bias may be trained. A Linear is a MergedLinear with one enabled part.
template <class S>
struct loralib_layer {
    std::string name;
    row_matrix<S> weight;
    matrix<S> bias;
    matrix<S> bias_gradient;
    bool trains_bias;
    merged_linear_adapter<S> lora;
    merged_linear_adapter<S> gradient;

    loralib_layer(const golden_case& c, const tensors& init, std::string layer_name, std::vector<bool> enable)
        : name(std::move(layer_name)),
          weight(c.base.at(name + ".weight").template weight<S>()),
          bias(c.base.at(name + ".bias").template vector<S>()),
          bias_gradient(matrix<S>::Zero(bias.rows(), 1)),
          trains_bias(c.info.at("training").at("bias") != "none") {
        lora = {.lora_A = init.at(name + ".lora_A").template weight<S>(),
                .lora_B = init.at(name + ".lora_B").template weight<S>(),
                .enable = std::move(enable),
                .lora_alpha = c.info.at("training").at("lora_alpha")};
        gradient = lora;
    }
    [[nodiscard]] matrix<S> forward(const matrix<S>& x) const {
        matrix<S> y = apply(weight, x) + apply(lora.delta(), x);
        y.colwise() += bias.col(0);
        return y;
    }
    matrix<S> backward(const matrix<S>& x, const matrix<S>& dy) {
        workspace ws;
        matrix<S> dx = apply_transposed(weight, dy);
        column_view<S> dx_view = dx;
        const auto change = lora.delta();
        auto g = zero_gradient(change);
        delta_backward(change, x, dy, g, &dx_view, ws);
        gradient = lora.pull_back(g);
        bias_gradient = dy.rowwise().sum();
        return dx;
    }
    [[nodiscard]] std::vector<trainable<S>> parameters() {
        std::vector<trainable<S>> list{make_trainable(lora.lora_A, gradient.lora_A),
                                       make_trainable(lora.lora_B, gradient.lora_B)};
        if (trains_bias) {
            list.push_back(make_trainable(bias, bias_gradient));
        }
        return list;
    }
    void put_final(computed<S>& out) const {
        out.put("final." + name + ".lora_A", lora.lora_A);
        out.put("final." + name + ".lora_B", lora.lora_B);
        out.put("final." + name + ".bias", bias);
    }
};

/// logits = l0(mean over tokens of emb(ids)), cross entropy.
template <class S>
struct embedding_classifier {
    row_matrix<S> table;
    lora_adapter<S> embedding;
    lora_gradient<S> embedding_gradient;
    trained_layer<S> head;
    std::vector<std::int64_t> ids;
    std::vector<lowrank::index> classes;
    lowrank::index length;

    embedding_classifier(const golden_case& c, const golden_adapter& a)
        : table(c.base.at("emb.weight").template weight<S>()),
          head(c, a, "l0"),
          ids(c.inputs.at("x").values.begin(), c.inputs.at("x").values.end()),
          classes(c.inputs.at("t").values.begin(), c.inputs.at("t").values.end()),
          length(c.inputs.at("x").dim(1)) {
        embedding = {.lora_A = a.weights.at(peft_key("A")).template weight<S>(),
                     .lora_B = a.weights.at(peft_key("B")).template weight<S>(),
                     .lora_alpha = a.config.at("lora_alpha"),
                     .use_rslora = a.config.value("use_rslora", false)};
        embedding_gradient = zero_gradient(embedding);
    }
    static std::string peft_key(const std::string& factor) { return "base_model.model.emb.lora_embedding_" + factor; }
    [[nodiscard]] std::span<const std::int64_t> ids_of(lowrank::index begin, lowrank::index end) const {
        return std::span(ids).subspan(static_cast<std::size_t>(begin * length),
                                      static_cast<std::size_t>((end - begin) * length));
    }
    [[nodiscard]] matrix<S> pooled(lowrank::index begin, lowrank::index end) const {
        workspace ws;
        matrix<S> e(table.cols(), (end - begin) * length);
        embedding_lookup<S>(const_weight_view<S>(table), ids_of(begin, end), e);
        embedding_forward(embedding, S(1), ids_of(begin, end), e, ws);
        matrix<S> mean(table.cols(), end - begin);
        for (lowrank::index i = 0; i < mean.cols(); ++i) {
            mean.col(i) = e.middleCols(i * length, length).rowwise().mean();
        }
        return mean;
    }
    /// The mean over the rows; `dlogits`, if asked for, becomes its gradient.
    double cross_entropy(const matrix<S>& logits, lowrank::index begin, matrix<S>* dlogits) const {
        double sum = 0;
        for (lowrank::index i = 0; i < logits.cols(); ++i) {
            const auto z = logits.col(i);
            const lowrank::index target = classes[static_cast<std::size_t>(begin + i)];
            const S top = z.maxCoeff();
            const vector<S> e = (z.array() - top).exp();
            sum += std::log(static_cast<double>(e.sum())) + static_cast<double>(top) - static_cast<double>(z(target));
            if (dlogits != nullptr) {
                dlogits->col(i) = e / (e.sum() * static_cast<S>(logits.cols()));
                (*dlogits)(target, i) -= S(1) / static_cast<S>(logits.cols());
            }
        }
        return sum / static_cast<double>(logits.cols());
    }
    double loss(lowrank::index begin, lowrank::index end) const {
        return cross_entropy(head.forward(pooled(begin, end)), begin, nullptr);
    }
    double differentiate(lowrank::index begin, lowrank::index end) {
        const matrix<S> mean = pooled(begin, end);
        const matrix<S> logits = head.forward(mean);
        matrix<S> dlogits(logits.rows(), logits.cols());
        const double value = cross_entropy(logits, begin, &dlogits);
        const matrix<S> dmean = head.backward(mean, dlogits);
        matrix<S> de(dmean.rows(), dmean.cols() * length);
        for (lowrank::index i = 0; i < dmean.cols(); ++i) {
            de.middleCols(i * length, length).colwise() = dmean.col(i) / static_cast<S>(length);
        }
        workspace ws;
        embedding_gradient.set_zero();
        embedding_backward(embedding, S(1), ids_of(begin, end), de, embedding_gradient, ws);
        return value;
    }
    std::vector<trainable<S>> parameters() {
        std::vector<trainable<S>> list;
        append(list, embedding, embedding_gradient, 0, 1);
        for (const auto& p : head.parameters()) {
            list.push_back(p);
        }
        return list;
    }
    void put_final(computed<S>& out) const {
        out.put("final." + peft_key("A"), embedding.lora_A);
        out.put("final." + peft_key("B"), embedding.lora_B);
        head.put_final(out);
    }
    [[nodiscard]] lowrank::index samples() const { return static_cast<lowrank::index>(classes.size()); }
};

/// The run a case describes: batches, rates, clipping and the optimizer come from its file.
template <class S, class Model>
void train(const golden_case& c, computed<S>& out, Model model) {
    const auto& training = c.info.at("training");
    const auto& defaults = c.info.value("optimizer_defaults", json::object());
    const std::string optimizer = training.at("optimizer");
    const double decay = training.value("weight_decay", 0.0);
    const double ratio = training.value("loraplus_lr_ratio", 1.0);
    const auto groups = [&](double lr) {
        return std::vector<parameter_group>{{.learning_rate = lr, .weight_decay = decay},
                                            {.learning_rate = lr * ratio, .weight_decay = decay}};
    };
    const json betas = training.value("betas", defaults.value("betas", json::array({0.9, 0.999})));
    adamw_options adam{.beta1 = betas.at(0),
                       .beta2 = betas.at(1),
                       .epsilon = training.value("eps", defaults.value("eps", 1e-8)),
                       .decoupled = optimizer == "AdamW"};
    sgd_options sgd{.momentum = training.value("momentum", 0.0),
                    .dampening = training.value("dampening", 0.0),
                    .nesterov = training.value("nesterov", false)};

    // The states hold one entry per tensor in this order.
    auto adam_moments = make_adamw_state(model.parameters());
    auto sgd_buffers = make_sgd_state(model.parameters(), sgd);
    std::vector<double> losses;
    std::vector<double> norms;
    const std::size_t steps = training.at("steps");
    for (std::size_t s = 0; s < steps; ++s) {
        const auto& batch = c.info.at("batches").at(s);
        losses.push_back(model.differentiate(batch.at(0), batch.at(1)));
        const auto list = model.parameters();
        norms.push_back(training.contains("clip") ? clip_gradients(list, training["clip"].template get<double>())
                                                  : gradient_norm(list));
        const double lr = c.info.at("learning_rates").at(s);
        if (optimizer == "SGD") {
            sgd.groups = groups(lr);
            sgd_step(list, sgd_buffers, sgd);
        } else {
            adam.groups = groups(lr);
            adamw_step(list, adam_moments, adam);
        }
    }
    losses.push_back(model.loss(0, model.samples()));
    out.put_values("loss", losses);
    out.put_values("grad_norm", norms);
    model.put_final(out);
}

template <class S>
void run(const golden_case& c, computed<S>& out) {
    const std::string optimizer = c.info.at("training").at("optimizer");
    if (optimizer != "AdamW" && optimizer != "Adam" && optimizer != "SGD") {
        return;
    }
    const std::string model = c.info.at("model");
    if (model.rfind("logits = l0(mean over tokens of emb(ids))", 0) == 0) {
        train<S>(c, out, embedding_classifier<S>(c, c.read_adapter("adapter_init")));
        return;
    }
    if (model.rfind("y = l1(relu(l0(x)))", 0) != 0) {
        return;
    }
    const matrix<S> x = c.inputs.at("x").template columns<S>();
    const matrix<S> t = c.inputs.at("t").template columns<S>();
    if (const auto init = read_tensors(c.folder / "lora_init.safetensors"); !init.empty()) {
        const std::vector<bool> parts = c.info.at("training").at("enable_lora");
        using layer = loralib_layer<S>;
        train<S>(c, out,
                 two_layers<S, layer>{
                     .l0 = layer(c, init, "l0", {true}), .l1 = layer(c, init, "l1", parts), .x = x, .t = t});
        return;
    }
    const auto a = c.read_adapter("adapter_init");
    using layer = trained_layer<S>;
    train<S>(c, out, two_layers<S, layer>{.l0 = layer(c, a, "l0"), .l1 = layer(c, a, "l1"), .x = x, .t = t});
}

const register_family training("training", run<float>, run<double>);

}  // namespace
