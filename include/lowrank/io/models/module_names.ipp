// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_MODELS_MODULE_NAMES_IPP
#define LOWRANK_IO_MODELS_MODULE_NAMES_IPP

#include <lowrank/io/models/module_names.hpp>

#include <algorithm>
#include <cstddef>
#include <utility>

#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/containers/detail/text.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// Segments that compilers and sharding put anywhere into a path.
inline constexpr std::string_view wrapper_segments[] = {"_orig_mod.", "_fsdp_wrapped_module.",
                                                        "_checkpoint_wrapped_module."};

/// What may stand before the path that model and adapter have in common: wrappers, and the names that classes of
/// transformers, diffusers and ComfyUI give to the model in them.
inline constexpr std::string_view wrapper_roots[] = {"base_model.model.",
                                                     "base_model.",
                                                     "module.",
                                                     "model.",
                                                     "language_model.",
                                                     "text_model.",
                                                     "transformer.",
                                                     "unet.",
                                                     "diffusion_model.",
                                                     "text_encoder.",
                                                     "text_encoder_2.",
                                                     "text_encoder_3.",
                                                     "text_encoders.",
                                                     "clip_l.",
                                                     "clip_g.",
                                                     "t5xxl.",
                                                     "bert.",
                                                     "roberta.",
                                                     "distilbert.",
                                                     "electra.",
                                                     "deberta.",
                                                     "albert.",
                                                     "xlm_roberta.",
                                                     "vit.",
                                                     "gpt_neox.",
                                                     "backbone.",
                                                     "llm.",
                                                     "thinker.",
                                                     "base_transformer."};

/// What kohya's tools and their relatives put before a name; the longest that fits is taken off.
inline constexpr std::string_view flat_prefixes[] = {
    "lora_unet_", "lora_te_",         "lora_te1_",      "lora_te2_",         "lora_te3_",
    "lycoris_",   "lora_prior_unet_", "lora_prior_te_", "lora_transformer_", "lora_text_encoder_"};

LOWRANK_API [[nodiscard]] std::string without_segments(std::string_view path) {
    std::string out(path);
    for (const std::string_view segment : wrapper_segments) {
        for (std::size_t at = out.find(segment); at != std::string::npos; at = out.find(segment, at)) {
            const bool is_whole = at == 0 || out[at - 1] == '.';
            is_whole ? void(out.erase(at, segment.size())) : void(at += segment.size());
        }
    }
    return out;
}

LOWRANK_BODY std::string plain_path(std::string_view path) {
    std::string out = without_segments(path);
    for (bool again = true; again;) {
        again = false;
        for (const std::string_view root : wrapper_roots) {
            if (out.size() > root.size() && out.starts_with(root)) {
                out.erase(0, root.size());
                again = true;
            }
        }
    }
    return out;
}

LOWRANK_BODY std::string flat_path(std::string path) {
    std::replace(path.begin(), path.end(), '.', '_');
    return path;
}

}  // namespace detail

LOWRANK_BODY module_names::module_names(std::vector<std::string> modules) : modules_(std::move(modules)) {
    for (std::size_t i = 0; i < modules_.size(); ++i) {
        const std::string path = detail::without_segments(modules_[i]);
        const std::string plain = detail::plain_path(path);
        paths_[modules_[i]].push_back(i);
        if (path != modules_[i]) {
            paths_[path].push_back(i);
        }
        plain_[plain].push_back(i);
        flat_paths_[detail::flat_path(path)].push_back(i);
        flat_plain_[detail::flat_path(plain)].push_back(i);
    }
}

LOWRANK_BODY result<std::string> module_names::found(const groups& by, std::string_view key,
                                                     std::string_view name) const {
    const auto at = by.find(key);
    if (at == by.end()) {
        return status{errc::not_found, std::string()};
    }
    if (at->second.size() > 1) {
        return status{errc::mismatch, "the name " + detail::in_quotes(name) + " may mean " +
                                          detail::in_quotes(modules_[at->second[0]]) + " and " +
                                          detail::in_quotes(modules_[at->second[1]]) +
                                          "; rename the module of the adapter to the one that is meant"};
    }
    return modules_[at->second.front()];
}

