// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CONTAINERS_ATOMIC_FILE_HPP
#define LOWRANK_IO_CONTAINERS_ATOMIC_FILE_HPP

/// \file
/// A file that appears whole or not at all: written beside its place, made durable, then renamed into it.
///
///     auto file = lowrank::atomic_file::create("adapter_model.safetensors");
///     if (!file) return log(file.error().message);
///     if (auto why = file->write(bytes); !why) return log(why.message);   // the old file is untouched
///     if (auto why = file->commit(); !why) return log(why.message);       // now it is the new one
///
/// A crash, a full disk or a kill at any point leaves the old file (or none) under the final name.

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#else
#include <io.h>
#include <process.h>
#endif

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/io/containers/detail/text.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// The system calls a writer makes. A test derives from it to make them fail; a program derives from it to know the
/// temporary files that exist right now (see `temporary_files`). Each call returns 0 or a count, or -errno.
class file_calls {
public:
    file_calls() = default;
    file_calls(const file_calls&) = delete;
    file_calls& operator=(const file_calls&) = delete;
    virtual ~file_calls() = default;

    /// Writes at most `size` bytes, may write fewer, and returns how many.
    virtual std::ptrdiff_t write(int file, const std::byte* data, std::size_t size) {
#if defined(__unix__) || defined(__APPLE__)
        const ::ssize_t count = ::write(file, data, size);
#else
        const int count = ::_write(file, data, static_cast<unsigned>(size < (1U << 30) ? size : (1U << 30)));
#endif
        return count < 0 ? -static_cast<std::ptrdiff_t>(errno) : static_cast<std::ptrdiff_t>(count);
    }

    /// Returns when the bytes are on the disk.
    virtual int sync(int file) {
#if defined(__unix__) || defined(__APPLE__)
        return ::fsync(file) == 0 ? 0 : -errno;
#else
        return ::_commit(file) == 0 ? 0 : -errno;
#endif
    }

    /// A hint that these bytes are final and may go to the disk now, so that `sync` finds little left to do.
    virtual void start_writing(int file, std::uint64_t begin, std::uint64_t count) {
#if defined(SYNC_FILE_RANGE_WRITE)
        (void)::sync_file_range(file, static_cast<::off64_t>(begin), static_cast<::off64_t>(count),
                                SYNC_FILE_RANGE_WRITE);
#else
        (void)file, (void)begin, (void)count;
#endif
    }

    virtual int rename(const std::filesystem::path& from, const std::filesystem::path& to) {
        std::error_code error;
        std::filesystem::rename(from, to, error);
        return error ? -error.value() : 0;
    }

    /// A second name for a file.
    virtual int link(const std::filesystem::path& from, const std::filesystem::path& to) {
        std::error_code error;
        std::filesystem::create_hard_link(from, to, error);
        return error ? -error.value() : 0;
    }

    /// A temporary file now exists; it no longer does (renamed or removed).
    virtual void temporary_created(const std::filesystem::path&) {}
    virtual void temporary_gone(const std::filesystem::path&) {}
};

/// Knows up to eight temporary files that exist right now, so that a signal handler can remove them.
///
///     static lowrank::temporary_files live;            // pass {.calls = &live} to the writers
///     extern "C" void on_interrupt(int) { live.remove_all(); _exit(130); }
class temporary_files : public file_calls {
public:
    void temporary_created(const std::filesystem::path& path) override {
        const std::string name = path.string();
        for (slot& s : slots_) {
            int expected = empty;
            if (name.size() < sizeof s.name && s.state.compare_exchange_strong(expected, claimed)) {
                std::memcpy(s.name, name.c_str(), name.size() + 1);
                s.state.store(live);
                return;
            }
        }
    }
    void temporary_gone(const std::filesystem::path& path) override {
        for (slot& s : slots_) {
            if (s.state.load() == live && path.string() == s.name) {
                s.state.store(empty);
                return;
            }
        }
    }

    /// Removes them. Safe in a signal handler: lock-free, no allocation, one `unlink` each. \return how many there
    /// were.
    int remove_all() noexcept {
        int count = 0;
        for (slot& s : slots_) {
            if (s.state.exchange(empty) == live) {
#if defined(__unix__) || defined(__APPLE__)
                ::unlink(s.name);
#else
                ::_unlink(s.name);
#endif
                ++count;
            }
        }
        return count;
    }

private:
    static constexpr int empty = 0;
    static constexpr int claimed = 1;
    static constexpr int live = 2;
    struct slot {
        std::atomic<int> state = empty;
        char name[4096] = {};
    };
    slot slots_[8];
};

