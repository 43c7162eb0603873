// SPDX-License-Identifier: MIT
// Family "init": PiSSA, OLoRA, LoftQ, and a trained PiSSA adapter as plain LoRA.
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/factor/spectrum.hpp>
#include <lowrank/lora/adapted_linear.hpp>
#include <lowrank/lora/convert/convert.hpp>
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

template <class S>
void run_start(const golden_case& c, const std::string& name, computed<S>& out) {
    const layer<S> l(c, name);
    const auto& config = c.adapters.at("default").config;
    const lora_options options{
        .r = config.at("r"), .lora_alpha = config.at("lora_alpha"), .use_rslora = config.value("use_rslora", false)};
    lora_adapter<S> a;
    if (config.at("init_lora_weights") == "olora") {
        a = olora(l.weight(), options, init_scaling::peft).value();
        out.put("abs_A." + name, matrix<S>(a.lora_A.cwiseAbs()));
    } else {
        const auto spec = make_spectrum(l.weight()).value();
        out.put("singular_values." + name, spec.values());
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
        const auto quantize = [&](const row_matrix<float>& x) {
            last = quantize_normal_float(x, format);
            return last.dense();
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
    for (const auto& [name, description] : c.info.at("layers").items()) {
        if (c.info.contains("converted_r")) {
            run_conversion(c, name, out);
        } else {
            run_start(c, name, out);
        }
    }
}

const register_family init("init", run<float>, run<double>);

}  // namespace
