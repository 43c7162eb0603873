// SPDX-License-Identifier: MIT
#ifndef LOWRANK_TESTS_GOLDEN_READ_ADAPTER_HPP
#define LOWRANK_TESTS_GOLDEN_READ_ADAPTER_HPP

/// \file
/// An adapter of a case as the library's reader gives it, in the scalar of the test.
///
///     const auto file = read_golden_adapter(c, "default");
///     if (auto m = module_at(file, layer<S>(c, "l0"))) m->adapter.refresh(w);
///
/// All that the golden tests know of the reader's types is here.

#include <concepts>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/factored_algebra.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/io/peft/kinds/adalora.hpp>
#include <lowrank/io/peft/kinds/delora.hpp>
#include <lowrank/io/peft/kinds/hira.hpp>
#include <lowrank/io/peft/kinds/ia3.hpp>
#include <lowrank/io/peft/kinds/loha.hpp>
#include <lowrank/io/peft/kinds/lokr.hpp>
#include <lowrank/io/peft/kinds/lora_forms/bdlora.hpp>
#include <lowrank/io/peft/kinds/lora_forms/kasa.hpp>
#include <lowrank/io/peft/kinds/lora_forms/qalora.hpp>
#include <lowrank/io/peft/kinds/miss.hpp>
#include <lowrank/io/peft/kinds/rotations/boft.hpp>
#include <lowrank/io/peft/kinds/rotations/hra.hpp>
#include <lowrank/io/peft/kinds/rotations/oft.hpp>
#include <lowrank/io/peft/kinds/rotations/road.hpp>
#include <lowrank/io/peft/kinds/shared/randlora.hpp>
#include <lowrank/io/peft/kinds/shared/tinylora.hpp>
#include <lowrank/io/peft/kinds/shared/vblora.hpp>
#include <lowrank/io/peft/kinds/shared/vera.hpp>
#include <lowrank/io/peft/kinds/structured/c3a.hpp>
#include <lowrank/io/peft/kinds/structured/fourierft.hpp>
#include <lowrank/io/peft/kinds/structured/gralora.hpp>
#include <lowrank/io/peft/kinds/structured/shira.hpp>
#include <lowrank/lora/any_adapter.hpp>
#include <lowrank/lora/kinds/dora.hpp>
#include <lowrank/lora/kinds/ia3.hpp>

#include "golden_case.hpp"
#include "layer.hpp"

