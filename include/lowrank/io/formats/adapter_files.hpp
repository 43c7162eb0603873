// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_FORMATS_ADAPTER_FILES_HPP
#define LOWRANK_IO_FORMATS_ADAPTER_FILES_HPP

/// \file
/// Adapters of every tool, read whatever they are and written as any of them.
///
///     auto source = lowrank::read_adapter("style.safetensors");             // kohya, MLX, PEFT, GGUF, ...: found out
///     auto report = lowrank::write_adapter("style.gguf", source->adapter, lowrank::adapter_format::gguf, {.model =
///     &l}); for (const std::string& line : source->unmapped) ...                  // what was not understood
///
/// A PEFT adapter is the hub: names become those of its modules.

#include <algorithm>
#include <array>
#include <cstddef>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/io/containers/detail/json.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/containers/mapped_file.hpp>
#include <lowrank/io/formats/gguf_lora.hpp>
#include <lowrank/io/formats/lora_formats.hpp>
#include <lowrank/io/formats/plain_lora.hpp>
#include <lowrank/io/models/architecture.hpp>
#include <lowrank/io/peft.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// What an adapter lies on the disk as.
enum class adapter_format {
    peft,           ///< A folder with adapter_config.json and adapter_model.safetensors.
    mlx,            ///< A folder with adapter_config.json and adapters.safetensors.
    gguf,           ///< One file for llama.cpp.
    kohya,          ///< One file for kohya's tools and ComfyUI, with LyCORIS's names for the relatives of LoRA.
    diffusers,      ///< One file.
    diffusers_old,  ///< One file.
    loralib,        ///< One file.
};

[[nodiscard]] inline const char* to_string(adapter_format format) noexcept {
    constexpr std::array names{"peft", "mlx", "gguf", "kohya", "diffusers", "diffusers_old", "loralib"};
    return names[static_cast<std::size_t>(format)];
}
[[nodiscard]] inline std::optional<adapter_format> adapter_format_from_name(std::string_view name) noexcept {
    for (int i = 0; i <= static_cast<int>(adapter_format::loralib); ++i) {
        if (name == to_string(static_cast<adapter_format>(i))) {
            return static_cast<adapter_format>(i);
        }
    }
    return std::nullopt;
}

struct adapter_read_options {
    /// Module paths of the base model: kohya's names have lost their dots and find them again here.
    std::vector<std::string> modules = {};
    /// Of the base model; GGUF needs it.
    const model_config* model = nullptr;
    /// Numerator of the scaling for single files that have none: alpha / r. Without it the scaling is 1.
    std::optional<double> lora_alpha = std::nullopt;
    peft_read_options peft = {};
};

struct adapter_file {
    adapter_format format = adapter_format::peft;
    peft_adapter adapter = {};
    std::vector<std::string> unmapped = {};                         ///< Tensors that were not understood, and why.
    std::vector<std::pair<std::string, std::string>> renamed = {};  ///< Names of the file and the modules they became.
};

