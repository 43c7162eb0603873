// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_FORMATS_KOHYA_IPP
#define LOWRANK_IO_FORMATS_KOHYA_IPP

#include <lowrank/io/formats/kohya.hpp>

#include <cstddef>
#include <utility>

#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/formats/detail/lora_tensors.hpp>
#include <lowrank/io/models/module_names.hpp>
#include <lowrank/io/peft/peft_modules.hpp>
#include <lowrank/io/peft/peft_tensors.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

LOWRANK_API [[nodiscard]] lora_name parse_kohya_name(std::string_view name) {
    using part = lora_name::part;
    using refused_leaves = std::vector<std::pair<std::string_view, const char*>>;
    struct known {
        std::string_view tail;
        const char* why;
    };
    constexpr known unsupported[] = {
        {".scalar", "the module is multiplied by a scalar beside its factors, which is not supported"},
        {".diff", "a full difference of the weight, not one of low rank; add it to the weight"},
        {".diff_b", "a full difference of the bias, which is not supported"},
        {".w_norm", "a full difference of a norm's weight, which is not supported"},
        {".b_norm", "a full difference of a norm's bias, which is not supported"},
        {".set_weight", "a whole new weight, which is not supported"},
        {".reshape_weight", "the weight is to be padded to another shape first, which is not supported"},
        {".a1.weight", "GLoRA is not supported"},
        {".a2.weight", "GLoRA is not supported"},
        {".b1.weight", "GLoRA is not supported"},
        {".b2.weight", "GLoRA is not supported"},
        {".on_input", "the (IA)^3 of LyCORIS is not supported"},
    };
    for (const known& k : unsupported) {
        if (auto out = parse_ending(name, {{std::string(k.tail), part::unsupported}}); out.what != part::none) {
            out.why = k.why;
            return out;
        }
    }
    for (const peft_description* kind : peft_kinds()) {
        if (kind->lycoris_leaves == nullptr) {
            continue;
        }
        for (const auto& [leaf, why] : kind->lycoris_refused != nullptr ? kind->lycoris_refused() : refused_leaves()) {
            if (auto out = parse_ending(name, {{"." + std::string(leaf), part::unsupported}}); out.what != part::none) {
                out.why = why;
                return out;
            }
        }
        for (const std::string_view leaf : kind->lycoris_leaves()) {
            if (name.size() > leaf.size() + 1 && name.ends_with(leaf) && name[name.size() - leaf.size() - 1] == '.') {
                return {.what = part::other,
                        .module = std::string(name.substr(0, name.size() - leaf.size() - 1)),
                        .leaf = leaf};
            }
        }
    }
    return parse_ending(name, {{".lora_down.weight", part::a},
                               {".lora_up.weight", part::b},
                               {".lora_mid.weight", part::core},
                               {".alpha", part::alpha},
                               {"." + std::string(magnitude_names::lycoris), part::magnitude}});
}

LOWRANK_API [[nodiscard]] std::string flat_name(std::string module, const lora_write_options& opt) {
    module = flat_path(std::move(module));
    return module.starts_with("lora_") ? module : opt.kohya_prefix + module;
}

LOWRANK_API [[nodiscard]] tensor_to_write scalar_tensor(std::string name, double value) {
    auto t =
        tensor_of(std::move(name), row_matrix<float>(row_matrix<float>::Constant(1, 1, static_cast<float>(value))));
    t.shape.clear();
    return t;
}

LOWRANK_API [[nodiscard]] status emit_kohya(lora_tensors& out, const std::string& module,
                                            const lora_adapter<float>& lora, const lora_write_options& opt) {
    const std::string flat = flat_name(module, opt);
    const double scaling = scaling_of(lora);
    const bool is_off = scaling == 0;  // no alpha says so: 0 is r
    out.tensors.push_back(scalar_tensor(flat + ".alpha", (is_off ? 1 : scaling) * static_cast<double>(lora.rank())));
    out.tensors.push_back(tensor_of(flat + ".lora_down.weight", lora.lora_A));
    out.tensors.push_back(tensor_of(flat + ".lora_up.weight", is_off ? scaled_factor(lora.lora_B, 0) : lora.lora_B));
    out.metadata = {{"ss_network_module", "networks.lora"}};
    return {};
}

