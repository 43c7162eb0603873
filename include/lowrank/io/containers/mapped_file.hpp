// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CONTAINERS_MAPPED_FILE_HPP
#define LOWRANK_IO_CONTAINERS_MAPPED_FILE_HPP

/// \file
/// The bytes of a file, mapped into memory where the system can, read where it cannot.
///
///     auto file = lowrank::mapped_file::open("model.safetensors");
///     if (!file) return log(file.error().message);
///     use(file->bytes());                              // nothing is read until it is touched

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#else
#include <cstdio>
#endif

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/io/containers/detail/text.hpp>

namespace lowrank::inline LOWRANK_ABI {

struct mapping_options {
    bool map = true;                                       ///< false: read the whole file into memory instead.
    std::optional<std::uint64_t> at_least = std::nullopt;  ///< A file with fewer bytes is an error.
};

/// The read-only bytes of one regular file. The memory stays where it is when the object moves.
///
/// Another program that shortens a mapped file while it is in use makes the system end the reader (SIGBUS); a program
/// that must survive this sets `map = false`. Our own writers replace files by rename, which is safe.
class mapped_file {
public:
    mapped_file() = default;
    mapped_file(const mapped_file&) = delete;
    mapped_file& operator=(const mapped_file&) = delete;
    mapped_file(mapped_file&& other) noexcept { swap(other); }
    mapped_file& operator=(mapped_file&& other) noexcept {
        mapped_file taken(std::move(other));
        swap(taken);
        return *this;
    }
    ~mapped_file() { unmap(); }

    /// Opens `path`. An empty file has no bytes.
    ///
    /// \return `not_found`; `io_failure` if it cannot be read, is a folder, a pipe or a device, changes its length
    /// while
    ///         it is read; `invalid_format` if it has fewer than `at_least` bytes.
    /// \cost   one system call for a mapping; a full read without.
    [[nodiscard]] static result<mapped_file> open(const std::filesystem::path& path, const mapping_options& opt = {});

    /// Bytes that are in memory already, for code that takes a file.
    [[nodiscard]] static mapped_file own(std::vector<std::byte> bytes) {
        mapped_file file;
        file.owned_ = std::move(bytes);
        file.data_ = file.owned_.data();
        file.size_ = file.owned_.size();
        return file;
    }

    [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return {data_, size_}; }

    /// Tells the system that `part` of the bytes will not be needed soon, so that a pass over a large file stays small
    /// in memory. The bytes stay valid and are read again from the file when touched.
    void release(std::span<const std::byte> part) const noexcept {
#if defined(__unix__) || defined(__APPLE__)
        const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
        const std::uintptr_t begin = (reinterpret_cast<std::uintptr_t>(part.data()) + page - 1) / page * page;
        const std::uintptr_t end = reinterpret_cast<std::uintptr_t>(part.data() + part.size()) / page * page;
        if (mapped_ && begin < end) {
            (void)::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
        }
#else
        (void)part;
#endif
    }

    /// Tells the system that `part` of the bytes will be read soon; it fetches them meanwhile.
    void will_need(std::span<const std::byte> part) const noexcept {
#if defined(__unix__) || defined(__APPLE__)
        const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
        const std::uintptr_t begin = reinterpret_cast<std::uintptr_t>(part.data()) / page * page;
        const std::uintptr_t end = reinterpret_cast<std::uintptr_t>(part.data() + part.size());
        if (mapped_ && begin < end) {
            (void)::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_WILLNEED);
        }
#else
        (void)part;
#endif
    }

    /// True if the bytes are pages of the file, false if they were copied.
    [[nodiscard]] bool is_mapped() const noexcept { return mapped_; }

private:
    void swap(mapped_file& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        std::swap(mapped_, other.mapped_);
        owned_.swap(other.owned_);
    }
    void unmap() noexcept {
#if defined(__unix__) || defined(__APPLE__)
        if (mapped_) {
            ::munmap(const_cast<std::byte*>(data_), size_);
        }
#endif
    }
    static status check_size(const std::filesystem::path& path, std::uint64_t size, const mapping_options& opt) {
        if (opt.at_least && size < *opt.at_least) {
            return {errc::invalid_format, detail::path_in_quotes(path) + " has " + std::to_string(size) +
                                              " bytes, expected at least " + std::to_string(*opt.at_least) +
                                              "; it was cut short, copy or download it again"};
        }
        if (size > static_cast<std::uint64_t>(std::numeric_limits<std::ptrdiff_t>::max())) {
            return {errc::unsupported, detail::path_in_quotes(path) + " is larger than this process can address"};
        }
        return {};
    }