namespace detail {

/// The adapter_config.json of an MLX folder, if it is one.
struct mlx_config {
    double scale = 1;
    bool dora = false;
};
template <class = on_use>
[[nodiscard]] result<std::optional<mlx_config>> read_mlx_config(const std::filesystem::path& path) {
    const auto file = mapped_file::open(path, {.map = false});
    if (!file) {
        return file.error();
    }
    const auto document = read_json(file->bytes());
    if (!document) {
        return in_file(path, document.error());
    }
    if (!document->is_object() || document->contains("peft_type") || !document->contains("lora_parameters")) {
        return std::optional<mlx_config>();
    }
    mlx_config out;
    const auto& parameters = (*document)["lora_parameters"];
    const auto scale = parameters.is_object() ? parameters.find("scale") : parameters.end();
    if (!parameters.is_object() || scale == parameters.end() || !scale->is_number() ||
        !is_finite(scale->get<double>())) {
        return in_file(path, {errc::invalid_format, "lora_parameters must be an object with a number named scale"});
    }
    out.scale = scale->get<double>();
    const auto type = document->find("fine_tune_type");
    out.dora = type != document->end() && *type == "dora";
    if (type != document->end() && *type != "lora" && *type != "dora") {
        return in_file(path, {errc::unsupported, "fine_tune_type must be \"lora\" or \"dora\""});
    }
    return std::optional(out);
}

/// Modules of a file under the names of the base.
[[nodiscard]] inline std::string module_of(const std::string& name, lora_format format,
                                           const adapter_read_options& opt) {
    if (format == lora_format::kohya) {
        return unflatten_kohya_name(name, opt.modules).value_or(name);
    }
    return name.starts_with(peft_prefix) ? name.substr(peft_prefix.size()) : name;
}

template <class = on_use>
[[nodiscard]] result<adapter_file> adapter_of(lora_file file, const adapter_read_options& opt) {
    adapter_file out{.unmapped = std::move(file.unmapped)};
    switch (file.format) {
        case lora_format::peft: out.format = adapter_format::peft; break;
        case lora_format::kohya: out.format = adapter_format::kohya; break;
        case lora_format::diffusers: out.format = adapter_format::diffusers; break;
        case lora_format::diffusers_old: out.format = adapter_format::diffusers_old; break;
        case lora_format::mlx: out.format = adapter_format::mlx; break;
        case lora_format::loralib: out.format = adapter_format::loralib; break;
    }
    const auto place = [&](const std::string& name) {
        std::string module = module_of(name, file.format, opt);
        if (module != name) {
            out.renamed.emplace_back(name, module);
        }
        return module;
    };
    bool fits = true;
    for (auto& [name, lora] : file.modules) {
        fits = out.adapter.modules.emplace(place(name), std::move(lora)).second && fits;
    }
    for (auto& [name, relative] : file.relatives) {
        const std::string module = place(name);
        fits = !out.adapter.modules.contains(module) && fits;
        fits = out.adapter.relatives.emplace(module, std::move(relative)).second && fits;
    }
    if (!fits) {
        return status{errc::invalid_format, "two names of the file mean one module"};
    }
    std::string_view type;
    for (const auto& [module, relative] : out.adapter.relatives) {
        if (!type.empty() && type != type_of(relative)) {
            return status{errc::unsupported, "the file holds adapters of several types (" + std::string(type) +
                                                 " and " + std::string(type_of(relative)) +
                                                 "); a PEFT adapter has one, so it cannot be the hub of a conversion"};
        }
        type = type_of(relative);
    }
    if (!out.adapter.modules.empty() && !type.empty() && type != "LORA") {
        return status{errc::unsupported, "the file holds plain LoRA beside modules of another type (" +
                                             std::string(type) +
                                             "); a PEFT adapter has one, so it cannot be the hub of a conversion"};
    }
    out.adapter.config = peft_config_for(out.adapter);
    return out;
}

}  // namespace detail

/// Reads an adapter folder or file of any of the formats; which one is found out from its content.
///
/// \return As the reader of the format; `unsupported` for a GGUF without a layout.
template <class = on_use>
[[nodiscard]] result<adapter_file> read_adapter(const std::filesystem::path& path,
                                                const adapter_read_options& opt = {}) {
    std::error_code ignored;
    if (std::filesystem::is_directory(path, ignored)) {
        const auto config = path / "adapter_config.json";
        if (std::filesystem::exists(config, ignored)) {
            const auto mlx = detail::read_mlx_config(config);
            if (!mlx) {
                return mlx.error();
            }
            if (*mlx) {
                auto file = read_lora_file(path / "adapters.safetensors", {.scaling = (*mlx)->scale});
                return file ? detail::adapter_of(std::move(*file), opt) : result<adapter_file>(file.error());
            }
        }
        auto adapter = read_peft(path, opt.peft);
        if (!adapter) {
            return adapter.error();
        }
        return adapter_file{.adapter = std::move(*adapter)};
    }
    const auto bytes = mapped_file::open(path);
    if (!bytes) {
        return bytes.error();
    }
    if (detail::text_of(bytes->bytes()).starts_with("GGUF")) {
        if (opt.model == nullptr) {
            return status{errc::unsupported, detail::path_in_quotes(path) +
                                                 " is a GGUF adapter: the base model is needed, whose heads say the "
                                                 "order of rows"};
        }
        const auto gguf = read_gguf_lora(path);
        if (!gguf) {
            return gguf.error();
        }
        auto adapter = peft_from_gguf(*gguf, *opt.model);
        if (!adapter) {
            return detail::in_file(path, adapter.error());
        }
        return adapter_file{.format = adapter_format::gguf, .adapter = std::move(*adapter)};
    }
    auto file = read_lora_file(path, {.lora_alpha = opt.lora_alpha});
    return file ? detail::adapter_of(std::move(*file), opt) : result<adapter_file>(file.error());
}

struct adapter_write_options {
    const model_config* model = nullptr;      ///< Of the base model; GGUF needs it.
    std::string kohya_prefix = "lora_unet_";  ///< "lora_te_" for text encoders.
    gguf_lora_options gguf = {};
    write_options write = {};
};

