// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_MODELS_GGUF_MODEL_IPP
#define LOWRANK_IO_MODELS_GGUF_MODEL_IPP

#include <lowrank/io/models/gguf_model.hpp>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <map>
#include <optional>
#include <utility>

#include <lowrank/io/checkpoints/detail/shard_journal.hpp>
#include <lowrank/io/checkpoints/detail/shard_loop.hpp>
#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/containers/detail/json.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/containers/gguf_writer.hpp>
#include <lowrank/io/containers/mapped_file.hpp>
#include <lowrank/io/containers/safetensors_writer.hpp>
#include <lowrank/io/models/model_config.hpp>
#include <lowrank/io/models/rope_rows.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

inline constexpr const char* hf_config_key = "lowrank.hf_config";

/// The types that both kinds of file have.
inline constexpr std::array<std::pair<dtype, ggml_type>, 4> float_types{{{dtype::f32, ggml_type::f32},
                                                                         {dtype::f16, ggml_type::f16},
                                                                         {dtype::bf16, ggml_type::bf16},
                                                                         {dtype::f64, ggml_type::f64}}};

/// The type of a tensor in transformers: quantized ones are decoded to F32.
LOWRANK_API [[nodiscard]] dtype dtype_for(ggml_type type) {
    const auto at = std::find_if(float_types.begin(), float_types.end(), [&](auto& p) { return p.second == type; });
    return at != float_types.end() ? at->first : dtype::f32;
}

/// The keys of a model's shape.
LOWRANK_API [[nodiscard]] result<std::vector<gguf_entry>> shape_entries(const architecture& a, const model_config& c) {
    if (c.is_quantized || c.scaling.type != rope_scaling::kind::none || c.scaling.factor != 1) {
        return status{
            errc::unsupported,
            c.is_quantized
                ? "quantization_config of config.json is set: quantized weights are not converted; decode them first "
                  "('lowrank dequantize')"
                : "the rope_type of rope_scaling or rope_parameters in config.json is not \"default\": "
                  "scaled rotations are not converted"};
    }
    if (status why = check_activation(c, a); !why) {
        return why;
    }
    std::vector<gguf_entry> out;
    for (const config_key& key : a.keys) {
        const double value = key.count != nullptr ? static_cast<double>(c.*key.count) : c.*key.number;
        if (!(value >= 0) || value > 4e9) {
            return status{errc::invalid_format, key.hf + " of config.json must be between 0 and 4e9"};
        }
        if (!key.gguf.empty()) {
            out.push_back({a.gguf + "." + key.gguf, key.count != nullptr
                                                        ? gguf_value::of(static_cast<std::uint32_t>(value))
                                                        : gguf_value::of(static_cast<float>(value))});
        }
    }
    return out;
}

/// The shape of a model that GGUF's keys and tensors say.
LOWRANK_API [[nodiscard]] result<model_config> config_of_gguf(const architecture& a, const gguf_file& model) {
    model_config c{.model_type = a.name};
    c.num_key_value_heads = c.head_dim = c.vocab_size = -1;
    for (const config_key& key : a.keys) {
        const std::string name = a.gguf + "." + key.gguf;
        const gguf_value* v = key.gguf.empty() ? nullptr : model.value(name);
        if (key.number != nullptr) {
            c.*key.number = v != nullptr && v->as_f32() ? static_cast<double>(*v->as_f32()) : c.*key.number;
            continue;
        }
        const auto n = v != nullptr ? v->as_count() : std::nullopt;
        if (n ? *n > (1U << 30) : v != nullptr || key.is_required) {
            return status{errc::invalid_format, "the key " + name + " must be there and be a count"};
        }
        c.*key.count = n ? static_cast<index>(*n) : c.*key.count;
    }
    if (c.num_attention_heads < 1 || c.num_key_value_heads == 0) {
        return status{errc::invalid_format, "the keys of " + a.gguf + ".attention.head_count must be positive"};
    }
    const auto or_else = [](index& value, index otherwise) { value = value == -1 ? otherwise : value; };
    or_else(c.num_key_value_heads, c.num_attention_heads);
    or_else(c.head_dim, c.hidden_size / c.num_attention_heads);
    c.tie_word_embeddings = true;
    for (const gguf_tensor& t : model.tensors()) {
        if (const auto m = find_gguf_module(a, t.name)) {
            c.tie_word_embeddings = c.tie_word_embeddings && m->module->role != module_role::output;
            if (m->module->role == module_role::table && t.ne.size() == 2) {
                or_else(c.vocab_size, static_cast<index>(std::min<std::uint64_t>(t.ne[1], 1U << 30)));
            }
            if (m->hf.ends_with(".bias")) {
                (m->hf.find("attn") != std::string::npos ? c.attention_bias : c.mlp_bias) = true;
            }
        }
    }
    or_else(c.vocab_size, 0);
    return c;
}

