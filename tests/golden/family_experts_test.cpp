// SPDX-License-Identifier: MIT
// LoRA of stacks of experts (target_parameters): each expert applied and differentiated as an `any_adapter`, the stack
// merged whole.
#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/io/peft/kinds/experts.hpp>
#include <lowrank/lora/any_adapter.hpp>
#include <lowrank/lora/merge/merge_change.hpp>

#include "golden_case.hpp"
#include "layer.hpp"
#include "read_adapter.hpp"

namespace {

using namespace lowrank;
using namespace lowrank_tests;
using idx = lowrank::index;

/// One adapter of one parameter in the scalar of the test.
template <class S>
struct active_experts {
    std::string name = {};  ///< Of the adapter.
    std::string file = {};  ///< How its tensors' names begin.
    expert_lora<S> lora;
    expert_lora<S> gradient;
};

/// A parameter: its experts' weights out x in, and what changes them.
template <class S>
struct parameter {
    std::vector<row_matrix<S>> experts = {};
    std::vector<active_experts<S>> adapters = {};
    bool transposed = false;

    parameter(const golden_case& c, const std::string& layer, const std::string& name) {
        const auto& info = c.info.at("layers").at(layer);
        const tensor& w = c.base.at(layer + "." + name);
        const bool is_stack = w.shape.size() == 3;
        const idx count = is_stack ? w.dim(0) : 1;
        transposed = is_stack && info.at("is_transposed");
        const row_matrix<S> all = w.template rows_of<S>(count * w.dim(is_stack ? 1 : 0));
        const idx height = all.rows() / count;
        for (idx e = 0; e < count; ++e) {
            const row_matrix<S> stored = all.middleRows(e * height, height);
            experts.push_back(transposed ? row_matrix<S>(stored.transpose()) : stored);
        }
        for (const std::string active : c.info.at("active")) {
            const auto file = read_golden_adapter(c, active);
            const std::string key = info.at("adapter_keys").at(name).at(0);
            const std::string path = key.substr(0, key.size() - std::string(".lora_A.weight").size());
            for (const auto& [at, module] : file.modules) {
                const auto* stack = module.template get<peft_experts>();
                const auto* plain = find_lora(module);
                if (peft_prefix + (stack != nullptr ? stack->place.path_in_file() : at) != path) {
                    continue;
                }
                if (stack != nullptr && stack->place.parameter != name) {
                    throw std::runtime_error(at + " is taken for another parameter than " + name);
                }
                auto taken = stack != nullptr ? stack->lora
                                              : expert_lora<float>{1, plain->lora_A, plain->lora_B, plain->lora_alpha,
                                                                   plain->use_rslora};
                const expert_lora<S> lora{taken.experts, taken.lora_A.template cast<S>(),
                                          taken.lora_B.template cast<S>(), taken.lora_alpha, taken.use_rslora};
                adapters.push_back({active, path, lora, lora});
            }
        }
        if (adapters.size() != c.info.at("active").size()) {
            throw std::runtime_error("an adapter lacks " + layer + "." + name);
        }
    }

