// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_PEFT_CONFIG_HPP
#define LOWRANK_IO_PEFT_PEFT_CONFIG_HPP

/// \file
/// The adapter_config.json of an adapter as PEFT reads and writes it.
///
///     std::vector<std::string> warnings;
///     auto config = lowrank::parse_peft_config(bytes, warnings, {});      // adapter_config.json
///     log(config->r_for("model.layers.0.mlp.up_proj"));                   // r, or what rank_pattern says
///
/// Keys, defaults and the rule for patterns follow huggingface/peft, LoraConfig and its relatives.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/containers/detail/config_reader.hpp>
#include <lowrank/io/containers/detail/json.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/peft/detail/module_rules.hpp>
#include <lowrank/io/peft/detail/peft_kinds.hpp>
#include <lowrank/io/peft/detail/peft_types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Keys that are patterns, in order: the first that matches a module's path gives its value.
template <class T>
using module_pattern = std::vector<std::pair<std::string, T>>;

/// Rank and alpha have one name here, whatever the key is called in the file of a type (init_r, alpha).
struct peft_lora_config {
    std::string peft_type =
        "LORA";  ///< LORA, ADALORA, LOHA, LOKR, VERA, IA3, OFT, BOFT, HRA, MISS, BONE, RANDLORA, HIRA.
    index r = 8;
    double lora_alpha = 8;
    bool use_dora = false;
    bool lora_bias = false;
    bool use_rslora = false;
    double lora_dropout = 0;
    bool fan_in_fan_out = false;  ///< The base stores in x out (GPT-2's Conv1D); A and B do not change.
    std::string bias = "none";    ///< "none", "all" or "lora_only" ("oft_only", ... of other types).
    std::vector<std::string> target_modules = {};  ///< Names, or empty if `target_pattern` is given.
    std::string target_pattern = {};               ///< A regular expression, or "all-linear".
    module_pattern<index> rank_pattern = {};
    module_pattern<double> alpha_pattern = {};
    std::vector<std::string> modules_to_save = {};
    std::vector<std::string> feedforward_modules = {};  ///< (IA)^3: name endings of modules whose inputs are scaled.
    /// aLoRA: the adapter applies from the last occurrence of these tokens on.
    std::vector<std::int64_t> alora_invocation_tokens = {};
    /// Tokens whose rows of an embedding table are trained by themselves, by the ending of the table's module; under ""
    /// for any. Their rows are in `peft_adapter::extra`.
    std::map<std::string, std::vector<std::int64_t>> trainable_token_indices = {};
    /// Ranges [begin, end) of layers that the base model is made of, if that repeats layers of its checkpoint.
    std::vector<std::pair<std::int64_t, std::int64_t>> layer_replication = {};
    peft_kind_options kind = {};  ///< What single types say besides: block sizes, forms, schedules.
    std::optional<std::string> base_model_name_or_path = {};
    std::optional<std::string> task_type = {};  ///< "CAUSAL_LM", ...
    /// The whole document this was read from: keys not named here are kept and written again.
    nlohmann::json document = {};

    /// The rank of a module: the first key k of rank_pattern for which `(.*\.)?(k)` matches its path, or r.
    /// \pre the keys are valid patterns, as after `parse_peft_config`.
    [[nodiscard]] index r_for(std::string_view module) const;
    /// The same for lora_alpha.
    [[nodiscard]] double alpha_for(std::string_view module) const;
};

namespace detail {

template <class T>
[[nodiscard]] T value_for(const module_pattern<T>& patterns, std::string_view module, T otherwise) {
    const auto rules = module_rules<T>::compile(patterns);
    if (!rules) {
        fail_contract("peft_lora_config: " + rules.error().message);
    }
    const T* value = rules->find(module);
    return value != nullptr ? *value : otherwise;
}

/// What ends the name of a tensor with trained rows of a table.
inline constexpr std::string_view token_rows_tail = ".token_adapter.trainable_tokens_delta";

/// The tokens whose rows of the table `module` are trained, or null.
[[nodiscard]] inline const std::vector<std::int64_t>* token_indices_of(const peft_lora_config& config,
                                                                       std::string_view module) {
    for (const auto& [table, tokens] : config.trainable_token_indices) {
        if (table.empty() || module == table || module.ends_with("." + table)) {
            return &tokens;
        }
    }
    return nullptr;
}

/// An integer where the value is one, as Python code usually writes alpha.
[[nodiscard]] inline json number_as_written(double x) {
    if (std::abs(x) < 1e15 && x == std::floor(x)) {
        return static_cast<std::int64_t>(x);
    }
    return x;
}

}  // namespace detail

