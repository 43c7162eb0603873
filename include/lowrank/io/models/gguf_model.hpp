// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_MODELS_GGUF_MODEL_HPP
#define LOWRANK_IO_MODELS_GGUF_MODEL_HPP

/// \file
/// A Llama model between a transformers folder and GGUF, tensor by tensor, floats bit for bit.
///
///     auto why = lowrank::write_gguf_model("model.gguf", "Llama-folder", {.tokenizer = entries});
///     auto report = lowrank::write_hf_model("folder", *lowrank::gguf_file::open("model-Q4_K_M.gguf"));
///
/// Names and the order of rows of q and k change, numbers do not; quantized tensors come out as F32. The config.json
/// travels along as the key `lowrank.hf_config`, so that the way back gives the same text.
/// Keys as ggml-org/llama.cpp writes them for LlamaForCausalLM.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/progress.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/checkpoints/detail/shard_journal.hpp>
#include <lowrank/io/checkpoints/detail/shard_loop.hpp>
#include <lowrank/io/containers/atomic_file.hpp>
#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/containers/detail/json.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/containers/gguf.hpp>
#include <lowrank/io/containers/gguf_writer.hpp>
#include <lowrank/io/containers/mapped_file.hpp>
#include <lowrank/io/containers/safetensors_writer.hpp>
#include <lowrank/io/models/llama_names.hpp>

