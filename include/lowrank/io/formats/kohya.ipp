// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_FORMATS_KOHYA_IPP
#define LOWRANK_IO_FORMATS_KOHYA_IPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <variant>

#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/formats/detail/lora_tensors.hpp>
#include <lowrank/io/formats/kohya.hpp>
#include <lowrank/io/peft/detail/peft_relatives.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

LOWRANK_API [[nodiscard]] lora_name parse_kohya_name(std::string_view name) {
    using part = lora_name::part;
    struct known {
        std::string_view tail;
        const char* why;
    };
    constexpr known unsupported[] = {
        {".oft_diag",
         "OFT under the name of LyCORIS's first releases, which turn the outputs of a layer, is not supported"},
        {".scalar", "the module is multiplied by a scalar beside its factors, which is not supported"},
        {".diff", "a full difference of the weight, not one of low rank; add it to the weight"},
        {".glora_a1", "GLoRA is not supported"},
        {".on_input", "the (IA)^3 of LyCORIS is not supported"},
    };
    for (const known& k : unsupported) {
        if (auto out = parse_ending(name, {{k.tail, part::unsupported}}); out.what != part::none) {
            out.why = k.why;
            return out;
        }
    }
    constexpr std::string_view leaves[] = {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b",  "hada_t1",
                                           "hada_t2",   "lokr_w1",   "lokr_w1_a", "lokr_w1_b",  "lokr_w2",
                                           "lokr_w2_a", "lokr_w2_b", "lokr_t2",   "oft_blocks", "rescale"};
    for (const std::string_view leaf : leaves) {
        if (name.size() > leaf.size() + 1 && name.ends_with(leaf) && name[name.size() - leaf.size() - 1] == '.') {
            return {.what = part::relative,
                    .module = std::string(name.substr(0, name.size() - leaf.size() - 1)),
                    .leaf = leaf};
        }
    }
    return parse_ending(name, {{".lora_down.weight", part::a},
                               {".lora_up.weight", part::b},
                               {".alpha", part::alpha},
                               {".dora_scale", part::magnitude}});
}