/// Of names, types, places and samples of a file's tensors.
LOWRANK_API
[[nodiscard]] std::uint64_t gguf_checksum(const gguf_file& model) {
    std::uint64_t sum = 9;
    for (const gguf_tensor& t : model.tensors()) {
        const std::uint64_t facts[3] = {static_cast<std::uint64_t>(t.type), t.offset, t.bytes};
        const auto sample = model.bytes(t).first(std::min<std::size_t>(model.bytes(t).size(), 4096));
        sum = checksum(facts, sizeof facts, chained(t.name, sum));
        sum = checksum(sample.data(), sample.size(), checksum(t.ne.data(), t.ne.size() * sizeof(std::uint64_t), sum));
    }
    return sum;
}

/// How tensors are shared out to files: in their order, a new file when one would have too many bytes.
LOWRANK_API
[[nodiscard]] std::vector<std::vector<tensor_plan>> split_into_files(std::vector<tensor_plan> plans,
                                                                     std::uint64_t most) {
    std::vector<std::vector<tensor_plan>> files(1);
    std::uint64_t bytes = 0;
    for (tensor_plan& p : plans) {
        const auto counted = tensor_bytes(p.name, p.type, p.shape);
        const std::uint64_t own = counted ? *counted : 0;
        if (!files.back().empty() && (own > most || bytes > most - own)) {
            files.emplace_back();
            bytes = 0;
        }
        bytes += own;
        files.back().push_back(std::move(p));
    }
    return files;
}

/// The tensors of a GGUF that are one tensor in transformers.
struct fused_tensor {
    module_match names = {};
    std::vector<const gguf_tensor*> parts = {};
    std::vector<index> rows = {};
};

/// Elements of a part as its type in transformers, rows in the order of transformers.
LOWRANK_API [[nodiscard]] std::span<const std::byte> hf_bytes_of(const gguf_file& model, const fused_tensor& t,
                                                                 std::size_t part, const model_config& config,
                                                                 std::vector<std::byte>& owned) {
    const gguf_tensor& stored = *t.parts[part];
    std::span<const std::byte> bytes = model.bytes(stored);
    if (facts_of(stored.type, model.types()).block != 1) {
        std::uint64_t count = 1;
        for (const std::uint64_t n : stored.ne) {
            count *= n;
        }
        std::vector<float> decoded(static_cast<std::size_t>(count));
        dequantize_ggml(stored.type, bytes, decoded, model.types());
        const auto raw = std::as_bytes(std::span(decoded));
        owned.assign(raw.begin(), raw.end());
        bytes = owned;
    }
    const gguf_part& p = t.names.module->parts[part];
    if (p.is_rotary) {
        owned = rope_rows(bytes, t.rows[part], heads_of(p, config), false);
        bytes = owned;
    }
    return bytes;
}

