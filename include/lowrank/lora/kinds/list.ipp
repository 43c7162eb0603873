// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_KINDS_LIST_IPP
#define LOWRANK_LORA_KINDS_LIST_IPP

#include <lowrank/lora/kinds/list.hpp>

#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include <lowrank/lora/hold_adapter.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// What a description says of fresh adapters of its kind.
template <class A, real S>
makeable_kind<S> makeable_kind_of() {
    using kind = adapter_kind<A>;
    makeable_kind<S> made{.name = kind::name};
    if constexpr (requires { kind::learning_rate; }) {
        made.learning_rate = kind::learning_rate;
    }
    if constexpr (requires { kind::usual_modules; }) {
        made.usual_modules.assign(std::begin(kind::usual_modules), std::end(kind::usual_modules));
    }
    if constexpr (requires { kind::allocates_ranks; }) {
        made.allocates_ranks = kind::allocates_ranks;
    }
    made.make = [](const adapted_layers& all, const lora_options& options) -> result<new_adapter<S>> {
        if (!requires(const A& a) { kind::dropout(a); } && options.lora_dropout != 0) {
            return status{errc::unsupported,
                          std::string(kind::name) + " has no dropout of its inputs; leave it at 0, or choose lora"};
        }
        if constexpr (requires { kind::check_layers(all); }) {
            if (status why = kind::check_layers(all); !why) {
                return why;
            }
        }
        return new_adapter<S>(kind::maker(all, options));
    };
    return made;
}

}  // namespace detail

template <real S>
const std::vector<makeable_kind<S>>& makeable_kinds() {
    static const std::vector<makeable_kind<S>> all = [] {
        std::vector<makeable_kind<S>> list;
        for_each_adapter_kind<S>([&]<class A>() {
            if constexpr (requires { adapter_kind<A>::maker(adapted_layers{}, lora_options{}); }) {
                list.push_back(detail::makeable_kind_of<A, S>());
            }
        });
        return list;
    }();
    return all;
}

template <real S>
const makeable_kind<S>* find_makeable_kind(std::string_view name) {
    for (const auto& kind : makeable_kinds<S>()) {
        if (kind.name == name) {
            return &kind;
        }
    }
    return nullptr;
}

#ifdef LOWRANK_COMPILED
namespace detail {

/// Their addresses make the compiler emit the functions of every kind of the library.
template <class... A>
struct held_kinds {
    void (*functions[sizeof...(A)])();
    explicit held_kinds(kind_list<A...>) : functions{reinterpret_cast<void (*)()>(&hold_adapter<A>)...} {}
};
extern const held_kinds held_float_kinds(adapter_kinds<float>{});
extern const held_kinds held_double_kinds(adapter_kinds<double>{});

}  // namespace detail
template const std::vector<makeable_kind<float>>& makeable_kinds<float>();
template const std::vector<makeable_kind<double>>& makeable_kinds<double>();
template const makeable_kind<float>* find_makeable_kind<float>(std::string_view);
template const makeable_kind<double>* find_makeable_kind<double>(std::string_view);
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_KINDS_LIST_IPP