namespace lowrank::inline LOWRANK_ABI {

struct gguf_model_options {
    std::string name = {};                   ///< general.name; empty: that of the folder.
    std::vector<gguf_entry> tokenizer = {};  ///< The tokenizer.ggml.* keys, without which llama.cpp loads no model.
    progress_callback on_progress = {};      ///< Bytes of tensors; false stops with `cancelled`.
    write_options write = {};
};

namespace detail {

inline constexpr const char* hf_config_key = "lowrank.hf_config";

[[nodiscard]] inline std::optional<ggml_type> ggml_type_of(dtype type) noexcept {
    switch (type) {
        case dtype::f32: return ggml_type::f32;
        case dtype::f16: return ggml_type::f16;
        case dtype::bf16: return ggml_type::bf16;
        case dtype::f64: return ggml_type::f64;
        default: return std::nullopt;
    }
}
[[nodiscard]] inline dtype dtype_for(ggml_type type) noexcept {
    switch (type) {
        case ggml_type::f16: return dtype::f16;
        case ggml_type::bf16: return dtype::bf16;
        case ggml_type::f64: return dtype::f64;
        default: return dtype::f32;
    }
}

/// The rows of `bytes` in the other order of rotary heads. \pre whole rows.
template <class = on_use>
[[nodiscard]] std::vector<std::byte> permuted_rows(std::span<const std::byte> bytes, index rows, index heads,
                                                   bool to_gguf) {
    std::vector<std::byte> out(bytes.size());
    const std::size_t width = rows == 0 ? 0 : bytes.size() / static_cast<std::size_t>(rows);
    const index head = rows / heads;
    for (index row = 0; row < rows; ++row) {
        const index h = row / head;
        const index p = (row % head) / (head / 2);
        const index i = (row % head) % (head / 2);
        const index other = h * head + 2 * i + p;  // `row` in transformers is `other` in GGUF
        const auto from = static_cast<std::size_t>(to_gguf ? row : other);
        const auto to = static_cast<std::size_t>(to_gguf ? other : row);
        std::memcpy(out.data() + to * width, bytes.data() + from * width, width);
    }
    return out;
}

/// The keys of a Llama model's shape.
template <class = on_use>
[[nodiscard]] result<std::vector<gguf_entry>> llama_entries(const json& config) {
    std::vector<gguf_entry> out;
    status why;
    const auto number = [&](const char* key, double otherwise) {
        const auto at = config.find(key);
        if (at == config.end() || at->is_null()) {
            return otherwise;
        }
        if (!at->is_number() || !(at->get<double>() >= 0) || at->get<double>() > 4e9) {
            why = {errc::invalid_format, std::string(key) + " of config.json must be a number that is not negative"};
            return otherwise;
        }
        return at->get<double>();
    };
    const double width = number("hidden_size", 0);
    const double heads = number("num_attention_heads", 0);
    const double head = number("head_dim", heads > 0 ? std::floor(width / heads) : 0);
    const std::pair<const char*, double> counts[] = {
        {"llama.vocab_size", number("vocab_size", 0)},
        {"llama.context_length", number("max_position_embeddings", 2048)},
        {"llama.embedding_length", width},
        {"llama.block_count", number("num_hidden_layers", 0)},
        {"llama.feed_forward_length", number("intermediate_size", 0)},
        {"llama.attention.head_count", heads},
        {"llama.attention.head_count_kv", number("num_key_value_heads", heads)},
        {"llama.rope.dimension_count", head},
    };
    for (const auto& [key, value] : counts) {
        out.push_back({key, gguf_value::of(static_cast<std::uint32_t>(value))});
    }
    out.push_back(
        {"llama.attention.layer_norm_rms_epsilon", gguf_value::of(static_cast<float>(number("rms_norm_eps", 1e-6)))});
    out.push_back({"llama.rope.freq_base", gguf_value::of(static_cast<float>(number("rope_theta", 10000)))});
    for (const char* key : {"rope_scaling", "quantization_config"}) {
        if (const auto at = config.find(key); at != config.end() && !at->is_null()) {
            why = {errc::unsupported, std::string(key) + " of config.json is set, which is not converted"};
        }
    }
    return why ? result<std::vector<gguf_entry>>(std::move(out)) : result<std::vector<gguf_entry>>(why);
}

}  // namespace detail

/// Writes a GGUF of the transformers folder `from` (config.json, model.safetensors or shards).
///
/// \return `unsupported` for another architecture, a tensor without a GGUF name, integer tensors; `mismatch` if rows do
///         not fit the heads; `cancelled`; what the readers and the writer say. The file appears whole or not at all.
/// \cost   One pass; one q or k projection in memory.
template <class = on_use>
[[nodiscard]] status write_gguf_model(const std::filesystem::path& path, const std::filesystem::path& from,
                                      const gguf_model_options& opt = {}) {
    const auto config_path = from / "config.json";
    const auto text = mapped_file::open(config_path, {.map = false});
    if (!text) {
        return text.error();
    }
    const auto config = detail::read_json(text->bytes());
    if (!config) {
        return detail::in_file(config_path, config.error());
    }
    if (!config->is_object() || config->value("model_type", detail::json()) != "llama") {
        return detail::in_file(config_path,
                               {errc::unsupported, "model_type is not \"llama\"; only Llama is converted"});
    }
    const auto layout = read_llama_layout(config_path);
    const auto model = checkpoint::open(from);
    auto shape = detail::llama_entries(*config);
    if (!layout || !model || !shape) {
        return !layout ? layout.error() : !model ? model.error() : detail::in_file(config_path, shape.error());
    }
    std::vector<gguf_tensor_plan> plans;
    index total = 0;
    bool all_same = true;
    for (const checkpoint::place& p : model->tensors()) {
        const tensor_info& t = *p.info;
        const auto name = gguf_name(t.name);
        const auto type = detail::ggml_type_of(t.type);
        if (!name || !type) {
            return {errc::unsupported,
                    "tensor " + detail::in_quotes(t.name) + " has no place in a GGUF of a Llama model"};
        }
        const index heads = rope_heads_of(*name, *layout);
        if (heads != 0 && (t.shape.empty() || t.shape[0] % static_cast<std::uint64_t>(2 * heads) != 0)) {
            return {errc::mismatch,
                    "the rows of tensor " + detail::in_quotes(t.name) + " are not a multiple of twice its heads"};
        }
        plans.push_back({*name, *type, {t.shape.rbegin(), t.shape.rend()}});
        all_same = all_same && *type == plans.front().type;
        total += static_cast<index>(model->bytes(p).size());
    }
    const std::uint32_t file_type = plans.empty() || plans.front().type == ggml_type::f32 || !all_same ? 0
                                    : plans.front().type == ggml_type::f16                             ? 1
                                                                                                       : 32;
    const std::string name =
        opt.name.empty() ? std::filesystem::absolute(from).lexically_normal().filename().string() : opt.name;
    std::vector<gguf_entry> entries = {{"general.architecture", gguf_value::of("llama")},
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
    for (std::size_t i = 0; i < plans.size(); ++i) {
        const checkpoint::place& p = model->tensors()[i];
        if (!report(opt.on_progress, {.done = done, .total = total, .what = p.info->name})) {
            return {errc::cancelled, "the conversion was stopped"};
        }
        const auto bytes = model->bytes(p);
        const index heads = rope_heads_of(plans[i].name, *layout);
        status why = heads == 0
                         ? file->write(bytes)
                         : file->write(detail::permuted_rows(bytes, static_cast<index>(p.info->shape[0]), heads, true));
        if (!why) {
            return why;
        }
        done += static_cast<index>(bytes.size());
        model->shards()[p.shard].file.release(*p.info);
    }
    return file->commit();
}

struct hf_model_options {
    std::uint64_t file_bytes = 5'000'000'000;  ///< Of tensors; more become several files and an index.
    bool resume = false;  ///< Keep a journal in the folder, and go on where one says that an earlier call stopped.
    progress_callback on_progress = {};  ///< Bytes of tensors; false stops with `cancelled`.
    write_options write = {};
};

/// What became of the tensors.
struct hf_model_report {
    std::size_t copied = 0;                 ///< Bit for bit.
    std::vector<std::string> decoded = {};  ///< Quantized ones, now F32.
    index kept_files = 0;                   ///< Files an earlier call had finished.
};

namespace detail {

/// Of names, types, places and samples of a file's tensors.
template <class = on_use>
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
template <class = on_use>
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

}  // namespace detail

/// Writes model.safetensors, or several files and their index, and config.json of a GGUF Llama model into `folder`.
///
/// \return `unsupported` for another architecture, a tensor without a name in transformers (as rope_freqs) or a type
///         without a decoder; `invalid_format` if a key of the model's shape is missing; `cancelled`; what the writer
///         says. With `resume`, `mismatch` if the folder's journal is of another file or other options.
/// \cost   One pass; one decoded tensor in memory.
template <class = on_use>
[[nodiscard]] result<hf_model_report> write_hf_model(const std::filesystem::path& folder, const gguf_file& model,
                                                     const hf_model_options& opt = {}) {
    const auto text = [&](const char* key) -> const std::string* {
        const gguf_value* v = model.value(key);
        return v != nullptr ? v->as_string() : nullptr;
    };
    const std::string* architecture = text("general.architecture");
    const std::string* type = text("general.type");
    if (architecture == nullptr || *architecture != "llama" || (type != nullptr && *type != "model")) {
        return status{errc::unsupported, "the file is no GGUF of a Llama model; only these are converted"};
    }
    status why;
    const auto count = [&](const char* key, std::optional<std::uint64_t> otherwise) -> std::uint64_t {
        const gguf_value* v = model.value(key);
        const auto n = v != nullptr ? v->as_count() : otherwise;
        if ((!n || *n > (1U << 30)) && why) {
            why = {errc::invalid_format, std::string("the key ") + key + " must be there and be a count"};
        }
        return n.value_or(0);
    };
    const auto real_number = [&](const char* key, float otherwise) {
        const gguf_value* v = model.value(key);
        return static_cast<double>(v != nullptr ? v->as_f32().value_or(otherwise) : otherwise);
    };
    const std::uint64_t heads = count("llama.attention.head_count", std::nullopt);
    const llama_layout layout{.n_head = static_cast<index>(heads),
                              .n_head_kv = static_cast<index>(count("llama.attention.head_count_kv", heads)),
                              .tied = model.find("output.weight") == nullptr};
    const gguf_tensor* table = model.find("token_embd.weight");
    detail::json config = {
        {"architectures", {"LlamaForCausalLM"}},
        {"model_type", "llama"},
        {"hidden_act", "silu"},
        {"hidden_size", count("llama.embedding_length", std::nullopt)},
        {"intermediate_size", count("llama.feed_forward_length", std::nullopt)},
        {"num_hidden_layers", count("llama.block_count", std::nullopt)},
        {"num_attention_heads", heads},
        {"num_key_value_heads", layout.n_head_kv},
        {"head_dim", count("llama.rope.dimension_count",
                           heads != 0 ? count("llama.embedding_length", 0) / std::max<std::uint64_t>(heads, 1) : 0)},
        {"vocab_size", count("llama.vocab_size", table != nullptr && table->ne.size() == 2 ? table->ne[1] : 0)},
        {"max_position_embeddings", count("llama.context_length", 2048)},
        {"rms_norm_eps", real_number("llama.attention.layer_norm_rms_epsilon", 1e-6F)},
        {"rope_theta", real_number("llama.rope.freq_base", 10000)},
        {"tie_word_embeddings", layout.tied},
        {"torch_dtype", "float32"}};
    if (!why) {
        return why;
    }
    if (layout.n_head < 1 || layout.n_head_kv < 1) {
        return status{errc::invalid_format, "llama.attention.head_count must be positive"};
    }
    std::vector<tensor_plan> plans;
    hf_model_report out;
    index total = 0;
    for (const gguf_tensor& t : model.tensors()) {
        const auto name = hf_name(t.name);
        if (!name || !is_decodable(t.type)) {
            return status{errc::unsupported, "tensor " + detail::in_quotes(t.name) + " of type " +
                                                 std::string(facts_of(t.type).name) +
                                                 " has no name in transformers or no decoder"};
        }
        const index h = rope_heads_of(t.name, layout);
        if (h != 0 && (t.ne.empty() || t.ne.back() % static_cast<std::uint64_t>(2 * h) != 0)) {
            return status{errc::mismatch,
                          "the rows of tensor " + detail::in_quotes(t.name) + " are not a multiple of twice its heads"};
        }
        plans.push_back({*name, detail::dtype_for(t.type), {t.ne.rbegin(), t.ne.rend()}});
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
    const auto is_copy = [](const gguf_tensor& t) { return facts_of(t.type).block == 1; };
    const auto count_tensor = [&](const gguf_tensor& t, const std::string& name) {
        if (is_copy(t)) {
            ++out.copied;
        } else {
            out.decoded.push_back(name);
        }
    };
    index done = 0;
    const auto keep = [&](std::size_t i, const detail::json&) {
        for (const tensor_plan& p : files[i]) {
            const gguf_tensor& t = *model.find(*gguf_name(p.name));
            count_tensor(t, p.name);
            done += static_cast<index>(t.bytes);
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
            const std::string name = *gguf_name(planned.name);
            const gguf_tensor& t = *model.find(name);
            if (!report(opt.on_progress, {.done = done, .total = total, .what = name})) {
                return status{errc::cancelled, "the conversion was stopped"};
            }
            std::vector<std::byte> owned;
            std::span<const std::byte> bytes = model.bytes(t);
            if (!is_copy(t)) {
                owned.resize(static_cast<std::size_t>(planned.end - planned.begin));
                std::vector<float> decoded(owned.size() / sizeof(float));
                dequantize_ggml(t.type, bytes, decoded);
                std::memcpy(owned.data(), decoded.data(), owned.size());
                bytes = owned;
            }
            count_tensor(t, planned.name);
            if (const index h = rope_heads_of(name, layout); h != 0) {
                owned = detail::permuted_rows(bytes, static_cast<index>(t.ne.back()), h, false);
                bytes = owned;
            }
            if (status wrote = file->write(bytes); !wrote) {
                return wrote;
            }
            done += static_cast<index>(t.bytes);
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
    status wrote = write_file(
        folder / "config.json",
        kept != nullptr ? *kept : config.dump(2, ' ', true, detail::json::error_handler_t::replace), opt.write);
    return wrote ? result<hf_model_report>(std::move(out)) : result<hf_model_report>(wrote);
}

/// The functions of this header that are worth compiling once, for io/instantiate.hpp.
#define LOWRANK_IO_GGUF_MODEL(way)                                                                              \
    way template status write_gguf_model<on_use>(const std::filesystem::path&, const std::filesystem::path&,    \
                                                 const gguf_model_options&);                                    \
    way template result<hf_model_report> write_hf_model<on_use>(const std::filesystem::path&, const gguf_file&, \
                                                                const hf_model_options&);
#ifdef LOWRANK_EXTERN_IO
LOWRANK_IO_GGUF_MODEL(extern)
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_MODELS_GGUF_MODEL_HPP
