// SPDX-License-Identifier: MIT
#include <lowrank/core/check.hpp>
#include <lowrank/io/containers/atomic_file.hpp>

#include <string>
#include <utility>
#include <vector>

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io_support.hpp"

using namespace lowrank;
using lowrank_tests::failing_disk;
using lowrank_tests::temporary_folder;
using lowrank_tests::text_of;

TEST_CASE("a committed file is whole, an abandoned one leaves nothing") {
    temporary_folder folder;
    {
        auto file = atomic_file::create(folder / "f");
        REQUIRE(file);
        CHECK(file->temporary().parent_path() == folder.path());
        CHECK(std::filesystem::exists(file->temporary()));
        REQUIRE(file->write("one "));
        REQUIRE(file->write("two"));
        CHECK(file->written() == 7);
        CHECK_FALSE(std::filesystem::exists(folder / "f"));
        REQUIRE(file->commit());
        CHECK_THROWS_AS((void)file->commit(), contract_violation);
    }
    CHECK(text_of(folder / "f") == "one two");
    {
        auto file = atomic_file::create(folder / "f");
        REQUIRE(file);
        REQUIRE(file->write("never"));
    }
    CHECK(text_of(folder / "f") == "one two");
    CHECK(folder.listing() == std::vector<std::string>{"f"});
}

TEST_CASE("an old file is replaced with its access rights, a link is replaced and not followed") {
    temporary_folder folder;
    REQUIRE(write_file(folder / "f", "old"));
    REQUIRE(::chmod((folder / "f").c_str(), 0640) == 0);
    REQUIRE(write_file(folder / "f", "new"));
    CHECK(text_of(folder / "f") == "new");
    struct stat facts = {};
    REQUIRE(::stat((folder / "f").c_str(), &facts) == 0);
    CHECK((facts.st_mode & 07777) == 0640);

    std::filesystem::create_symlink("f", folder / "link");
    REQUIRE(write_file(folder / "link", "mine"));
    CHECK(text_of(folder / "f") == "new");
    CHECK(text_of(folder / "link") == "mine");
    CHECK_FALSE(std::filesystem::is_symlink(folder / "link"));
}

TEST_CASE("short writes and interrupted calls are continued") {
    temporary_folder folder;
    failing_disk disk;
    disk.most_per_call = 3;
    disk.interruptions = 2;
    const std::string text(1000, 'z');
    REQUIRE(write_file(folder / "f", text, {.calls = &disk}));
    CHECK(text_of(folder / "f") == text);
    CHECK(disk.live.empty());
}

TEST_CASE("a disk that is full at any byte leaves the old file and nothing else") {
    temporary_folder folder;
    REQUIRE(write_file(folder / "f", "old"));
    for (std::uint64_t room = 0; room < 20; ++room) {
        failing_disk disk;
        disk.room = room;
        disk.most_per_call = 7;
        const status why = write_file(folder / "f", "twenty bytes of data", {.calls = &disk});
        REQUIRE_FALSE(why);
        CHECK(why.code == errc::io_failure);
        CHECK(why.message.find("disk is full") != std::string::npos);
        CHECK(disk.live.empty());
        CHECK(text_of(folder / "f") == "old");
        CHECK(folder.listing() == std::vector<std::string>{"f"});
    }
    failing_disk disk;
    disk.room = 20;
    CHECK(write_file(folder / "f", "twenty bytes of data", {.calls = &disk}));
}

TEST_CASE("a failure stays: later writes and the commit repeat it") {
    temporary_folder folder;
    failing_disk disk;
    disk.room = 2;
    disk.error = EIO;
    auto file = atomic_file::create(folder / "f", {.calls = &disk});
    REQUIRE(file);
    CHECK_FALSE(file->write("abcdef"));
    disk.room = 1000;
    CHECK_FALSE(file->write("more"));
    CHECK_FALSE(file->commit());
    CHECK(folder.listing().empty());
}

TEST_CASE("failures to sync and to rename are reported and cleaned up") {
    temporary_folder folder;
    failing_disk disk;
    disk.sync_error = EIO;
    CHECK_FALSE(write_file(folder / "f", "x", {.calls = &disk}));
    disk.sync_error = 0;
    disk.rename_error = EACCES;
    const status why = write_file(folder / "f", "x", {.calls = &disk});
    CHECK(why.message.find("permission") != std::string::npos);
    CHECK(folder.listing().empty());
    CHECK(disk.live.empty());
}

