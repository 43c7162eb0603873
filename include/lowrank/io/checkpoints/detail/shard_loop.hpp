// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CHECKPOINTS_DETAIL_SHARD_LOOP_HPP
#define LOWRANK_IO_CHECKPOINTS_DETAIL_SHARD_LOOP_HPP

/// \file
/// A new checkpoint from an old one, file by file under the same names, so that work that was killed goes on.
///
///     auto kept = detail::write_shards(base, out, inputs, opt.write, done, {.keep = read_facts, .write = write_one});

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/checkpoints/detail/shard_journal.hpp>
#include <lowrank/io/containers/atomic_file.hpp>
#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/containers/detail/json.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/containers/safetensors.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// What is done to the files of a checkpoint, by their number.
struct shard_work {
    /// Takes the facts of a file that an earlier call finished; false if they are none, and the file is written again.
    std::function<bool(std::size_t, const json&)> keep;
    /// Writes the file; its facts go into the journal, which is null without one.
    std::function<result<json>(std::size_t, const std::filesystem::path&, shard_journal*)> write;
};

/// The text of an index: by tensor, the file that holds it.
LOWRANK_INLINE [[nodiscard]] std::string text_of_index(const std::map<std::string, std::string>& files,
                                                       std::uint64_t bytes) {
    std::string text;
    for (const auto& [tensor, file] : files) {
        text += text.empty() ? "\n    " : ",\n    ";
        append_json_string(text, tensor);
        text += ": ";
        append_json_string(text, file);
    }
    return "{\n  \"metadata\": {\n    \"total_size\": " + std::to_string(bytes) + "\n  },\n  \"weight_map\": {" + text +
           "\n  }\n}\n";
}

/// Bytes of all tensors of a file.
[[nodiscard]] inline index bytes_of(const safetensors_file& file) {
    index total = 0;
    for (const tensor_info& t : file.tensors()) {
        total += static_cast<index>(t.end - t.begin);
    }
    return total;
}

/// Bytes of all tensors.
[[nodiscard]] inline index bytes_of(const checkpoint& base) {
    index total = 0;
    for (const checkpoint::place& p : base.tensors()) {
        total += static_cast<index>(p.info->end - p.info->begin);
    }
    return total;
}

/// Writes the files `names` into the folder `out` and, last, an index unless its text is empty; it has the name that goes
/// with theirs. `inputs`, a checksum of
/// all that the files depend on, asks for a journal.
///
/// \return how many files an earlier call had finished.
LOWRANK_INLINE [[nodiscard]] result<index> write_files(const std::filesystem::path& out,
                                                       const std::vector<std::string>& names,
                                                       const std::string& index_text,
                                                       std::optional<std::uint64_t> inputs, const write_options& write,
                                                       const shard_work& work) {
    std::error_code error;
    std::filesystem::create_directories(out, error);
    if (error) {
        return system_failure("cannot create the folder", out, error.value());
    }
    std::optional<shard_journal> journal;
    if (inputs) {
        auto opened = shard_journal::open(out, *inputs, write);
        if (!opened) {
            return opened.error();
        }
        journal.emplace(std::move(*opened));
    }
    index kept = 0;
    for (std::size_t i = 0; i < names.size(); ++i) {
        const json* known = journal ? journal->finished(names[i]) : nullptr;
        if (known != nullptr && work.keep(i, *known)) {
            ++kept;
            continue;
        }
        auto facts = work.write(i, out / names[i], journal ? &*journal : nullptr);
        if (!facts) {
            return facts.error();
        }
        if (journal) {
            if (status why = journal->record(names[i], std::move(*facts)); !why) {
                return why;
            }
            journal->remove_parts(names[i]);
        }
    }
    if (!index_text.empty()) {
        const bool is_diffusion = names.front().starts_with("diffusion_pytorch_model");
        const char* name =
            is_diffusion ? "diffusion_pytorch_model.safetensors.index.json" : "model.safetensors.index.json";
        if (status why = write_file(out / name, index_text, write); !why) {
            return why;
        }
    }
    if (journal) {
        journal->remove();
    }
    return kept;
}

/// The names of the files of `base`. \return `unsupported` if `out` is its folder.
LOWRANK_INLINE [[nodiscard]] result<std::vector<std::string>> shard_names(const checkpoint& base,
                                                                          const std::filesystem::path& out) {
    std::vector<std::string> names;
    for (const checkpoint::shard& shard : base.shards()) {
        names.push_back(shard.path.filename().string());
        std::error_code error;
        if (std::filesystem::equivalent(shard.path, out / names.back(), error)) {
            return status{errc::unsupported, "the new checkpoint would replace its base in " + path_in_quotes(out) +
                                                 "; name another folder"};
        }
    }
    return names;
}

/// The same for files under the names of `base`'s shards, the last of which holds tensors that are added (by their bytes)
/// too. The bytes of a shard whose file is kept count as `done`. \return `unsupported` if `out` is the folder of the base.
LOWRANK_INLINE [[nodiscard]] result<index> write_shards(const checkpoint& base, const std::filesystem::path& out,
                                                        std::optional<std::uint64_t> inputs, const write_options& write,
                                                        index& done, shard_work work,
                                                        const std::map<std::string, std::uint64_t>& added = {}) {
    const auto of_base = shard_names(base, out);
    if (!of_base) {
        return of_base.error();
    }
    const std::vector<std::string>& names = *of_base;
    std::string text;
    if (names.size() > 1) {
        std::map<std::string, std::string> files;
        for (const checkpoint::place& p : base.tensors()) {
            files[p.info->name] = names[p.shard];
        }
        auto bytes = static_cast<std::uint64_t>(bytes_of(base));
        for (const auto& [name, size] : added) {
            files[name] = names.back();
            bytes += size;
        }
        text = text_of_index(files, bytes);
    }
    work.keep = [&done, &base, keep = std::move(work.keep)](std::size_t i, const json& facts) {
        const bool kept = keep(i, facts);
        done += kept ? bytes_of(base.shards()[i].file) : 0;
        return kept;
    };
    return write_files(out, names, text, inputs, write, work);
}

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_CHECKPOINTS_DETAIL_SHARD_LOOP_HPP
