// SPDX-License-Identifier: MIT
// Families "oft" and "boft": rotations of the inputs.
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/lora/kinds/boft.hpp>
#include <lowrank/lora/kinds/oft.hpp>
#include <lowrank/lora/merge/merge_transformed.hpp>

#include "golden_case.hpp"
#include "layer.hpp"

namespace {

using namespace lowrank;
using namespace lowrank_tests;

/// Forward, gradients of inputs and adapter, merge and unmerge of one layer; returns the gradient of the parameters.
template <class S, class A>
A run_rotation(const layer<S>& l, const A& adapter, computed<S>& out) {
    const auto turned = rotate(l.base(), adapter);
    matrix<S> y = apply(turned, l.x());
    y.colwise() += l.bias();
    l.put_output(out, y);
    auto g = zero_gradient(turned);
    matrix<S> dx = matrix<S>::Zero(l.x().rows(), l.x().cols());
    column_view<S> dx_view = dx;
    workspace ws;
    rotated_backward(turned, l.x(), l.dy(), g, &dx_view, ws);
    l.put_input_gradient(out, dx);

    const row_rotation transform(turned);
    row_matrix<S> w = l.weight();
    const auto receipt = merge_transformed(weight_view<S>(w), transform).value();
    l.put_weight(out, "merged." + l.name() + ".weight", w);
    throw_if_failed(unmerge_transformed(weight_view<S>(w), receipt, transform));
    if (!(w.array() == l.weight().array()).all()) {
        out.fail("merge and unmerge of " + l.name() + " do not give the same bits");
    }
    return adapter.pull_back(g);
}

template <class S>
void run_oft(const golden_case& c, computed<S>& out) {
    const std::string name = c.info.at("active").at(0);
    const auto& config = c.adapters.at(name).config;
    for (const auto& [layer_name, description] : c.info.at("layers").items()) {
        const layer<S> l(c, layer_name);
        const std::string key = peft_prefix + layer_name + ".oft_R.weight";
        const oft_adapter<S> a{.oft_R = c.adapters.at(name).weights.at(key).template weight<S>(),
                               .in = l.weight().cols(),
                               .coft = config.at("coft"),
                               .eps = config.at("eps"),
                               .use_cayley_neumann = config.at("use_cayley_neumann"),
                               .num_cayley_neumann_terms = config.at("num_cayley_neumann_terms")};
        const auto g = run_rotation(l, a, out);
        out.put("grad[" + name + "]." + key, g.oft_R);
        if (!a.use_cayley_neumann && !(orthogonality_error(a.rotation()) < (sizeof(S) == 4 ? 1e-6 : 1e-13))) {
            out.fail("the rotation of " + layer_name + " is not orthogonal");
        }
    }
}

template <class S>
void run_boft(const golden_case& c, computed<S>& out) {
    const std::string name = c.info.at("active").at(0);
    const auto& weights = c.adapters.at(name).weights;
    for (const auto& [layer_name, description] : c.info.at("layers").items()) {
        const layer<S> l(c, layer_name);
        const std::string module = peft_prefix + layer_name + ".";
        const tensor& blocks = weights.at(module + "boft_R");
        const boft_adapter<S> a{.boft_R = blocks.template rows_of<S>(blocks.dim(0) * blocks.dim(1) * blocks.dim(2)),
                                .boft_s = weights.at(module + "boft_s").template vector<S>(),
                                .in = l.weight().cols()};
        const auto g = run_rotation(l, a, out);
        out.put("grad[" + name + "]." + module + "boft_R", g.boft_R);
        out.put("grad[" + name + "]." + module + "boft_s", g.boft_s);
        if (!(orthogonality_error(a.rotation()) < (sizeof(S) == 4 ? 1e-6 : 1e-13))) {
            out.fail("the rotation of " + layer_name + " is not orthogonal");
        }
    }
}

const register_family oft("oft", run_oft<float>, run_oft<double>);
const register_family boft("boft", run_boft<float>, run_boft<double>);

}  // namespace