    matrix<S> forward(idx e, const matrix<S>& x) {
        const auto base = as_operator(experts[static_cast<std::size_t>(e)]);
        matrix<S> y = apply(base, x);
        workspace ws;
        for (const auto& a : adapters) {
            any_adapter<S> one = a.lora.expert(e);
            one.refresh(base);
            one.add_product(base, S(1), x, y, ws);
        }
        return y;
    }
    matrix<S> backward(idx e, const matrix<S>& x, const matrix<S>& dy) {
        const auto base = as_operator(experts[static_cast<std::size_t>(e)]);
        matrix<S> dx = apply_transposed(base, dy);
        workspace ws;
        for (auto& a : adapters) {
            any_adapter<S> one = a.lora.expert(e);
            one.refresh(base);
            auto gradient = one.zero_gradient();
            column_view<S> to = dx;
            one.backward(base, S(1), x, dy, gradient, &to, ws);
            lowrank::vector<S> values = lowrank::vector<S>::Zero(one.parameter_count());
            one.pull_back(gradient, {values.data(), static_cast<std::size_t>(values.size())});
            const idx r = a.lora.rank(), in = a.lora.cols(), out = a.lora.rows();
            a.gradient.put_expert(e, values.head(r * in).reshaped(r, in), values.tail(out * r).reshaped(out, r));
        }
        return dx;
    }
    void put(const std::string& layer, const std::string& name, computed<S>& out) const {
        for (const auto& a : adapters) {
            out.put("grad[" + a.name + "]." + a.file + ".lora_A.weight", a.gradient.lora_A);
            out.put("grad[" + a.name + "]." + a.file + ".lora_B.weight", a.gradient.lora_B);
        }
        const idx height = transposed ? experts[0].cols() : experts[0].rows();
        row_matrix<S> stack(static_cast<idx>(experts.size()) * height,
                            transposed ? experts[0].rows() : experts[0].cols());
        for (std::size_t e = 0; e < experts.size(); ++e) {
            stack.middleRows(static_cast<idx>(e) * height, height) =
                transposed ? row_matrix<S>(experts[e].transpose()) : experts[e];
        }
        const row_matrix<S> before = stack;
        std::vector<merge_receipt> receipts;
        const auto change = [&](const auto& a) {
            return weight_change<S>(a.lora.change(transposed ? expert_layout::in_by_out : expert_layout::out_by_in));
        };
        for (const auto& a : adapters) {
            receipts.push_back(merge(weight_view<S>(stack), change(a)).value());
        }
        out.put("merged." + layer + "." + name, stack);
        for (std::size_t i = adapters.size(); i-- > 0;) {
            throw_if_failed(unmerge(weight_view<S>(stack), receipts[i], change(adapters[i])));
        }
        if (!(stack.array() == before.array()).all()) {
            out.fail("merge and unmerge of " + layer + "." + name + " do not give the same bits");
        }
    }
};

template <class S>
void run(const golden_case& c, computed<S>& out) {
    for (const auto& [layer, info] : c.info.at("layers").items()) {
        const tensor& x = c.inputs.at("x." + layer);
        const tensor& dy = c.inputs.at("g." + layer);
        const bool is_gated = info.at("forward_kind") == "two";
        const std::vector<std::string> names =
            is_gated ? std::vector<std::string>{"gate_up_proj", "down_proj"}
                     : std::vector<std::string>{info.at("parameter_order").at(0).template get<std::string>()};
        std::vector<parameter<S>> all;
        for (const auto& name : names) {
            all.emplace_back(c, layer, name);
        }
        const auto experts = static_cast<idx>(all[0].experts.size());
        const matrix<S> inputs = x.template columns<S>(), outputs = dy.template columns<S>();
        const idx each = inputs.cols() / experts;
        matrix<S> y(outputs.rows(), outputs.cols()), dx(inputs.rows(), inputs.cols());
        for (idx e = 0; e < experts; ++e) {
            const matrix<S> in = inputs.middleCols(e * each, each), g = outputs.middleCols(e * each, each);
            const matrix<S> t = all[0].forward(e, in);
            if (!is_gated) {
                y.middleCols(e * each, each) = t;
                dx.middleCols(e * each, each) = all[0].backward(e, in, g);
                continue;
            }
            const idx half = t.rows() / 2;
            const matrix<S> gate = t.topRows(half), up = t.bottomRows(half);
            const matrix<S> s = gate.unaryExpr([](S v) { return S(1) / (S(1) + std::exp(-v)); });
            const matrix<S> h = gate.cwiseProduct(s).cwiseProduct(up);
            y.middleCols(e * each, each) = all[1].forward(e, h);
            const matrix<S> dh = all[1].backward(e, h, g);
            matrix<S> dt(t.rows(), t.cols());
            const matrix<S> slope = s.array() * (S(1) + gate.array() * (S(1) - s.array()));
            dt.topRows(half) = dh.cwiseProduct(up).cwiseProduct(slope);
            dt.bottomRows(half) = dh.cwiseProduct(gate).cwiseProduct(s);
            dx.middleCols(e * each, each) = all[0].backward(e, in, dt);
        }
        out.put_columns("y." + layer, y);
        out.put_columns("grad.x." + layer, dx);
        for (std::size_t i = 0; i < all.size(); ++i) {
            all[i].put(layer, names[i], out);
        }
    }
}

const register_family experts("lora-target-parameters", run<float>, run<double>);

}  // namespace