LOWRANK_BODY result<std::string> module_names::look_up(std::string_view path) const {
    const std::string bare = detail::without_segments(path);
    const std::string plain = detail::plain_path(bare);
    for (const auto& [by, key] :
         {std::pair{&paths_, std::string(path)}, std::pair{&paths_, bare}, std::pair{&plain_, plain}}) {
        if (auto at = found(*by, key, path); at || at.error().code != errc::not_found) {
            return at;
        }
    }
    return status{errc::not_found, std::string()};
}

LOWRANK_BODY result<std::string> module_names::look_up_flat(std::string_view name, std::string_view& rest) const {
    rest = name;
    for (const std::string_view prefix : detail::flat_prefixes) {
        if (name.starts_with(prefix) && name.size() - prefix.size() < rest.size()) {
            rest = name.substr(prefix.size());
        }
    }
    rest.remove_prefix(rest.size() < name.size() && rest.starts_with('_') ? 1 : 0);  // "lora_unet__blocks_0"
    for (bool again = true; again;) {
        for (const groups* by : {&flat_paths_, &flat_plain_}) {
            if (auto at = found(*by, rest, name); at || at.error().code != errc::not_found) {
                return at;
            }
        }
        again = false;
        for (const std::string_view root : detail::wrapper_roots) {
            if (!again && rest.size() > root.size() && rest.starts_with(detail::flat_path(std::string(root)))) {
                rest.remove_prefix(root.size());
                again = true;
            }
        }
    }
    return status{errc::not_found, std::string()};
}

LOWRANK_BODY result<std::string> module_names::find(std::string_view path) const {
    auto at = look_up(path);
    return at || at.error().code != errc::not_found
               ? std::move(at)
               : result<std::string>(status{errc::not_found, "the model has no module " + detail::in_quotes(path) +
                                                                 detail::nearest_in_words(path, modules_)});
}

LOWRANK_BODY result<std::string> module_names::find_flat(std::string_view name) const {
    std::string_view rest;
    auto at = look_up_flat(name, rest);
    return at || at.error().code != errc::not_found
               ? std::move(at)
               : result<std::string>(status{errc::not_found, "the model has no module that " + detail::in_quotes(name) +
                                                                 " can mean" +
                                                                 detail::nearest_in_words(rest, modules_)});
}

LOWRANK_BODY std::optional<std::string> module_names::find_if_there(std::string_view path) const {
    auto at = look_up(path);
    return at ? std::optional(std::move(*at)) : std::nullopt;
}

LOWRANK_BODY std::optional<std::string> module_names::find_flat_if_there(std::string_view name) const {
    std::string_view rest;
    auto at = look_up_flat(name, rest);
    return at ? std::optional(std::move(*at)) : std::nullopt;
}

LOWRANK_BODY module_names modules_of(const checkpoint& base) {
    std::vector<std::string> modules;
    for (const checkpoint::place& p : base.tensors()) {
        const std::string& name = p.info->name;
        if (p.info->shape.size() == 3 && name.find("experts.") != std::string::npos && !name.ends_with(".weight")) {
            modules.push_back(name);  // a stack of experts, a bare parameter
        }
        for (const std::string_view tail : {std::string_view(".weight"), std::string_view(".qweight"),
                                            std::string_view(".weight_packed"), std::string_view(".bias")}) {
            if (name.size() > tail.size() && name.ends_with(tail)) {
                modules.push_back(name.substr(0, name.size() - tail.size()));
            }
        }
    }
    std::sort(modules.begin(), modules.end());
    modules.erase(std::unique(modules.begin(), modules.end()), modules.end());
    return module_names(std::move(modules));
}

LOWRANK_BODY std::string wrapper_in_words(std::string_view name, std::string_view module) {
    const auto last = [](std::string_view path) { return path.substr(path.rfind('.') + 1); };  // npos + 1 is 0
    while (!name.empty() && last(name) == last(module)) {
        const std::size_t cut = last(name).size() + (name.size() > last(name).size() ? 1 : 0);
        module.remove_suffix(std::min(module.size(), last(name).size() + 1));
        name.remove_suffix(cut);
    }
    const auto said = [](std::string_view part) {
        return part.empty() ? std::string("nothing") : detail::in_quotes(part);
    };
    return "names of the adapter have " + said(name) + " where those of the model have " + said(module);
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_MODELS_MODULE_NAMES_IPP
