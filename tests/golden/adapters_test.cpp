// SPDX-License-Identifier: MIT
// Every family whose cases are PEFT folders: read by the library, applied, differentiated and merged as `any_adapter`,
// whatever kind of adapter it is.
#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/io/checkpoints/merge_checkpoint.hpp>
#include <lowrank/lora/algebra/tucker.hpp>
#include <lowrank/lora/any_adapter.hpp>
#include <lowrank/lora/kinds/lora_forms/kasa.hpp>
#include <lowrank/lora/layers/conv.hpp>
#include <lowrank/lora/merge/merge_change.hpp>
#include <lowrank/lora/mixed_batch.hpp>

#include "adalora_training.hpp"
#include "golden_case.hpp"
#include "layer.hpp"
#include "read_adapter.hpp"

namespace {

using namespace lowrank;
using namespace lowrank_tests;

template <class S>
struct active_module {
    std::string name = {};  ///< Of the adapter.
    golden_module<S> module;
};

/// Inputs as columns: those of an embedding are one-hot.
template <class S>
matrix<S> inputs_of(const layer<S>& l) {
    if (!l.is_embedding()) {
        return l.x();
    }
    matrix<S> x = matrix<S>::Zero(l.weight().cols(), static_cast<lowrank::index>(l.ids().size()));
    for (lowrank::index j = 0; j < x.cols(); ++j) {
        x(static_cast<lowrank::index>(l.ids()[static_cast<std::size_t>(j)]), j) = S(1);
    }
    return x;
}

/// PEFT's name of a parameter in the adapter of a table.
std::string table_name(std::string name) {
    const auto replace = [&](const std::string& from, const std::string& to) {
        if (const auto at = name.find(from); at != std::string::npos) {
            name.replace(at, from.size(), to);
        }
    };
    replace("lora_A.weight", "lora_embedding_A");
    replace("lora_B.weight", "lora_embedding_B");
    replace("hira_A", "hira_embedding_A");
    replace("hira_B", "hira_embedding_B");
    return name;
}

/// What RoAd makes of a bias, which it turns as an output of a layer with the one input 1, and the gradient of its
/// parameters through that.
template <class S>
std::pair<vector<S>, vector<S>> through_bias(any_adapter<S> adapter, const vector<S>& bias, const matrix<S>& dy) {
    std::pair<vector<S>, vector<S>> out{bias, vector<S>::Zero(adapter.parameter_count())};
    if (adapter.kind() != "road") {
        return out;
    }
    const row_matrix<S> b = bias;
    road_adapter<S> of_one = *adapter.template get<road_adapter<S>>();
    of_one.in = 1;
    adapter = of_one;
    workspace ws;
    matrix<S> turned = matrix<S>::Zero(bias.size(), 1);
    adapter.add_product(as_operator(b), S(1), matrix<S>(matrix<S>::Ones(1, 1)), turned, ws);
    auto gradient = adapter.zero_gradient();
    adapter.backward(as_operator(b), S(1), matrix<S>(matrix<S>::Ones(1, dy.cols())), dy, gradient, nullptr, ws);
    adapter.pull_back(gradient, {out.second.data(), static_cast<std::size_t>(out.second.size())});
    out.first = turned.col(0);
    return out;
}

/// Gradients of what layers share, by the name of the tensor.
template <class S>
using shared_gradients = std::map<std::string, matrix<S>>;

/// The gradients of one module under the names of its file.
template <class S>
void put_gradients(const golden_case& c, const layer<S>& l, active_module<S>& a, const matrix<S>& x, computed<S>& out,
                   shared_gradients<S>& shared) {
    auto& adapter = a.module.adapter;
    workspace ws;
    auto gradient = adapter.zero_gradient();
    adapter.backward(l.base(), S(1), x, l.dy(), gradient, nullptr, ws);
    vector<S> values = vector<S>::Zero(adapter.parameter_count());
    adapter.pull_back(gradient, {values.data(), static_cast<std::size_t>(values.size())});

    // The bias is an output of a layer with the one input 1.
    const vector<S> of_bias = through_bias<S>(adapter, l.bias(), l.dy()).second;

    const std::string module = peft_prefix + l.name() + ".", prefix = "grad[" + a.name + "]." + module;
    const auto& file = c.adapters.at(a.name).weights;
    const auto stored = [&](const std::string& leaf) { return file.at(module + leaf).template weight<S>(); };
    lowrank::index at = 0;
    for (const auto& p : adapter.parameters()) {
        matrix<S> g = values.segment(at, p.rows * p.cols).reshaped(p.rows, p.cols);
        at += p.rows * p.cols;
        if (!p.shared.empty()) {  // the sum over all layers
            auto& sum = shared["grad[" + a.name + "].base_model." + p.shared];
            sum = sum.size() == 0 ? g : matrix<S>(sum + g);
            continue;
        }
        const std::string leaf = l.is_embedding() ? table_name(p.name) : p.name;
        if (l.is_embedding() && l.padding_index() >= 0 && leaf == "lora_embedding_A") {
            g.col(l.padding_index()).setZero();  // the padding token trains B and the magnitude only
        }
        if (leaf == "lora_B.weight") {
            g = collect_groups<S>(g, l.groups());
        }
        if (adapter.kind() == "road") {
            g += matrix<S>(of_bias.segment(at - g.size(), g.size()));
        }
        if (adapter.kind() == "ia3") {
            const auto scales = static_cast<lowrank::index>(file.at(module + leaf).values.size());
            if (scales == p.rows && p.rows == l.weight().rows()) {
                g += l.dy().cwiseProduct(l.bias().replicate(1, l.dy().cols())).rowwise().sum();  // scales the bias, too
            }
            g = matrix<S>(g.reshaped(p.rows / scales, scales).colwise().sum());
        }
        // "Effective" kernels: w_a^T and t w_b are what the library computes with.
        const std::string core = leaf.starts_with("hada_w1_")   ? "hada_t1"
                                 : leaf.starts_with("hada_w2_") ? "hada_t2"
                                 : leaf.starts_with("lokr_w2_") ? "lokr_t2"
                                                                : "";
        if (!core.empty() && file.contains(module + core)) {
            if (leaf.ends_with("_a")) {
                g.transposeInPlace();
            } else {
                const matrix<S> t = stored(core), b = stored(leaf);
                auto inner = tucker_backward<S>(t, b, t.cols() / b.rows(), g);
                out.put(prefix + core, inner.t);
                g = std::move(inner.b);
            }
        }
        out.put(prefix + leaf, g);
    }
    if (a.module.bias.size() > 0) {
        out.put(prefix + "lora_B.bias", matrix<S>(a.module.bias_scaling * l.dy().rowwise().sum()));
    }
}

/// Output, gradients and merged weight of a layer with its adapters.
template <class S>
void run_modules(const golden_case& c, const layer<S>& l, std::vector<active_module<S>> modules, computed<S>& out,
                 shared_gradients<S>& shared) {
    const std::string& name = l.name();
    const auto base = l.base();
    const matrix<S> x = inputs_of(l);
    workspace ws;
    vector<S> bias = l.bias();
    bool whole = false;  // one of them makes all of the output, not a difference
    for (auto& a : modules) {
        a.module.adapter.refresh(base);
        whole = whole || !a.module.adapter.additive();
        if (a.module.bias.size() > 0) {
            bias += a.module.bias;
        }
        if (const auto* ia3 = a.module.adapter.template get<ia3_adapter<S>>(); ia3 != nullptr && !ia3->is_feedforward) {
            bias = bias.cwiseProduct(ia3->ia3_l);
        }
        bias = through_bias<S>(a.module.adapter, bias, matrix<S>(bias.size(), 0)).first;
    }
    if (whole && modules.size() != 1) {
        out.fail("several adapters, of which one replaces the output");
        return;
    }
    matrix<S> y = whole ? matrix<S>(matrix<S>::Zero(base.rows(), x.cols())) : apply(base, x);
    for (const auto& a : modules) {
        a.module.adapter.add_product(base, S(1), x, y, ws);
    }
    y.colwise() += bias;
    l.put_output(out, y);
    if (l.has_gradient()) {
        matrix<S> dx = whole ? matrix<S>(matrix<S>::Zero(x.rows(), x.cols())) : apply_transposed(base, l.dy());
        for (auto& a : modules) {
            a.module.adapter.add_transposed_product(base, S(1), l.dy(), dx, ws);
            put_gradients(c, l, a, x, out, shared);
        }
        if (!l.is_embedding()) {
            l.put_input_gradient(out, dx);
        }
    }
    if (l.groups() > 1) {
        return;
    }
    row_matrix<S> w = l.weight();
    std::vector<merge_receipt> receipts;
    for (const auto& a : modules) {
        receipts.push_back(merge(weight_view<S>(w), a.module.adapter).value());
    }
    l.put_weight(out, "merged." + name + ".weight", w);
    out.put("merged." + name + ".bias", bias);
    for (std::size_t i = modules.size(); i-- > 0;) {
        throw_if_failed(unmerge(weight_view<S>(w), receipts[i], modules[i].module.adapter));
    }
    if (!(w.array() == l.weight().array()).all()) {
        out.fail("merge and unmerge of " + name + " do not give the same bits");
    }
}

template <class S>
void run_layer(const golden_case& c, const std::string& name, computed<S>& out, shared_gradients<S>& shared) {
    const layer<S> l(c, name);
    std::vector<active_module<S>> modules;
    for (const std::string active : c.info.at("active")) {
        if (auto m = module_at(read_golden_adapter(c, active), l)) {
            modules.push_back({active, std::move(*m)});
        }
    }
    run_modules(c, l, std::move(modules), out, shared);
}

/// KaSA, on weights without their smallest singular components.
template <class S>
void run_kasa(const golden_case& c, computed<S>& out) {
    const std::string active = c.info.at("active").at(0);
    const auto file = read_golden_adapter(c, active);
    shared_gradients<S> none;
    for (const auto& [name, description] : c.info.at("layers").items()) {
        layer<S> l(c, name);
        auto module = module_at(file, l).value();
        const lowrank::index r = module.adapter.template get<kasa_adapter<S>>()->lora_A.rows();
        const auto start = kasa(svd(l.weight()).value(), {.r = r});
        l.set_weight(l.weight() - row_matrix<S>(start.noise.dense()));
        run_modules(c, l, {{active, std::move(module)}}, out, none);
    }
}

/// Layer norms, whose weight and bias an adapter replaces: merged into the base, and applied as they are then.
template <class S>
void run_norms(const golden_case& c, computed<S>& out) {
    const std::string active = c.info.at("active").at(0);
    const auto to = std::filesystem::temp_directory_path() / ("lowrank-norms-" + c.id + std::to_string(sizeof(S)));
    std::filesystem::remove_all(to);
    const auto base = checkpoint::open(c.folder / "base.safetensors").value();
    (void)merge_checkpoint(base, read_golden_adapter(c, active), to).value();
    const auto merged = checkpoint::open(to / "base.safetensors").value();
    for (const auto& [name, description] : c.info.at("layers").items()) {
        const auto parameter = [&, &layer_name = name](const char* leaf) {
            return vector<S>(merged.matrix<S>(layer_name + leaf).value().reshaped());
        };
        const vector<S> w = parameter(".weight");
        const bool has_bias = merged.find(name + ".bias") != nullptr;
        const vector<S> b = has_bias ? parameter(".bias") : vector<S>(vector<S>::Zero(w.size()));
        const matrix<S> x = c.inputs.at("x." + name).template columns<S>();
        const matrix<S> g = c.inputs.at("g." + name).template columns<S>();
        const auto n = static_cast<S>(x.rows());
        const matrix<S> centred = x.rowwise() - x.colwise().mean();
        const auto deviation =
            (centred.colwise().squaredNorm().array() / n + S(description.at("eps").template get<double>()))
                .sqrt()
                .eval();
        const matrix<S> normal = centred.array().rowwise() / deviation;
        const matrix<S> gw = w.asDiagonal() * g;
        const auto along = (gw.cwiseProduct(normal).colwise().sum() / n).eval();
        const matrix<S> dx =
            ((gw.rowwise() - gw.colwise().mean()) - normal * along.asDiagonal()).array().rowwise() / deviation;
        out.put_columns("y." + name, matrix<S>((w.asDiagonal() * normal).colwise() + b));
        out.put_columns("grad.x." + name, dx);
        const std::string of = "grad[" + active + "]." + peft_prefix + name + ".ln_tuning_layers.";
        out.put(of + "weight", vector<S>(g.cwiseProduct(normal).rowwise().sum()));
        out.put(of + "bias", vector<S>(g.rowwise().sum()));
        out.put("merged." + name + ".weight", w);
        out.put("merged." + name + ".bias", b);
    }
    std::filesystem::remove_all(to);
}

/// One batch whose rows use different adapters.
template <class S>
void run_mixed(const golden_case& c, const std::string& name, computed<S>& out) {
    const layer<S> l(c, name);
    std::vector<std::string> names;
    std::vector<used_adapter<S>> adapters;
    for (const auto& [adapter, data] : c.adapters) {
        if (const auto m = module_at(read_golden_adapter(c, adapter), l)) {
            names.push_back(adapter);
            adapters.push_back({.adapter = std::make_shared<const any_adapter<S>>(m->adapter)});
        }
    }
    const matrix<S> x = inputs_of(l);
    matrix<S> y = matrix<S>::Zero(l.base().rows(), x.cols());
    y.colwise() += l.bias();
    std::vector<lowrank::index> which;
    for (lowrank::index j = 0; j < y.cols(); ++j) {
        const std::string wanted = c.info.at("adapter_names").at(static_cast<std::size_t>(l.row_of_column(j)));
        const auto found = std::find(names.begin(), names.end(), wanted);
        which.push_back(found == names.end() ? -1 : static_cast<lowrank::index>(found - names.begin()));
    }
    workspace ws;
    add_mixed_product<S>(l.base(), adapters, which, x, y, ws);
    l.put_output(out, y);
}

template <class S>
void run(const golden_case& c, computed<S>& out) {
    if (!c.info.contains("layers")) {  // AdaLoRA's allocator
        adalora_training<S>(c, out).run();
        return;
    }
    shared_gradients<S> shared;
    for (const auto& [name, description] : c.info.at("layers").items()) {
        if (c.info.contains("adapter_names")) {
            run_mixed<S>(c, name, out);
        } else {
            run_layer<S>(c, name, out, shared);
        }
    }
    for (const auto& [name, gradient] : shared) {
        out.put(name, gradient);
    }
}

/// A kind is its row here once the reader and `any_adapter` know it.
const register_family kinds[] = {
    {"lora", run<float>, run<double>},        {"dora", run<float>, run<double>},
    {"adalora", run<float>, run<double>},     {"vera", run<float>, run<double>},
    {"loha", run<float>, run<double>},        {"lokr", run<float>, run<double>},
    {"ia3", run<float>, run<double>},         {"oft", run<float>, run<double>},
    {"boft", run<float>, run<double>},        {"hra", run<float>, run<double>},
    {"miss", run<float>, run<double>},        {"hira", run<float>, run<double>},
    {"randlora", run<float>, run<double>},    {"lora-kasa", run_kasa<float>, run_kasa<double>},
    {"shira", run<float>, run<double>},       {"c3a", run<float>, run<double>},
    {"road", run<float>, run<double>},        {"fourierft", run<float>, run<double>},
    {"delora", run<float>, run<double>},      {"ln-tuning", run_norms<float>, run_norms<double>},
    {"lora-bdlora", run<float>, run<double>}, {"lora-qalora", run<float>, run<double>},
    {"gralora", run<float>, run<double>},     {"vblora", run<float>, run<double>},
    {"tinylora", run<float>, run<double>},
};

}  // namespace