struct write_options {
    file_calls* calls = nullptr;  ///< Borrowed; must outlive the file. Null: the system's own.
};

/// A file under construction. Its destructor removes what was not committed.
class atomic_file {
public:
    atomic_file(const atomic_file&) = delete;
    atomic_file& operator=(const atomic_file&) = delete;
    atomic_file(atomic_file&& other) noexcept { swap(other); }
    atomic_file& operator=(atomic_file&& other) noexcept {
        atomic_file taken(std::move(other));
        swap(taken);
        return *this;
    }
    ~atomic_file() { abandon(); }

    /// Starts to write the file that will be `path`: a new file `.<name>.<unique>.tmp` in the same folder.
    /// A symbolic link at `path` is replaced, not followed; the access rights of a file there are kept.
    ///
    /// \return `not_found` if the folder does not exist; `io_failure` if the system refuses or `path` is a folder.
    [[nodiscard]] static result<atomic_file> create(const std::filesystem::path& path, const write_options& opt = {});

    /// Appends all of `bytes`. After a failure every later call returns the same failure.
    status write(std::span<const std::byte> bytes) {
        while (why_ && !bytes.empty()) {
            constexpr std::size_t most = std::size_t{1} << 30;  // some systems refuse a single larger write
            const std::ptrdiff_t count = calls().write(file_, bytes.data(), bytes.size() < most ? bytes.size() : most);
            if (count == -EINTR) {
                continue;
            }
            if (count <= 0) {
                why_ = detail::system_failure("cannot write", path_, count == 0 ? ENOSPC : static_cast<int>(-count));
                break;
            }
            written_ += static_cast<std::uint64_t>(count);
            bytes = bytes.subspan(static_cast<std::size_t>(count));
        }
        constexpr std::uint64_t enough = std::uint64_t{32} << 20;
        if (why_ && written_ - started_ >= enough) {
            calls().start_writing(file_, started_, written_ - started_);
            started_ = written_;
        }
        return why_;
    }
    status write(std::string_view text) { return write(std::as_bytes(std::span(text))); }

    /// Makes what was written durable. `commit` does so too; this tells of a full disk before other files are renamed.
    status sync() {
        detail::expects(file_ >= 0, "atomic_file::sync: called after commit");
        if (why_) {
            if (const int error = calls().sync(file_); error != 0) {
                why_ = detail::system_failure("cannot write", path_, -error);
            }
        }
        return why_;
    }

    /// Makes the file durable and gives it its name. On failure the old file stays and the temporary one is removed.
    /// \pre commit was not called before.
    status commit();

