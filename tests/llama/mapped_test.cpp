// SPDX-License-Identifier: MIT
#include <llama/mapped.hpp>

#include <llama/search_hooks.hpp>

#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

#include <unistd.h>

#include <doctest/doctest.h>

#include <lowrank/factor/factored_algebra.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/laser/search/gradient_search.hpp>
#include <lowrank/laser/search/greedy_search.hpp>

#include "llama/tiny_models.hpp"

namespace {

namespace fs = std::filesystem;

struct model_folder {
    fs::path path = fs::temp_directory_path() / ("lowrank-mapped-" + std::to_string(::getpid()));
    model_folder() { fs::create_directories(path); }
    model_folder(const model_folder&) = delete;
    model_folder& operator=(const model_folder&) = delete;
    ~model_folder() {
        std::error_code error;
        fs::remove_all(path, error);
    }

    /// Two shards whose matrices are T.
    template <lowrank::storage T>
    void write(const llama::model<float>& m) const {
        std::vector<lowrank::tensor_to_write> shards[2];
        std::vector<lowrank::row_matrix<T>> kept;
        kept.reserve(200);
        std::string map;
        std::size_t number = 0;
        llama::for_each_weight(m, [&](const std::string& name, lowrank::const_weight_view<float> w) {
            auto& shard = shards[number++ % 2];
            kept.push_back(w.template cast<T>());
            shard.push_back(lowrank::borrowed_tensor<T>(name, kept.back()));
            if (w.cols() == 1) {
                shard.back().shape.resize(1);
            }
            map +=
                (map.empty() ? "\"" : ",\"") + name + "\":\"part" + std::to_string((number - 1) % 2) + ".safetensors\"";
        });
        for (int i = 0; i < 2; ++i) {
            REQUIRE(lowrank::write_safetensors(path / ("part" + std::to_string(i) + ".safetensors"), shards[i]));
        }
        std::ofstream(path / "model.safetensors.index.json") << "{\"weight_map\":{" << map << "}}";
        std::ofstream(path / "config.json") << llama::to_json(m.shape);
    }
};

llama::batch asked_of(const llama::config& c) {
    llama::batch b = tiny::batch(c, {6, 7, 8, 9, 5, 6, 7, 8, 6, 9, 7, 8});
    for (std::size_t i = 0; i < b.targets.size(); ++i) {
        b.targets[i] = static_cast<int>((3 * i + 1) % static_cast<std::size_t>(c.vocab_size));
    }
    return b;
}

}  // namespace

