// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_FORMATS_IMAGE_NAMES_IPP
#define LOWRANK_IO_FORMATS_IMAGE_NAMES_IPP

#include <lowrank/io/formats/image_names.hpp>

#include <algorithm>
#include <cstddef>
#include <functional>
#include <optional>
#include <string_view>
#include <tuple>

#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/formats/detail/fused_lora.hpp>
#include <lowrank/io/formats/detail/lora_tensors.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/io/peft/kinds/lora.hpp>
#include <lowrank/io/peft/peft_modules.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// The names that a module of an image model is to have: that of the original, or those of diffusers.
struct image_target {
    bool is_original = false;
    std::vector<std::optional<std::string>> names =
        {};  ///< Of the whole, or of each part; nothing where there is no such module.

    [[nodiscard]] bool is_there() const {
        return std::any_of(names.begin(), names.end(), [](const auto& n) { return n.has_value(); });
    }
};
using image_targets = std::function<image_target(const image_place&)>;

/// "lora_te2_" of kohya's tools, "text_encoder_2." of diffusers, "text_encoders.clip_g.transformer." of ComfyUI.
LOWRANK_API [[nodiscard]] std::string component_prefix(const image_model& model, image_component component, bool is_t5,
                                                       image_naming to) {
    constexpr std::string_view diffusers[] = {"", "text_encoder.", "text_encoder_2.", "text_encoder_3."};
    constexpr std::string_view original[] = {"diffusion_model.", "text_encoders.clip_l.transformer.",
                                             "text_encoders.clip_g.transformer.", "text_encoders.t5xxl.transformer."};
    constexpr std::string_view kohya[] = {"lora_unet_", "", "lora_te2_", "lora_te3_"};
    const auto at = static_cast<std::size_t>(component);
    if (to == image_naming::diffusers) {
        return component == image_component::backbone ? std::string(model.backbone) + "." : std::string(diffusers[at]);
    }
    const auto& names = to == image_naming::kohya ? kohya : original;
    const std::string_view name = is_t5 ? names[3] : names[at];
    return std::string(name.empty() ? model.kohya_text_encoder : name);
}

/// The names of a tool.
LOWRANK_API [[nodiscard]] image_targets targets_of_naming(const image_model& model, image_naming to) {
    return [&model, to](const image_place& place) {
        const image_module& m = *place.module;
        const std::string prefix = component_prefix(model, place.component, place.is_t5, to);
        const auto name = [&](const std::string& pattern) {
            std::string path = numbered(pattern, place.numbers);
            return prefix + (to == image_naming::kohya ? flat_path(std::move(path)) : path);
        };
        image_target out;
        out.is_original = to == image_naming::original || (to == image_naming::kohya && model.is_trained_on_original);
        if (out.is_original) {
            out.names.emplace_back(name(m.original));
        }
        for (std::size_t i = 0; !out.is_original && i < m.diffusers.size(); ++i) {
            out.names.emplace_back(name(m.diffusers[i]));
        }
        return out;
    };
}

/// The names that a base has: those of the original if they are there.
LOWRANK_API [[nodiscard]] image_targets targets_in(const module_names& base) {
    return [&base](const image_place& place) {
        const auto found = [&](const std::string& pattern) {
            return base.find_if_there(numbered(pattern, place.numbers));
        };
        image_target out{.is_original = true, .names = {found(place.module->original)}};
        if (!out.is_there()) {
            out = {};
            for (const std::string& part : place.module->diffusers) {
                out.names.push_back(found(part));
            }
        }
        return out;
    };
}

/// A module of an adapter, and what its name means.
struct image_member {
    std::string name;
    image_place place;
    peft_module* module;
};