/// The kinds that LyCORIS has names for.
LOWRANK_API [[nodiscard]] bool kohya_holds(const peft_module& module) {
    const auto* lora = module.get<peft_lora>();
    return lora != nullptr ? lora->bias.size() == 0 && lora->groups == 1 && !lora->is_table
                           : module.kind().lycoris_holds != nullptr && module.kind().lycoris_holds(module.data());
}

/// The tensors of a LoRA under the names of LyCORIS, which has shapes of its own for a magnitude. \return alpha.
LOWRANK_API [[nodiscard]] double lycoris_lora(const peft_lora& m, peft_tensors& tensors) {
    peft_kind<peft_lora>::write(m, tensors);
    tensors.parts[0].leaf = "lora_down.weight";
    tensors.parts[1].leaf = "lora_up.weight";
    if (m.magnitude.size() != 0) {  // [out, 1...], of the dimensions of the weight
        tensors.parts[2].leaf = magnitude_names::lycoris;
        auto& shape = tensors.parts[2].shape;
        shape.assign(2 + m.kernel.size(), 1);
        shape[m.magnitude_of_inputs ? 1 : 0] = extent(m.magnitude.size());
    }
    return alpha_or_rank(scaling_of(m.lora) * static_cast<double>(m.lora.rank()), m.lora.rank(), tensors);
}

/// LyCORIS's names, each module with an alpha of its own. \return unsupported for a kind that it has no names for.
LOWRANK_API [[nodiscard]] status emit_lycoris(lora_tensors& out, const std::string& name, const peft_module& module,
                                              const lora_write_options& opt) {
    if (!kohya_holds(module)) {
        return cannot_represent("kohya", name, kind_of(module));
    }
    const std::string flat = flat_name(name, opt);
    out.metadata = {{"ss_network_module", "lycoris.kohya"}};
    peft_tensors tensors;
    const auto* lora = module.get<peft_lora>();
    const double alpha =
        lora != nullptr ? lycoris_lora(*lora, tensors) : module.kind().lycoris_write(module.data(), tensors);
    out.tensors.push_back(scalar_tensor(flat + ".alpha", alpha));
    append_parts(out, flat, tensors);
    return {};
}

/// A module of a LyCORIS file, of the kind whose names its tensors have.
LOWRANK_API [[nodiscard]] result<peft_module> join_lycoris(peft_parts& p, std::optional<double> alpha) {
    for (const peft_description* kind : peft_kinds()) {
        if (kind->lycoris_leaves == nullptr) {
            continue;
        }
        for (const std::string_view leaf : kind->lycoris_leaves()) {
            if (p.has(leaf)) {
                peft_module module = kind->lycoris_join(p, alpha);
                return p.why ? result<peft_module>(std::move(module)) : result<peft_module>(p.why);
            }
        }
    }
    return status{errc::unsupported, "module " + in_quotes(p.module()) + " has no tensors of LyCORIS"};
}

}  // namespace detail

LOWRANK_BODY std::optional<std::string> unflatten_kohya_name(std::string_view kohya,
                                                             const std::vector<std::string>& paths) {
    return module_names(paths).find_flat_if_there(kohya);
}

LOWRANK_BODY adapter_format kohya_format() {
    return {.name = "kohya",
            .holds = &detail::kohya_holds,
            .parse = &detail::parse_kohya_name,
            .join = &detail::join_lycoris,
            .names_of_images = image_naming::kohya,
            .has_flat_names = true,
            .emit = &detail::emit_kohya,
            .emit_other = &detail::emit_lycoris};
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_FORMATS_KOHYA_IPP
