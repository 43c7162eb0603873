// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_QUANTIZED_DEQUANTIZE_CHECKPOINT_IPP
#define LOWRANK_IO_QUANTIZED_DEQUANTIZE_CHECKPOINT_IPP

#include <lowrank/io/quantized/dequantize_checkpoint.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <set>
#include <span>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/checksum.hpp>
#include <lowrank/io/checkpoints/detail/shard_journal.hpp>
#include <lowrank/io/checkpoints/detail/shard_loop.hpp>
#include <lowrank/io/containers/detail/json.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/containers/safetensors_writer.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// Rounds some decoded rows and sums what that loses.
template <storage T>
struct rounded_piece {
    std::vector<float> decoded = {};
    std::vector<T> rounded = {};
    double error = 0;
    double norm = 0;
    std::uint64_t not_finite = 0;
    std::uint64_t too_large = 0;

    void make(const quantized_weight& w, index first, index count) {
        decoded.resize(static_cast<std::size_t>(count * w.cols()));
        rounded.resize(decoded.size());
        w.decode(first, count, decoded.data());
        error = norm = 0;
        not_finite = too_large = 0;
        for (std::size_t i = 0; i < decoded.size(); ++i) {
            rounded[i] = static_cast<T>(decoded[i]);
            const auto x = static_cast<double>(decoded[i]);
            const auto y = static_cast<double>(static_cast<float>(rounded[i]));
            if (!std::isfinite(x)) {
                ++not_finite;
            } else if (!std::isfinite(y)) {
                ++too_large;
            } else {
                error += (y - x) * (y - x);
                norm += x * x;
            }
        }
    }
};

template <storage T>
[[nodiscard]] result<dequantized_weight> write_decoded(safetensors_writer& file, const quantized_weight& w,
                                                       const dequantize_options& opt) {
    constexpr index pieces_at_once = 8;
    const auto row_bytes = std::max<std::size_t>(1, static_cast<std::size_t>(w.cols()) * sizeof(float));
    const auto step = static_cast<index>(
        std::max<std::size_t>(1, opt.tile_bytes / static_cast<std::size_t>(pieces_at_once) / row_bytes));
    std::vector<rounded_piece<T>> pieces(static_cast<std::size_t>(pieces_at_once));
    dequantized_weight out{.scheme = w.scheme, .shape = w.shape};
    double norm = 0;
    double error = 0;
    for (index first = 0; first < w.rows(); first += step * pieces_at_once) {
        const index now = std::min(pieces_at_once, (w.rows() - first + step - 1) / step);
        parallel_for(opt.exec, now, [&](index i) {
            const index begin = first + i * step;
            pieces[static_cast<std::size_t>(i)].make(w, begin, std::min(step, w.rows() - begin));
        });
        for (index i = 0; i < now; ++i) {
            const auto& piece = pieces[static_cast<std::size_t>(i)];
            if (piece.too_large != 0) {
                return status{errc::unsupported, std::to_string(piece.too_large) +
                                                     " of its numbers are beyond the range of " +
                                                     std::string(name_of(dtype_of<T>)) + "; decode to BF16 or F32"};
            }
            error += piece.error;
            norm += piece.norm;
            out.not_finite += piece.not_finite;
            if (status why = file.write(std::as_bytes(std::span(piece.rounded))); !why) {
                return why;
            }
        }
    }
    out.relative_error = norm > 0 ? std::sqrt(error / norm) : 0;
    return out;
}

LOWRANK_INLINE [[nodiscard]] result<dequantized_weight> write_decoded(safetensors_writer& file,
                                                                      const quantized_weight& w,
                                                                      const dequantize_options& opt) {
    switch (opt.type) {
        case dtype::f32: return write_decoded<float>(file, w, opt);
        case dtype::f16: return write_decoded<half>(file, w, opt);
        default: return write_decoded<bfloat16>(file, w, opt);
    }
}

/// The facts of a file for the journal, and back.
LOWRANK_INLINE [[nodiscard]] json facts_of(const std::map<std::string, dequantized_weight>& weights) {
    json out = json::object();
    for (const auto& [name, w] : weights) {
        out[name] = {w.scheme, w.shape, w.relative_error, w.not_finite};
    }
    return out;
}
LOWRANK_INLINE [[nodiscard]] bool add_facts(const json& facts, std::map<std::string, dequantized_weight>& weights) {
    if (!facts.is_object()) {
        return false;
    }
    std::map<std::string, dequantized_weight> read;
    for (const auto& [name, w] : facts.items()) {
        if (!w.is_array() || w.size() != 4 || !w[0].is_string() || !w[1].is_array() || !w[2].is_number() ||
            !w[3].is_number_unsigned() ||
            !std::all_of(w[1].begin(), w[1].end(), [](const json& n) { return n.is_number_unsigned(); })) {
            return false;
        }
        read[name] = {w[0].template get<std::string>(), w[1].template get<std::vector<std::uint64_t>>(),
                      w[2].template get<double>(), w[3].template get<std::uint64_t>()};
    }
    weights.merge(read);
    return true;
}

/// What becomes of the tensors of a quantized checkpoint.
struct dequantize_plan {
    std::map<std::string, const quantized_weight*> by_codes = {};  ///< By the tensor with the codes.
    std::map<std::string, const quantized_weight*> by_name = {};
    std::set<std::string> dropped = {};  ///< All parts.