/// LoRA of a linear layer, whatever more it has; nothing of any other module.
LOWRANK_API [[nodiscard]] std::optional<peft_lora> linear_lora(const peft_module& module) {
    if (const auto* plain = module.get<lora_adapter<float>>()) {
        return peft_lora{.lora = *plain};
    }
    const auto* more = module.get<peft_lora>();
    return more != nullptr && more->kernel.empty() && !more->is_table && !more->magnitude_of_inputs
               ? std::optional(*more)
               : std::nullopt;
}

LOWRANK_API [[nodiscard]] peft_module as_module(peft_lora m) {
    return m.is_plain() ? peft_module(std::move(m.lora)) : peft_module(std::move(m));
}

/// How many rows each of the parts has, of a module with this many inputs and, all together, this many rows (0: unknown).
LOWRANK_API [[nodiscard]] result<std::vector<index>> rows_of_parts(const image_module& m, std::size_t count, index in,
                                                                   index all) {
    const auto parts = static_cast<index>(count);
    const bool has_rest = m.rows == image_rows::rest_is_last && count == m.diffusers.size();
    const index rows = has_rest || all == 0 ? in : all / parts;
    std::vector<index> out(count, rows);
    if (has_rest) {
        out.back() = all == 0 ? 4 * in : all - (parts - 1) * in;  // an MLP is four times as wide where nothing says it
    }
    if (out.back() <= 0 || (!has_rest && all != 0 && all % parts != 0)) {
        return status{errc::mismatch, "has " + std::to_string(all) + " rows and " + std::to_string(in) +
                                          " inputs, which cannot be those of " + std::to_string(parts) + " modules"};
    }
    return out;
}

/// Puts modules under their new names, and takes note of them.
class image_renamer {
public:
    explicit image_renamer(renamed_modules& out) : out_(&out) {}

    /// \return `invalid_format` if the name is taken.
    status put(const std::string& from, const std::string& to, peft_module module) {
        const auto [at, is_new] = out_->modules.emplace(to, std::move(module));
        if (!is_new) {
            return {errc::invalid_format,
                    "two modules of the adapter mean " + in_quotes(to) + ", one of them is " + in_quotes(from)};
        }
        if (from != to) {
            out_->renamed.emplace_back(from, to);
        }
        return {};
    }

    /// All that an adapter has of one module of a model.
    status place(const std::vector<image_member>& members, const image_target& target) {
        const image_module& m = *members.front().place.module;
        const bool is_whole = target.is_original || m.diffusers.size() == 1;
        if (m.diffusers.size() == 1 || (is_whole && members.size() == 1 && members.front().place.is_original &&
                                        members.front().place.count == m.diffusers.size())) {
            for (const image_member& x : members) {
                if (m.rows == image_rows::swapped_halves && x.place.is_original != target.is_original) {
                    auto lora = linear_lora(*x.module);
                    if (!lora || lora->lora.rows() % 2 != 0) {
                        return no_rows(x, "the two halves of its rows are to be swapped");
                    }
                    swap_halves(*lora);
                    *x.module = as_module(std::move(*lora));
                }
                if (status why = put(x.name, *target.names.front(), std::move(*x.module)); !why) {
                    return why;
                }
            }
            return {};
        }
        return is_whole ? fuse(members, m, *target.names.front()) : split(members, m, target);
    }

private:
    static status no_rows(const image_member& x, const std::string& why) {
        return {errc::unsupported, "module " + in_quotes(x.name) + " is adapted by " + kind_of(*x.module) + ", and " +
                                       why + " for other names; make it plain LoRA first"};
    }

    /// The parts of a member, in the place of the parts of the whole.
    static result<std::vector<std::optional<peft_lora>>> parts_of(const image_member& x, const image_module& m) {
        auto lora = linear_lora(*x.module);
        if (!lora) {
            return no_rows(x, "it is a part of a layer or several");
        }
        std::vector<std::optional<peft_lora>> out(m.diffusers.size());
        if (x.place.count == 1) {
            out[x.place.first] = std::move(*lora);
            return out;
        }
        const auto rows = rows_of_parts(m, x.place.count, lora->lora.cols(), lora->lora.rows());
        if (!rows) {
            return in_context("module " + in_quotes(x.name), rows.error());
        }
        auto parts = split_lora(*lora, *rows);
        std::move(parts.begin(), parts.end(), out.begin() + static_cast<std::ptrdiff_t>(x.place.first));
        return out;
    }

