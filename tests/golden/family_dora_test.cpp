// SPDX-License-Identifier: MIT
// Family "dora": magnitude and direction, on every kind of layer.
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/factor/factored_algebra.hpp>
#include <lowrank/lora/kinds/dora.hpp>
#include <lowrank/lora/kinds/embedding.hpp>
#include <lowrank/lora/merge/merge.hpp>

#include "golden_case.hpp"
#include "layer.hpp"

namespace {

using namespace lowrank;
using namespace lowrank_tests;

template <class S>
void run_layer(const golden_case& c, const std::string& name, computed<S>& out) {
    const layer<S> l(c, name);
    if (c.info.at("active").size() != 1) {
        out.fail("one active adapter expected");
        return;
    }
    const std::string active = c.info.at("active").at(0);
    const auto& a = c.adapters.at(active);
    const std::string module = peft_prefix + name;
    const std::string key_A = module + (l.is_embedding() ? ".lora_embedding_A" : ".lora_A.weight");
    const std::string key_B = module + (l.is_embedding() ? ".lora_embedding_B" : ".lora_B.weight");
    const std::string key_m = module + ".lora_magnitude_vector";
    const lora_adapter<S> lora{.lora_A = a.weights.at(key_A).template weight<S>(),
                               .lora_B = a.weights.at(key_B).template weight<S>(),
                               .lora_alpha = pattern_value(a.config, "alpha_pattern", "lora_alpha", name),
                               .use_rslora = a.config.value("use_rslora", false)};
    const vector<S> magnitude = a.weights.at(key_m).template vector<S>();
    const auto norms = adapted_row_norms(l.weight(), squared_row_norms(l.weight()), lora.delta());
    const dora_linear<S> dora{.base = l.base(), .change = lora.delta(), .scale = dora_scale(magnitude, norms)};

    // Tokens are columns of one-hot inputs: the norm of an embedding is over the vocabulary, for each dimension.
    matrix<S> x = l.x();
    workspace ws;
    if (l.is_embedding()) {
        x = matrix<S>::Zero(l.weight().cols(), static_cast<lowrank::index>(l.ids().size()));
        for (std::size_t j = 0; j < l.ids().size(); ++j) {
            x(static_cast<lowrank::index>(l.ids()[j]), static_cast<lowrank::index>(j)) = S(1);
        }
        // The table's own way: look up, add the change, scale.
        const row_matrix<S> table = l.weight().transpose();
        matrix<S> y(table.cols(), x.cols());
        embedding_lookup<S>(table, l.ids(), y);
        embedding_forward(lora, S(1), l.ids(), y, ws);
        l.put_output(out, dora.scale.asDiagonal() * y);
    } else {
        matrix<S> y = apply(dora, x);
        y.colwise() += l.bias();
        l.put_output(out, y);
    }

    auto g = zero_gradient(dora.change);
    vector<S> dm = vector<S>::Zero(magnitude.size());
    matrix<S> dx = matrix<S>::Zero(x.rows(), x.cols());
    column_view<S> dx_view = dx;
    dora_backward(dora, norms, x, l.dy(), g, dm, &dx_view, ws);
    out.put("grad[" + active + "]." + key_A, row_matrix<S>(g.right));
    out.put("grad[" + active + "]." + key_B, row_matrix<S>(lora.scaling() * g.left));
    out.put("grad[" + active + "]." + key_m, dm);
    if (!l.is_embedding()) {
        l.put_input_gradient(out, dx);
    }

    const bool turned = l.is_transposed() || l.is_embedding();
    row_matrix<S> stored = turned ? row_matrix<S>(l.weight().transpose()) : l.weight();
    const row_matrix<S> before = stored;
    const std::span<const S> scale(dora.scale.data(), static_cast<std::size_t>(dora.scale.size()));
    const auto change = turned ? transpose(dora.change) : dora.change;
    const auto options = turned ? merge_options<S>{.column_scale = scale} : merge_options<S>{.row_scale = scale};
    const auto receipt = merge(weight_view<S>(stored), change, options).value();
    out.put("merged." + name + ".weight", stored);
    throw_if_failed(unmerge(weight_view<S>(stored), receipt, change, options));
    if (!(stored.array() == before.array()).all()) {
        out.fail("merge and unmerge of " + name + " do not give the same bits");
    }
}

template <class S>
void run(const golden_case& c, computed<S>& out) {
    for (const auto& [name, description] : c.info.at("layers").items()) {
        run_layer<S>(c, name, out);
    }
}

const register_family dora("dora", run<float>, run<double>);

}  // namespace
