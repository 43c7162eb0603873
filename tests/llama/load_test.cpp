// SPDX-License-Identifier: MIT
// Models through folders: saved and loaded bit for bit, shards, and every way a folder can be wrong.

#include <llama/load.hpp>

#include <llama/adapters.hpp>
#include <llama/forward.hpp>

#include <filesystem>
#include <fstream>
#include <limits>
#include <string>

#include <unistd.h>

#include <doctest/doctest.h>

#include "tiny_models.hpp"

namespace {

namespace fs = std::filesystem;

/// An empty folder that goes with the object.
struct scratch_folder {
    fs::path path;
    explicit scratch_folder(const char* name)
        : path(fs::temp_directory_path() / ("lowrank-llama-" + std::string(name) + "-" + std::to_string(::getpid()))) {
        fs::remove_all(path);
        fs::create_directories(path);
    }
    scratch_folder(const scratch_folder&) = delete;
    scratch_folder& operator=(const scratch_folder&) = delete;
    ~scratch_folder() {
        std::error_code error;
        fs::remove_all(path, error);
    }
};

void write_text(const fs::path& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

/// Saves `m` with the tensors as `change` leaves them, so that a wrong checkpoint can be made.
template <class F>
void save_changed(const llama::model<float>& m, const fs::path& folder, F&& change) {
    std::vector<lowrank::tensor_to_write> tensors;
    llama::for_each_weight(m, [&](const std::string& name, lowrank::const_weight_view<float> w) {
        tensors.push_back(lowrank::borrowed_tensor<float>(name, w));
        if (w.cols() == 1) {
            tensors.back().shape.resize(1);
        }
    });
    change(tensors);
    REQUIRE(lowrank::write_safetensors(folder / "model.safetensors", tensors));
    write_text(folder / "config.json", llama::to_json(m.shape));
}

}  // namespace

TEST_CASE_TEMPLATE("a saved model comes back bit for bit", S, float, double) {
    const scratch_folder folder("roundtrip");
    for (const auto& o : {tiny::options{}, tiny::options{.tied = false, .bias = true}}) {
        const auto m = tiny::model<S>(o);
        REQUIRE(llama::save(m, folder.path / "new" / "model"));
        const auto back = llama::load<S>(folder.path / "new" / "model");
        REQUIRE_MESSAGE(back.has_value(), back.error().message);
        CHECK(llama::weight_names(*back) == llama::weight_names(m));
        for (const auto& name : llama::weight_names(m)) {
            CHECK(*llama::find_weight(*back, name) == *llama::find_weight(m, name));
        }
        CHECK(llama::to_json(back->shape) == llama::to_json(m.shape));
    }
}

TEST_CASE("a sharded checkpoint is one checkpoint") {
    const scratch_folder folder("shards");
    const auto m = tiny::model<float>({.tied = false});
    std::vector<lowrank::tensor_to_write> shards[2];
    std::string map;
    std::size_t number = 0;
    llama::for_each_weight(m, [&](const std::string& name, lowrank::const_weight_view<float> w) {
        auto& shard = shards[number % 2];
        shard.push_back(lowrank::borrowed_tensor<float>(name, w));
        if (w.cols() == 1) {
            shard.back().shape.resize(1);
        }
        map += (map.empty() ? "" : ",") + std::string("\"") + name + "\":\"model-0000" +
               std::to_string(number % 2 + 1) + "-of-00002.safetensors\"";
        ++number;
    });
    REQUIRE(lowrank::write_safetensors(folder.path / "model-00001-of-00002.safetensors", shards[0]));
    REQUIRE(lowrank::write_safetensors(folder.path / "model-00002-of-00002.safetensors", shards[1]));
    write_text(folder.path / "model.safetensors.index.json",
               "{\"metadata\":{\"total_size\":1},\"weight_map\":{" + map + "}}");
    write_text(folder.path / "config.json", llama::to_json(m.shape));
    const auto back = llama::load(folder.path);
    REQUIRE_MESSAGE(back.has_value(), back.error().message);
    for (const auto& name : llama::weight_names(m)) {
        CHECK(*llama::find_weight(*back, name) == *llama::find_weight(m, name));
    }
    fs::remove(folder.path / "model-00002-of-00002.safetensors");
    CHECK(!llama::load(folder.path).has_value());
}

TEST_CASE("what is missing, misshapen, unknown or not a number is named") {
    const scratch_folder folder("broken");
    const auto m = tiny::model<float>();
    using list = std::vector<lowrank::tensor_to_write>;
    const auto why = [&](auto&& change) {
        save_changed(m, folder.path, change);
        const auto back = llama::load(folder.path);
        REQUIRE(!back.has_value());
        return back.error();
    };
    const std::string name = "model.layers.1.mlp.up_proj.weight";
    const auto of_name = [&](list& tensors) -> lowrank::tensor_to_write& {
        for (auto& t : tensors) {
            if (t.name == name) {
                return t;
            }
        }
        return tensors.front();
    };
    auto error = why([&](list& tensors) { of_name(tensors).name = "model.layers.1.mlp.other.weight"; });
    CHECK(error.code == lowrank::errc::not_found);
    CHECK(error.message.find(name) != std::string::npos);

    error = why([&](list& tensors) { std::swap(of_name(tensors).shape[0], of_name(tensors).shape[1]); });
    CHECK(error.code == lowrank::errc::mismatch);
    CHECK(error.message == "tensor " + name + " is 13 x 17, config.json implies 17 x 13");

    const lowrank::row_matrix<float> extra = lowrank::row_matrix<float>::Zero(2, 2);
    error = why([&](list& tensors) {
        tensors.push_back(lowrank::borrowed_tensor<float>("model.layers.0.self_attn.q_norm.weight", extra));
    });
    CHECK(error.code == lowrank::errc::unsupported);
    CHECK(error.message.find("q_norm") != std::string::npos);

    auto broken = m;
    broken.layers[1].up_proj.weight(3, 4) = std::numeric_limits<float>::infinity();
    REQUIRE(llama::save(broken, folder.path));
    const auto not_finite = llama::load(folder.path);
    CHECK(not_finite.error().code == lowrank::errc::non_finite);
    CHECK(not_finite.error().message.find(name) != std::string::npos);

    REQUIRE(llama::save(m, folder.path));
    REQUIRE(llama::load(folder.path).has_value());
    auto huge = m.shape;  // must be noticed before memory for it is asked for
    huge.vocab_size = llama::index{1} << 30;
    huge.hidden_size = llama::index{1} << 30;
    write_text(folder.path / "config.json", llama::to_json(huge));
    CHECK(llama::load(folder.path).error().code == lowrank::errc::mismatch);
    huge = m.shape;
    huge.num_hidden_layers = llama::index{1} << 30;
    write_text(folder.path / "config.json", llama::to_json(huge));
    CHECK(llama::load(folder.path).error().code == lowrank::errc::not_found);

    write_text(folder.path / "config.json", "{}");
    CHECK(llama::load(folder.path).error().code == lowrank::errc::invalid_format);
    fs::remove(folder.path / "config.json");
    CHECK(llama::load(folder.path).error().code == lowrank::errc::not_found);
    REQUIRE(llama::save(m, folder.path));
    fs::resize_file(folder.path / "model.safetensors", 1000);
    CHECK(llama::load(folder.path).error().code == lowrank::errc::invalid_format);
    fs::remove(folder.path / "model.safetensors");
    CHECK(llama::load(folder.path).error().code == lowrank::errc::not_found);
    CHECK(!llama::load(folder.path / "nowhere").has_value());
}

TEST_CASE("adapters attach whole or not at all, and are not saved silently") {
    const scratch_folder folder("adapters");
    auto m = tiny::model<float>();
    std::map<std::string, lowrank::lora_adapter<float>> modules;
    llama::for_each_projection(
        m, [&](const llama::projection<float>& p) { modules.emplace(p.name, *tiny::adapter(p, {.r = 2})); });
    const auto attached = [&] {
        llama::index n = 0;
        llama::for_each_projection(
            m, [&](const llama::projection<float>& p) { n += static_cast<llama::index>(p.adapters.size()); });
        return n;
    };
    auto wrong = modules;
    wrong["model.layers.1.mlp.up_proj"] = lowrank::make_lora<float>(17, 12);
    CHECK(llama::attach(m, wrong).code == lowrank::errc::mismatch);
    wrong = modules;
    wrong["model.layers.7.mlp.up_proj"] = modules["model.layers.1.mlp.up_proj"];
    CHECK(llama::attach(m, wrong).message.find("model.layers.7.mlp.up_proj") != std::string::npos);
    wrong = modules;
    wrong["lm_head"] = lowrank::make_lora<float>(23, 13);
    CHECK(llama::attach(m, wrong).message.find("shares with its embeddings") != std::string::npos);
    wrong = modules;
    wrong["model.layers.1.mlp.up_proj"].lora_B(0, 0) = std::numeric_limits<float>::quiet_NaN();
    CHECK(llama::attach(m, wrong).code == lowrank::errc::non_finite);
    CHECK(attached() == 0);
    REQUIRE(llama::attach(m, modules, 0.5F));
    REQUIRE(llama::attach(m, modules, 0.25F));
    CHECK(attached() == 28);
    CHECK(llama::save(m, folder.path).code == lowrank::errc::mismatch);
    CHECK(!fs::exists(folder.path / "model.safetensors"));
    llama::detach(m);
    CHECK(attached() == 0);
    CHECK(llama::save(m, folder.path));
}

TEST_CASE("weights are found, viewed, edited and put back by name") {
    auto m = tiny::model<double>({.tied = false, .bias = true});
    CHECK(llama::projection_names(m).size() == 15);
    CHECK(llama::weight_names(m).size() == 1 + 2 * (2 + 7 + 7) + 1 + 1);
    const std::string name = "model.layers.0.self_attn.k_proj.weight";
    auto w = *llama::find_weight(m, name);
    CHECK(w.rows() == 12);
    CHECK(w.cols() == 13);
    CHECK(w.data() == m.layers[0].k_proj.weight.data());
    CHECK(llama::find_projection(m, name) == &m.layers[0].k_proj);
    CHECK(llama::find_projection(m, "model.layers.0.self_attn.k_proj") == &m.layers[0].k_proj);
    CHECK(llama::find_projection(m, "k_proj") == nullptr);
    CHECK(!llama::find_weight(m, "model.layers.2.self_attn.k_proj.weight").has_value());
    CHECK(llama::find_weight(m, "model.layers.1.self_attn.k_proj.bias")->rows() == 12);
    const auto b = tiny::batch(m.shape, {5});
    lowrank::workspace ws;
    const auto before = llama::forward(m, b, ws);
    const lowrank::row_matrix<double> kept = w;
    w.setZero();
    CHECK(llama::forward(m, b, ws) != before);
    w = kept;
    CHECK(llama::forward(m, b, ws) == before);
}
