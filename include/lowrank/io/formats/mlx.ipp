// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_FORMATS_MLX_IPP
#define LOWRANK_IO_FORMATS_MLX_IPP

#include <lowrank/io/formats/mlx.hpp>

#include <algorithm>
#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <lowrank/core/finite.hpp>
#include <lowrank/io/containers/detail/json.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/containers/mapped_file.hpp>
#include <lowrank/io/formats/adapter_files.hpp>
#include <lowrank/io/formats/detail/lora_tensors.hpp>
#include <lowrank/io/models/expert_names.hpp>
#include <lowrank/io/peft/peft_modules.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

LOWRANK_API [[nodiscard]] lora_name parse_mlx_name(std::string_view name) {
    using part = lora_name::part;
    return parse_ending(
        name, {{".lora_a", part::a}, {".lora_b", part::b}, {"." + std::string(magnitude_names::mlx), part::magnitude}});
}

LOWRANK_API [[nodiscard]] bool mlx_holds(const peft_module& module) {
    const auto* m = module.get<peft_lora>();
    return m != nullptr && m->bias.size() == 0 && m->kernel.empty() && !m->is_table && !m->magnitude_of_inputs;
}

LOWRANK_API [[nodiscard]] status emit_mlx(lora_tensors& out, const std::string& module, const lora_adapter<float>& lora,
                                          const lora_write_options& opt) {
    const matrix<float> b = scaled_factor(lora.lora_B, scaling_of(lora) / opt.mlx_scale.value_or(1));
    out.tensors.push_back(tensor_of(module + ".lora_a", matrix<float>(lora.lora_A.transpose())));
    out.tensors.push_back(tensor_of(module + ".lora_b", matrix<float>(b.transpose())));
    out.metadata = {{"format", "mlx"}};
    return {};
}

/// With a magnitude.
LOWRANK_API [[nodiscard]] status emit_mlx_magnitude(lora_tensors& out, const std::string& name,
                                                    const peft_module& module, const lora_write_options& opt) {
    const auto& m = *module.get<peft_lora>();
    if (status why = emit_mlx(out, name, m.lora, opt); !why) {
        return why;
    }
    if (m.magnitude.size() != 0) {
        out.tensors.push_back(tensor_of(name + "." + std::string(magnitude_names::mlx), m.magnitude));
    }
    return {};
}

/// A layer of experts and what models of transformers call it: MLX renames those of Mixtral.
inline constexpr std::string_view mlx_experts = ".switch_mlp.";
inline constexpr std::string_view mixtral_module = "block_sparse_moe";

/// What the experts of "model.layers.0.mlp.switch_mlp.up_proj" are called in transformers.
LOWRANK_API [[nodiscard]] std::vector<std::string> experts_of_mlx(const std::string& module, std::uint64_t count) {
    const std::size_t at = module.rfind(mlx_experts);
    std::vector<std::string> out;
    for (std::uint64_t e = 0; e < count; ++e) {
        if (at == std::string::npos) {
            out.push_back(module + "." + std::to_string(e));
            continue;
        }
        const std::string before = module.substr(0, at);
        std::string_view leaf = std::string_view(module).substr(at + mlx_experts.size());
        if (before.ends_with(mixtral_module)) {
            const auto& [plain, mixtral] = known_expert_names;
            leaf = leaf == plain.gate   ? mixtral.gate
                   : leaf == plain.up   ? mixtral.up
                   : leaf == plain.down ? mixtral.down
                                        : leaf;
        }
        out.push_back(before + ".experts." + std::to_string(e) + "." + std::string(leaf));
    }
    return out;
}

/// Where a module of an expert lies in MLX: the stack and its number.
struct mlx_expert {
    std::string stack = {};
    index expert = 0;
};
LOWRANK_API [[nodiscard]] std::optional<mlx_expert> mlx_expert_of(const std::string& module) {
    constexpr std::string_view experts = ".experts.";
    const auto part = find_expert_part(module);
    const std::size_t at = module.rfind(experts);
    if (!part || at == std::string::npos || module.find('.', at + experts.size()) != module.rfind('.')) {
        return std::nullopt;
    }
    const expert_names& plain = known_expert_names.front();
    const std::string_view leaf = !part->is_fused ? plain.down : part->is_up ? plain.up : plain.gate;
    return mlx_expert{module.substr(0, at) + std::string(mlx_experts) + std::string(leaf), part->expert};
}

