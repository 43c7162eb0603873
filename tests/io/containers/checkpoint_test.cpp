// SPDX-License-Identifier: MIT
#include <lowrank/io/containers/checkpoint.hpp>

#include <string>
#include <string_view>
#include <vector>

#include "io_support.hpp"
#include "support/shared.hpp"

using namespace lowrank;
using lowrank_tests::temporary_folder;

namespace {

row_matrix<float> filled(Eigen::Index rows, Eigen::Index cols, float value) {
    return row_matrix<float>::Constant(rows, cols, value);
}

/// Two shards a (x, y) and b (z), and an index that says `weight_map`.
void write_shards(const temporary_folder& folder, std::string_view weight_map) {
    REQUIRE(write_safetensors(folder / "a.safetensors",
                              {tensor_of("x", filled(2, 3, 1)), tensor_of("y", filled(1, 1, 2))}));
    REQUIRE(write_safetensors(folder / "b.safetensors", {tensor_of("z", filled(4, 1, 3))}));
    REQUIRE(write_file(folder / "model.safetensors.index.json",
                       "{\"metadata\":{\"total_size\":44.0},\"weight_map\":" + std::string(weight_map) + "}"));
}

constexpr const char* right_map = R"({"x":"a.safetensors","z":"b.safetensors","y":"a.safetensors"})";

void refuses(const temporary_folder& folder, std::string_view says) {
    const auto model = checkpoint::open(folder.path());
    REQUIRE_FALSE(model);
    CHECK_MESSAGE(model.error().message.find(says) != std::string::npos, model.error().message);
}

}  // namespace

TEST_CASE("shards act as one file") {
    temporary_folder folder;
    write_shards(folder, right_map);
    for (const auto& path : {folder.path(), folder / "model.safetensors.index.json"}) {
        const auto model = checkpoint::open(path);
        REQUIRE_MESSAGE(model, (model ? std::string() : model.error().message));
        CHECK(model->shards().size() == 2);
        REQUIRE(model->tensors().size() == 3);
        CHECK(model->tensors()[0].info->name == "x");
        CHECK(*model->matrix<double>("z") == filled(4, 1, 3).cast<double>());
        CHECK(*model->view<float>("x") == filled(2, 3, 1));
        CHECK(model->bytes("y")->size() == 4);
        CHECK(model->find("w") == nullptr);
        CHECK(model->matrix<float>("w").error().code == errc::not_found);
        CHECK(model->view<float>("w").error().code == errc::not_found);
        CHECK(model->vector<float>("w").error().code == errc::not_found);
        CHECK(model->bytes("w").error().code == errc::not_found);
        CHECK(model->vector<float>("x").error().code == errc::mismatch);
    }
}

TEST_CASE("a single file and a folder with one are the same") {
    temporary_folder folder;
    REQUIRE(write_safetensors(folder / "model.safetensors", {tensor_of("x", filled(2, 2, 5))}));
    CHECK(*checkpoint::open(folder.path())->matrix<float>("x") == filled(2, 2, 5));
    CHECK(*checkpoint::open(folder / "model.safetensors")->matrix<float>("x") == filled(2, 2, 5));
}

TEST_CASE("an index cannot lead out of its folder") {
    temporary_folder folder;
    for (const char* name : {"../a.safetensors", "/etc/a.safetensors", "sub/a.safetensors", "..\\\\a.safetensors",
                             "C:a.safetensors", "..", "", "a\\u0000.safetensors", "a.bin"}) {
        write_shards(folder, "{\"x\":\"" + std::string(name) + "\"}");
        refuses(folder, "only names of .safetensors files in the same folder");
    }
}

TEST_CASE("links out of the folder are refused unless asked for; the hub's cache layout works") {
    temporary_folder root;
    const auto outside = root / "outside";
    const auto cache = root / "cache";
    std::filesystem::create_directories(outside);
    std::filesystem::create_directories(cache / "blobs");
    std::filesystem::create_directories(cache / "snapshots" / "1");
    REQUIRE(write_safetensors(outside / "w.safetensors", {tensor_of("x", filled(1, 1, 1))}));
    REQUIRE(write_safetensors(cache / "blobs" / "abc", {tensor_of("x", filled(1, 1, 2))}));

    std::filesystem::create_symlink("../../blobs/abc", cache / "snapshots" / "1" / "model.safetensors");
    const auto cached = checkpoint::open(cache / "snapshots" / "1");
    REQUIRE_MESSAGE(cached, (cached ? std::string() : cached.error().message));
    CHECK((*cached->matrix<float>("x"))(0, 0) == 2);

    std::filesystem::create_directories(root / "model");
    std::filesystem::create_symlink(outside / "w.safetensors", root / "model" / "model.safetensors");
    const auto linked = checkpoint::open(root / "model");
    REQUIRE_FALSE(linked);
    CHECK(linked.error().message.find("leads out of its folder") != std::string::npos);
    CHECK(checkpoint::open(root / "model", {.follow_links = true}));
    CHECK(checkpoint::open(root / "model" / "model.safetensors"));  // the caller's own choice

    std::filesystem::remove(outside / "w.safetensors");
    CHECK_FALSE(checkpoint::open(root / "model"));
}

