// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CHECKPOINTS_DETAIL_SHARD_JOURNAL_HPP
#define LOWRANK_IO_CHECKPOINTS_DETAIL_SHARD_JOURNAL_HPP

/// \file
/// Remembers which files of a folder are finished, so that work that was killed goes on where it stopped.
///
///     auto journal = detail::shard_journal::open(out, inputs, opt.write);
///     if (const auto* known = journal->finished("model-1.safetensors")) ...      // what `record` was given
///     else write it and journal->record("model-1.safetensors", facts);
///     journal->remove();                                                          // all is done
///
/// Parts are files of work that took long, on a file that is not finished:
///
///     const auto part = detail::shard_journal::part_name("model-1.safetensors", 0);
///     if (!journal->finished(part)) write it and journal->record(part, facts);
///
/// A JSON line per file: its name, length, a checksum of its header, and facts about it. A line is written after the
/// file is durable. A line cut short by a crash is skipped; its file is written again.

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#if defined(__unix__) || defined(__APPLE__)
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#else
#include <io.h>
#include <sys/stat.h>
#endif

#include <lowrank/core/checksum.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/io/containers/atomic_file.hpp>
#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/containers/detail/json.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/containers/mapped_file.hpp>
#include <lowrank/io/containers/safetensors.hpp>
#include <lowrank/io/containers/staged_folder.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

[[nodiscard]] inline std::uint64_t chained(std::string_view text, std::uint64_t seed) {
    return checksum(text.data(), text.size(), seed);
}
template <class D>
requires requires(const D& x) { x.derived().rows(); }
[[nodiscard]] std::uint64_t chained(const D& x, std::uint64_t seed) {
    const std::int64_t extents[2] = {x.rows(), x.cols()};
    seed = checksum(extents, sizeof extents, seed);
    return checksum(x.data(), static_cast<std::size_t>(x.size()) * sizeof(typename D::Scalar), seed);
}

/// Of everything a safetensors file's header says.
[[nodiscard]] inline std::uint64_t header_checksum(const safetensors_file& file) {
    std::uint64_t sum = 4;
    for (const auto& [key, value] : file.metadata()) {
        sum = chained(value, chained(key, sum));
    }
    for (const tensor_info& t : file.tensors()) {
        const std::uint64_t facts[3] = {static_cast<std::uint64_t>(t.type), t.begin, t.end};
        sum = checksum(facts, sizeof facts, chained(t.name, sum));
        sum = checksum(t.shape.data(), t.shape.size() * sizeof(std::uint64_t), sum);
    }
    return sum;
}

/// Of names, headers, lengths and times of change of a checkpoint's files; the data are not read.
[[nodiscard]] inline std::uint64_t checkpoint_checksum(const checkpoint& c) {
    std::uint64_t sum = 5;
    for (const checkpoint::shard& s : c.shards()) {
        std::error_code ignored;
        const auto time = std::filesystem::last_write_time(s.path, ignored).time_since_epoch().count();
        const std::uint64_t facts[3] = {header_checksum(s.file), std::filesystem::file_size(s.path, ignored),
                                        static_cast<std::uint64_t>(time)};
        sum = checksum(facts, sizeof facts, chained(s.path.filename().string(), sum));
    }
    return sum;
}

class shard_journal {
public:
    static constexpr std::string_view name = unfinished_file;

    /// The name of a file for finished work on a part of `file`, or on something that is no file yet. Such files go
    /// with the journal.
    [[nodiscard]] static std::string part_name(const std::string& file, std::size_t number) {
        return part_prefix(file) + std::to_string(number) + ".safetensors";
    }

    shard_journal(shard_journal&& other) noexcept { swap(other); }
    shard_journal& operator=(shard_journal&& other) noexcept {
        shard_journal taken(std::move(other));
        swap(taken);
        return *this;
    }
    ~shard_journal() { close(); }