namespace lowrank_tests {

// The reader's values are float, which the files hold: in double they are the same numbers. `in_scalar<S>` copies an
// aggregate member by member, whatever kind of adapter it is.

template <class S, class T>
auto in_scalar(const T& value);

/// Converts to any type: finds out how many members an aggregate has.
struct any_member {
    template <class T>
    operator T() const;
};
template <class T, class... Members>
consteval std::size_t member_count() {
    if constexpr (requires { T{Members{}..., any_member{}}; }) {
        return member_count<T, Members..., any_member>();
    } else {
        return sizeof...(Members);
    }
}

// The same template of another scalar; only the types of these functions are used. Named one by one: clang 14 ends at a
// template parameter that is a constrained template.
#define LOWRANK_TESTS_REBOUND(name) \
    template <lowrank::real S>      \
    lowrank::name<S> rebound(const lowrank::name<float>&);
LOWRANK_TESTS_REBOUND(adalora_adapter)
LOWRANK_TESTS_REBOUND(bdlora_adapter)
LOWRANK_TESTS_REBOUND(boft_adapter)
LOWRANK_TESTS_REBOUND(dora_adapter)
LOWRANK_TESTS_REBOUND(gralora_adapter)
LOWRANK_TESTS_REBOUND(hira_adapter)
LOWRANK_TESTS_REBOUND(hra_adapter)
LOWRANK_TESTS_REBOUND(ia3_adapter)
LOWRANK_TESTS_REBOUND(kasa_adapter)
LOWRANK_TESTS_REBOUND(loha_adapter)
LOWRANK_TESTS_REBOUND(lokr_adapter)
LOWRANK_TESTS_REBOUND(lokr_factor)
LOWRANK_TESTS_REBOUND(lora_adapter)
LOWRANK_TESTS_REBOUND(miss_adapter)
LOWRANK_TESTS_REBOUND(miss_bat_adapter)
LOWRANK_TESTS_REBOUND(oft_adapter)
LOWRANK_TESTS_REBOUND(qalora_adapter)
LOWRANK_TESTS_REBOUND(randlora_adapter)
LOWRANK_TESTS_REBOUND(randlora_projections)
LOWRANK_TESTS_REBOUND(c3a_adapter)
LOWRANK_TESTS_REBOUND(delora_adapter)
LOWRANK_TESTS_REBOUND(fourierft_adapter)
LOWRANK_TESTS_REBOUND(road_adapter)
LOWRANK_TESTS_REBOUND(shira_adapter)
LOWRANK_TESTS_REBOUND(tinylora_adapter)
LOWRANK_TESTS_REBOUND(vblora_adapter)
LOWRANK_TESTS_REBOUND(vblora_pieces)
LOWRANK_TESTS_REBOUND(vera_adapter)
LOWRANK_TESTS_REBOUND(vera_projections)
#undef LOWRANK_TESTS_REBOUND
template <lowrank::real S>
lowrank::fourierft_waves rebound(const lowrank::fourierft_waves&);

template <class S, class T>
auto in_scalar_members(const T& value) {
    using R = decltype(rebound<S>(value));
    constexpr std::size_t n = member_count<T>();
    const auto all = [](const auto&... member) { return R{in_scalar<S>(member)...}; };
    if constexpr (n == 1) {
        const auto& [a] = value;
        return all(a);
    } else if constexpr (n == 2) {
        const auto& [a, b] = value;
        return all(a, b);
    } else if constexpr (n == 3) {
        const auto& [a, b, c] = value;
        return all(a, b, c);
    } else if constexpr (n == 4) {
        const auto& [a, b, c, d] = value;
        return all(a, b, c, d);
    } else if constexpr (n == 5) {
        const auto& [a, b, c, d, e] = value;
        return all(a, b, c, d, e);
    } else if constexpr (n == 6) {
        const auto& [a, b, c, d, e, f] = value;
        return all(a, b, c, d, e, f);
    } else {
        static_assert(n == 7, "an adapter with more members needs a line here");
        const auto& [a, b, c, d, e, f, g] = value;
        return all(a, b, c, d, e, f, g);
    }
}

template <class S, class T>
auto in_scalar(const T& value) {
    if constexpr (requires { value.template cast<S>().eval(); }) {
        using kept = std::conditional_t<std::same_as<typename T::Scalar, float>, S, typename T::Scalar>;
        return value.template cast<kept>().eval();
    } else if constexpr (requires { value.use_count(); }) {
        using pointed = decltype(in_scalar<S>(*value));
        return value == nullptr ? nullptr : std::make_shared<const pointed>(in_scalar<S>(*value));
    } else if constexpr (std::is_class_v<T>) {
        return in_scalar_members<S>(value);
    } else {
        return value;
    }
}

/// What changes one layer.
template <class S>
struct golden_module {
    lowrank::any_adapter<S> adapter;
    lowrank::vector<S> bias = {};  ///< Of lora_B, already scaled; empty: none.
    S bias_scaling = 0;            ///< The scaling of that bias.
};

/// Reads an adapter of the case from its folder.
inline lowrank::peft_adapter read_golden_adapter(const golden_case& c, const std::string& name) {
    for (const auto& a : c.info.at("adapters")) {
        if (a.at("name") == name) {
            return lowrank::read_peft(c.folder / a.at("path").get<std::string>(), {.base_is_residual = true}).value();
        }
    }
    throw std::runtime_error("the case has no adapter " + name);
}

/// The adapter of a layer, if it has one.
template <class S>
std::optional<golden_module<S>> module_at(const lowrank::peft_adapter& file, const layer<S>& l) {
    const auto base = l.base();
    const std::string& name = l.name();
    const auto at = file.modules.find(name);
    if (at == file.modules.end()) {
        return std::nullopt;
    }
    lowrank::peft_module module = at->second;
    lowrank::throw_if_failed(lowrank::fit_module(module, base.rows(), base.cols()));
    if (const auto* more = module.get<lowrank::peft_lora>()) {
        auto lora = in_scalar<S>(more->lora);
        golden_module<S> out{
            .adapter = lora, .bias = lora.scaling() * more->bias.template cast<S>(), .bias_scaling = lora.scaling()};
        if (more->magnitude.size() > 0) {
            out.adapter = lowrank::dora_adapter<S>{.lora = std::move(lora),
                                                   .magnitude = more->magnitude.template cast<S>(),
                                                   .base_norms2 = lowrank::squared_row_norms(l.weight())};
        }
        return out;
    }
    if (const auto* ia3 = module.get<lowrank::peft_ia3>()) {
        // A scale per input channel is one per tap of that channel.
        const index repeated = ia3->is_feedforward ? l.taps() : 1;
        lowrank::vector<S> scale(ia3->scale.size() * repeated);
        for (index i = 0; i < scale.size(); ++i) {
            scale(i) = static_cast<S>(ia3->scale(i / repeated));
        }
        return golden_module<S>{
            .adapter = lowrank::ia3_adapter<S>{
                .ia3_l = scale, .is_feedforward = ia3->is_feedforward, .out = base.rows(), .in = base.cols()}};
    }
    if (const auto* boft = module.get<lowrank::peft_boft>()) {
        return golden_module<S>{.adapter = in_scalar<S>(boft->boft)};
    }
    if (const auto* randlora = module.get<lowrank::peft_randlora>()) {
        return golden_module<S>{.adapter = in_scalar<S>(randlora->randlora)};
    }
    if (const auto* vblora = module.get<lowrank::peft_vblora>()) {
        auto own = in_scalar<S>(vblora->vblora);
        own.bank = in_scalar<S>(*vblora->bank);
        return golden_module<S>{.adapter = std::move(own)};
    }
    if (const auto* hira = module.get<lowrank::peft_hira>()) {
        return golden_module<S>{.adapter = in_scalar<S>(hira->hira)};
    }
    std::optional<golden_module<S>> out;
    const auto try_kind = [&]<class M>() {
        if (const M* m = module.get<M>()) {
            out = golden_module<S>{.adapter = in_scalar<S>(*m)};
        }
    };
    const auto try_kinds = [&]<class... M>(lowrank::kind_list<M...>) { (try_kind.template operator()<M>(), ...); };
    using lowrank::adalora_adapter, lowrank::c3a_adapter, lowrank::delora_adapter, lowrank::fourierft_adapter,
        lowrank::road_adapter, lowrank::hira_adapter, lowrank::hra_adapter, lowrank::loha_adapter,
        lowrank::lokr_adapter, lowrank::lora_adapter, lowrank::miss_adapter, lowrank::miss_bat_adapter,
        lowrank::oft_adapter, lowrank::shira_adapter, lowrank::vera_adapter, lowrank::bdlora_adapter,
        lowrank::qalora_adapter, lowrank::gralora_adapter, lowrank::tinylora_adapter, lowrank::kasa_adapter;
    try_kinds(lowrank::kind_list<lora_adapter<float>, adalora_adapter<float>, hira_adapter<float>, hra_adapter<float>,
                                 loha_adapter<float>, lokr_adapter<float>, miss_adapter<float>, miss_bat_adapter<float>,
                                 oft_adapter<float>, shira_adapter<float>, vera_adapter<float>, c3a_adapter<float>,
                                 delora_adapter<float>, fourierft_adapter<float>, road_adapter<float>,
                                 bdlora_adapter<float>, qalora_adapter<float>, gralora_adapter<float>,
                                 tinylora_adapter<float>, kasa_adapter<float>>());
    if (!out) {
        throw std::runtime_error(kind_of(module) + " only merges");
    }
    return out;
}

}  // namespace lowrank_tests

#endif  // LOWRANK_TESTS_GOLDEN_READ_ADAPTER_HPP