    /// Bytes written so far.
    [[nodiscard]] std::uint64_t written() const noexcept { return written_; }
    /// Where the file will be.
    [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
    /// Where it is until `commit`.
    [[nodiscard]] const std::filesystem::path& temporary() const noexcept { return temporary_; }

private:
    friend status commit_together(atomic_file& first, atomic_file& second);
    atomic_file() = default;

    file_calls& calls() noexcept { return calls_ != nullptr ? *calls_ : system_; }

    static void close(int file) noexcept {
#if defined(__unix__) || defined(__APPLE__)
        ::close(file);
#else
        ::_close(file);
#endif
    }

    void abandon() noexcept {
        if (file_ >= 0) {
            close(std::exchange(file_, -1));
            std::error_code ignored;
            std::filesystem::remove(temporary_, ignored);
            calls().temporary_gone(temporary_);
        }
    }

    void swap(atomic_file& other) noexcept {
        std::swap(path_, other.path_);
        std::swap(temporary_, other.temporary_);
        std::swap(calls_, other.calls_);
        std::swap(file_, other.file_);
        std::swap(written_, other.written_);
        std::swap(started_, other.started_);
        std::swap(why_, other.why_);
    }

    std::filesystem::path path_ = {};
    std::filesystem::path temporary_ = {};
    file_calls* calls_ = nullptr;
    file_calls system_ = {};
    int file_ = -1;
    std::uint64_t written_ = 0;
    std::uint64_t started_ = 0;  ///< so many of them were given to the disk
    status why_ = {};
};

inline result<atomic_file> atomic_file::create(const std::filesystem::path& path, const write_options& opt) {
    std::error_code ignored;
    if (path.filename().empty() || std::filesystem::is_directory(path, ignored)) {
        return detail::system_failure("cannot write", path, EISDIR);
    }
    atomic_file out;
    out.path_ = path;
    out.calls_ = opt.calls;
#if defined(__unix__) || defined(__APPLE__)
    const auto process = static_cast<std::uint64_t>(::getpid());
#else
    const auto process = static_cast<std::uint64_t>(::_getpid());
#endif
    // The name need not be secret: O_EXCL makes it ours. Clock and address only make a collision rare.
    auto seed = static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count()) ^
                reinterpret_cast<std::uintptr_t>(&out);
    const std::string name = path.filename().string().substr(0, 200);
    for (int attempt = 0; attempt < 100; ++attempt, seed = seed * 6364136223846793005U + 1442695040888963407U) {
        out.temporary_ = path.parent_path() /
                         ("." + name + "." + std::to_string(process) + "-" + std::to_string(seed >> 20) + ".tmp");
#if defined(__unix__) || defined(__APPLE__)
        out.file_ = ::open(out.temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
#else
        out.file_ = ::_wopen(out.temporary_.wstring().c_str(), _O_WRONLY | _O_CREAT | _O_EXCL | _O_BINARY,
                             _S_IREAD | _S_IWRITE);
#endif
        if (out.file_ >= 0) {
            break;
        }
        if (errno != EEXIST) {
            return detail::system_failure("cannot create a file beside", path, errno);
        }
    }
    if (out.file_ < 0) {
        return detail::system_failure("cannot create a file beside", path, EEXIST);
    }
    out.calls().temporary_created(out.temporary_);
#if defined(__unix__) || defined(__APPLE__)
    struct stat old = {};
    if (::lstat(path.c_str(), &old) == 0 && S_ISREG(old.st_mode)) {
        (void)::fchmod(out.file_, old.st_mode & 07777U);
    }
#endif
    return out;
}

inline status atomic_file::commit() {
    detail::expects(file_ >= 0, "atomic_file::commit: called twice");
    if (!sync()) {
        abandon();
        return why_;
    }
    close(std::exchange(file_, -1));
    if (const int error = calls().rename(temporary_, path_); error != 0) {
        why_ = detail::system_failure("cannot replace", path_, -error);
        std::error_code ignored;
        std::filesystem::remove(temporary_, ignored);
        calls().temporary_gone(temporary_);
        return why_;
    }
    calls().temporary_gone(temporary_);
#if defined(__unix__) || defined(__APPLE__)
    // The new name must survive a power cut too; some file systems cannot sync a folder, and the file is whole anyway.
    const std::filesystem::path folder = path_.has_parent_path() ? path_.parent_path() : std::filesystem::path(".");
    if (const int handle = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); handle >= 0) {
        (void)::fsync(handle);
        close(handle);
    }
#endif
    return {};
}

/// Gives two files their names: both, or neither if the system refuses one. Both are durable before the first is
/// renamed; if the second rename fails, what was at the first name comes back. A power cut between the two renames can
/// leave the new first file with the old second one, which is as near as POSIX lets two names come.
[[nodiscard]] inline status commit_together(atomic_file& first, atomic_file& second) {
    for (atomic_file* file : {&first, &second}) {
        if (status why = file->sync(); !why) {
            return why;
        }
    }
    const std::filesystem::path kept = first.temporary().string() + ".old";
    std::error_code error;
    const bool existed = std::filesystem::exists(first.path(), error);
    const bool is_linked = existed && first.calls().link(first.path(), kept) == 0;
    if (existed && !is_linked) {  // a file system without hard links
        if (const int why = first.calls().rename(first.path(), kept); why != 0) {
            return detail::system_failure("cannot put aside", first.path(), -why);
        }
    }
    status why = first.commit();
    const bool has_first = why ? true : false;
    why = has_first ? second.commit() : why;
    if (why || (is_linked && !has_first)) {
        std::filesystem::remove(kept, error);
    } else if (existed) {
        std::filesystem::rename(kept, first.path(), error);
    } else if (has_first) {
        std::filesystem::remove(first.path(), error);
    }
    return why;
}

/// Writes `bytes` as the file `path`, whole or not at all.
inline status write_file(const std::filesystem::path& path, std::span<const std::byte> bytes,
                         const write_options& opt = {}) {
    auto file = atomic_file::create(path, opt);
    if (!file) {
        return file.error();
    }
    if (status why = file->write(bytes); !why) {
        return why;
    }
    return file->commit();
}
inline status write_file(const std::filesystem::path& path, std::string_view text, const write_options& opt = {}) {
    return write_file(path, std::as_bytes(std::span(text)), opt);
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_CONTAINERS_ATOMIC_FILE_HPP
