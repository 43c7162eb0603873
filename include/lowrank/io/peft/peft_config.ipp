// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_PEFT_CONFIG_IPP
#define LOWRANK_IO_PEFT_PEFT_CONFIG_IPP

#include <lowrank/io/peft/peft_config.hpp>

#include <algorithm>
#include <cmath>
#include <iterator>

#include <lowrank/core/check.hpp>
#include <lowrank/io/containers/detail/config_reader.hpp>
#include <lowrank/io/containers/detail/json.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/peft/detail/module_rules.hpp>
#include <lowrank/io/peft/detail/peft_types.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// The value of the first pattern that matches. Plain keys, which are nearly all, are compared; none is compiled twice.
template <class T>
[[nodiscard]] T value_for(const module_pattern<T>& patterns, std::string_view module, T otherwise) {
    for (const auto& [key, value] : patterns) {
        const auto compiled = module_key::compile(key);
        if (!compiled) {
            fail_contract("peft_lora_config: " + compiled.error().message);
        }
        if (compiled->matches(module)) {
            return value;
        }
    }
    return otherwise;
}

inline constexpr const char* changed_base_advice =
    ", which changed the base weights; convert the adapter to plain LoRA (on_original_base, --base-is-original with "
    "the "
    "base of before, or --initial-adapter), or set base_is_residual (--base-is-residual) if your base is the changed "
    "one";

/// An integer where the value is one, as Python code usually writes alpha.
LOWRANK_INLINE [[nodiscard]] json number_as_written(double x) {
    if (std::abs(x) < 1e15 && x == std::floor(x)) {
        return static_cast<std::int64_t>(x);
    }
    return x;
}

/// Keys of all types in any release read so far.
inline constexpr std::string_view common_peft_keys[] = {
    "alora_invocation_tokens",
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "init_weights",
    "layer_replication",
    "layers_pattern",
    "layers_to_transform",
    "modules_to_save",
    "peft_type",
    "peft_version",
    "rank_pattern",
    "revision",
    "target_modules",
    "target_parameters",
    "task_type",
    "trainable_token_indices",
};

LOWRANK_INLINE [[nodiscard]] bool is_known_peft_key(std::string_view key, const std::vector<typed_kind>& types) {
    const auto among = [&](const auto& keys) {
        return std::find(std::begin(keys), std::end(keys), key) != std::end(keys);
    };
    return among(common_peft_keys) || std::any_of(types.begin(), types.end(), [&](const typed_kind& t) {
               const peft_type& type = t.type;
               return key == type.r_key || key == type.alpha_key || key == type.dropout_key || key == type.folded_key ||
                      (type.has_rank_pattern && key == type.rank_pattern_key) || among(type.known) ||
                      std::any_of(type.keys.begin(), type.keys.end(), [&](auto& k) { return k.name == key; }) ||
                      std::any_of(type.refused.begin(), type.refused.end(), [&](auto& k) { return k.first == key; });
           });
}

/// Reads an object of plain values.
LOWRANK_INLINE void read_fields(config_reader& in, const std::string& key, const json& v, peft_fields& to) {
    if (!v.is_object()) {
        return in.wrong(key, "an object", v);
    }
    for (const auto& [name, value] : v.items()) {
        auto& field = to[name];
        if (value.is_boolean()) {
            field = value.template get<bool>();
        } else if (value.is_number_integer()) {
            field = value.template get<std::int64_t>();
        } else if (value.is_number()) {
            field = value.template get<double>();
        } else if (value.is_string()) {
            field = value.template get<std::string>();
        } else if (value.is_array()) {
            std::vector<std::string> names;
            for (const json& one : value) {
                if (!one.is_string()) {
                    return in.wrong(key + " of " + in_quotes(name), "a list of names", value);
                }
                names.push_back(one.template get<std::string>());
            }
            field = std::move(names);
        } else if (!value.is_null()) {
            return in.wrong(key + " of " + in_quotes(name), "a plain value", value);
        }
    }
}