    const std::byte* data_ = nullptr;
    std::size_t size_ = 0;
    bool mapped_ = false;
    std::vector<std::byte> owned_ = {};
};

#if defined(__unix__) || defined(__APPLE__)

inline result<mapped_file> mapped_file::open(const std::filesystem::path& path, const mapping_options& opt) {
    struct descriptor {
        int fd;
        ~descriptor() {
            if (fd >= 0) {
                ::close(fd);
            }
        }
    };
    // O_NONBLOCK keeps a pipe without a writer from blocking here; it means nothing for a regular file.
    const descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
    if (file.fd < 0) {
        return detail::system_failure("cannot open", path, errno);
    }
    struct stat facts = {};
    if (::fstat(file.fd, &facts) != 0) {
        return detail::system_failure("cannot examine", path, errno);
    }
    if (!S_ISREG(facts.st_mode)) {
        return status{errc::io_failure,
                      "cannot read " + detail::path_in_quotes(path) +
                          (S_ISDIR(facts.st_mode) ? ": it is a folder, not a file" : ": it is not a regular file")};
    }
    const auto size = static_cast<std::uint64_t>(facts.st_size);
    if (status why = check_size(path, size, opt); !why) {
        return why;
    }
    mapped_file out;
    if (size == 0) {
        return out;
    }
    if (opt.map) {
        void* pages = ::mmap(nullptr, static_cast<std::size_t>(size), PROT_READ, MAP_PRIVATE, file.fd, 0);
        if (pages != MAP_FAILED) {
            out.data_ = static_cast<const std::byte*>(pages);
            out.size_ = static_cast<std::size_t>(size);
            out.mapped_ = true;
            return out;
        }
    }
    out.owned_.resize(static_cast<std::size_t>(size));
    for (std::size_t done = 0; done < out.owned_.size();) {
        const ::ssize_t got = ::read(file.fd, out.owned_.data() + done, out.owned_.size() - done);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return detail::system_failure("cannot read", path, errno);
        }
        if (got == 0) {
            return status{errc::io_failure, detail::path_in_quotes(path) + " became shorter while it was read"};
        }
        done += static_cast<std::size_t>(got);
    }
    out.data_ = out.owned_.data();
    out.size_ = out.owned_.size();
    return out;
}

#else

inline result<mapped_file> mapped_file::open(const std::filesystem::path& path, const mapping_options& opt) {
    std::error_code error;
    const auto kind = std::filesystem::status(path, error);
    if (!std::filesystem::exists(kind)) {
        return detail::system_failure("cannot open", path, ENOENT);
    }
    if (!std::filesystem::is_regular_file(kind)) {
        return status{errc::io_failure, "cannot read " + detail::path_in_quotes(path) + ": it is not a regular file"};
    }
    const std::uint64_t size = std::filesystem::file_size(path, error);
    if (error) {
        return status{errc::io_failure, "cannot examine " + detail::path_in_quotes(path) + ": " + error.message()};
    }
    if (status why = check_size(path, size, opt); !why) {
        return why;
    }
    std::FILE* file = std::fopen(path.string().c_str(), "rb");
    if (file == nullptr) {
        return detail::system_failure("cannot open", path, errno);
    }
    std::vector<std::byte> bytes(static_cast<std::size_t>(size));
    const std::size_t got = bytes.empty() ? 0 : std::fread(bytes.data(), 1, bytes.size(), file);
    std::fclose(file);
    if (got != bytes.size()) {
        return status{errc::io_failure, detail::path_in_quotes(path) + " became shorter while it was read"};
    }
    return own(std::move(bytes));
}

#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_CONTAINERS_MAPPED_FILE_HPP
