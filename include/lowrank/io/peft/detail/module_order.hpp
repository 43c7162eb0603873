// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_DETAIL_MODULE_ORDER_HPP
#define LOWRANK_IO_PEFT_DETAIL_MODULE_ORDER_HPP

/// \file
/// The order in which a model defines its modules, as far as their names tell it.
///
///     const auto before = detail::compare_modules("model.layers.9.mlp.up_proj", "model.layers.10.self_attn.q_proj");
///     // before.less, before.is_known
///
/// Numbers count as numbers. Modules of one layer follow the definition of the architectures of transformers that have
/// such names; an order of other names is not known.

#include <algorithm>
#include <cstddef>
#include <initializer_list>
#include <string_view>

#include <lowrank/core/config.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// Whether one module stands before another, and whether that is more than a guess.
struct module_order {
    bool less = false;
    bool is_known = true;
};

/// The order of two names of one parent, below paths that start with `root`.
LOWRANK_INLINE [[nodiscard]] bool is_defined_before(std::string_view path, std::string_view a, std::string_view b,
                                                    bool& is_known) {
    struct siblings {
        std::string_view root;
        std::initializer_list<std::string_view> names;
    };
    static const siblings all[] = {
        {"model.layers.", {"self_attn", "mlp"}},
        {"model.layers.", {"q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj"}},
        {"model.layers.", {"q_proj", "k_proj", "v_proj", "dense"}},
        {"model.layers.", {"gate_up_proj", "down_proj"}},
        {"model.layers.", {"gate_proj", "up_proj", "down_proj"}},
        {"model.layers.", {"c_fc", "c_proj"}},
        {"model.layers.", {"fc1", "fc2"}},
        {"transformer.h.", {"attn", "mlp"}},
        {"transformer.h.", {"c_attn", "c_proj"}},
        {"transformer.h.", {"c_fc", "c_proj"}},
        {"gpt_neox.layers.", {"attention", "mlp"}},
        {"gpt_neox.layers.", {"query_key_value", "dense"}},
        {"gpt_neox.layers.", {"dense_h_to_4h", "dense_4h_to_h"}},
        {"model.", {"embed_tokens", "layers"}},
        {"", {"model", "lm_head"}},
        {"", {"transformer", "lm_head"}},
    };
    for (const siblings& each : all) {
        const auto* first = std::find(each.names.begin(), each.names.end(), a);
        const auto* second = std::find(each.names.begin(), each.names.end(), b);
        if (path.starts_with(each.root) && first != each.names.end() && second != each.names.end()) {
            return first < second;
        }
    }
    is_known = false;
    return a < b;
}

/// The first module against the second.
LOWRANK_INLINE [[nodiscard]] module_order compare_modules(std::string_view a, std::string_view b) {
    const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
    std::size_t at = 0;  // of the first part of the names that differs
    while (true) {
        const std::string_view first = a.substr(at, a.find('.', at) - at);
        const std::string_view second = b.substr(at, b.find('.', at) - at);
        if (first != second) {
            const auto stem_of = [&](std::string_view part) {
                std::size_t n = part.size();
                while (n > 0 && is_digit(part[n - 1])) {
                    --n;
                }
                return n;
            };
            const std::size_t stem = stem_of(first);
            if (first.empty() || second.empty()) {
                return {first.size() < second.size(), true};  // a module before those within it
            }
            if (stem == stem_of(second) && first.substr(0, stem) == second.substr(0, stem) && stem < first.size() &&
                stem < second.size()) {
                const auto number_of = [&](std::string_view part) {
                    std::string_view number = part.substr(stem);
                    while (number.size() > 1 && number.front() == '0') {
                        number.remove_prefix(1);
                    }
                    return number;
                };
                const std::string_view one = number_of(first);
                const std::string_view two = number_of(second);
                return {one.size() != two.size() ? one.size() < two.size() : one < two, one != two};
            }
            module_order out;
            out.less = is_defined_before(a, first, second, out.is_known);
            return out;
        }
        at += first.size() + 1;
        if (at > a.size() || at > b.size()) {
            return {a.size() < b.size(), true};
        }
    }
}

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_DETAIL_MODULE_ORDER_HPP