TEST_CASE("places that cannot be written to are refused with a sentence") {
    temporary_folder folder;
    CHECK(write_file(folder / "no" / "such" / "folder", "x").code == errc::not_found);
    CHECK(write_file(folder.path(), "x").message.find("folder") != std::string::npos);
    CHECK_FALSE(write_file(folder.path().string() + "/", "x"));
    if (::geteuid() != 0) {
        std::filesystem::permissions(folder.path(),
                                     std::filesystem::perms::owner_read | std::filesystem::perms::owner_exec);
        CHECK(write_file(folder / "f", "x").message.find("permission") != std::string::npos);
    }
}

TEST_CASE("the temporary files that exist can be removed from a signal handler") {
    temporary_folder folder;
    temporary_files live;
    auto first = atomic_file::create(folder / "a", {.calls = &live});
    auto second = atomic_file::create(folder / "b", {.calls = &live});
    REQUIRE(first);
    REQUIRE(second);
    CHECK(folder.listing().size() == 2);
    REQUIRE(first->commit());
    CHECK(live.remove_all() == 1);
    CHECK(live.remove_all() == 0);
    CHECK(folder.listing() == std::vector<std::string>{"a"});
}

TEST_CASE("a process that is killed while it writes leaves the old file") {
    temporary_folder folder;
    REQUIRE(write_file(folder / "f", "old"));
    const ::pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        auto file = atomic_file::create(folder / "f");
        if (file && file->write("half of the n")) {
            ::kill(::getpid(), SIGKILL);
        }
        ::_exit(0);
    }
    int how = 0;
    REQUIRE(::waitpid(child, &how, 0) == child);
    CHECK(WIFSIGNALED(how));
    CHECK(text_of(folder / "f") == "old");
}

TEST_CASE("two writers of one file do not disturb each other; the last commit wins") {
    temporary_folder folder;
    auto first = atomic_file::create(folder / "f");
    auto second = atomic_file::create(folder / "f");
    REQUIRE(first);
    REQUIRE(second);
    CHECK(first->temporary() != second->temporary());
    REQUIRE(second->write("second"));
    REQUIRE(first->write("first"));
    REQUIRE(second->commit());
    REQUIRE(first->commit());
    CHECK(text_of(folder / "f") == "first");
}

TEST_CASE("two files written together are both new or both old, with hard links and without") {
    struct disk : file_calls {
        bool has_links = true;
        int renames = 100;  ///< So many work.
        int link(const std::filesystem::path& from, const std::filesystem::path& to) override {
            return has_links ? file_calls::link(from, to) : -EPERM;
        }
        int rename(const std::filesystem::path& from, const std::filesystem::path& to) override {
            return renames-- > 0 ? file_calls::rename(from, to) : -EIO;
        }
    };
    for (const bool has_links : {true, false}) {
        for (const bool existed : {true, false}) {
            for (int renames = 0; renames < 4; ++renames) {
                temporary_folder folder;
                if (existed) {
                    REQUIRE(write_file(folder / "a", std::string("old a")));
                    REQUIRE(write_file(folder / "b", std::string("old b")));
                }
                disk calls;
                calls.has_links = has_links;
                calls.renames = renames;
                status why;
                {
                    auto a = atomic_file::create(folder / "a", {.calls = &calls});
                    auto b = atomic_file::create(folder / "b", {.calls = &calls});
                    REQUIRE(a);
                    REQUIRE(b);
                    REQUIRE(a->write(lowrank_tests::bytes_of("new a")));
                    REQUIRE(b->write(lowrank_tests::bytes_of("new b")));
                    why = commit_together(*a, *b);
                }
                const bool is_new = static_cast<bool>(why);
                CHECK(is_new == (renames >= (existed && !has_links ? 3 : 2)));
                if (is_new || existed) {
                    CHECK(lowrank_tests::text_of(folder / "a") == (is_new ? "new a" : "old a"));
                    CHECK(lowrank_tests::text_of(folder / "b") == (is_new ? "new b" : "old b"));
                }
                CHECK(folder.listing().size() == (is_new || existed ? 2 : 0));
            }
        }
    }
}
