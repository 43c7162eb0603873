// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_PEFT_MODULES_IPP
#define LOWRANK_IO_PEFT_PEFT_MODULES_IPP

#include <lowrank/io/peft/peft_modules.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_BODY module_shape shape_of(const peft_module& module) {
    return std::visit([](const auto& m) { return detail::kind_of_module<decltype(m)>::shape(m); }, module);
}

LOWRANK_BODY status fit_module(peft_module& module, index out, index in) {
    return std::visit([&](auto& m) { return detail::kind_of_module<decltype(m)>::fit(m, out, in); }, module)
               ? status{}
               : status{errc::mismatch, std::string("this ") + kind_of(module) + " module is not for a " +
                                            std::to_string(out) + " x " + std::to_string(in) + " weight"};
}

LOWRANK_BODY peft_change change_of(const peft_module& module) {
    return std::visit([](const auto& m) { return detail::kind_of_module<decltype(m)>::change(m); }, module);
}

LOWRANK_BODY peft_change change_without_factors(const peft_module& module) {
    const module_shape shape = shape_of(module);
    const bool is_small = formed_rank(module) <= std::min(shape.out, shape.in) / 8;
    return std::visit(
        [&](const auto& m) {
            using kind = detail::kind_of_module<decltype(m)>;
            if constexpr (requires { kind::formed_rank(m); }) {
                return is_small ? kind::change(m) : kind::change_without_factors(m);
            } else {
                return kind::change(m);
            }
        },
        module);
}

LOWRANK_BODY result<any_adapter<float>> to_any_adapter(peft_module module, const adapted_weight& weight) {
    if (status why = fit_module(module, weight.out, weight.in); !why) {
        return why;
    }
    return std::visit(
        [&](auto& m) -> result<any_adapter<float>> {
            using M = std::remove_cvref_t<decltype(m)>;
            using kind = peft_kind<M>;
            check_peft_kind<M>();
            const module_shape says = kind::shape(m);
            if ((says.out != 0 && says.out != weight.out) || (says.in != 0 && says.in != weight.in)) {
                return status{errc::mismatch, "is for a " + std::to_string(says.out) + " x " + std::to_string(says.in) +
                                                  " weight, the layer's is " + std::to_string(weight.out) + " x " +
                                                  std::to_string(weight.in)};
            }
            if constexpr (requires { kind::only_merges; }) {
                return status{errc::unsupported,
                              std::string(kind::only_merges) + ", which is applied only by merging it"};
            } else if constexpr (detail::is_adapter<M>) {
                return any_adapter<float>(std::move(m));
            } else {
                return kind::adapter(m, weight);
            }
        },
        module);
}

LOWRANK_BODY std::optional<peft_module> to_peft_module(const any_adapter<float>& adapter) {
    std::optional<peft_module> out;
    find_peft_kind(peft_kinds(), [&]<class M>() {
        if (auto m = detail::module_from<M>(adapter)) {
            out.emplace(std::move(*m));
        }
        return out.has_value();
    });
    return out;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_PEFT_MODULES_IPP