TEST_CASE("an index that does not fit its shards is refused") {
    temporary_folder folder;
    write_shards(folder, R"({"x":"b.safetensors"})");
    refuses(folder, "tensor \"x\" is not in its shard \"b.safetensors\"");
    write_shards(folder, R"({"x":"c.safetensors"})");
    refuses(folder, "no such file");
    write_shards(folder, right_map);
    REQUIRE(write_safetensors(folder / "b.safetensors",
                              {tensor_of("z", filled(1, 1, 1)), tensor_of("x", filled(1, 1, 1))}));
    refuses(folder, "tensor \"x\" lies in two shards");
    REQUIRE(write_file(folder / "b.safetensors", "broken"));
    refuses(folder, "b.safetensors");
}

TEST_CASE("a broken index is refused") {
    temporary_folder folder;
    struct broken {
        const char* text;
        const char* says;
    };
    for (const broken& c : {broken{"", "JSON"},
                            {"[]", "must be a JSON object"},
                            {"7", "must be a JSON object"},
                            {"{}", "no weight_map"},
                            {R"({"weight_map":[]})", "weight_map must be an object"},
                            {R"({"weight_map":"x"})", "weight_map must be an object"},
                            {R"({"weight_map":{"x":1}})", "must be a file name, not a number"},
                            {R"({"weight_map":{"x":{}}})", "must be a file name, not an object"},
                            {R"({"weight_map":{"x":["a"]}})", "must be a file name, not an array"},
                            {R"({"weight_map":{},"weight_map":{}})", "appears twice"},
                            {R"({"weight_map":{"x":"a.safetensors","x":"a.safetensors"}})", "\"x\" twice"},
                            {R"({"weight_map":{}}{})", "JSON"},
                            {"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"}}) {
        REQUIRE(write_file(folder / "model.safetensors.index.json", c.text));
        refuses(folder, c.says);
    }
    REQUIRE(write_file(folder / "model.safetensors.index.json", "{\"a\":" + std::string(100000, '[')));
    refuses(folder, "64 levels");
    REQUIRE(
        write_file(folder / "model.safetensors.index.json", R"({"metadata":{"weight_map":{"x":1}},"weight_map":{}})"));
    CHECK(checkpoint::open(folder.path()));
}

TEST_CASE("what is no checkpoint gets a sentence") {
    temporary_folder folder;
    refuses(folder, "there is no model.safetensors");
    REQUIRE(write_file(folder / "pytorch_model.bin", "\x80\x02"));
    refuses(folder, "safe_serialization=True");
    CHECK(checkpoint::open(folder / "absent").error().code == errc::not_found);
}

TEST_CASE("a real model opens by its folder") {
    LOWRANK_NEEDS_SHARED(shared);
    const auto model = checkpoint::open(shared / "models" / "stories260K", {.follow_links = true});
    REQUIRE(model);
    CHECK(model->find("model.layers.0.self_attn.q_proj.weight") != nullptr);
}

TEST_CASE("a diffusion model opens by its folder, and sub-folders with models are named") {
    temporary_folder folder;
    for (const char* part : {"unet", "vae"}) {
        std::filesystem::create_directories(folder / part);
        REQUIRE(write_safetensors(folder / part / "diffusion_pytorch_model.safetensors",
                                  {tensor_of("x", filled(2, 3, 1))}));
    }
    REQUIRE(checkpoint::open(folder / "unet"));
    CHECK(model_folders(folder.path()) == std::vector<std::filesystem::path>{folder / "unet", folder / "vae"});
    refuses(folder, "its sub-folders with a model are \"unet\", \"vae\"");
    temporary_folder cache;
    std::filesystem::create_directories(cache / "snapshots/abc");
    REQUIRE(write_safetensors(cache / "snapshots/abc/model.safetensors", {tensor_of("x", filled(2, 3, 1))}));
    CHECK(model_folders(cache.path()) == std::vector<std::filesystem::path>{cache / "snapshots/abc"});
}