    explicit dequantize_plan(const std::vector<quantized_weight>& weights) {
        for (const quantized_weight& w : weights) {
            by_codes.emplace(w.parts.front(), &w);
            by_name.emplace(w.name, &w);
            dropped.insert(w.parts.begin(), w.parts.end());
        }
    }

    /// The tensors that a file of the base becomes.
    [[nodiscard]] std::vector<tensor_plan> tensors_of(const safetensors_file& file, dtype type) const {
        std::vector<tensor_plan> out;
        for (const tensor_info& t : file.tensors()) {
            if (const auto w = by_codes.find(t.name); w != by_codes.end()) {
                out.push_back({w->second->name, type, w->second->shape});
            } else if (!dropped.contains(t.name)) {
                out.push_back({t.name, t.type, t.shape});
            }
        }
        return out;
    }
};

}  // namespace detail

LOWRANK_BODY result<dequantize_report> dequantize_checkpoint(const checkpoint& base, const std::filesystem::path& out,
                                                             const dequantize_options& opt) {
    detail::expects(opt.type == dtype::f32 || opt.type == dtype::f16 || opt.type == dtype::bf16,
                    "dequantize_checkpoint: the type must be F32, F16 or BF16");
    const auto weights = quantized_weights(base);
    if (!weights) {
        return weights.error();
    }
    if (weights->empty()) {
        return status{errc::not_found, "all weights of the checkpoint are floats; there is nothing to decode"};
    }
    const auto names = detail::shard_names(base, out);
    if (!names) {
        return names.error();
    }
    const detail::dequantize_plan plan(*weights);
    std::map<std::string, std::string> files;
    std::uint64_t bytes = 0;
    for (std::size_t i = 0; i < names->size(); ++i) {
        for (const tensor_plan& t : plan.tensors_of(base.shards()[i].file, opt.type)) {
            const auto size = detail::tensor_bytes(t.name, t.type, t.shape);
            if (!size) {
                return size.error();
            }
            bytes += *size;
            files[t.name] = (*names)[i];
        }
    }
    dequantize_report report;
    const index total = detail::bytes_of(base);
    index done = 0;
    const auto keep = [&](std::size_t i, const detail::json& facts) {
        const bool kept = detail::add_facts(facts, report.weights);
        done += kept ? detail::bytes_of(base.shards()[i].file) : 0;
        return kept;
    };
    const auto write = [&](std::size_t i, const std::filesystem::path& to,
                           detail::shard_journal*) -> result<detail::json> {
        const safetensors_file& from = base.shards()[i].file;
        auto file = safetensors_writer::create(to, plan.tensors_of(from, opt.type), from.metadata(), opt.write);
        if (!file) {
            return file.error();
        }
        std::map<std::string, dequantized_weight> decoded;
        for (const tensor_info& planned : file->order()) {
            const auto w = plan.by_name.find(planned.name);
            const bool is_decoded = w != plan.by_name.end();
            const tensor_info& t = *from.find(is_decoded ? w->second->parts.front() : planned.name);
            if (!lowrank::report(opt.on_progress, {.done = done, .total = total, .what = planned.name})) {
                return status{errc::cancelled, "decoding was stopped"};
            }
            if (is_decoded) {
                auto rounded = detail::write_decoded(*file, *w->second, opt);
                if (!rounded) {
                    return detail::in_context("weight " + detail::in_quotes(planned.name), rounded.error());
                }
                decoded.emplace(planned.name, std::move(*rounded));
            } else if (status why = file->write(from.bytes(t)); !why) {
                return why;
            }
            done += static_cast<index>(t.end - t.begin);
            from.release(t);
        }
        if (status why = file->commit(); !why) {
            return why;
        }
        auto facts = detail::facts_of(decoded);
        report.weights.merge(decoded);
        return facts;
    };
    std::optional<std::uint64_t> inputs;
    if (opt.resume) {
        const std::uint64_t all[4] = {detail::checkpoint_checksum(base), static_cast<std::uint64_t>(opt.type),
                                      LOWRANK_VERSION_MAJOR, LOWRANK_VERSION_MINOR};
        inputs = checksum(all, sizeof all, 7);
    }
    const auto kept = detail::write_files(out, *names, names->size() > 1 ? detail::text_of_index(files, bytes) : "",
                                          inputs, opt.write, {.keep = keep, .write = write});
    if (!kept) {
        return kept.error();
    }
    report.kept_files = *kept;
    return report;
}

LOWRANK_BODY result<std::string> dequantized_config(std::string_view text, dtype type) {
    auto document = detail::read_json(std::as_bytes(std::span(text.data(), text.size())));
    if (!document) {
        return document.error();
    }
    if (!document->is_object()) {
        return status{errc::invalid_format, "the configuration is no JSON object"};
    }
    const char* name = type == dtype::f32 ? "float32" : type == dtype::f16 ? "float16" : "bfloat16";
    const auto clear = [name](detail::json& from) {
        from.erase("quantization_config");
        from.erase("compression_config");
        for (const char* key : {"torch_dtype", "dtype"}) {
            if (from.contains(key)) {
                from[key] = name;
            }
        }
    };
    clear(*document);
    if (const auto text_config = document->find("text_config");
        text_config != document->end() && text_config->is_object()) {
        clear(*text_config);
    }
    if (!document->contains("dtype") && !document->contains("torch_dtype")) {
        (*document)["torch_dtype"] = name;
    }
    return document->dump(2) + "\n";
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_QUANTIZED_DEQUANTIZE_CHECKPOINT_IPP
