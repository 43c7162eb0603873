// SPDX-License-Identifier: MIT
// Family "add_weighted_adapter": the combination types of PEFT, and their functions on bare tensors.
#include <sstream>

#include <lowrank/lora/combine/combine.hpp>
#include <lowrank/lora/combine/weighted_adapter.hpp>

#include "golden_case.hpp"
#include "layer.hpp"

namespace {

using namespace lowrank;
using namespace lowrank_tests;

keep_mask mask_from(const tensor& t, bool transposed) {
    const row_matrix<double> w = t.weight<double>();
    return transposed ? keep_mask(w.transpose().array() != 0) : keep_mask(w.array() != 0);
}

sign_election election_named(const std::string& name) {
    return name == "frequency" ? sign_election::frequency : sign_election::total;
}

/// The values of row-major matrices, one after the other.
template <class Masks>
std::vector<double> stacked_masks(const Masks& masks) {
    std::vector<double> values;
    for (const auto& m : masks) {
        for (lowrank::index i = 0; i < m.rows(); ++i) {
            for (lowrank::index j = 0; j < m.cols(); ++j) {
                values.push_back(m(i, j) ? 1 : 0);
            }
        }
    }
    return values;
}

template <class S>
void run_functions(const golden_case& c, computed<S>& out) {
    const std::vector<double> weights = c.info.at("weights");
    std::vector<matrix<S>> tasks;
    for (std::size_t i = 0; i < weights.size(); ++i) {
        tasks.push_back(c.inputs.at("t" + std::to_string(i)).template weight<S>());
    }
    out.put("task_arithmetic", combine_entries<S>(tasks, weights, {}));
    for (const double density : c.info.at("densities")) {
        std::ostringstream prefix;
        prefix << "density=" << density << ".";
        std::vector<matrix<S>> pruned;
        for (std::size_t i = 0; i < tasks.size(); ++i) {
            pruned.push_back(prune_to_density(tasks[i], density));
            out.put(prefix.str() + "prune_magnitude.t" + std::to_string(i), pruned.back());
        }
        const auto by_rule = [&](combine_rule rule, sign_election election) {
            return combine_entries<S>(tasks, weights, {.rule = rule, .density = density, .election = election},
                                      [&](std::size_t i, lowrank::index, lowrank::index) {
                                          return mask_from(c.inputs.at(prefix.str() + "mask.t" + std::to_string(i)),
                                                           false);
                                      });
        };
        for (const std::string name : {"total", "frequency"}) {
            const auto election = election_named(name);
            out.put_values(prefix.str() + "majority_sign_mask." + name,
                           stacked_masks(majority_sign_masks<S>(pruned, weights, election)));
            out.put(prefix.str() + "ties." + name, by_rule(combine_rule::ties, election));
            out.put(prefix.str() + "dare_ties." + name, by_rule(combine_rule::dare_ties, election));
        }
        out.put(prefix.str() + "magnitude_prune", by_rule(combine_rule::magnitude_prune, sign_election::total));
        out.put(prefix.str() + "dare_linear", by_rule(combine_rule::dare_linear, sign_election::total));
    }
}

template <class S>
lora_adapter<S> weighted_term(const golden_case& c, const std::string& name, const layer<S>& l) {
    const auto& a = c.adapters.at(name);
    const std::string module = peft_prefix + l.name();
    return {.lora_A =
                a.weights.at(module + (l.is_embedding() ? ".lora_embedding_A" : ".lora_A.weight")).template weight<S>(),
            .lora_B =
                a.weights.at(module + (l.is_embedding() ? ".lora_embedding_B" : ".lora_B.weight")).template weight<S>(),
            .lora_alpha = pattern_value(a.config, "alpha_pattern", "lora_alpha", l.name()),
            .use_rslora = a.config.value("use_rslora", false)};
}

template <class S>
void run_combos(const golden_case& c, computed<S>& out) {
    for (const auto& combo : c.info.at("combos")) {
        const std::string id = combo.at("name");
        const std::vector<std::string> names = combo.at("adapters");
        const std::vector<double> weights = combo.at("weights");
        const weighted_options options{
            .type = combination_type_from_name(combo.at("combination_type").get<std::string>()).value(),
            .svd_rank = combo.value("svd_rank", lowrank::index{0}),
            .svd_clamp = combo.value("svd_clamp", 1.0),
            .density = combo.value("density", 1.0),
            .election = election_named(combo.value("majority_sign_method", "total"))};
        for (const auto& entry : c.info.at("layers").items()) {
            const std::string name = entry.key();
            const layer<S> l(c, name);
            std::vector<lora_adapter<S>> adapters;
            for (const auto& adapter : names) {
                adapters.push_back(weighted_term(c, adapter, l));
            }
            const auto mask_of = [&](masked_tensor which, std::size_t i, lowrank::index, lowrank::index) {
                const char* tensors[] = {"lora_A", "lora_B", "delta"};
                const std::string key = id + ".mask." + name + "." + tensors[static_cast<int>(which)] + "." + names[i];
                return mask_from(c.inputs.at(key),
                                 which == masked_tensor::delta && (l.is_transposed() || l.is_embedding()));
            };
            const auto a = weighted_adapter<S>(adapters, weights, options, mask_of).value();
            if (a.rank() != combo.at("result_r").get<lowrank::index>() ||
                a.lora_alpha != combo.at("result_lora_alpha").get<double>() ||
                std::abs(double(a.scaling()) - combo.at("result_scaling").get<double>()) > 1e-6) {
                out.fail("rank, lora_alpha or scaling of " + id);
            }
            const std::string prefix = id + "." + name + ".";
            out.put(prefix + "lora_A", a.lora_A);
            out.put(prefix + "lora_B", a.lora_B);
            out.put(prefix + "column_norms_B", matrix<S>(a.lora_B.colwise().norm()));
            l.put_weight(out, prefix + "delta", row_matrix<S>(a.delta().dense()));
        }
    }
}

template <class S>
void run(const golden_case& c, computed<S>& out) {
    if (c.info.contains("combos")) {
        run_combos(c, out);
    } else {
        run_functions(c, out);
    }
}

const register_family weighted("add_weighted_adapter", run<float>, run<double>);

}  // namespace
