// SPDX-License-Identifier: MIT
// Family "init": PiSSA, OLoRA, MiCA, CorDA, EVA, LoRA-GA, LoftQ, and a trained PiSSA adapter as plain LoRA.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <lowrank/core/linear_operator.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/lora/adapted_linear.hpp>
#include <lowrank/lora/convert/convert.hpp>
#include <lowrank/lora/init/data_init.hpp>
#include <lowrank/lora/init/loftq.hpp>
#include <lowrank/lora/init/spectral_init.hpp>
#include <lowrank/quant/formats/normal_float.hpp>

#include "golden_case.hpp"
#include "layer.hpp"

namespace {

using namespace lowrank;
using namespace lowrank_tests;

template <class S>
lora_adapter<S> init_adapter_at(const golden_case& c, const std::string& name, const std::string& module) {
    const auto& a = c.adapters.at(name);
    return {.lora_A = a.weights.at(peft_prefix + module + ".lora_A.weight").template weight<S>(),
            .lora_B = a.weights.at(peft_prefix + module + ".lora_B.weight").template weight<S>(),
            .lora_alpha = a.config.at("lora_alpha"),
            .use_rslora = a.config.value("use_rslora", false)};
}

/// The output of W under an adapter, which an init leaves as it was.
template <class S>
void put_init_output(const layer<S>& l, const row_matrix<S>& w, const lora_adapter<S>& a, computed<S>& out) {
    const operator_sum<S> map({{.map = as_operator(w)}, {.map = a}});
    matrix<S> y = apply(map, l.x());
    y.colwise() += l.bias();
    l.put_output(out, y);
}

lora_options options_of(const json& config) {
    return {
        .r = config.at("r"), .lora_alpha = config.at("lora_alpha"), .use_rslora = config.value("use_rslora", false)};
}

/// The mean over samples of X^T X, each X divided by the absolute value of its largest element, as the peer does.
template <class S>
matrix<double> corda_covariance(const golden_case& c, const layer<S>& l) {
    const lowrank::index samples = c.inputs.at("x." + l.name()).dim(0), tokens = l.x().cols() / samples;
    matrix<double> sum = matrix<double>::Zero(l.x().rows(), l.x().rows());
    for (lowrank::index i = 0; i < samples; ++i) {
        const matrix<double> x = l.x().middleCols(i * tokens, tokens).template cast<double>();
        sum += x * x.transpose() / (x.maxCoeff() * x.maxCoeff());
    }
    return sum / static_cast<double>(samples);
}

/// EVA looks at all layers before it gives one its rank.
template <class S>
void run_eva(const golden_case& c, computed<S>& out) {
    const auto& config = c.adapters.at("default").config;
    const auto options = options_of(config);
    const double rho = config.at("eva_config").at("rho");
    const auto offered = static_cast<lowrank::index>(std::lround(static_cast<double>(options.r) * rho));
    std::vector<layer<S>> layers;
    std::vector<input_components> components;
    std::vector<vector<double>> explained;
    for (const auto& [name, description] : c.info.at("layers").items()) {
        layers.emplace_back(c, name);
        input_statistics seen(layers.back().x().rows());
        throw_if_failed(seen.add(layers.back().x()));
        components.push_back(principal_components(seen, offered).value());
        explained.push_back(components.back().explained);
        out.put("explained_variance_ratio." + name, explained.back());
    }
    const auto ranks = eva_ranks(explained, options.r, rho);
    for (std::size_t i = 0; i < layers.size(); ++i) {
        const auto& l = layers[i];
        auto a = eva<S>(components[i], l.weight().rows(), options, ranks[i]);
        if (a.lora_alpha != c.info.at("alphas").at(l.name()).template get<double>()) {
            out.fail("lora_alpha of " + l.name());
        }
        put_init_output(l, l.weight(), a, out);
        for (lowrank::index k = 0; k < a.rank(); ++k) {  // signs are free: the largest element positive, as the peer
            lowrank::index at = 0;
            a.lora_A.row(k).cwiseAbs().maxCoeff(&at);
            a.lora_A.row(k) *= a.lora_A(k, at) < 0 ? S(-1) : S(1);
        }
        out.put("A." + l.name(), a.lora_A);
    }
}

template <class S>
void run_lora_ga(const golden_case& c, const std::string& name, computed<S>& out) {
    const layer<S> l(c, name);
    const auto& config = c.adapters.at("default").config;
    const auto& ga = config.at("lora_ga_config");
    const std::string direction = ga.at("direction"), scale = ga.at("scale");
    const lora_ga_options how{.direction = direction == "ArB2r"   ? lora_ga_direction::a_first
                                           : direction == "A2rBr" ? lora_ga_direction::b_first
                                                                  : lora_ga_direction::alternating,
                              .scale = scale == "stable"       ? lora_ga_scale::stable
                                       : scale == "weight_svd" ? lora_ga_scale::weight_svd
                                       : scale == "gd_scale"   ? lora_ga_scale::gd_scale
                                                               : lora_ga_scale::unit,
                              .gamma = ga.at("stable_gamma"),
                              .weight_sigma1 = static_cast<double>(svd(l.weight()).value().s(0))};
    const auto batches = static_cast<S>(c.inputs.at("x." + name).dim(0));
    const row_matrix<S> gradient = l.dy() * l.x().transpose() / batches;
    const auto spec = svd(gradient).value();
    const auto a = lora_ga(spec, options_of(config), how);
    const auto& singular_values = c.expected.at("singular_values." + name);
    out.put("gradient." + name, gradient);
    out.put("singular_values." + name, vector<S>(spec.s.head(singular_values.size())));
    out.put("abs_A." + name, matrix<S>(a.lora_A.cwiseAbs()));
    out.put("abs_B." + name, matrix<S>(a.lora_B.cwiseAbs()));
    row_matrix<S> w = l.weight();
    (void)subtract_init(weight_view<S>(w), a).value();
    put_init_output(l, w, a, out);
    row_matrix<S> of_peer = l.weight();
    (void)subtract_init(weight_view<S>(of_peer), init_adapter_at<S>(c, "default", name)).value();
    out.put("residual_of_adapter." + name, of_peer);
}

template <class S>
void run_start(const golden_case& c, const std::string& name, computed<S>& out) {
    const layer<S> l(c, name);
    const auto& config = c.adapters.at("default").config;
    const lora_options options = options_of(config);
    const json& method = config.at("init_lora_weights");
    lora_adapter<S> a;
    if (method == "mica") {
        a = mica(l.weight(), options).value();
        out.put("abs_B." + name, matrix<S>(a.lora_B.cwiseAbs()));
        out.put("gram_B." + name, matrix<S>(a.lora_B * a.lora_B.transpose()));
        put_init_output(l, l.weight(), a, out);
        return;
    }
    if (method == "corda") {
        const matrix<double> covariance = corda_covariance(c, l);
        out.put("covariance." + name, covariance);
        const bool last = config.at("corda_config").at("corda_method") == "kpm";
        a = corda(l.weight(), covariance, options, {.knowledge_preserving = last}).value();
    } else if (method == "olora") {
        a = olora(l.weight(), options, init_scaling::peft).value();
        out.put("abs_A." + name, matrix<S>(a.lora_A.cwiseAbs()));
    } else {
        const auto spec = svd(l.weight()).value();
        out.put("singular_values." + name, spec.s);
        a = pissa(spec, options);
        out.put("gram_A." + name, matrix<S>(a.lora_A * a.lora_A.transpose()));
    }
    out.put("gram_B." + name, matrix<S>(a.lora_B.transpose() * a.lora_B));
    out.put("delta." + name, a.delta().dense());
    row_matrix<S> w = l.weight();
    const auto receipt = subtract_init(weight_view<S>(w), a).value();
    out.put("residual." + name, w);
    put_init_output(l, w, a, out);
    throw_if_failed(unmerge(weight_view<S>(w), receipt, a.delta(S(-1))));
    if (!(w.array() == l.weight().array()).all()) {
        out.fail("the receipt of the init does not restore the bits of " + name);
    }
}

template <class S>
void run_conversion(const golden_case& c, const std::string& name, computed<S>& out) {
    const layer<S> l(c, name);
    const auto plain =
        plain_lora(init_adapter_at<S>(c, "adapter_trained", name), init_adapter_at<S>(c, "adapter_init", name));
    out.put("converted." + name + ".lora_A", plain.lora_A);
    out.put("converted." + name + ".lora_B", plain.lora_B);
    if (plain.rank() != c.info.at("converted_r").get<lowrank::index>() ||
        plain.lora_alpha != c.info.at("converted_lora_alpha").get<double>()) {
        out.fail("rank or lora_alpha of the converted adapter");
    }
    put_init_output(l, l.weight(), plain, out);
}

template <class S>
void run_loftq(const golden_case& c, computed<S>& out) {
    const int bits = c.info.at("num_bits");
    const normal_float_options format{.bits = bits, .block = c.info.at("block_size")};
    const auto levels = normal_float_levels(bits);
    out.put_values("nf4_table", std::vector<double>(levels.begin(), levels.end()));
    for (const auto& [name, numbers] : c.info.at("matrices").items()) {
        const row_matrix<S> w = c.inputs.at("W." + name).template weight<S>();
        normal_float_matrix last;
        // Scales are stored in float; in double the expected values are those of exact ones.
        const auto quantize = [&](const row_matrix<S>& x) {
            last = quantize_normal_float(x, format);
            row_matrix<S> back(x.rows(), x.cols());
            for (lowrank::index at = 0; at < x.size(); at += format.block) {
                const Eigen::Map<const vector<S>> block(x.data() + at, std::min(format.block, x.size() - at));
                const S scale = block.cwiseAbs().maxCoeff();
                for (lowrank::index j = at; j < at + block.size(); ++j) {
                    back.data()[j] = static_cast<S>(last.levels[last.code(j)]) * scale;
                }
            }
            return back;
        };
        const int iterations = numbers.at(3);
        for (int i = 0; i < iterations; ++i) {
            const auto start = loftq(w, quantize, {.r = numbers.at(2), .lora_alpha = 3},
                                     {.iterations = i + 1, .scaling = init_scaling::peft});
            throw_if_failed(start.why);
            const std::string prefix = "iter" + std::to_string(i) + ".";
            const matrix<S> product = start.adapter.lora_B * start.adapter.lora_A;
            out.put_values(prefix + "packed." + name, std::vector<double>(last.packed.begin(), last.packed.end()));
            out.put_values(prefix + "absmax." + name, std::vector<double>(last.scales.begin(), last.scales.end()));
            out.put(prefix + "product." + name, product);
            out.put("product." + name, product);
            out.put("quantized." + name, start.base);
            out.put_values("relative_error." + name, {start.relative, start.relative_without});
        }
    }
}

template <class S>
void run(const golden_case& c, computed<S>& out) {
    if (!c.info.contains("layers")) {
        run_loftq(c, out);
        return;
    }
    const bool is_conversion = c.info.contains("converted_r");
    const json method = is_conversion ? json() : c.adapters.at("default").config.at("init_lora_weights");
    if (method == "eva") {
        run_eva(c, out);
        return;
    }
    for (const auto& [name, description] : c.info.at("layers").items()) {
        if (is_conversion) {
            run_conversion(c, name, out);
        } else if (method == "lora_ga") {
            run_lora_ga(c, name, out);
        } else {
            run_start(c, name, out);
        }
    }
}

const register_family init("init", run<float>, run<double>);

}  // namespace