/// The stacks of the modules that are plain LoRA of experts, which are taken out of `modules`. An expert without a module
/// gets factors of zeros; experts behind the last one that is adapted are not known here.
LOWRANK_API [[nodiscard]] result<std::vector<tensor_to_write>> take_mlx_stacks(
    std::map<std::string, peft_module>& modules, double scale) {
    struct stack {
        std::map<index, const lora_adapter<float>*> experts = {};
    };
    std::map<std::string, stack> stacks;
    for (const auto& [path, module] : modules) {
        const auto e = mlx_expert_of(path);
        if (e && (!is_plain_lora(module) || is_plain_table(module))) {
            return status{errc::unsupported, "module " + in_quotes(path) + " is adapted by " + kind_of(module) +
                                                 ", and MLX has plain LoRA of experts alone"};
        }
        if (e) {
            stacks[e->stack].experts.emplace(e->expert, &lora_of(module));
        }
    }
    std::vector<tensor_to_write> out;
    for (const auto& [name, all] : stacks) {
        const lora_adapter<float>& first = *all.experts.begin()->second;
        const index count = all.experts.rbegin()->first + 1;
        row_matrix<float> a = row_matrix<float>::Zero(count, first.rank() * first.cols());
        row_matrix<float> b = row_matrix<float>::Zero(count, first.rows() * first.rank());
        for (const auto& [e, lora] : all.experts) {
            if (lora->rank() != first.rank() || lora->rows() != first.rows() || lora->cols() != first.cols()) {
                return status{errc::unsupported,
                              "the experts of " + in_quotes(name) +
                                  " have factors of several shapes or ranks, and MLX keeps them in one tensor"};
            }
            const matrix<float> left = scaled_factor(lora->lora_B, scaling_of(*lora) / scale);
            Eigen::Map<row_matrix<float>>(a.row(e).data(), first.rank(), first.cols()) = lora->lora_A;
            Eigen::Map<row_matrix<float>>(b.row(e).data(), first.rows(), first.rank()) = left;
        }
        const auto put = [&](const std::string& tensor, const row_matrix<float>& x, index rows, index cols) {
            out.push_back(tensor_of(tensor, x));
            out.back().shape = {static_cast<std::uint64_t>(count), static_cast<std::uint64_t>(rows),
                                static_cast<std::uint64_t>(cols)};
        };
        put(name + ".lora_a", a, first.rank(), first.cols());
        put(name + ".lora_b", b, first.rows(), first.rank());
    }
    std::erase_if(modules, [](const auto& entry) { return mlx_expert_of(entry.first).has_value(); });
    return out;
}

/// The adapter_config.json of a folder, if it is MLX's and not PEFT's.
LOWRANK_API [[nodiscard]] std::optional<json> mlx_config_of(const std::filesystem::path& folder) {
    const auto file = mapped_file::open(folder / "adapter_config.json", {.map = false});
    auto document = file ? read_json(file->bytes()) : result<json>(file.error());
    const bool is_mlx =
        document && document->is_object() && !document->contains("peft_type") && document->contains("lora_parameters");
    return is_mlx ? std::optional(std::move(*document)) : std::nullopt;
}