/// What of a GGUF becomes which tensor of transformers.
LOWRANK_API [[nodiscard]] result<std::map<std::string, fused_tensor>> fused_tensors(const architecture& a,
                                                                                    const model_config& config,
                                                                                    const gguf_file& model,
                                                                                    std::vector<tensor_plan>& plans) {
    std::map<std::string, fused_tensor> out;
    for (const gguf_tensor& t : model.tensors()) {
        auto names = find_gguf_module(a, t.name);
        if (!names || !is_decodable(t.type, model.types())) {
            return status{errc::unsupported, "tensor " + in_quotes(t.name) + " of type " +
                                                 std::string(facts_of(t.type, model.types()).name) +
                                                 " has no name in transformers or no decoder"};
        }
        if (out.contains(names->hf)) {
            continue;  // another part of the same
        }
        fused_tensor fused{.names = std::move(*names)};
        const std::string& hf = fused.names.hf;
        index rows = 0;
        for (const std::string& name : fused.names.gguf) {
            const gguf_tensor* part = model.find(name);
            if (part == nullptr) {
                return status{errc::invalid_format,
                              "tensor " + in_quotes(name) + " is missing, a part of " + in_quotes(hf)};
            }
            const bool is_like_first = part->ne.size() == t.ne.size() && dtype_for(part->type) == dtype_for(t.type) &&
                                       (t.ne.size() < 2 || std::equal(t.ne.begin(), t.ne.end() - 1, part->ne.begin()));
            if (!is_like_first || !is_decodable(part->type, model.types())) {
                return status{errc::mismatch, "tensor " + in_quotes(name) + " does not fit " + in_quotes(t.name) +
                                                  ", another part of " + in_quotes(hf)};
            }
            fused.parts.push_back(part);
            rows += part->ne.empty() ? 1 : static_cast<index>(part->ne.back());
        }
        const auto divided = rows_of_parts(*fused.names.module, config, rows);
        if (!divided) {
            return in_context("tensor " + in_quotes(t.name), divided.error());
        }
        fused.rows = *divided;
        for (std::size_t i = 0; fused.parts.size() > 1 && i < fused.parts.size(); ++i) {
            if (fused.rows[i] != static_cast<index>(fused.parts[i]->ne.back())) {
                return status{errc::mismatch,
                              "the rows of tensor " + in_quotes(fused.parts[i]->name) + " do not fit its heads"};
            }
        }
        tensor_plan plan{hf, dtype_for(t.type), {t.ne.rbegin(), t.ne.rend()}};
        if (!plan.shape.empty()) {
            plan.shape[0] = static_cast<std::uint64_t>(rows);
        }
        plans.push_back(std::move(plan));
        out.emplace(hf, std::move(fused));
    }
    return out;
}

}  // namespace detail

