// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_MERGE_CHECKPOINT_HPP
#define LOWRANK_IO_MERGE_CHECKPOINT_HPP

/// \file
/// Merge adapters into a checkpoint of any size, shard by shard, with one tile of one weight in memory.
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
#include <lowrank/core/progress.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/io/atomic_file.hpp>
#include <lowrank/io/checkpoint.hpp>
#include <lowrank/io/detail/merge_plan.hpp>
#include <lowrank/io/detail/peft_names.hpp>
#include <lowrank/io/detail/text.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/io/safetensors.hpp>
#include <lowrank/lora/merge.hpp>

namespace lowrank::inline LOWRANK_ABI {

struct merge_checkpoint_options {
    double strength = 1;                             ///< Factor of the adapter's change; of one adapter only.
    std::size_t tile_bytes = std::size_t{16} << 20;  ///< Of a weight, in memory at a time.
    bool check = false;                              ///< Prove of every tile that unmerging gives back its bits.
    executor exec = {};                              ///< Runs the blocks of a tile.
    progress_callback on_progress = {};              ///< Bytes of tensors; false stops with `cancelled`.
    write_options write = {};
};

/// What became of one weight.
struct merged_weight : merge_audit {
    dtype type = dtype::f32;
    index rank = 0;          ///< Columns of the factors that were added.
    double change_norm = 0;  ///< ||new - old||_F before rounding, of the added product where nothing is scaled.
    double receipt_bits_per_weight = 0;
};

/// What became of the weights the adapters changed.
struct merge_checkpoint_report {
    std::map<std::string, merged_weight> weights = {};
    std::vector<std::string> replaced = {};  ///< Tensors taken whole from the adapter (modules_to_save).
};

namespace detail {

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
    [[nodiscard]] double change_norm() const { return std::sqrt(norm_); }
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

/// ||new - old||_F of two tiles.
template <storage T>
[[nodiscard]] double distance(const row_matrix<T>& a, const row_matrix<T>& b) {
    double sum = 0;
    for (index i = 0; i < a.size(); ++i) {
        const double d = to_double(a.data()[i]) - to_double(b.data()[i]);
        sum += d * d;
    }
    return std::sqrt(sum);
}

/// Writes one changed weight tile by tile. \pre no magnitude is left in the change.
template <storage T>
[[nodiscard]] result<merged_weight> write_merged(safetensors_writer& out, std::span<const std::byte> bytes,
                                                 stored_change change, const merge_checkpoint_options& opt) {
    using S = compute_t<T>;
    resolve_magnitude<T>(bytes, change);
    const index cols = change.right.cols();
    const auto row_bytes = static_cast<std::size_t>(cols) * sizeof(T);
    const auto rows_of_tile =
        static_cast<index>(std::max<std::size_t>(1, opt.tile_bytes / std::max<std::size_t>(row_bytes, 1)));
    const matrix<S> right = change.right.template cast<S>();
    const vector<S> row_scale = change.row_scale.template cast<S>();
    const vector<S> column_scale = change.column_scale.template cast<S>();
    audit_sum audit;
    double receipt_bits = 0;
    for (index first = 0; first < change.left.rows(); first += rows_of_tile) {
        const index rows = std::min(rows_of_tile, change.left.rows() - first);
        row_matrix<T> tile(rows, cols);
        if (tile.size() != 0) {
            std::memcpy(tile.data(), bytes.data() + static_cast<std::size_t>(first) * row_bytes,
                        static_cast<std::size_t>(rows) * row_bytes);
        }
        const row_matrix<T> before = opt.check || change.scales() ? tile : row_matrix<T>();
        const low_rank<S> part{.left = change.left.middleRows(first, rows).template cast<S>(), .right = right};
        merge_options<S> merging;
        merging.exec = opt.exec;
        if (row_scale.size() != 0) {
            merging.row_scale = std::span(row_scale.data() + first, static_cast<std::size_t>(rows));
        }
        merging.column_scale = std::span(column_scale.data(), static_cast<std::size_t>(column_scale.size()));
        const auto receipt = merge(weight_view<T>(tile), part, merging);
        if (!receipt) {
            return receipt.error();
        }
        if (opt.check) {
            row_matrix<T> back = tile;
            status why = unmerge(weight_view<T>(back), *receipt, part, merging);
            if (why && back.size() != 0 &&
                std::memcmp(back.data(), before.data(), static_cast<std::size_t>(rows) * row_bytes) != 0) {
                why = {errc::mismatch, "unmerging did not give back the bits of before"};
            }
            if (!why) {
                return why;
            }
        }
        audit.add(receipt->audit, first, change.scales() ? distance(tile, before) : frobenius_norm(part));
        receipt_bits += receipt->bits_per_weight() * static_cast<double>(tile.size());
        const std::span<const T> merged(tile.data(), static_cast<std::size_t>(tile.size()));
        if (status why = out.write(std::as_bytes(merged)); !why) {
            return why;
        }
    }
    const auto entries = static_cast<double>(std::max<std::uint64_t>(audit.total().entries, 1));
    return merged_weight{audit.total(), dtype_of<T>, right.rows(), audit.change_norm(), receipt_bits / entries};
}

[[nodiscard]] inline result<merged_weight> write_merged(safetensors_writer& out, const tensor_info& t,
                                                        std::span<const std::byte> bytes, const stored_change& change,
                                                        const merge_checkpoint_options& opt) {
    switch (t.type) {
        case dtype::f64: return write_merged<double>(out, bytes, change, opt);
        case dtype::f32: return write_merged<float>(out, bytes, change, opt);
        case dtype::f16: return write_merged<half>(out, bytes, change, opt);
        default: return write_merged<bfloat16>(out, bytes, change, opt);
    }
}

/// One shard of the base written with what the plan changes of it.
[[nodiscard]] inline status write_merged_shard(const checkpoint::shard& shard, const merge_plan& plan,
                                               const std::filesystem::path& to, index& done, index total,
                                               const merge_checkpoint_options& opt, merge_checkpoint_report& report) {
    std::vector<tensor_plan> plans;
    for (const tensor_info& t : shard.file.tensors()) {
        plans.push_back({t.name, t.type, t.shape});
    }
    auto file = safetensors_writer::create(to, std::move(plans), shard.file.metadata(), opt.write);
    if (!file) {
        return file.error();
    }
    for (const tensor_info& planned : file->order()) {
        const tensor_info& t = *shard.file.find(planned.name);
        if (!lowrank::report(opt.on_progress, {.done = done, .total = total, .what = t.name})) {
            return {errc::cancelled, "merging was stopped"};
        }
        const auto bytes = shard.file.bytes(t);
        const auto change = plan.changes.find(t.name);
        const auto replacement = plan.replacements.find(t.name);
        if (change != plan.changes.end()) {
            auto weight = write_merged(*file, t, bytes, change->second, opt);
            if (!weight) {
                return in_context("tensor " + in_quotes(t.name), weight.error());
            }
            report.weights.emplace(t.name, *weight);
        } else if (replacement != plan.replacements.end()) {
            report.replaced.push_back(t.name);
            if (status why = file->write(replacement->second->bytes); !why) {
                return why;
            }
        } else if (status why = file->write(bytes); !why) {
            return why;
        }
        done += static_cast<index>(bytes.size());
        shard.file.release(t);
    }
    return file->commit();
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

/// Writes `base` with the adapters merged into the folder `out`: files, names, types and order as in the base. Adapters
/// of every type that `read_peft` reads; the sum of their changes is rounded once.
///
/// \pre    `out` is not the folder of the base.
/// \return `mismatch` for a module without a weight of its shape, `unsupported` for two adapters of one tensor that is
///         scaled, both before anything is written; `non_finite` as `merge`; `cancelled`; what the writers say. A file
///         appears whole or not at all; the index, written last, makes them a checkpoint.
/// \cost   One pass over the files, two over weights with DoRA; memory for the factors and one tile.
[[nodiscard]] inline result<merge_checkpoint_report> merge_checkpoint(const checkpoint& base,
                                                                      std::span<const adapter_to_merge> adapters,
                                                                      const std::filesystem::path& out,
                                                                      const merge_checkpoint_options& opt = {}) {
    const auto plan = detail::plan_merge(base, adapters);
    if (!plan) {
        return plan.error();
    }
    std::error_code error;
    std::filesystem::create_directories(out, error);
    if (error) {
        return detail::system_failure("cannot create the folder", out, error.value());
    }
    index total = 0;
    for (const checkpoint::place& p : base.tensors()) {
        total += static_cast<index>(base.bytes(p).size());
    }
    merge_checkpoint_report report;
    index done = 0;
    for (const checkpoint::shard& shard : base.shards()) {
        const auto to = out / shard.path.filename();
        if (std::filesystem::equivalent(shard.path, to, error)) {
            return status{errc::unsupported, "the merged checkpoint would replace the base in " +
                                                 detail::path_in_quotes(out) + "; name another folder"};
        }
        if (status why = detail::write_merged_shard(shard, *plan, to, done, total, opt, report); !why) {
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

/// The same for one adapter at `opt.strength`.
[[nodiscard]] inline result<merge_checkpoint_report> merge_checkpoint(const checkpoint& base,
                                                                      const peft_adapter& adapter,
                                                                      const std::filesystem::path& out,
                                                                      const merge_checkpoint_options& opt = {}) {
    const adapter_to_merge one{.adapter = &adapter, .strength = opt.strength};
    return merge_checkpoint(base, std::span(&one, 1), out, opt);
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_MERGE_CHECKPOINT_HPP