inline index peft_lora_config::r_for(std::string_view module) const {
    return detail::value_for(rank_pattern, module, r);
}
inline double peft_lora_config::alpha_for(std::string_view module) const {
    return detail::value_for(alpha_pattern, module, lora_alpha);
}

struct peft_read_options {
    /// Accept an adapter whose initialization changed the base weights (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA): the
    /// caller's base is that changed one.
    bool base_is_residual = false;
    /// Accept an adapter that applies only from its invocation tokens on (aLoRA): the caller sees to it.
    bool activated_by_tokens = false;
    /// Accept an adapter for a model that repeats layers of its checkpoint (layer_replication): the caller's base is
    /// that model. Module names count the repeated layers.
    bool replicated_layers = false;
};

/// Reads the text of an adapter_config.json. Unknown keys are named in `warnings` and kept.
///
/// \return `invalid_format` naming the key that is wrong; `unsupported` naming the key of a feature that would change
///         the result (aLoRA, QA-LoRA, ...), another adapter type, or a pattern that is not understood.
[[nodiscard]] inline result<peft_lora_config> parse_peft_config(std::span<const std::byte> text,
                                                                std::vector<std::string>& warnings,
                                                                const peft_read_options& opt = {}) {
    std::vector<std::pair<std::string, std::string>> inner_keys;
    auto document = detail::read_json(text, &inner_keys);
    if (!document) {
        return document.error();
    }
    if (!document->is_object()) {
        return status{errc::invalid_format, "the configuration must be a JSON object"};
    }
    detail::config_reader in(*document);
    peft_lora_config c;

    std::optional<std::string> name;
    in.text("peft_type", name);
    const detail::peft_type* type = name ? detail::find_peft_type(*name) : nullptr;
    if (in.why && type == nullptr) {
        if (!name) {
            return status{errc::invalid_format, "the configuration has no peft_type; it is not an adapter_config.json"};
        }
        std::string known;
        for (const auto& t : detail::peft_types) {
            known += (known.empty() ? "" : ", ") + std::string(t.name);
        }
        return status{errc::unsupported,
                      "peft_type " + detail::in_quotes(*name) + " is not supported; this reads " + known};
    }
    if (!in.why) {
        return in.why;
    }
    c.peft_type = *name;
    c.r = static_cast<index>(type->r);
    c.lora_alpha = type->alpha;
    if (type->r_key != nullptr) {
        in.rank(type->r_key, c.r);
    }
    if (const auto* v = type->alpha_key != nullptr ? in.find(type->alpha_key) : nullptr) {
        in.number(type->alpha_key, *v, c.lora_alpha);
    }
    if (const auto* v = type->dropout_key != nullptr ? in.find(type->dropout_key) : nullptr) {
        in.number(type->dropout_key, *v, c.lora_dropout);
        if (!(c.lora_dropout >= 0 && c.lora_dropout <= 1)) {
            in.wrong(type->dropout_key, "between 0 and 1", *v);
        }
    }
    in.boolean("use_dora", c.use_dora);
    in.boolean("lora_bias", c.lora_bias);
    if (const auto* v = in.find("feedforward_modules"); v != nullptr && !v->is_string()) {  // a pattern is kept
        in.names("feedforward_modules", c.feedforward_modules);
    }
    in.tokens("alora_invocation_tokens", c.alora_invocation_tokens);
    if (!c.alora_invocation_tokens.empty() && !opt.activated_by_tokens && in.why) {
        in.why = {errc::unsupported,
                  "alora_invocation_tokens is set: the adapter applies only from these tokens on (aLoRA); set "
                  "activated_by_tokens if your program sees to it"};
    }
    in.boolean("use_rslora", c.use_rslora);
    in.boolean("fan_in_fan_out", c.fan_in_fan_out);
    std::optional<std::string> bias;
    in.text("bias", bias);
    c.bias = bias.value_or("none");
    if (const auto* v = in.find("bias"); c.bias != "none" && c.bias != "all" &&
                                         !(c.bias.ends_with("_only") && (*name != "LORA" || c.bias == "lora_only"))) {
        in.wrong("bias", "\"none\", \"all\" or \"lora_only\"", *v);
    }
    if (const auto* v = in.find("target_modules"); v != nullptr && v->is_string()) {
        c.target_pattern = v->get<std::string>();
    } else {
        in.names("target_modules", c.target_modules);
    }
    in.names("modules_to_save", c.modules_to_save);
    in.text("base_model_name_or_path", c.base_model_name_or_path);
    in.text("task_type", c.task_type);
    for (const char* key : {"rank_pattern", "alpha_pattern"}) {
        if (const auto* v = in.find(key); v != nullptr && !v->is_object()) {
            in.wrong(key, "an object", *v);
        }
    }
    for (const auto& [outer, key] : in.why ? inner_keys : decltype(inner_keys){}) {  // in the order of the file
        const bool is_rank = outer == "rank_pattern";
        if (!(is_rank ? type->ranks : type->alphas && outer == "alpha_pattern")) {
            continue;
        }
        const auto& value = (*document)[outer][key];
        if (is_rank) {
            in.rank("rank_pattern of " + detail::in_quotes(key), value, c.rank_pattern.emplace_back(key, 0).second);
        } else {
            in.number("alpha_pattern of " + detail::in_quotes(key), value, c.alpha_pattern.emplace_back(key, 0).second);
        }
    }
    if (const auto rules = detail::module_rules<index>::compile(c.rank_pattern); in.why && !rules) {
        return detail::in_context("rank_pattern", rules.error());
    }
    if (const auto rules = detail::module_rules<double>::compile(c.alpha_pattern); in.why && !rules) {
        return detail::in_context("alpha_pattern", rules.error());
    }

    detail::read_kind_options(in, c.peft_type, c.kind, warnings);

    in.refuse("use_qalora", "pooled inputs (QA-LoRA)");
    in.refuse("use_bdlora", "block-diagonal factors");
    if (opt.replicated_layers) {
        in.ranges("layer_replication", c.layer_replication);
    } else {
        in.refuse("layer_replication",
                  "repeated layers (set replicated_layers if your program builds the model that has them)");
    }
    if (const auto* v = in.find("trainable_token_indices"); v != nullptr && v->is_object()) {
        for (const auto& [table, list] : v->items()) {
            in.tokens("trainable_token_indices", list, c.trainable_token_indices[table]);
        }
    } else if (v != nullptr) {
        in.tokens("trainable_token_indices", *v, c.trainable_token_indices[""]);
    }
    in.refuse("target_parameters", "adapters of bare parameters");
    in.refuse("arrow_config", "routing between adapters (Arrow)");
    in.refuse("kasa_config", "a diagonal factor (KaSA)");
    in.refuse("velora_config", "compressed activations (VeLoRA)");
    in.refuse("monteclora_config", "sampled factors (MonteCLoRA)");
    if (const auto* v = in.find("init_lora_weights"); v != nullptr && v->is_string() && !opt.base_is_residual) {
        const auto& how = v->get_ref<const std::string&>();
        for (const char* changes : {"pissa", "olora", "corda", "loftq", "lora_ga"}) {
            if (how.starts_with(changes) && in.why) {
                in.why = {errc::unsupported,
                          "init_lora_weights is " + detail::in_quotes(how) +
                              ", which changed the base weights; convert the adapter to plain LoRA when saving it, or "
                              "set base_is_residual if your base is the changed one"};
            }
        }
    }
    if (!in.why) {
        return in.why;
    }
    for (const auto& [key, value] : document->items()) {
        if (!detail::is_known_peft_key(key)) {
            warnings.push_back("the key " + detail::in_quotes(key) +
                               " of the configuration is unknown and has no effect");
        }
    }
    c.document = std::move(*document);
    return c;
}

