// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CHECKPOINTS_MERGE_CHECKPOINT_IPP
#define LOWRANK_IO_CHECKPOINTS_MERGE_CHECKPOINT_IPP

#include <lowrank/io/checkpoints/merge_checkpoint.hpp>

#include <lowrank/io/checkpoints/detail/merge_plan.hpp>
#include <lowrank/io/checkpoints/detail/merge_rows.hpp>
#include <lowrank/io/checkpoints/detail/merge_tiles.hpp>
#include <lowrank/io/checkpoints/detail/planned_tensor.hpp>
#include <lowrank/io/checkpoints/detail/shard_journal.hpp>
#include <lowrank/io/checkpoints/detail/shard_loop.hpp>
#include <lowrank/io/containers/detail/json.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/peft/detail/peft_reader.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// Of what a transform makes of one row, whatever options it was made with.
LOWRANK_API [[nodiscard]] std::uint64_t checksum_of_first_row(const stored_change& c, std::uint64_t sum) {
    const index length = c.acts_on_transpose ? c.left.rows() : c.right.cols();
    const index rows = c.acts_on_transpose ? c.right.cols() : c.left.rows();
    if (length == 0 || rows == 0 || !c.rows->fits(rows, length)) {
        return sum;
    }
    matrix<double> row(length, 1);
    for (index i = 0; i < length; ++i) {
        row(i, 0) = 1.0 / static_cast<double>(1 + i % 251);
    }
    workspace ws;
    c.rows->forward(0, row, ws);
    return chained(row, sum);
}

/// Checksum of all that the merged bytes and their audits depend on.
LOWRANK_API [[nodiscard]] std::uint64_t checksum_of(const checkpoint& base, const merge_plan& plan, bool check) {
    const std::uint64_t version[4] = {LOWRANK_VERSION_MAJOR, LOWRANK_VERSION_MINOR, LOWRANK_VERSION_PATCH,
                                      check ? 1U : 0U};
    std::uint64_t sum = checksum(version, sizeof version, checkpoint_checksum(base));
    for (const auto& [name, planned] : plan.changes) {
        const stored_change c = planned.form();
        sum = chained(c.right, chained(c.left, chained(name, sum)));
        sum = chained(c.magnitude, chained(c.column_scale, chained(c.row_scale, sum)));
        const double rest[2] = {c.strength, c.magnitude_of_columns ? 1.0 : 0.0};
        sum = checksum(&c.rows_checksum, sizeof c.rows_checksum, checksum(rest, sizeof rest, sum));
        sum = c.rows ? checksum_of_first_row(c, sum) : sum;
    }
    for (const auto& [name, bytes] : plan.replacements) {
        sum = checksum(bytes.data(), bytes.size(), chained(name, sum));
    }
    for (const auto& [name, tensor] : plan.added) {
        sum = checksum(tensor->bytes.data(), tensor->bytes.size(), chained(name, sum));
    }
    for (const auto& [name, rows] : plan.token_rows) {
        sum = chained(name, sum);
        for (const auto& [token, row] : rows) {
            sum = checksum(&row.strength, sizeof row.strength, checksum(&token, sizeof token, sum));
            sum = checksum(row.bytes.data(), row.bytes.size(), sum);
        }
    }
    return sum;
}

/// The facts of a shard for the journal, and back. Numbers keep all their bits.
LOWRANK_API [[nodiscard]] json facts_of(const merge_checkpoint_report& report) {
    json weights = json::object();
    for (const auto& [name, w] : report.weights) {
        weights[name] = {w.entries,
                         w.touched,
                         w.unchanged,
                         w.worst_row,
                         w.worst_col,
                         static_cast<int>(w.type),
                         w.rank,
                         w.change_norm,
                         w.relative_error,
                         w.worst_error,
                         w.receipt_bits_per_weight};
    }
    return {{"weights", std::move(weights)}, {"replaced", report.replaced}, {"added", report.added}};
}
LOWRANK_API [[nodiscard]] bool add_facts(const json& facts, merge_checkpoint_report& report) {
    const auto weights = facts.find("weights");
    const auto replaced = facts.find("replaced");
    const auto added = facts.find("added");
    if (weights == facts.end() || replaced == facts.end() || added == facts.end() || !weights->is_object() ||
        !replaced->is_array() || !added->is_array()) {
        return false;
    }
    merge_checkpoint_report read;
    for (const auto& [name, w] : weights->items()) {
        if (!w.is_array() || w.size() != 11 ||
            !std::all_of(w.begin(), w.begin() + 7, [](const json& x) { return x.is_number_unsigned(); }) ||
            !std::all_of(w.begin() + 7, w.end(), [](const json& x) { return x.is_number(); }) ||
            w[5].template get<std::uint64_t>() > static_cast<std::uint64_t>(dtype::u64)) {
            return false;
        }
        merged_weight& to = read.weights[name];
        to.entries = w[0].template get<std::uint64_t>();
        to.touched = w[1].template get<std::uint64_t>();
        to.unchanged = w[2].template get<std::uint64_t>();
        to.worst_row = w[3].template get<index>();
        to.worst_col = w[4].template get<index>();
        to.type = static_cast<dtype>(w[5].template get<int>());
        to.rank = w[6].template get<index>();
        to.change_norm = w[7].template get<double>();
        to.relative_error = w[8].template get<double>();
        to.worst_error = w[9].template get<double>();
        to.receipt_bits_per_weight = w[10].template get<double>();
        if (!is_number(to.type)) {
            return false;
        }
    }
    for (const auto& [names, to] : {std::pair{&*replaced, &read.replaced}, std::pair{&*added, &read.added}}) {
        for (const json& name : *names) {
            if (!name.is_string()) {
                return false;
            }
            to->push_back(name.get<std::string>());
        }
    }
    report.weights.merge(read.weights);
    report.replaced.insert(report.replaced.end(), read.replaced.begin(), read.replaced.end());
    report.added.insert(report.added.end(), read.added.begin(), read.added.end());
    return true;
}