/// Reads the value of a key of a type; an absent key stays absent.
LOWRANK_INLINE void read_option(config_reader& in, const peft_key& key, peft_options& to) {
    const std::string name(key.name);
    const json* v = in.find(name.c_str());
    if (v == nullptr) {
        return;
    }
    if (key.may_be_text && v->is_string()) {
        return to.set(name, v->template get<std::string>());
    }
    peft_value value = key.normal;
    if (auto* fields = std::get_if<peft_fields>(&value)) {
        if (*v != json(false)) {
            read_fields(in, name, *v, *fields);
        }
    } else if (auto* flag = std::get_if<bool>(&value)) {
        in.boolean(name.c_str(), *flag);
    } else if (auto* count = std::get_if<std::int64_t>(&value)) {
        in.count(name.c_str(), *count);
    } else if (auto* number = std::get_if<double>(&value)) {
        in.number(name.c_str(), *number);
    } else if (auto* text = std::get_if<std::string>(&value)) {
        std::optional<std::string> given;
        in.text(name.c_str(), given);
        *text = given.value_or(*text);
    } else if (auto* names = std::get_if<std::vector<std::string>>(&value)) {
        in.names(name.c_str(), *names);
    } else if (auto* flags = std::get_if<peft_flags>(&value)) {
        in.flags(name.c_str(), *flags);
    }
    to.set(name, std::move(value));
}

LOWRANK_INLINE [[nodiscard]] json json_of(const peft_value& value) {
    if (const auto* fields = std::get_if<peft_fields>(&value)) {
        json object = json::object();
        for (const auto& [name, field] : *fields) {
            object[name] = std::visit(
                overloaded{[](std::monostate) { return json(nullptr); }, [](const auto& v) { return json(v); }}, field);
        }
        return object;
    }
    return std::visit(overloaded{[](const peft_fields&) { return json(); }, [](const auto& v) { return json(v); }},
                      value);
}

}  // namespace detail

LOWRANK_BODY index peft_lora_config::r_for(std::string_view module) const {
    return detail::value_for(rank_pattern, module, r);
}
LOWRANK_BODY double peft_lora_config::alpha_for(std::string_view module) const {
    return detail::value_for(alpha_pattern, module, lora_alpha);
}