namespace detail {

template <class = on_use>
[[nodiscard]] status write_mlx_folder(const std::filesystem::path& folder, const peft_adapter& adapter,
                                      const write_options& write) {
    // One scale serves all modules; the most frequent one, so that most factors keep their bits.
    std::map<double, std::size_t> scales;
    std::vector<std::string> keys;
    index rank = 0;
    bool dora = false;
    const auto add = [&](const std::string& module, const lora_adapter<float>& lora) {
        if (const double own = lora_scaling(lora.lora_alpha, lora.rank(), lora.use_rslora); own != 0) {
            ++scales[own];
        }
        rank = std::max(rank, lora.rank());
        std::size_t at = module.find(".layers.");
        at = at == std::string::npos ? at : module.find('.', at + 8);
        const std::string key = at == std::string::npos ? module : module.substr(at + 1);
        if (std::find(keys.begin(), keys.end(), key) == keys.end()) {
            keys.push_back(key);
        }
    };
    for (const auto& [module, lora] : adapter.modules) {
        add(module, lora);
    }
    for (const auto& [module, relative] : adapter.relatives) {
        const auto* m = lora_of(relative);
        if (m == nullptr) {
            return no_place_for(module, relative, lora_format::mlx);
        }
        dora = true;
        add(module, *m);
    }
    if (dora && !adapter.modules.empty()) {
        return {errc::unsupported, "MLX has LoRA or DoRA in all modules of an adapter, this one has both"};
    }
    const double scale = scales.empty() ? 1.0 : std::max_element(scales.begin(), scales.end(), [](auto& a, auto& b) {
                                                    return a.second < b.second;
                                                })->first;
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    if (error) {
        return system_failure("cannot create the folder", folder, error.value());
    }
    if (status why = write_lora_file(folder / "adapters.safetensors", adapter.modules, adapter.relatives,
                                     {.format = lora_format::mlx, .mlx_scale = scale, .write = write});
        !why) {
        return why;
    }
    json config = {
        {"fine_tune_type", dora ? "dora" : "lora"},
        {"num_layers", -1},
        {"lora_parameters",
         {{"rank", rank}, {"scale", scale}, {"dropout", adapter.config.lora_dropout}, {"keys", std::move(keys)}}}};
    if (adapter.config.base_model_name_or_path) {
        config["model"] = *adapter.config.base_model_name_or_path;
    }
    return write_file(folder / "adapter_config.json", config.dump(4, ' ', true, json::error_handler_t::replace) + "\n",
                      write);
}

}  // namespace detail

/// Writes an adapter in a format: a folder for PEFT and MLX, a file for the others.
///
/// \return As the writer of the format; `unsupported`, naming a module, for what the format has no place for
///         (`to_plain_lora` helps), for tensors that replace ones of the base outside PEFT, and for embedding tables
///         outside PEFT and GGUF.
template <class = on_use>
[[nodiscard]] status write_adapter(const std::filesystem::path& path, const peft_adapter& adapter,
                                   adapter_format format, const adapter_write_options& opt = {}) {
    if (format == adapter_format::peft) {
        return write_peft(path, adapter, opt.write);
    }
    if (!adapter.extra.empty()) {
        return {errc::unsupported, "tensor " + detail::in_quotes(adapter.extra.front().name) +
                                       " replaces one of the base, which only a PEFT folder can express; merge it"};
    }
    if (format == adapter_format::gguf) {
        if (opt.model == nullptr) {
            return {errc::unsupported, "writing GGUF needs the base model, whose heads say the order of rows"};
        }
        gguf_lora_options gguf = opt.gguf;
        gguf.write = opt.write;
        return write_gguf_lora(path, adapter, *opt.model, gguf);
    }
    if (!adapter.embeddings.empty()) {
        return {errc::unsupported, "module " + detail::in_quotes(adapter.embeddings.begin()->first) +
                                       " is an embedding table, for which " + to_string(format) + " has no name"};
    }
    if (!adapter.config.alora_invocation_tokens.empty()) {
        return {errc::unsupported, std::string("invocation tokens (aLoRA) have no place in ") + to_string(format)};
    }
    if (format == adapter_format::mlx) {
        return detail::write_mlx_folder(path, adapter, opt.write);
    }
    const lora_format file = format == adapter_format::kohya       ? lora_format::kohya
                             : format == adapter_format::diffusers ? lora_format::diffusers
                             : format == adapter_format::loralib   ? lora_format::loralib
                                                                   : lora_format::diffusers_old;
    return write_lora_file(path, adapter.modules, adapter.relatives,
                           {.format = file, .kohya_prefix = opt.kohya_prefix, .write = opt.write});
}

/// The functions of this header that are worth compiling once, for io/instantiate.hpp.
#define LOWRANK_IO_ADAPTER_FILES(way)                                                                                  \
    way template result<adapter_file> read_adapter<on_use>(const std::filesystem::path&, const adapter_read_options&); \
    way template status write_adapter<on_use>(const std::filesystem::path&, const peft_adapter&, adapter_format,       \
                                              const adapter_write_options&);
#ifdef LOWRANK_EXTERN_IO
LOWRANK_IO_ADAPTER_FILES(extern)
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_FORMATS_ADAPTER_FILES_HPP