    status split(const std::vector<image_member>& members, const image_module& m, const image_target& target) {
        for (const image_member& x : members) {
            if (x.place.count == 1 && target.names[x.place.first]) {  // whatever it is
                if (status why = put(x.name, *target.names[x.place.first], std::move(*x.module)); !why) {
                    return why;
                }
                continue;
            }
            auto parts = parts_of(x, m);
            if (!parts) {
                return parts.error();
            }
            for (std::size_t p = 0; p < parts->size(); ++p) {
                if (!(*parts)[p]) {
                    continue;
                }
                if (!target.names[p]) {
                    return {errc::not_found, "module " + in_quotes(x.name) + " has rows of " +
                                                 in_quotes(m.diffusers[p]) + ", which the model has not"};
                }
                if (status why = put(x.name, *target.names[p], as_module(std::move(*(*parts)[p]))); !why) {
                    return why;
                }
            }
        }
        return {};
    }

    status fuse(const std::vector<image_member>& members, const image_module& m, const std::string& to) {
        std::vector<std::optional<peft_lora>> all(m.diffusers.size());
        for (const image_member& x : members) {
            auto parts = parts_of(x, m);
            if (!parts) {
                return parts.error();
            }
            for (std::size_t p = 0; p < all.size(); ++p) {
                if ((*parts)[p] && all[p]) {
                    return {errc::invalid_format, "two modules of the adapter mean " + in_quotes(m.diffusers[p]) +
                                                      ", one of them is " + in_quotes(x.name)};
                }
                all[p] = (*parts)[p] ? std::move((*parts)[p]) : std::move(all[p]);
            }
        }
        const auto known = std::find_if(all.begin(), all.end(), [](const auto& p) { return p.has_value(); });
        auto rows = *rows_of_parts(m, all.size(), (*known)->lora.cols(), 0);
        for (std::size_t p = 0; p < all.size(); ++p) {
            if (m.rows == image_rows::equal_parts) {
                rows[p] = (*known)->lora.rows();
            } else if (all[p]) {
                rows[p] = all[p]->lora.rows();
            }
        }
        auto whole = fuse_lora(all, rows);
        if (!whole) {
            return in_context("module " + in_quotes(to), whole.error());
        }
        for (std::size_t i = 1; i < members.size(); ++i) {
            out_->renamed.emplace_back(members[i].name, to);
        }
        return put(members.front().name, to, as_module(std::move(*whole)));
    }

    renamed_modules* out_;
};

/// Modules under the names that `targets` has for them; the others as they are.
LOWRANK_API [[nodiscard]] result<renamed_modules> renamed_by(std::map<std::string, peft_module>& modules,
                                                             const image_model& model, const image_targets& targets) {
    renamed_modules out;
    image_renamer renamer(out);
    std::map<std::tuple<image_component, const image_module*, std::vector<std::string>>, std::vector<image_member>>
        groups;
    for (auto& [name, module] : modules) {
        auto place = find_image_module(model, name);
        if (place) {
            groups[{place->component, place->module, place->numbers}].push_back({name, *place, &module});
            continue;
        }
        out.unmapped.push_back(name);
        out.modules.emplace(name, std::move(module));
    }
    for (const auto& entry : groups) {
        const std::vector<image_member>& members = entry.second;
        const image_target target = targets(members.front().place);
        if (!target.is_there()) {
            for (const image_member& x : members) {
                out.unmapped.push_back(x.name);
                out.modules.emplace(x.name, std::move(*x.module));
            }
        } else if (status why = renamer.place(members, target); !why) {
            return why;
        }
    }
    return out;
}

}  // namespace detail