LOWRANK_BODY result<peft_lora_config> parse_peft_config(std::span<const std::byte> text,
                                                        std::vector<std::string>& warnings,
                                                        const peft_read_options& opt) {
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
    const auto types = detail::types_of(opt.kinds);
    const auto found = std::find_if(types.begin(), types.end(), [&](auto& t) { return name && t.type.name == *name; });
    if (in.why && found == types.end()) {
        if (!name) {
            return status{
                errc::invalid_format,
                document->contains("lora_parameters") || document->contains("fine_tune_type")
                    ? "the configuration is MLX's, not PEFT's: convert the folder (read_adapter, lowrank convert)"
                    : "the configuration has no peft_type; it is not an adapter_config.json of PEFT"};
        }
        std::string known;
        for (const auto& t : types) {
            known += (known.empty() ? "" : ", ") + std::string(t.type.name);
        }
        return status{errc::unsupported,
                      "peft_type " + detail::in_quotes(*name) + " is not supported; this reads " + known};
    }
    if (!in.why) {
        return in.why;
    }
    const peft_type& type = found->type;
    const auto find = [&](std::string_view key) { return key.empty() ? nullptr : in.find(std::string(key).c_str()); };
    c.peft_type = *name;
    c.r = type.r;
    c.lora_alpha = type.alpha;
    if (const auto* v = find(type.r_key)) {
        in.rank(std::string(type.r_key), *v, c.r);
    }
    if (const auto* v = find(type.alpha_key)) {
        in.number(std::string(type.alpha_key), *v, c.lora_alpha);
    }
    if (const auto* v = find(type.dropout_key)) {
        in.number(std::string(type.dropout_key), *v, c.lora_dropout);
        if (!(c.lora_dropout >= 0 && c.lora_dropout <= 1)) {
            in.wrong(std::string(type.dropout_key), "between 0 and 1", *v);
        }
    }
    for (const peft_key& key : type.keys) {
        detail::read_option(in, key, c.options);
    }
    in.tokens("alora_invocation_tokens", c.alora_invocation_tokens);
    if (!c.alora_invocation_tokens.empty() && !opt.activated_by_tokens && in.why) {
        in.why = {errc::unsupported,
                  "alora_invocation_tokens is set: the adapter applies only from these tokens on (aLoRA); set "
                  "activated_by_tokens if your program sees to it"};
    }
    in.boolean("fan_in_fan_out", c.fan_in_fan_out);
    std::optional<std::string> bias;
    in.text("bias", bias);
    c.bias = bias.value_or("none");
    if (const auto* v = in.find("bias");
        c.bias != "none" && c.bias != "all" &&
        !(type.bias_only.empty() ? c.bias.ends_with("_only") : c.bias == type.bias_only)) {
        in.wrong("bias", "\"none\", \"all\" or \"lora_only\"", *v);
    }
    if (const auto* v = in.find("target_modules"); v != nullptr && v->is_string()) {
        c.target_pattern = v->template get<std::string>();
    } else {
        in.names("target_modules", c.target_modules);
    }
    in.names("modules_to_save", c.modules_to_save);
    in.text("base_model_name_or_path", c.base_model_name_or_path);
    in.text("task_type", c.task_type);
    const std::string rank_pattern(type.rank_pattern_key);
    for (const std::string& key : {std::string("alpha_pattern"), rank_pattern}) {
        if (const auto* v = in.find(key.c_str()); v != nullptr && !v->is_object()) {
            in.wrong(key, "an object", *v);
        }
    }
    for (const auto& [outer, key] : in.why ? inner_keys : decltype(inner_keys){}) {  // in the order of the file
        if (outer == rank_pattern && type.has_rank_pattern) {
            in.rank(rank_pattern + " of " + detail::in_quotes(key), (*document)[outer][key],
                    c.rank_pattern.emplace_back(key, 0).second);
        } else if (outer == "alpha_pattern" && type.has_alpha_pattern) {
            in.number("alpha_pattern of " + detail::in_quotes(key), (*document)[outer][key],
                      c.alpha_pattern.emplace_back(key, 0).second);
        }
    }
    if (const auto rules = detail::module_rules<index>::compile(c.rank_pattern); in.why && !rules) {
        return detail::in_context(rank_pattern, rules.error());
    }
    if (const auto rules = detail::module_rules<double>::compile(c.alpha_pattern); in.why && !rules) {
        return detail::in_context("alpha_pattern", rules.error());
    }
    for (const peft_description* kind : found->kinds()) {
        if (in.why && kind->check != nullptr) {
            in.why = kind->check(c.options, type.name, warnings);
        }
    }
    c.options.complete(type.keys);
    for (const peft_key& key : type.keys) {
        if (key.changes_base && !opt.base_is_residual && in.why && c.options.value(key.name) != key.normal) {
            in.why = {errc::unsupported, std::string(key.name) + " is set" + detail::changed_base_advice};
        }
    }

    for (const auto& t : types) {
        for (const auto& [key, feature] : t.type.refused) {
            in.refuse(key, feature);
        }
    }
    if (type.has_target_parameters) {
        in.names("target_parameters", c.target_parameters);
    } else {
        in.refuse("target_parameters", "adapters of bare parameters, which only LoRA has");
    }
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
    if (const auto* v = in.find("init_lora_weights"); v != nullptr && v->is_string() && !opt.base_is_residual) {
        const auto how = v->template get<std::string>();
        for (const char* changes : {"pissa", "olora", "corda", "loftq", "lora_ga"}) {
            if (how.starts_with(changes) && in.why) {
                in.why = {errc::unsupported,
                          "init_lora_weights is " + detail::in_quotes(how) + detail::changed_base_advice};
            }
        }
    }
    if (!in.why) {
        return in.why;
    }
    for (const auto& entry : document->items()) {
        if (!detail::is_known_peft_key(entry.key(), types)) {
            warnings.push_back("the key " + detail::in_quotes(entry.key()) +
                               " of the configuration is unknown and has no effect");
        }
    }
    c.document = detail::text_of(text);
    return c;
}

