// SPDX-License-Identifier: MIT
// Family "merge": merging into float32, bfloat16 and float16 weights, and back.
#include <cstring>
#include <regex>

#include <lowrank/lora/kinds/lora.hpp>
#include <lowrank/lora/merge/merge.hpp>

#include "golden_case.hpp"

namespace {

using namespace lowrank;
using namespace lowrank_tests;

template <class T, class S>
void run_variant(const golden_case& c, const std::string& w_type, const std::string& a_type, bool dora,
                 const std::string& name, computed<S>& out) {
    using C = compute_t<T>;
    row_matrix<T> w = c.inputs.at("W." + w_type).weight<C>().template cast<T>();
    const lora_adapter<C> adapter{.lora_A = c.inputs.at("A." + a_type).weight<C>(),
                                  .lora_B = c.inputs.at("B." + a_type).weight<C>(),
                                  .lora_alpha = c.info.at("lora_alpha")};
    if (adapter.rank() != c.info.at("r").get<lowrank::index>()) {
        out.fail("rank of " + name);
    }
    const auto delta = adapter.delta();
    vector<C> scale;
    if (dora) {
        const vector<C> magnitude = c.inputs.at("magnitude.dora").vector<C>();
        scale = magnitude.array() / (w.template cast<C>() + delta.dense()).rowwise().norm().array();
    }
    const merge_options<C> options{.row_scale = {scale.data(), static_cast<std::size_t>(scale.size())}};
    const row_matrix<T> before = w;
    const auto receipt = merge(weight_view<T>(w), delta, options).value();
    out.put("merged." + name, row_matrix<C>(w.template cast<C>()));
    throw_if_failed(unmerge(weight_view<T>(w), receipt, delta, options));
    if (std::memcmp(w.data(), before.data(), sizeof(T) * static_cast<std::size_t>(w.size())) != 0) {
        out.fail("unmerge of " + name + " does not give the same bits");
    }
}

template <class S>
void run(const golden_case& c, computed<S>& out) {
    const std::regex form("(\\w+)\\.adapter_(\\w+?)(\\.dora)?");
    for (const auto& entry : c.info.at("roundtrip")) {
        const std::string name = entry.at("variant");
        std::smatch parts;
        if (!std::regex_match(name, parts, form)) {
            out.fail("variant " + name + " is not understood");
            continue;
        }
        const std::string w_type = parts[1];
        if (w_type == "float32") {
            run_variant<S>(c, w_type, parts[2], parts[3].matched, name, out);
        } else if (w_type == "bfloat16") {
            run_variant<bfloat16>(c, w_type, parts[2], parts[3].matched, name, out);
        } else if (w_type == "float16") {
            run_variant<half>(c, w_type, parts[2], parts[3].matched, name, out);
        } else {
            out.fail("storage type " + w_type + " is not known");
        }
    }
    out.checked("roundtrip");  // run_variant asks for the same bits, not only for the peer's error
}

const register_family merges("merge", run<float>, run<double>);

}  // namespace
