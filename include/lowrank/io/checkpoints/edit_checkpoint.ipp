// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CHECKPOINTS_EDIT_CHECKPOINT_IPP
#define LOWRANK_IO_CHECKPOINTS_EDIT_CHECKPOINT_IPP

#include <lowrank/io/checkpoints/edit_checkpoint.hpp>

#include <lowrank/io/checkpoints/detail/shard_journal.hpp>
#include <lowrank/io/checkpoints/detail/shard_loop.hpp>
#include <lowrank/io/containers/detail/json.hpp>
#include <lowrank/io/containers/detail/text.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

LOWRANK_API [[nodiscard]] bool add_facts(const json& facts, edit_checkpoint_report& report) {
    if (!facts.is_object()) {
        return false;
    }
    edit_checkpoint_report read;
    for (const auto& [name, numbers] : facts.items()) {
        auto& to = read.edited[name];
        if (!numbers.is_array()) {
            return false;
        }
        for (const json& x : numbers) {
            if (!x.is_number()) {
                return false;
            }
            to.push_back(x.get<double>());
        }
    }
    report.edited.merge(read.edited);
    return true;
}

/// Edited bytes of one tensor: made now, or by an earlier call.
LOWRANK_API [[nodiscard]] result<std::vector<std::byte>> edited_bytes(
    const checkpoint::shard& shard, const tensor_info& t, const std::filesystem::path& part, shard_journal* journal,
    const tensor_edit& edit, const write_options& write, edit_checkpoint_report& report) {
    const auto from = shard.file.bytes(t);
    if (journal != nullptr) {
        if (const json* known = journal->finished(part.filename().string())) {
            const auto kept = safetensors_file::open(part);
            const tensor_info* same = kept ? kept->find(t.name) : nullptr;
            if (same != nullptr && same->end - same->begin == from.size() && add_facts(*known, report)) {
                ++report.kept_edits;
                const auto bytes = kept->bytes(*same);
                return std::vector<std::byte>(bytes.begin(), bytes.end());
            }
        }
    }
    std::vector<std::byte> bytes(from.begin(), from.end());
    auto numbers = edit(t, bytes);
    if (!numbers) {
        return in_context("tensor " + in_quotes(t.name), numbers.error());
    }
    if (journal != nullptr) {
        status why =
            write_safetensors(part, {{.name = t.name, .type = t.type, .shape = t.shape, .bytes = bytes}}, {}, write);
        if (why) {
            why = journal->record(part.filename().string(), json{{t.name, *numbers}});
        }
        if (!why) {
            return why;
        }
    }
    report.edited[t.name] = std::move(*numbers);
    return bytes;
}

}  // namespace detail

LOWRANK_BODY result<edit_checkpoint_report> edit_checkpoint(const checkpoint& base, const std::filesystem::path& out,
                                                            const std::function<bool(const tensor_info&)>& wanted,
                                                            const tensor_edit& edit,
                                                            const edit_checkpoint_options& opt) {
    edit_checkpoint_report report;
    const index total = detail::bytes_of(base);
    index done = 0;
    const auto keep = [&](std::size_t, const detail::json& facts) { return detail::add_facts(facts, report); };
    const auto write = [&](std::size_t i, const std::filesystem::path& to,
                           detail::shard_journal* journal) -> result<detail::json> {
        const checkpoint::shard& shard = base.shards()[i];
        std::vector<tensor_plan> plans;
        for (const tensor_info& t : shard.file.tensors()) {
            plans.push_back({t.name, t.type, t.shape});
        }
        auto file = safetensors_writer::create(to, std::move(plans), shard.file.metadata(), opt.write);
        if (!file) {
            return file.error();
        }
        detail::json facts = detail::json::object();
        std::vector<std::filesystem::path> parts;
        for (const tensor_info& planned : file->order()) {
            const tensor_info& t = *shard.file.find(planned.name);
            if (!lowrank::report(opt.on_progress, {.done = done, .total = total, .what = t.name})) {
                return status{errc::cancelled, "editing was stopped"};
            }
            status why;
            if (wanted(t)) {
                parts.push_back(to.parent_path() /
                                detail::shard_journal::part_name(to.filename().string(), parts.size()));
                auto bytes = detail::edited_bytes(shard, t, parts.back(), journal, edit, opt.write, report);
                if (!bytes) {
                    return bytes.error();
                }
                facts[t.name] = report.edited[t.name];
                why = file->write(*bytes);
            } else {
                why = file->write(shard.file.bytes(t));
            }
            if (!why) {
                return why;
            }
            done += static_cast<index>(t.end - t.begin);
            shard.file.release(t);
        }
        if (status why = file->commit(); !why) {
            return why;
        }
        return facts;
    };
    std::optional<std::uint64_t> inputs;
    if (opt.resume) {
        const std::uint64_t all[4] = {detail::checkpoint_checksum(base), opt.edits, LOWRANK_VERSION_MAJOR,
                                      LOWRANK_VERSION_MINOR};
        inputs = checksum(all, sizeof all, 6);
    }
    const auto kept = detail::write_shards(base, out, inputs, opt.write, done, {.keep = keep, .write = write});
    if (!kept) {
        return kept.error();
    }
    report.kept_files = *kept;
    return report;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_CHECKPOINTS_EDIT_CHECKPOINT_IPP