LOWRANK_BODY status write_gguf_model(const std::filesystem::path& path, const std::filesystem::path& from,
                                     const gguf_model_options& opt) {
    const auto config_path = from / "config.json";
    const auto text = mapped_file::open(config_path, {.map = false});
    if (!text) {
        return text.error();
    }
    const auto config = parse_model_config(detail::text_of(text->bytes()), opt.architectures);
    if (!config) {
        return detail::in_file(config_path, config.error());
    }
    const architecture& a = **find_architecture(config->model_type, opt.architectures);
    const auto model = checkpoint::open(from);
    auto shape = detail::shape_entries(a, *config);
    if (!model || !shape) {
        return !model ? model.error() : detail::in_file(config_path, shape.error());
    }
    struct piece {
        const checkpoint::place* from = nullptr;
        index first = 0;  ///< Rows of the tensor.
        index rows = 0;
        index rotary_heads = 0;
    };
    std::vector<gguf_tensor_plan> plans;
    std::vector<piece> pieces;
    index total = 0;
    bool all_same = true;
    for (const checkpoint::place& p : model->tensors()) {
        const tensor_info& t = *p.info;
        const auto names = find_module(a, t.name);
        const auto type = std::find_if(detail::float_types.begin(), detail::float_types.end(),
                                       [&](auto& pair) { return pair.first == t.type; });
        if (!names || type == detail::float_types.end()) {
            return {errc::unsupported,
                    "tensor " + detail::in_quotes(t.name) + " cannot be represented in a GGUF of " + a.name};
        }
        const index all_rows = t.shape.empty() ? 1 : static_cast<index>(t.shape[0]);
        const auto rows = rows_of_parts(*names->module, *config, all_rows);
        if (!rows) {
            return detail::in_context("tensor " + detail::in_quotes(t.name), rows.error());
        }
        index first = 0;
        for (std::size_t i = 0; i < rows->size(); first += (*rows)[i++]) {
            const gguf_part& part = names->module->parts[i];
            plans.push_back({names->gguf[i], type->second, {t.shape.rbegin(), t.shape.rend()}});
            if (!t.shape.empty()) {
                plans.back().ne.back() = static_cast<std::uint64_t>((*rows)[i]);
            }
            pieces.push_back({&p, first, (*rows)[i], part.is_rotary ? heads_of(part, *config) : 0});
        }
        all_same = all_same && type->second == plans.front().type;
        total += static_cast<index>(model->bytes(p).size());
    }
    const std::uint32_t file_type = plans.empty() || plans.front().type == ggml_type::f32 || !all_same ? 0
                                    : plans.front().type == ggml_type::f16                             ? 1
                                                                                                       : 32;
    const std::string name =
        opt.name.empty() ? std::filesystem::absolute(from).lexically_normal().filename().string() : opt.name;
    std::vector<gguf_entry> entries = {{"general.architecture", gguf_value::of(a.gguf)},
                                       {"general.type", gguf_value::of("model")},
                                       {"general.name", gguf_value::of(name.empty() ? "model" : name)},
                                       {"general.file_type", gguf_value::of(file_type)}};
    entries.insert(entries.end(), shape->begin(), shape->end());
    entries.insert(entries.end(), opt.tokenizer.begin(), opt.tokenizer.end());
    entries.push_back({detail::hf_config_key, gguf_value::of(std::string(detail::text_of(text->bytes())))});
    auto file = gguf_writer::create(path, entries, plans, opt.write);
    if (!file) {
        return file.error();
    }
    index done = 0;
    for (std::size_t i = 0; i < pieces.size(); ++i) {
        const piece& p = pieces[i];
        if (!report(opt.on_progress, {.done = done, .total = total, .what = p.from->info->name})) {
            return {errc::cancelled, "the conversion was stopped"};
        }
        const auto all = model->bytes(*p.from);
        const std::size_t width = p.from->info->shape.empty() || p.from->info->shape[0] == 0
                                      ? all.size()
                                      : all.size() / p.from->info->shape[0];
        const auto bytes =
            all.subspan(static_cast<std::size_t>(p.first) * width, static_cast<std::size_t>(p.rows) * width);
        status why =
            p.rotary_heads == 0 ? file->write(bytes) : file->write(rope_rows(bytes, p.rows, p.rotary_heads, true));
        if (!why) {
            return why;
        }
        done += static_cast<index>(bytes.size());
        if (i + 1 == pieces.size() || pieces[i + 1].from != p.from) {
            model->shards()[p.from->shard].file.release(*p.from->info);
        }
    }
    return file->commit();
}

