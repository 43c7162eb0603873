// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_MERGE_CHECKPOINT_HPP
#define LOWRANK_IO_MERGE_CHECKPOINT_HPP

/// \file
/// Merge an adapter into a checkpoint of any size, shard by shard, with one tile of one weight in memory.
///
///     auto report = lowrank::merge_checkpoint(*base, *adapter, "merged");
///     if (!report) return log(report.error().message);
///     report->weights.at("model.layers.0.mlp.up_proj.weight").unchanged_fraction();
///
/// The rounding and the audit are those of merge.hpp.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/parallel.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/io/atomic_file.hpp>
#include <lowrank/io/checkpoint.hpp>
#include <lowrank/io/detail/peft_names.hpp>
#include <lowrank/io/detail/text.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/io/safetensors.hpp>
#include <lowrank/lora/merge.hpp>

namespace lowrank::inline LOWRANK_ABI {

struct merge_checkpoint_options {
    double strength = 1;                             ///< Factor of the adapter's change.
    std::size_t tile_bytes = std::size_t{16} << 20;  ///< Of a weight, in memory at a time.
    executor exec = {};                              ///< Runs the blocks of a tile.
    write_options write = {};
};

/// What became of the weights the adapter changed.
struct merge_checkpoint_report {
    std::map<std::string, merge_audit> weights = {};
    std::vector<std::string> replaced = {};  ///< Tensors taken whole from the adapter (modules_to_save).
};

namespace detail {

/// One tensor's change: new = old + left right, in the layout the checkpoint stores.
struct stored_change {
    matrix<float> left;
    matrix<float> right;
};

/// The changes and replacements of an adapter by tensor of the checkpoint, or what does not fit.
struct merge_plan {
    std::map<std::string, stored_change> changes = {};
    std::map<std::string, const tensor_to_write*> replacements = {};
};

[[nodiscard]] inline result<merge_plan> plan_merge(const checkpoint& base, const peft_adapter& adapter,
                                                   double strength) {
    merge_plan out;
    for (const auto* group : {&adapter.modules, &adapter.embeddings}) {
        for (const auto& [module, lora] : *group) {
            const std::string name = module + ".weight";
            const tensor_info* t = base.find(name);
            if (t == nullptr) {
                return status{errc::mismatch, "the checkpoint has no tensor " + in_quotes(name) +
                                                  ", which the adapter changes; is it for this model?"};
            }
            const double scaling = strength * lora_scaling(lora.lora_alpha, lora.rank(), lora.use_rslora);
            const matrix<float> b = static_cast<float>(scaling) * lora.lora_B;
            const bool transposed = group == &adapter.embeddings || adapter.config.fan_in_fan_out;
            stored_change change =
                transposed ? stored_change{lora.lora_A.transpose(), b.transpose()} : stored_change{b, lora.lora_A};
            const auto rows = static_cast<std::uint64_t>(change.left.rows());
            const auto cols = static_cast<std::uint64_t>(change.right.cols());
            if (t->shape != std::vector<std::uint64_t>{rows, cols}) {
                return status{errc::mismatch, "tensor " + in_quotes(name) + " has shape " + shape_in_words(t->shape) +
                                                  ", the adapter is for [" + std::to_string(rows) + ", " +
                                                  std::to_string(cols) + "]"};
            }
            if (!is_real(t->type)) {
                return not_real(*t);
            }
            out.changes.emplace(name, std::move(change));
        }
    }
    for (const tensor_to_write& e : adapter.extra) {
        std::string name = e.name.starts_with(peft_prefix) ? e.name.substr(peft_prefix.size()) : e.name;
        constexpr std::string_view inner = ".base_layer.";
        if (const std::size_t at = name.rfind(inner); at != std::string::npos) {
            name.replace(at, inner.size(), ".");
        }
        const tensor_info* t = base.find(name);
        if (t == nullptr || t->type != e.type || t->shape != e.shape) {
            return status{errc::mismatch,
                          "tensor " + in_quotes(e.name) +
                              " of the adapter replaces one of the base, but the checkpoint has none of "
                              "that name, type and shape"};
        }
        out.replacements.emplace(std::move(name), &e);
    }
    return out;
}

/// Adds up the audits of the tiles of one weight.
class audit_sum {
public:
    void add(const merge_audit& tile, index first_row, double change_norm) {
        sum_.entries += tile.entries;
        sum_.touched += tile.touched;
        sum_.unchanged += tile.unchanged;
        error_ += std::pow(tile.relative_error * change_norm, 2);
        norm_ += change_norm * change_norm;
        if (tile.worst_error > sum_.worst_error) {
            sum_.worst_error = tile.worst_error;
            sum_.worst_row = first_row + tile.worst_row;
            sum_.worst_col = tile.worst_col;
        }
    }
    [[nodiscard]] merge_audit total() const {
        merge_audit out = sum_;
        out.relative_error = norm_ > 0 ? std::sqrt(error_ / norm_) : 0;
        return out;
    }

private:
    merge_audit sum_ = {};
    double error_ = 0;
    double norm_ = 0;
};

/// Writes one changed weight tile by tile.
template <storage T>
[[nodiscard]] result<merge_audit> write_merged(safetensors_writer& out, std::span<const std::byte> bytes,
                                               const stored_change& change, const merge_checkpoint_options& opt) {
    using S = compute_t<T>;
    const index cols = change.right.cols();
    const auto row_bytes = static_cast<std::size_t>(cols) * sizeof(T);
    const auto rows_of_tile =
        static_cast<index>(std::max<std::size_t>(1, opt.tile_bytes / std::max<std::size_t>(row_bytes, 1)));
    const matrix<S> right = change.right.template cast<S>();
    audit_sum audit;
    for (index first = 0; first < change.left.rows(); first += rows_of_tile) {
        const index rows = std::min(rows_of_tile, change.left.rows() - first);
        row_matrix<T> tile(rows, cols);
        if (tile.size() != 0) {
            std::memcpy(tile.data(), bytes.data() + static_cast<std::size_t>(first) * row_bytes,
                        static_cast<std::size_t>(rows) * row_bytes);
        }
        const low_rank<S> part{.left = change.left.middleRows(first, rows).template cast<S>(), .right = right};
        merge_options<S> merging;
        merging.exec = opt.exec;
        const auto receipt = merge(weight_view<T>(tile), part, merging);
        if (!receipt) {
            return receipt.error();
        }
        audit.add(receipt->audit, first, frobenius_norm(part));
        const std::span<const T> merged(tile.data(), static_cast<std::size_t>(tile.size()));
        if (status why = out.write(std::as_bytes(merged)); !why) {
            return why;
        }
    }
    return audit.total();
}

[[nodiscard]] inline result<merge_audit> write_merged(safetensors_writer& out, const tensor_info& t,
                                                      std::span<const std::byte> bytes, const stored_change& change,
                                                      const merge_checkpoint_options& opt) {
    switch (t.type) {
        case dtype::f64: return write_merged<double>(out, bytes, change, opt);
        case dtype::f32: return write_merged<float>(out, bytes, change, opt);
        case dtype::f16: return write_merged<half>(out, bytes, change, opt);
        default: return write_merged<bfloat16>(out, bytes, change, opt);
    }
}

/// The text of an index for files written under the names of `base`'s shards.
[[nodiscard]] inline std::string index_text(const checkpoint& base) {
    std::uint64_t total = 0;
    std::string map;
    for (const checkpoint::place& p : base.tensors()) {
        total += p.info->end - p.info->begin;
        map += map.empty() ? "\n    " : ",\n    ";
        append_json_string(map, p.info->name);
        map += ": ";
        append_json_string(map, base.shards()[p.shard].path.filename().string());
    }
    return "{\n  \"metadata\": {\n    \"total_size\": " + std::to_string(total) + "\n  },\n  \"weight_map\": {" + map +
           "\n  }\n}\n";
}

}  // namespace detail

/// Writes `base` with the adapter merged into the folder `out`: files, names, types and order as in the base.
///
/// \pre    `out` is not the folder of the base.
/// \return `mismatch` for a module without a weight of its shape, before anything is written; `non_finite` as `merge`;
///         what the writers say. A file appears whole or not at all; the index, written last, makes them a checkpoint.
/// \cost   One pass over the files; memory for the factors and one tile.
[[nodiscard]] inline result<merge_checkpoint_report> merge_checkpoint(const checkpoint& base,
                                                                      const peft_adapter& adapter,
                                                                      const std::filesystem::path& out,
                                                                      const merge_checkpoint_options& opt = {}) {
    const auto plan = detail::plan_merge(base, adapter, opt.strength);
    if (!plan) {
        return plan.error();
    }
    std::error_code error;
    std::filesystem::create_directories(out, error);
    if (error) {
        return detail::system_failure("cannot create the folder", out, error.value());
    }
    merge_checkpoint_report report;
    for (const checkpoint::shard& shard : base.shards()) {
        if (std::filesystem::equivalent(shard.path, out / shard.path.filename(), error)) {
            return status{errc::unsupported, "the merged checkpoint would replace the base in " +
                                                 detail::path_in_quotes(out) + "; name another folder"};
        }
        std::vector<tensor_plan> plans;
        for (const tensor_info& t : shard.file.tensors()) {
            plans.push_back({t.name, t.type, t.shape});
        }
        auto file =
            safetensors_writer::create(out / shard.path.filename(), std::move(plans), shard.file.metadata(), opt.write);
        if (!file) {
            return file.error();
        }
        for (const tensor_info& planned : file->order()) {
            const tensor_info& t = *shard.file.find(planned.name);
            const auto bytes = shard.file.bytes(t);
            const auto change = plan->changes.find(t.name);
            const auto replacement = plan->replacements.find(t.name);
            if (change != plan->changes.end()) {
                auto audit = detail::write_merged(*file, t, bytes, change->second, opt);
                if (!audit) {
                    return detail::in_context("tensor " + detail::in_quotes(t.name), audit.error());
                }
                report.weights.emplace(t.name, *audit);
            } else if (replacement != plan->replacements.end()) {
                report.replaced.push_back(t.name);
                if (status why = file->write(replacement->second->bytes); !why) {
                    return why;
                }
            } else if (status why = file->write(bytes); !why) {
                return why;
            }
            shard.file.release(t);
        }
        if (status why = file->commit(); !why) {
            return why;
        }
    }
    if (base.shards().size() > 1) {
        if (status why = write_file(out / "model.safetensors.index.json", detail::index_text(base), opt.write); !why) {
            return why;
        }
    }
    return report;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_MERGE_CHECKPOINT_HPP
