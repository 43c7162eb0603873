// SPDX-License-Identifier: MIT
#include <lowrank/io/containers/staged_folder.hpp>

#include <utility>

#include <lowrank/io/containers/atomic_file.hpp>

#include "io_support.hpp"

using namespace lowrank;
using lowrank_tests::temporary_folder;
using lowrank_tests::text_of;
using names = std::vector<std::string>;

TEST_CASE("a folder takes its name when it is committed, and leaves nothing when it is not") {
    temporary_folder folder;
    {
        auto out = staged_folder::create(folder / "out/");
        REQUIRE(out);
        CHECK(out->path().parent_path() == folder.path());
        REQUIRE(write_file(out->path() / "config.json", "{}"));
        CHECK_FALSE(std::filesystem::exists(folder / "out"));
        staged_folder moved = *std::move(out);
        REQUIRE(moved.commit());
        CHECK(moved.path().empty());
    }
    CHECK(folder.listing() == names{"out"});
    CHECK(text_of(folder / "out" / "config.json") == "{}");
    {
        auto out = staged_folder::create(folder / "other");
        REQUIRE(out);
        REQUIRE(write_file(out->path() / "config.json", "{}"));
    }
    CHECK(folder.listing() == names{"out"});
}

TEST_CASE("only a checkpoint or an adapter is replaced, and never an input") {
    temporary_folder folder;
    const staging_options replace{.replace = true, .name_of_replace = "--force"};
    CHECK(check_output_folder(folder / "no/such/place").code == errc::not_found);
    std::filesystem::create_directory(folder / "out");
    REQUIRE(write_file(folder / "out" / "diary.txt", "private"));
    CHECK(check_output_folder(folder / "out").message.find("use replace to replace it") != std::string::npos);
    CHECK(staged_folder::create(folder / "out").error().code == errc::io_failure);
    CHECK(check_output_folder(folder / "out", replace).message.find("--force does not replace it") !=
          std::string::npos);
    REQUIRE(write_file(folder / "out" / "adapter_config.json", "{}"));
    CHECK(check_output_folder(folder / "out", replace));
    CHECK(check_output_folder(folder / "out", {.replace = true, .inputs = {folder / "out" / "diary.txt"}})
              .message.find("input") != std::string::npos);
    {
        auto out = staged_folder::create(folder / "out", replace);
        REQUIRE(out);
        REQUIRE(write_file(out->path() / "new.txt", "new"));
        REQUIRE(out->commit());
    }
    CHECK(folder.listing() == names{"out"});
    CHECK(std::filesystem::exists(folder / "out" / "new.txt"));
    CHECK_FALSE(std::filesystem::exists(folder / "out" / "diary.txt"));

    CHECK_FALSE(check_output_file(folder / "out", replace));
    CHECK(check_output_file(folder / "file"));
    REQUIRE(write_file(folder / "file", "old"));
    CHECK_FALSE(check_output_file(folder / "file"));
    CHECK(check_output_file(folder / "file", replace));
}

TEST_CASE("unfinished work is left for the next run, which takes it over") {
    temporary_folder folder;
    std::filesystem::path left;
    {
        auto out = staged_folder::create(folder / "out", {.resume = true});
        REQUIRE(out);
        CHECK_FALSE(out->is_resumable());
        REQUIRE(write_file(out->path() / unfinished_file, "journal"));
        CHECK(out->is_resumable());
        left = out->path();
    }
    CHECK(std::filesystem::exists(left));
    {
        auto fresh = staged_folder::create(folder / "out");
        REQUIRE(fresh);
        CHECK(fresh->path() != left);
    }
    auto next = staged_folder::create(folder / "out", {.resume = true});
    REQUIRE(next);
    CHECK(next->path() == left);
    REQUIRE(next->commit());
    CHECK(folder.listing() == names{"out"});
}