/// One shard of the base written with what the plan changes of it; the last one holds what the adapters add.
LOWRANK_API [[nodiscard]] status write_merged_shard(const checkpoint::shard& shard, bool is_last,
                                                    const merge_plan& plan, const std::filesystem::path& to,
                                                    index& done, index total, const merge_checkpoint_options& opt,
                                                    merge_checkpoint_report& report) {
    std::vector<tensor_plan> plans;
    for (const tensor_info& t : shard.file.tensors()) {
        plans.push_back({t.name, t.type, t.shape});
    }
    for (const auto& [name, tensor] : plan.added) {
        if (is_last) {
            plans.push_back({name, tensor->type, tensor->shape});
        }
    }
    auto file = safetensors_writer::create(to, std::move(plans), shard.file.metadata(), opt.write);
    if (!file) {
        return file.error();
    }
    const byte_sink out = [&](std::span<const std::byte> bytes) { return file->write(bytes); };
    const tile_options tiles{.bytes = opt.tile_bytes, .check = opt.check, .exec = opt.exec};
    for (const tensor_info& planned : file->order()) {
        const tensor_info* stored = shard.file.find(planned.name);
        if (stored == nullptr) {
            report.added.push_back(planned.name);
            if (status why = file->write(plan.added.at(planned.name)->bytes); !why) {
                return why;
            }
            continue;
        }
        const tensor_info& t = *stored;
        if (!lowrank::report(opt.on_progress, {.done = done, .total = total, .what = t.name})) {
            return {errc::cancelled, "merging was stopped"};
        }
        const auto merged = write_planned(out, shard.file, t, plan, tiles);
        if (!merged) {
            return in_context("tensor " + in_quotes(t.name), merged.error());
        }
        if (*merged) {
            report.weights.emplace(t.name, **merged);
        }
        if (plan.replaces(t.name)) {
            report.replaced.push_back(t.name);
        }
        done += static_cast<index>(shard.file.bytes(t).size());
        shard.file.release(t);
    }
    return file->commit();
}

}  // namespace detail

LOWRANK_BODY result<merge_checkpoint_report> merge_checkpoint(const checkpoint& base,
                                                              std::span<const adapter_to_merge> adapters,
                                                              const std::filesystem::path& out,
                                                              const merge_checkpoint_options& opt) {
    const auto plan = detail::plan_merge(base, adapters);
    if (!plan) {
        return plan.error();
    }
    merge_checkpoint_report report;
    report.notes.assign(plan->notes.begin(), plan->notes.end());
    std::map<std::string, std::uint64_t> added;
    for (const auto& [name, tensor] : plan->added) {
        added[name] = tensor->bytes.size();
    }
    const index total = detail::bytes_of(base);
    index done = 0;
    const auto keep = [&](std::size_t, const detail::json& facts) { return detail::add_facts(facts, report); };
    const auto write = [&](std::size_t i, const std::filesystem::path& to,
                           detail::shard_journal*) -> result<detail::json> {
        merge_checkpoint_report of_shard;
        if (status why = detail::write_merged_shard(base.shards()[i], i + 1 == base.shards().size(), *plan, to, done,
                                                    total, opt, of_shard);
            !why) {
            return why;
        }
        auto facts = detail::facts_of(of_shard);
        report.weights.merge(of_shard.weights);
        report.replaced.insert(report.replaced.end(), of_shard.replaced.begin(), of_shard.replaced.end());
        report.added.insert(report.added.end(), of_shard.added.begin(), of_shard.added.end());
        return facts;
    };
    std::optional<std::uint64_t> inputs;
    if (opt.resume) {
        inputs = detail::checksum_of(base, *plan, opt.check);
    }
    const auto kept = detail::write_shards(base, out, inputs, opt.write, done, {.keep = keep, .write = write}, added);
    if (!kept) {
        return kept.error();
    }
    report.kept_files = *kept;
    return report;
}

LOWRANK_BODY result<merge_checkpoint_report> merge_checkpoint(const checkpoint& base, const peft_adapter& adapter,
                                                              const std::filesystem::path& out,
                                                              const merge_checkpoint_options& opt) {
    const adapter_to_merge one{.adapter = &adapter, .strength = opt.strength};
    return merge_checkpoint(base, std::span(&one, 1), out, opt);
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_CHECKPOINTS_MERGE_CHECKPOINT_IPP