TEST_CASE_TEMPLATE("a model in its file scores as the loaded one, to the bit, and leaves no weight behind", T, float,
                   lowrank::bfloat16, lowrank::half) {
    for (const bool tied : {true, false}) {
        const model_folder folder;
        folder.write<T>(tiny::model<float>({.tied = tied, .bias = true, .layers = 3}));
        auto loaded = llama::load<float>(folder.path).value();
        auto opened = llama::mapped_model<float>::open(folder.path);
        REQUIRE_MESSAGE(opened.has_value(), opened.error().message);
        CHECK(opened->net().embed_tokens.size() == 0);
        llama::for_each_projection(opened->net(), [](const auto& p) { CHECK(p.weight.size() == 0); });
        const auto b = asked_of(loaded.shape);
        llama::searchable<float> whole(loaded, b, {.group_tokens = 20});
        llama::searchable<float> parts(*opened, b, {.cache_bytes = 0, .group_tokens = 20});
        const auto in_memory = whole.hooks(), in_file = parts.hooks();
        CHECK(in_file.weights.front().weight.data() == nullptr);
        CHECK(in_file.weights.front().weight.rows() == in_memory.weights.front().weight.rows());
        CHECK(in_file.evaluate({0, 12}).value().log_loss == in_memory.evaluate({0, 12}).value().log_loss);
        CHECK(in_file.evaluate_from_layer({3, 9}, 2).value().log_loss ==
              in_memory.evaluate_from_layer({3, 9}, 2).value().log_loss);
        CHECK(in_file.read(4).value() == in_memory.weights[4].weight);

        // One backward pass, layer by layer, hands out the same.
        std::vector<lowrank::matrix<float>> sums(in_memory.weights.size());
        const auto add = [&](bool first) {
            return [&, first](llama::index w, auto x, auto dy, auto) {
                auto& sum = sums[static_cast<std::size_t>(w)];
                const lowrank::matrix<float> g = dy * x.transpose();
                sum = sum.size() == 0 ? g : (first ? (sum + g).eval() : (sum - g).eval());
            };
        };
        REQUIRE(in_memory.gradients({0, 12}, add(true)));
        std::vector<float> norms;
        for (const auto& sum : sums) {
            norms.push_back(sum.norm());
        }
        REQUIRE(in_file.gradients({0, 12}, add(false)));
        for (std::size_t i = 0; i < sums.size(); ++i) {
            CHECK(sums[i].norm() <= 1e-5F * norms[i]);
        }

        // Edits are placed beside or instead of the file's weights.
        const auto s = lowrank::svd(in_file.read(2).value()).value();
        for (const llama::index k : {llama::index{2}, s.size() - 1}) {
            auto edit = lowrank::override_by_components(s, lowrank::component_set::first(k));
            in_file.override_weight(2, &edit);
            const auto receipt = lowrank::truncate_weight<float>(in_memory.weights[2].weight, s, k).value();
            const auto a = in_file.evaluate({0, 12}).value(), c = in_memory.evaluate({0, 12}).value();
            in_file.override_weight(2, nullptr);
            REQUIRE(lowrank::undo_edit<float>(in_memory.weights[2].weight, receipt));
            for (std::size_t i = 0; i < 12; ++i) {
                CHECK(a.log_loss[i] == doctest::Approx(c.log_loss[i]).epsilon(1e-5));
            }
        }
    }
}

TEST_CASE("searches in a file end as in memory: gradient, greedy with every kind of edit, the head too") {
    const model_folder folder;
    folder.write<float>(tiny::model<float>({.tied = false, .layers = 3}));
    auto loaded = llama::load<float>(folder.path).value();
    auto opened = llama::mapped_model<float>::open(folder.path).value();
    const auto b = asked_of(loaded.shape);
    llama::searchable<float> whole(loaded, b);
    llama::searchable<float> parts(opened, b, {.cache_bytes = 3000, .group_tokens = 20});
    const auto wanted = [](const std::string& name) { return name.find("0.self_attn") == std::string::npos; };
    const auto in_memory = whole.hooks(wanted), in_file = parts.hooks(wanted);
    CHECK(in_memory.weights.size() == 18);
    lowrank::search_options how{.validation = {0, 8}, .held_out = {8, 12}, .fractions = {0.7, 0.3}, .factor_bytes = 0};
    how.groups = {1, 2};
    how.densities = {0.5};
    const auto a = lowrank::greedy_search(in_memory, how), c = lowrank::greedy_search(in_file, how);
    REQUIRE(a);
    REQUIRE(c);
    CHECK(a.edits() == c.edits());
    CHECK(a.held_out_after.log_loss == doctest::Approx(c.held_out_after.log_loss).epsilon(1e-5));
    CHECK(a.evaluated_sample_layers == c.evaluated_sample_layers);
    how.groups = {1};
    how.densities.clear();
    const lowrank::gradient_options few{.samples = 6, .matrices = 3, .probed = 5};
    const auto g = lowrank::gradient_search(whole.hooks(), how, few);
    const auto h = lowrank::gradient_search(parts.hooks(), how, few);
    REQUIRE(g);
    REQUIRE(h);
    CHECK(g.order == h.order);
    CHECK(g.edits() == h.edits());
}

TEST_CASE("a file that makes no model is refused") {
    const model_folder folder;
    CHECK(llama::mapped_model<float>::open(folder.path).error().code == lowrank::errc::not_found);
    auto m = tiny::model<float>();
    m.layers[1].up_proj.weight(3, 4) = std::numeric_limits<float>::quiet_NaN();
    folder.write<float>(m);
    const auto broken = llama::mapped_model<float>::open(folder.path);
    CHECK(broken.error().code == lowrank::errc::non_finite);
    CHECK(broken.error().message.find("model.layers.1.mlp.up_proj.weight") != std::string::npos);
}
