// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_PEFT_MODULES_IPP
#define LOWRANK_IO_PEFT_PEFT_MODULES_IPP

#include <lowrank/io/peft/peft_modules.hpp>

#include <algorithm>
#include <utility>

#include <lowrank/io/peft/peft_tensors.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_BODY std::string_view type_of(const peft_module& module) {
    const peft_description& kind = module.kind();
    const auto types = kind.types();
    return types.empty() || (kind.in_peft != nullptr && !kind.in_peft(module.data())) ? "" : types.front().name;
}

LOWRANK_BODY bool is_of_type(const peft_module& module, std::string_view type) {
    const auto types = module.kind().types();
    return !type_of(module).empty() &&
           std::any_of(types.begin(), types.end(), [&](const peft_type& t) { return t.name == type; });
}

LOWRANK_BODY status fit_module(peft_module& module, index out, index in) {
    const peft_description& kind = module.kind();
    if (kind.fit(module.data(), out, in)) {
        return {};
    }
    const char* more = kind.misfit != nullptr ? kind.misfit(module.data(), out, in) : nullptr;
    return {errc::mismatch, "this " + kind_of(module) + " module is not for a " + std::to_string(out) + " x " +
                                std::to_string(in) + " weight" + (more != nullptr ? std::string(": ") + more : "")};
}

LOWRANK_BODY peft_change change_without_factors(const peft_module& module) {
    const module_shape shape = shape_of(module);
    const bool is_small = formed_rank(module) <= std::min(shape.out, shape.in) / 8;
    return module.kind().change_without_factors == nullptr || is_small
               ? change_of(module)
               : module.kind().change_without_factors(module.data());
}

LOWRANK_BODY std::uint64_t parameter_count(const peft_module& module) {
    peft_tensors tensors;
    module.kind().write(module.data(), tensors);
    std::uint64_t count = 0;
    for (const auto& part : tensors.parts) {
        count += static_cast<std::uint64_t>(part.values.size());
    }
    if (tensors.whole) {
        std::uint64_t entries = 1;
        for (const std::uint64_t n : tensors.whole->shape) {
            entries *= n;
        }
        count += entries;
    }
    return count;
}

LOWRANK_BODY result<any_adapter<float>> to_any_adapter(peft_module module, const adapted_weight& weight,
                                                       peft_application_list kinds) {
    if (status why = fit_module(module, weight.out, weight.in); !why) {
        return why;
    }
    const module_shape says = shape_of(module);
    if ((says.out != 0 && says.out != weight.out) || (says.in != 0 && says.in != weight.in)) {
        return status{errc::mismatch, "is for a " + std::to_string(says.out) + " x " + std::to_string(says.in) +
                                          " weight, the layer's is " + std::to_string(weight.out) + " x " +
                                          std::to_string(weight.in)};
    }
    for (const peft_application* kind : kinds) {
        if (kind->mark == module.kind().mark) {
            return kind->adapter(module.data(), weight);
        }
    }
    return status{errc::unsupported, "is adapted by " + kind_of(module) + ", which is not among the kinds given"};
}

LOWRANK_BODY std::optional<peft_module> to_peft_module(const any_adapter<float>& adapter, peft_application_list kinds) {
    for (const peft_application* kind : kinds) {
        if (auto module = kind->from(adapter)) {
            return module;
        }
    }
    return std::nullopt;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_PEFT_MODULES_IPP