LOWRANK_API [[nodiscard]] result<adapter_file> read_mlx_folder(const std::filesystem::path& folder,
                                                               const adapter_read_options& opt) {
    const auto path = folder / "adapter_config.json";
    const auto document = mlx_config_of(folder);
    if (!document) {
        return in_file(path, {errc::invalid_format, "it is no configuration of MLX"});
    }
    const auto& parameters = (*document)["lora_parameters"];
    const auto scale = parameters.is_object() ? parameters.find("scale") : parameters.end();
    if (!parameters.is_object() || scale == parameters.end() || !scale->is_number() ||
        !is_finite(scale->get<double>())) {
        return in_file(path, {errc::invalid_format, "lora_parameters must be an object with a number named scale"});
    }
    const auto type = document->find("fine_tune_type");
    if (type != document->end() && *type != "lora" && *type != magnitude_names::mlx_type) {
        return in_file(path, {errc::unsupported, std::string("fine_tune_type must be \"lora\" or ") +
                                                     in_quotes(magnitude_names::mlx_type)});
    }
    const adapter_format formats[] = {mlx_format()};
    auto file = read_lora_file(folder / "adapters.safetensors", {.scaling = scale->get<double>()}, formats);
    return file ? adapter_of(std::move(*file), opt, formats[0]) : result<adapter_file>(file.error());
}

LOWRANK_API [[nodiscard]] status write_mlx_folder(const std::filesystem::path& folder, const peft_adapter& adapter,
                                                  const adapter_write_options& opt) {
    const adapter_format formats[] = {mlx_format()};
    // One scale serves all modules; the most frequent one, so that most factors keep their bits.
    std::map<double, std::size_t> scales;
    std::vector<std::string> keys;
    index rank = 0;
    std::size_t with_magnitude = 0;
    for (const auto& [path, module] : adapter.modules) {
        const lora_adapter<float>& lora = lora_of(module);
        with_magnitude += is_plain_lora(module) ? 0 : 1;
        if (const double own = scaling_of(lora); own != 0) {
            ++scales[own];
        }
        rank = std::max(rank, lora.rank());
        const auto expert = mlx_expert_of(path);
        const std::string own_path = expert ? expert->stack : path;
        std::size_t at = own_path.find(".layers.");
        at = at == std::string::npos ? at : own_path.find('.', at + 8);
        const std::string key = at == std::string::npos ? own_path : own_path.substr(at + 1);
        if (std::find(keys.begin(), keys.end(), key) == keys.end()) {
            keys.push_back(key);
        }
    }
    if (with_magnitude != 0 && with_magnitude != adapter.modules.size()) {
        return {errc::unsupported, std::string("MLX has LoRA or ") + magnitude_names::label +
                                       " in all modules of an adapter, this one has both"};
    }
    const double scale = scales.empty() ? 1.0 : std::max_element(scales.begin(), scales.end(), [](auto& a, auto& b) {
                                                    return a.second < b.second;
                                                })->first;
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    if (error) {
        return system_failure("cannot create the folder", folder, error.value());
    }
    auto layers = adapter.modules;
    const auto stacks = take_mlx_stacks(layers, scale);
    if (!stacks) {
        return stacks.error();
    }
    if (status why =
            write_lora_file(folder / "adapters.safetensors", layers,
                            {.format = "mlx", .mlx_scale = scale, .more = *stacks, .write = opt.write}, formats);
        !why) {
        return why;
    }
    json config = {
        {"fine_tune_type", with_magnitude != 0 ? magnitude_names::mlx_type : "lora"},
        {"num_layers", -1},
        {"lora_parameters",
         {{"rank", rank}, {"scale", scale}, {"dropout", adapter.config.lora_dropout}, {"keys", std::move(keys)}}}};
    if (adapter.config.base_model_name_or_path) {
        config["model"] = *adapter.config.base_model_name_or_path;
    }
    return write_file(folder / "adapter_config.json", config.dump(4, ' ', true, json::error_handler_t::replace) + "\n",
                      opt.write);
}

}  // namespace detail

LOWRANK_BODY adapter_format mlx_format() {
    return {.name = "mlx",
            .is_folder = true,
            .holds = &detail::mlx_holds,
            .parse = &detail::parse_mlx_name,
            .is_transposed = true,
            .has_scaling_elsewhere = true,
            .experts_of = &detail::experts_of_mlx,
            .emit = &detail::emit_mlx,
            .emit_other = &detail::emit_mlx_magnitude,
            .recognizes =
                [](const adapter_source& source) {
                    return source.is_folder && detail::mlx_config_of(source.path).has_value();
                },
            .read = &detail::read_mlx_folder,
            .write = &detail::write_mlx_folder};
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_FORMATS_MLX_IPP
