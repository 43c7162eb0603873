// SPDX-License-Identifier: MIT
#include <lowrank/io/containers/mapped_file.hpp>

#include <string>
#include <utility>

#include <sys/stat.h>
#include <unistd.h>

#include "io_support.hpp"

using namespace lowrank;
using lowrank_tests::temporary_folder;

TEST_CASE("a file is mapped, or read, with the same bytes") {
    temporary_folder folder;
    const std::string text(100000, 'q');
    REQUIRE(write_file(folder / "f", text));
    for (const bool map : {true, false}) {
        auto file = mapped_file::open(folder / "f", {.map = map});
        REQUIRE(file);
        CHECK(file->is_mapped() == map);
        REQUIRE(file->bytes().size() == text.size());
        CHECK(std::memcmp(file->bytes().data(), text.data(), text.size()) == 0);

        const std::byte* before = file->bytes().data();
        mapped_file moved(std::move(*file));
        CHECK(moved.bytes().data() == before);
        CHECK(file->bytes().empty());
        mapped_file assigned;
        assigned = std::move(moved);
        CHECK(assigned.bytes().data() == before);
    }
}

TEST_CASE("released bytes are the same when they are touched again") {
    temporary_folder folder;
    const std::string text(100000, 'q');
    REQUIRE(write_file(folder / "f", text));
    for (const bool map : {true, false}) {
        const auto file = mapped_file::open(folder / "f", {.map = map});
        REQUIRE(file);
        file->release(file->bytes().subspan(1));
        file->release(file->bytes().first(0));
        CHECK(std::memcmp(file->bytes().data(), text.data(), text.size()) == 0);
    }
}

TEST_CASE("an empty file has no bytes") {
    temporary_folder folder;
    REQUIRE(write_file(folder / "empty", ""));
    const auto file = mapped_file::open(folder / "empty");
    REQUIRE(file);
    CHECK(file->bytes().empty());
    CHECK(mapped_file::own({}).bytes().empty());
}

TEST_CASE("what is not a readable regular file is refused with a sentence") {
    temporary_folder folder;
    CHECK(mapped_file::open(folder / "absent").error().code == errc::not_found);
    const auto directory = mapped_file::open(folder.path());
    REQUIRE_FALSE(directory);
    CHECK(directory.error().code == errc::io_failure);
    CHECK(directory.error().message.find("folder") != std::string::npos);

    REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
    const auto pipe = mapped_file::open(folder / "pipe");  // must not wait for a writer
    REQUIRE_FALSE(pipe);
    CHECK(pipe.error().message.find("not a regular file") != std::string::npos);
    CHECK_FALSE(mapped_file::open("/dev/zero"));

    REQUIRE(write_file(folder / "secret", "x"));
    REQUIRE(::chmod((folder / "secret").c_str(), 0) == 0);
    const auto secret = mapped_file::open(folder / "secret");
    if (::geteuid() != 0) {  // the administrator may read everything
        REQUIRE_FALSE(secret);
        CHECK(secret.error().message.find("permission") != std::string::npos);
    } else {
        CHECK(secret);
    }
}

TEST_CASE("a file shorter than expected is an error") {
    temporary_folder folder;
    REQUIRE(write_file(folder / "f", "12345678"));
    CHECK(mapped_file::open(folder / "f", {.at_least = 8}));
    const auto file = mapped_file::open(folder / "f", {.at_least = 9});
    REQUIRE_FALSE(file);
    CHECK(file.error().code == errc::invalid_format);
    CHECK(file.error().message.find("8 bytes") != std::string::npos);
}
