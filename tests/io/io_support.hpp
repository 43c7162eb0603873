// SPDX-License-Identifier: MIT
#ifndef LOWRANK_TESTS_IO_IO_SUPPORT_HPP
#define LOWRANK_TESTS_IO_IO_SUPPORT_HPP

/// \file
/// Folders that vanish, files made from text, tensors of any shape, and a disk that fails on demand.

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include <lowrank/io/containers/atomic_file.hpp>
#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/containers/mapped_file.hpp>
#include <lowrank/io/containers/safetensors.hpp>
#include <lowrank/io/containers/safetensors_writer.hpp>

namespace lowrank_tests {

/// A new empty folder, removed with all it holds at scope exit.
class temporary_folder {
public:
    temporary_folder() {
        std::string name = (std::filesystem::temp_directory_path() / "lowrank-test-XXXXXX").string();
        REQUIRE(::mkdtemp(name.data()) != nullptr);
        path_ = name;
    }
    temporary_folder(const temporary_folder&) = delete;
    temporary_folder& operator=(const temporary_folder&) = delete;
    ~temporary_folder() {
        std::error_code ignored;
        std::filesystem::permissions(path_, std::filesystem::perms::owner_all, ignored);
        std::filesystem::remove_all(path_, ignored);
    }

    [[nodiscard]] const std::filesystem::path& path() const { return path_; }
    [[nodiscard]] std::filesystem::path operator/(std::string_view name) const { return path_ / name; }

    /// Names of everything in the folder, sorted.
    [[nodiscard]] std::vector<std::string> listing() const {
        std::vector<std::string> names;
        for (const auto& entry : std::filesystem::directory_iterator(path_)) {
            names.push_back(entry.path().filename().string());
        }
        std::sort(names.begin(), names.end());
        return names;
    }

private:
    std::filesystem::path path_;
};

inline std::string text_of(const std::filesystem::path& path) {
    const auto file = lowrank::mapped_file::open(path);
    REQUIRE_MESSAGE(file, (file ? std::string() : file.error().message));
    const auto bytes = file->bytes();
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// A tensor of a shape of any number of dimensions, filled with ones.
inline lowrank::tensor_to_write tensor_of_ones(std::string name, std::vector<std::uint64_t> shape) {
    std::uint64_t size = 1;
    for (const std::uint64_t n : shape) {
        size *= n;
    }
    const lowrank::vector<float> ones = lowrank::vector<float>::Ones(static_cast<Eigen::Index>(size));
    auto t = lowrank::tensor_of(std::move(name), ones);
    t.shape = std::move(shape);
    return t;
}

inline std::vector<std::byte> bytes_of(std::string_view text) {
    std::vector<std::byte> out(text.size());
    if (!text.empty()) {
        std::memcpy(out.data(), text.data(), text.size());
    }
    return out;
}

/// The bytes of a safetensors file with this header text and data.
inline std::string safetensors_text(std::string_view header, std::string_view data = {}) {
    std::string text(8, '\0');
    for (std::size_t i = 0; i < 8; ++i) {
        text[i] = static_cast<char>(header.size() >> (8 * i) & 0xff);
    }
    text += header;
    text += data;
    return text;
}

/// A disk that takes a few bytes per call and is full (or broken) after `room`.
class failing_disk : public lowrank::file_calls {
public:
    std::uint64_t room = UINT64_MAX;  ///< Bytes until `error`.
    int error = ENOSPC;               ///< What it says then.
    std::size_t most_per_call = 1 << 20;
    int interruptions = 0;  ///< So many calls return EINTR first.
    int sync_error = 0;
    int rename_error = 0;
    std::vector<std::string> live = {};  ///< Temporary files that exist.

    std::ptrdiff_t write(int file, const std::byte* data, std::size_t size) override {
        if (interruptions > 0) {
            --interruptions;
            return -EINTR;
        }
        if (room == 0) {
            return -error;
        }
        const std::size_t count = std::min({size, most_per_call, static_cast<std::size_t>(room)});
        const std::ptrdiff_t done = file_calls::write(file, data, count);
        room -= done > 0 ? static_cast<std::uint64_t>(done) : 0;
        return done;
    }
    int sync(int file) override { return sync_error != 0 ? -sync_error : file_calls::sync(file); }
    int rename(const std::filesystem::path& from, const std::filesystem::path& to) override {
        return rename_error != 0 ? -rename_error : file_calls::rename(from, to);
    }
    void temporary_created(const std::filesystem::path& path) override { live.push_back(path.string()); }
    void temporary_gone(const std::filesystem::path& path) override { std::erase(live, path.string()); }
};

/// A disk of a process that is killed after so many bytes: nothing is tidied up.
class killing_disk : public lowrank::file_calls {
public:
    explicit killing_disk(std::uint64_t room) : room_(room) {}
    std::ptrdiff_t write(int file, const std::byte* data, std::size_t size) override {
        const std::ptrdiff_t done = file_calls::write(file, data, std::min<std::size_t>(size, room_));
        room_ -= static_cast<std::uint64_t>(done);
        if (room_ == 0) {
            ::_exit(9);
        }
        return done;
    }

private:
    std::uint64_t room_;
};

/// Runs `work(disk)` in a process that is killed after `room` bytes; it ends with 1 if `work` gives false.
/// \return true if it was killed.
template <class F>
bool killed_after(std::uint64_t room, F&& work) {
    const auto child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        killing_disk disk(room);
        const bool done = work(disk);
        ::_exit(done ? 0 : 1);
    }
    int state = 0;
    REQUIRE(::waitpid(child, &state, 0) == child);
    REQUIRE(WIFEXITED(state));
    REQUIRE_MESSAGE((WEXITSTATUS(state) == 9 || WEXITSTATUS(state) == 0), WEXITSTATUS(state));
    return WEXITSTATUS(state) == 9;
}

}  // namespace lowrank_tests

#endif  // LOWRANK_TESTS_IO_IO_SUPPORT_HPP