LOWRANK_BODY std::vector<const image_model*> image_models_of(std::span<const std::string> names) {
    std::vector<const image_model*> out;
    std::size_t most = (names.size() + 1) / 2;
    for (const image_model& m : image_models()) {
        const auto count = static_cast<std::size_t>(std::count_if(
            names.begin(), names.end(), [&](const auto& n) { return find_image_module(m, n).has_value(); }));
        if (count > most) {
            out.clear();
        }
        if (count >= most && count != 0) {
            out.push_back(&m);
        }
        most = std::max(most, count);
    }
    return out;
}

LOWRANK_BODY result<renamed_modules> rename_image_modules(std::map<std::string, peft_module> modules,
                                                          const image_model& model, image_naming to) {
    return detail::renamed_by(modules, model, detail::targets_of_naming(model, to));
}

LOWRANK_BODY result<renamed_modules> fit_image_modules(std::map<std::string, peft_module> modules,
                                                       const module_names& base) {
    renamed_modules out;
    std::map<std::string, peft_module> strange;
    for (auto& [name, module] : modules) {
        const bool is_flat = name.find('.') == std::string::npos;
        auto& to = (is_flat ? base.find_flat_if_there(name) : base.find_if_there(name)) ? out.modules : strange;
        to.emplace(name, std::move(module));
    }
    const auto targets = detail::targets_in(base);
    const image_model* best = nullptr;
    std::size_t most = 0;
    for (const image_model& m : image_models()) {
        const auto count = static_cast<std::size_t>(std::count_if(strange.begin(), strange.end(), [&](const auto& x) {
            const auto place = find_image_module(m, x.first);
            return place && targets(*place).is_there();
        }));
        best = count > most ? &m : best;
        most = std::max(most, count);
    }
    if (best != nullptr) {
        auto found = detail::renamed_by(strange, *best, targets);
        if (!found) {
            return found.error();
        }
        out.unmapped = std::move(found->unmapped);
        out.renamed = std::move(found->renamed);
        strange = std::move(found->modules);
    }
    for (auto& [name, module] : strange) {
        if (!out.modules.emplace(name, std::move(module)).second) {
            return status{errc::invalid_format, "two modules of the adapter mean " + detail::in_quotes(name)};
        }
    }
    return out;
}

LOWRANK_BODY result<adapter_file> with_image_names(adapter_file file, const adapter_format& format,
                                                   const image_model* model) {
    if (!format.names_of_images) {
        return file;
    }
    std::vector<std::string> names;
    for (const auto& entry : file.adapter.modules) {
        names.push_back(entry.first);
    }
    const auto models = model != nullptr ? std::vector{model} : image_models_of(names);
    if (models.empty()) {
        return file;
    }
    for (const image_model* other : models) {
        for (const std::string& name : names) {
            const auto name_in = [&](const image_model& m) {
                const auto place = find_image_module(m, name);
                return place ? detail::targets_of_naming(m, *format.names_of_images)(*place).names
                             : std::vector<std::optional<std::string>>();
            };
            if (name_in(*other) != name_in(*models.front())) {
                return status{errc::unsupported, "module " + detail::in_quotes(name) + " may be one of " +
                                                     std::string(models.front()->title) + " and of " +
                                                     std::string(other->title) + ", which " + std::string(format.name) +
                                                     " names differently; say which model it is (--image-model " +
                                                     std::string(models.front()->name) + " or " +
                                                     std::string(other->name) + ")"};
            }
        }
    }
    auto moved = rename_image_modules(std::move(file.adapter.modules), *models.front(), *format.names_of_images);
    if (!moved) {
        return moved.error();
    }
    file.adapter.modules = std::move(moved->modules);
    file.renamed.insert(file.renamed.end(), moved->renamed.begin(), moved->renamed.end());
    file.adapter.config = peft_config_for(file.adapter);
    return file;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_FORMATS_IMAGE_NAMES_IPP