LOWRANK_BODY result<hf_model_report> write_hf_model(const std::filesystem::path& folder, const gguf_file& model,
                                                    const hf_model_options& opt) {
    const auto text = [&](const char* key) -> const std::string* {
        const gguf_value* v = model.value(key);
        return v != nullptr ? v->as_string() : nullptr;
    };
    const std::string* named = text("general.architecture");
    const std::string* type = text("general.type");
    if (named == nullptr || (type != nullptr && *type != "model")) {
        return status{errc::unsupported, "the file is no GGUF of a model; only these are converted"};
    }
    const auto a = find_gguf_architecture(*named, opt.architectures);
    if (!a) {
        return a.error();
    }
    const auto config = detail::config_of_gguf(**a, model);
    if (!config) {
        return config.error();
    }
    std::vector<tensor_plan> plans;
    const auto tensors = detail::fused_tensors(**a, *config, model, plans);
    if (!tensors) {
        return tensors.error();
    }
    hf_model_report out;
    index total = 0;
    for (const gguf_tensor& t : model.tensors()) {
        total += static_cast<index>(t.bytes);
    }
    const std::vector<std::vector<tensor_plan>> files = detail::split_into_files(std::move(plans), opt.file_bytes);
    std::vector<std::string> names = {"model.safetensors"};
    std::map<std::string, std::string> places;
    std::uint64_t bytes_written = 0;
    for (std::size_t i = 0; files.size() > 1 && i < files.size(); ++i) {
        char name[64];
        std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", i + 1, files.size());
        names.resize(i);
        names.emplace_back(name);
        for (const tensor_plan& p : files[i]) {
            places[p.name] = name;
            const auto counted = detail::tensor_bytes(p.name, p.type, p.shape);
            bytes_written += counted ? *counted : 0;
        }
    }
    const auto count_tensor = [&](const detail::fused_tensor& t) {
        const auto is_copy = [&](const gguf_tensor* part) { return facts_of(part->type, model.types()).block == 1; };
        if (std::all_of(t.parts.begin(), t.parts.end(), is_copy)) {
            ++out.copied;
        } else {
            out.decoded.push_back(t.names.hf);
        }
    };
    index done = 0;
    const auto keep = [&](std::size_t i, const detail::json&) {
        for (const tensor_plan& p : files[i]) {
            const auto& t = tensors->at(p.name);
            count_tensor(t);
            for (const gguf_tensor* part : t.parts) {
                done += static_cast<index>(part->bytes);
            }
        }
        return true;
    };
    const auto write = [&](std::size_t i, const std::filesystem::path& to,
                           detail::shard_journal*) -> result<detail::json> {
        auto file = safetensors_writer::create(to, files[i], {{"format", "pt"}}, opt.write);
        if (!file) {
            return file.error();
        }
        for (const tensor_info& planned : file->order()) {
            const auto& t = tensors->at(planned.name);
            count_tensor(t);
            for (std::size_t part = 0; part < t.parts.size(); ++part) {
                if (!report(opt.on_progress, {.done = done, .total = total, .what = t.parts[part]->name})) {
                    return status{errc::cancelled, "the conversion was stopped"};
                }
                std::vector<std::byte> owned;
                if (status wrote = file->write(detail::hf_bytes_of(model, t, part, *config, owned)); !wrote) {
                    return wrote;
                }
                done += static_cast<index>(t.parts[part]->bytes);
            }
        }
        const status wrote = file->commit();
        return wrote ? result<detail::json>(detail::json::object()) : result<detail::json>(wrote);
    };
    std::optional<std::uint64_t> inputs;
    if (opt.resume) {
        const std::uint64_t all[4] = {detail::gguf_checksum(model), opt.file_bytes, LOWRANK_VERSION_MAJOR,
                                      LOWRANK_VERSION_MINOR};
        inputs = checksum(all, sizeof all, 10);
    }
    const auto kept_files = detail::write_files(
        folder, names, files.size() > 1 ? detail::text_of_index(places, bytes_written) : std::string(), inputs,
        opt.write, {.keep = keep, .write = write});
    if (!kept_files) {
        return kept_files.error();
    }
    out.kept_files = *kept_files;
    const std::string* kept = text(detail::hf_config_key);
    const status wrote = write_file(
        folder / "config.json", kept != nullptr ? *kept : *model_config_text(*config, opt.architectures), opt.write);
    return wrote ? result<hf_model_report>(std::move(out)) : result<hf_model_report>(wrote);
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_MODELS_GGUF_MODEL_IPP