LOWRANK_BODY std::string format_peft_config(const peft_lora_config& c, peft_kind_list kinds) {
    using detail::json;
    const auto found = detail::find_type(kinds, c.peft_type);
    detail::expects(found.has_value(), "format_peft_config: peft_type is none that is supported");
    const peft_type& type = found->type;
    const bool is_new = c.document.empty();
    json out;
    if (is_new) {
        out = json::parse(type.defaults);
        out["inference_mode"] = true;
        out["auto_mapping"] = nullptr;
        out["revision"] = nullptr;
    } else {
        out = json::parse(c.document);
    }
    const auto set = [&](std::string_view name, json value, const json& absent) {
        const std::string key(name);
        const auto at = out.find(key);
        const bool is_as_good = at != out.end() && value.is_null() && at->is_structured() && at->empty();
        if (!is_as_good && (at == out.end() ? is_new || value != absent : *at != value)) {
            out[key] = std::move(value);
        }
    };
    const auto or_null = [](auto& value) { return value.empty() ? json(nullptr) : json(value); };
    const auto text_or_null = [](const std::optional<std::string>& text) { return text ? json(*text) : json(nullptr); };
    set("peft_type", c.peft_type, nullptr);
    if (!type.r_key.empty()) {
        set(type.r_key, c.r, type.r);
    }
    if (!type.alpha_key.empty()) {
        set(type.alpha_key, detail::number_as_written(c.lora_alpha), static_cast<int>(type.alpha));
    }
    if (!type.dropout_key.empty()) {
        set(type.dropout_key, c.lora_dropout, 0.0);
    }
    if (type.has_bias) {
        set("bias", c.bias, "none");
    }
    if (type.has_fan_in_fan_out || c.fan_in_fan_out) {
        set("fan_in_fan_out", c.fan_in_fan_out, false);
    }
    if (!c.alora_invocation_tokens.empty()) {
        set("alora_invocation_tokens", c.alora_invocation_tokens, nullptr);
    }
    if (!c.layer_replication.empty()) {
        set("layer_replication", c.layer_replication, nullptr);
    }
    const auto& tokens = c.trainable_token_indices;
    if (!tokens.empty()) {
        const bool of_any = tokens.size() == 1 && tokens.begin()->first.empty();
        set("trainable_token_indices", of_any ? json(tokens.begin()->second) : json(tokens), nullptr);
    }
    peft_options options = c.options;
    options.complete(type.keys);
    for (const peft_key& key : type.keys) {
        const peft_value& value = options.value(key.name);
        const json normal = key.normal_is_null ? json(nullptr) : detail::json_of(key.normal);
        const auto at = out.find(std::string(key.name));
        if (value == key.normal && key.is_rare && at == out.end()) {
            continue;
        }
        if (value != key.normal) {
            set(key.name, detail::json_of(value), normal);
        } else if (at == out.end() || !at->is_structured() || !at->empty()) {  // as good as null
            set(key.name, normal, normal);
        }
    }
    set("target_modules", c.target_pattern.empty() ? or_null(c.target_modules) : json(c.target_pattern), nullptr);
    if (const auto at = out.find("target_parameters");
        !c.target_parameters.empty() || (at != out.end() && at->is_array() && !at->empty())) {
        set("target_parameters", or_null(c.target_parameters), nullptr);
    }
    set("modules_to_save", or_null(c.modules_to_save), nullptr);
    set("base_model_name_or_path", text_or_null(c.base_model_name_or_path), nullptr);
    set("task_type", text_or_null(c.task_type), nullptr);

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
    const bool has[] = {type.has_rank_pattern && !c.rank_pattern.empty(),
                        type.has_alpha_pattern && !c.alpha_pattern.empty()};
    const std::string rank_pattern(type.rank_pattern_key);
    for (const auto& [key, is_there, wanted] : {std::tuple(rank_pattern, type.has_rank_pattern, has[0]),
                                                {std::string("alpha_pattern"), type.has_alpha_pattern, has[1]}}) {
        if (is_there && !out.contains(key) && (wanted || is_new)) {
            out[key] = json::object();
        }
    }
    std::string text = "{";
    for (const auto& entry : out.items()) {
        const std::string& key = entry.key();
        const json& value = entry.value();
        text += text.size() > 1 ? ",\n  " : "\n  ";
        text += json(key).dump(-1, ' ', true, json::error_handler_t::replace) + ": ";
        if (key == rank_pattern && type.has_rank_pattern && !(value.is_null() && !has[0])) {
            text += patterns(c.rank_pattern, value);
        } else if (key == "alpha_pattern" && type.has_alpha_pattern && !(value.is_null() && !has[1])) {
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

#endif  // LOWRANK_IO_PEFT_PEFT_CONFIG_IPP