    /// The journal in `folder`, which is made if there is none. `inputs` is a checksum of all that the files depend on.
    ///
    /// \return `mismatch` if the folder's journal belongs to other inputs; `io_failure` if another process is at work
    ///         in the folder, or what the system says.
    [[nodiscard]] static result<shard_journal> open(const std::filesystem::path& folder, std::uint64_t inputs,
                                                    const write_options& write) {
        shard_journal out;
        out.folder_ = folder;
        out.calls_ = write.calls;
        const auto path = folder / name;
#if defined(__unix__) || defined(__APPLE__)
        out.file_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0666);
#else
        out.file_ = ::_wopen(path.wstring().c_str(), _O_RDWR | _O_CREAT | _O_APPEND | _O_BINARY, _S_IREAD | _S_IWRITE);
#endif
        if (out.file_ < 0) {
            return system_failure("cannot open", path, errno);
        }
#if defined(__unix__) || defined(__APPLE__)
        if (::flock(out.file_, LOCK_EX | LOCK_NB) != 0) {
            return status{errc::io_failure, "another process is writing into " + path_in_quotes(folder)};
        }
#endif
        const auto old = mapped_file::open(path, {.map = false});
        if (!old) {
            return old.error();
        }
        if (status why = out.read(text_of(old->bytes()), inputs); !why) {
            return in_file(path, why);
        }
        // What a killed process was writing.
        std::error_code error;
        for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
            const std::string file = it->path().filename().string();
            if (file.starts_with('.') && file.ends_with(".tmp") && file.find(".safetensors.") != std::string::npos) {
                std::filesystem::remove(it->path(), error);
            }
        }
        const bool has_head = out.has_head_;
        std::string text = has_head && !old->bytes().empty() && old->bytes().back() != std::byte{'\n'} ? "\n" : "";
        if (!has_head) {
            text = "\n" + json{{"lowrank", version}, {"inputs", inputs}}.dump() + "\n";
        }
        if (status why = out.append(text); !why) {
            return why;
        }
        return out;
    }

    /// What was recorded of a file that is still as it was then, or null.
    [[nodiscard]] const json* finished(const std::string& file) const {
        const auto at = lines_.find(file);
        if (at == lines_.end()) {
            return nullptr;
        }
        std::error_code error;
        const auto path = folder_ / file;
        if (std::filesystem::is_symlink(path, error) ||
            std::filesystem::file_size(path, error) != at->second.value("bytes", std::uint64_t{0}) || error) {
            return nullptr;
        }
        const auto opened = safetensors_file::open(path);
        if (!opened || header_checksum(*opened) != at->second.value("header", std::uint64_t{0})) {
            return nullptr;
        }
        return &at->second["facts"];
    }

    /// Notes that a safetensors file of the folder is complete and durable.
    [[nodiscard]] status record(const std::string& file, json facts) {
        const auto opened = safetensors_file::open(folder_ / file);
        if (!opened) {
            return opened.error();
        }
        std::error_code error;
        const std::uint64_t size = std::filesystem::file_size(folder_ / file, error);
        return append(
            json{{"file", file}, {"bytes", size}, {"header", header_checksum(*opened)}, {"facts", std::move(facts)}}
                .dump(-1, ' ', false, json::error_handler_t::replace) +
            "\n");
    }

    /// Removes the parts of a file, which is complete.
    void remove_parts(const std::string& file) const { remove_starting_with(folder_, part_prefix(file)); }

    /// Removes the journal and all parts: the folder is complete.
    void remove() {
        clear(folder_);
        close();
    }
    static void clear(const std::filesystem::path& folder) {
        std::error_code ignored;
        remove_starting_with(folder, part_prefix({}));
        std::filesystem::remove(folder / name, ignored);
    }

private:
    static constexpr int version = 1;

    shard_journal() = default;

    [[nodiscard]] static std::string part_prefix(const std::string& file) {
        return "lowrank-part-" + file + (file.empty() ? "" : "-");
    }
    static void remove_starting_with(const std::filesystem::path& folder, const std::string& prefix) {
        std::error_code error;
        std::vector<std::filesystem::path> found;
        for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
            if (it->path().filename().string().starts_with(prefix)) {
                found.push_back(it->path());
            }
        }
        for (const auto& path : found) {
            std::filesystem::remove(path, error);
        }
    }

    void swap(shard_journal& other) noexcept {
        std::swap(folder_, other.folder_);
        std::swap(calls_, other.calls_);
        std::swap(file_, other.file_);
        std::swap(has_head_, other.has_head_);
        lines_.swap(other.lines_);
    }
    void close() noexcept {
        if (file_ >= 0) {
#if defined(__unix__) || defined(__APPLE__)
            ::close(std::exchange(file_, -1));
#else
            ::_close(std::exchange(file_, -1));
#endif
        }
    }

    [[nodiscard]] status read(std::string_view text, std::uint64_t inputs) {
        while (!text.empty()) {
            const std::size_t end = std::min(text.find('\n'), text.size());
            const std::string_view line = text.substr(0, end);
            text.remove_prefix(std::min(end + 1, text.size()));
            auto entry = read_json(std::as_bytes(std::span(line)));
            if (line.empty() || !entry || !entry->is_object()) {
                continue;  // cut short
            }
            if (entry->contains("lowrank")) {
                has_head_ = true;
                if ((*entry)["lowrank"] != version || (*entry)["inputs"] != inputs) {
                    return {errc::mismatch,
                            "what was begun there had another model, other adapters, other options or another version; "
                            "remove the folder to start over"};
                }
            } else if (has_head_ && entry->contains("facts") && (*entry)["file"].is_string() &&
                       (*entry)["bytes"].is_number_unsigned() && (*entry)["header"].is_number_unsigned()) {
                const auto file = (*entry)["file"].get<std::string>();
                lines_.insert_or_assign(file, std::move(*entry));
            }
        }
        return {};
    }

    [[nodiscard]] status append(std::string_view text) {
        file_calls& calls = calls_ != nullptr ? *calls_ : system_;
        auto left = std::as_bytes(std::span(text));
        while (!left.empty()) {
            const std::ptrdiff_t count = calls.write(file_, left.data(), left.size());
            if (count == -EINTR) {
                continue;
            }
            if (count <= 0) {
                return system_failure("cannot write", folder_ / name, count == 0 ? ENOSPC : static_cast<int>(-count));
            }
            left = left.subspan(static_cast<std::size_t>(count));
        }
        const int error = text.empty() ? 0 : calls.sync(file_);
        return error == 0 ? status{} : system_failure("cannot write", folder_ / name, -error);
    }

    std::filesystem::path folder_ = {};
    file_calls* calls_ = nullptr;
    file_calls system_ = {};
    int file_ = -1;
    bool has_head_ = false;
    std::map<std::string, json> lines_ = {};
};

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_CHECKPOINTS_DETAIL_SHARD_JOURNAL_HPP