LOWRANK_API [[nodiscard]] std::string flat_name(std::string module, const lora_write_options& opt) {
    std::replace(module.begin(), module.end(), '.', '_');
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

/// The types that LyCORIS has names for.
LOWRANK_API [[nodiscard]] bool kohya_holds(const peft_module& module) {
    const auto* lora = std::get_if<peft_lora>(&module);
    return lora != nullptr
               ? lora->bias.size() == 0 && lora->groups == 1 && !lora->is_table
               : std::holds_alternative<loha_adapter<float>>(module) ||
                     std::holds_alternative<lokr_adapter<float>>(module) || std::holds_alternative<lycoris_oft>(module);
}

/// LyCORIS's names: its tensors are PEFT's under other names for LoRA, and with an alpha of their own.
LOWRANK_API [[nodiscard]] status emit_lycoris(lora_tensors& out, const std::string& module, const peft_module& relative,
                                              const lora_write_options& opt) {
    const std::string flat = flat_name(module, opt);
    out.metadata = {{"ss_network_module", "lycoris.kohya"}};
    relative_tensors parts;
    double alpha = 0;
    index rank = 0;
    if (const auto* m = std::get_if<peft_lora>(&relative); m != nullptr && m->bias.size() == 0 && m->groups == 1) {
        alpha =
            lora_scaling(m->lora.lora_alpha, m->lora.rank(), m->lora.use_rslora) * static_cast<double>(m->lora.rank());
        rank = m->lora.rank();
        parts(*m);
        for (auto& p : parts.parts) {
            p.tail = p.tail == ".lora_A.weight"   ? ".lora_down.weight"
                     : p.tail == ".lora_B.weight" ? ".lora_up.weight"
                                                  : ".dora_scale";
        }
        if (m->magnitude.size() != 0) {  // [out, 1...], of the dimensions of the weight
            auto& shape = parts.parts.back().shape;
            shape.assign(2 + m->kernel.size(), 1);
            shape[m->magnitude_of_inputs ? 1 : 0] = static_cast<std::uint64_t>(m->magnitude.size());
        }
    } else if (const auto* loha = std::get_if<loha_adapter<float>>(&relative)) {
        alpha = loha->alpha;
        rank = loha->w1_b.rows();
        parts(*loha);
    } else if (const auto* lokr = std::get_if<lokr_adapter<float>>(&relative)) {
        lokr_adapter<float> scaled = *lokr;
        alpha = lokr->alpha;
        rank = lokr->r;
        if (lokr->w1.whole() && lokr->w2.whole()) {  // LyCORIS takes the scaling of these to be 1
            scaled.w1.left *= lokr->scaling();
            alpha = static_cast<double>(lokr->r);
        }
        parts(scaled);
    } else if (const auto* oft = std::get_if<lycoris_oft>(&relative)) {
        alpha = oft->constraint;
        parts(*oft);
    } else {
        return {errc::unsupported, "module " + in_quotes(module) + " is adapted by " + kind_of(relative) +
                                       ", which kohya cannot represent"};
    }
    if (alpha == 0 && !std::holds_alternative<lycoris_oft>(relative)) {  // no alpha says so: 0 is the rank
        alpha = static_cast<double>(rank);
        parts.parts.front().values.setZero();
    }
    out.tensors.push_back(scalar_tensor(flat + ".alpha", alpha));
    for (const auto& p : parts.parts) {
        out.tensors.push_back(tensor_of(flat + p.tail, p.values));
        out.tensors.back().shape = p.shape;
    }
    return {};
}

/// The diag-oft (three dimensions) or boft (four) of a LyCORIS file, whose alpha is the constraint.
LOWRANK_API lycoris_oft join_lycoris_oft(relative_parts& p, double constraint) {
    const tensor_info* t = p.find("oft_blocks");
    const std::size_t dimensions = t != nullptr && t->shape.size() == 4 ? 4 : 3;
    lycoris_oft out{.oft_blocks = p.take_blocks("oft_blocks", dimensions),
                    .is_butterfly = dimensions == 4,
                    .constraint = constraint};
    if (p.has("rescale")) {
        out.rescale = p.take_vector("rescale");
        out.rescale_dimensions = p.find("rescale")->shape.size();
    }
    if (p.why) {
        out.block_count = static_cast<index>(t->shape[dimensions - 3]);
        p.agree(t->shape[dimensions - 2] == t->shape[dimensions - 1] && out.is_valid() && out.rescale_dimensions >= 1 &&
                out.rescale_dimensions <= 5);
    }
    if (p.why && constraint < 0) {
        p.fail(errc::unsupported, "has a negative constraint (alpha)");
    }
    return out;
}

/// The LoHa, LoKr or OFT of a LyCORIS file: the rank is that of the tensors, alpha without a number is the rank, and
/// the scaling of a LoKr of two whole factors is 1 whatever its alpha says.
LOWRANK_API [[nodiscard]] result<peft_module> join_lycoris(relative_parts& p, std::optional<double> alpha) {
    if (p.has("oft_blocks") || p.has("rescale")) {
        auto oft = join_lycoris_oft(p, alpha.value_or(0));
        return p.why ? result<peft_module>(std::move(oft)) : result<peft_module>(p.why);
    }
    if (p.has("hada_w1_b")) {
        auto loha = join_loha(p, 0, std::nullopt);
        loha.alpha = alpha.value_or(static_cast<double>(loha.w1_b.rows()));
        return p.why ? result<peft_module>(std::move(loha)) : result<peft_module>(p.why);
    }
    lokr_adapter<float> lokr{.w1 = join_lokr_factor(p, "lokr_w1", "lokr_w1_a", "lokr_w1_b", std::nullopt),
                             .w2 = join_lokr_factor(p, "lokr_w2", "lokr_w2_a", "lokr_w2_b", std::nullopt)};
    const auto& factor = lokr.w2.whole() ? lokr.w1 : lokr.w2;
    const bool both_whole = factor.whole();
    lokr.r = both_whole ? 1 : factor.left.cols();
    lokr.alpha = both_whole ? 1 : alpha.value_or(static_cast<double>(lokr.r));
    return p.why ? result<peft_module>(std::move(lokr)) : result<peft_module>(p.why);
}

}  // namespace detail

LOWRANK_BODY std::optional<std::string> unflatten_kohya_name(std::string_view kohya,
                                                             const std::vector<std::string>& paths) {
    std::optional<std::string> found;
    for (const std::string& path : paths) {
        std::string flat = path;
        std::replace(flat.begin(), flat.end(), '.', '_');
        const bool at_prefix = kohya.size() == flat.size() ||
                               (kohya.size() > flat.size() && kohya[kohya.size() - flat.size() - 1] == '_' &&
                                kohya.substr(0, kohya.size() - flat.size()).starts_with("lora_"));
        if (kohya.ends_with(flat) && at_prefix) {
            if (found && found->size() == path.size()) {
                return std::nullopt;
            }
            if (!found || path.size() > found->size()) {  // the longest: "a.to_k" rather than "to_k"
                found = path;
            }
        }
    }
    return found;
}

LOWRANK_BODY adapter_format kohya_format() {
    return {.name = "kohya",
            .holds = &detail::kohya_holds,
            .parse = &detail::parse_kohya_name,
            .join = &detail::join_lycoris,
            .module_of =
                [](const std::string& name, const adapter_read_options& opt) {
                    return unflatten_kohya_name(name, opt.modules).value_or(name);
                },
            .emit = &detail::emit_kohya,
            .emit_other = &detail::emit_lycoris};
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_FORMATS_KOHYA_IPP