/// The text of an adapter_config.json: keys sorted, two spaces, as PEFT writes it. Values that are as they were read
/// keep their spelling.
[[nodiscard]] inline std::string format_peft_config(const peft_lora_config& c) {
    using detail::json;
    const auto text_or_null = [](const std::optional<std::string>& text) { return text ? json(*text) : json(nullptr); };
    json out = c.document.is_object() ? c.document : detail::peft_defaults(c.peft_type);
    const detail::peft_type* type = detail::find_peft_type(c.peft_type);
    detail::expects(type != nullptr, "format_peft_config: peft_type is none that is supported");
    const bool is_lora = c.peft_type == "LORA";
    const auto set = [&](const char* key, json value, const json& absent) {
        const auto at = out.find(key);
        if (at == out.end() ? !c.document.is_object() || value != absent : *at != value) {
            out[key] = std::move(value);
        }
    };
    set("peft_type", c.peft_type, nullptr);
    if (type->r_key != nullptr) {
        set(type->r_key, c.r, static_cast<index>(type->r));
    }
    if (type->alpha_key != nullptr) {
        set(type->alpha_key, detail::number_as_written(c.lora_alpha), static_cast<int>(type->alpha));
    }
    if (type->dropout_key != nullptr) {
        set(type->dropout_key, c.lora_dropout, 0.0);
    }
    if (is_lora) {
        set("use_rslora", c.use_rslora, false);
        set("use_dora", c.use_dora, false);
        set("lora_bias", c.lora_bias, false);
        set("bias", c.bias, "none");
        if (!c.alora_invocation_tokens.empty()) {
            set("alora_invocation_tokens", c.alora_invocation_tokens, nullptr);
        }
        if (c.trainable_token_indices.size() == 1 && c.trainable_token_indices.count("") == 1) {
            set("trainable_token_indices", c.trainable_token_indices.at(""), nullptr);
        } else if (!c.trainable_token_indices.empty()) {
            set("trainable_token_indices", c.trainable_token_indices, nullptr);
        }
        if (!c.layer_replication.empty()) {
            set("layer_replication", c.layer_replication, nullptr);
        }
    }
    detail::write_kind_options(c.peft_type, c.kind, json(out), set);
    const auto is = [&](std::string_view name) { return c.peft_type == name; };
    if (is_lora || c.fan_in_fan_out || is("OFT") || is("BOFT") || is("RANDLORA") || is("HIRA")) {
        set("fan_in_fan_out", c.fan_in_fan_out, false);
    }
    if (const auto at = out.find("feedforward_modules");
        c.peft_type == "IA3" && (at == out.end() || !at->is_string())) {
        set("feedforward_modules", c.feedforward_modules.empty() ? json(nullptr) : json(c.feedforward_modules),
            nullptr);
    }
    set("target_modules",
        c.target_pattern.empty() ? (c.target_modules.empty() ? json(nullptr) : json(c.target_modules))
                                 : json(c.target_pattern),
        nullptr);
    set("modules_to_save", c.modules_to_save.empty() ? json(nullptr) : json(c.modules_to_save), nullptr);
    set("base_model_name_or_path", text_or_null(c.base_model_name_or_path), nullptr);
    set("task_type", text_or_null(c.task_type), nullptr);
    for (const char* key : {"rank_pattern", "alpha_pattern"}) {  // values follow below
        const bool has = key[0] == 'r' ? !c.rank_pattern.empty() : !c.alpha_pattern.empty();
        if ((key[0] == 'r' ? type->ranks : type->alphas) && !out.contains(key) && (has || !c.document.is_object())) {
            out[key] = json::object();
        }
    }

    // Patterns are written in their order, which a JSON document would sort: the first match wins.
    const auto patterns = [](const auto& pattern, const json& old) {
        std::string text = "{";
        for (const auto& [key, value] : pattern) {
            json number = detail::number_as_written(static_cast<double>(value));
            if (const auto at = old.find(key); at != old.end() && *at == number) {
                number = *at;
            }
            text += text.size() > 1 ? ",\n    " : "\n    ";
            text += json(key).dump(-1, ' ', true, json::error_handler_t::replace) + ": " + number.dump();
        }
        return text + (pattern.empty() ? "}" : "\n  }");
    };
    std::string text = "{";
    for (const auto& [key, value] : out.items()) {
        text += text.size() > 1 ? ",\n  " : "\n  ";
        text += json(key).dump(-1, ' ', true, json::error_handler_t::replace) + ": ";
        if (key == "rank_pattern" && type->ranks && !(value.is_null() && c.rank_pattern.empty())) {
            text += patterns(c.rank_pattern, value);
        } else if (key == "alpha_pattern" && type->alphas && !(value.is_null() && c.alpha_pattern.empty())) {
            text += patterns(c.alpha_pattern, value);
        } else {
            for (const char ch : value.dump(2, ' ', true, json::error_handler_t::replace)) {
                text += ch;
                text += ch == '\n' ? "  " : "";
            }
        }
    }
    return text + "\n}";
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_PEFT_CONFIG_HPP
