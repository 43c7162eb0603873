// SPDX-License-Identifier: MIT
// A training run that is written to a safetensors file in the middle and goes on from it.
#include <filesystem>
#include <map>
#include <string>

#include <doctest/doctest.h>

#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/workspace.hpp>
#include <lowrank/io/containers/safetensors.hpp>
#include <lowrank/io/containers/safetensors_writer.hpp>
#include <lowrank/lora/kinds/dora.hpp>
#include <lowrank/lora/train/trainer.hpp>

namespace {

using namespace lowrank;

trainer<float> fresh_trainer(const row_matrix<float>& w) {
    trainer<float> t({.learning_rate = 1e-2, .weight_decay = 0.1});
    t.add("model.layer", make_dora(w, {.r = 2, .seed = 4}), as_operator(w));
    return t;
}

void train_steps(trainer<float>& t, const row_matrix<float>& w, std::uint64_t first, std::uint64_t last) {
    workspace ws;
    for (std::uint64_t step = first; step < last; ++step) {
        matrix<float> x(w.cols(), 3);
        matrix<float> dy(w.rows(), 3);
        fill_normal(x, 1.0F, philox(1, step));
        fill_normal(dy, 1.0F, philox(2, step));
        auto g = t.adapter(0).zero_gradient();
        t.adapter(0).backward(as_operator(w), 1.0F, x, dy, g, nullptr, ws);
        t.accumulate(0, g);
        REQUIRE(t.step().has_value());
    }
}

}  // namespace

TEST_CASE("a trainer's state travels through a safetensors file without a changed bit") {
    row_matrix<float> w(5, 7);
    fill_normal(w, 1.0F, philox(3));
    const auto path = std::filesystem::temp_directory_path() /
                      ("lowrank-trainer-state-" + std::to_string(philox(9).bits64(7)) + ".safetensors");
    auto whole = fresh_trainer(w);
    train_steps(whole, w, 0, 4);
    {
        const auto state = whole.state();
        std::vector<tensor_to_write> tensors;
        for (const auto& [name, values] : state.tensors) {
            tensors.push_back(tensor_of(name, values));
        }
        REQUIRE(write_safetensors(path, tensors, state.facts));
    }
    train_steps(whole, w, 4, 9);

    trainer_state<float> read;
    {
        const auto file = safetensors_file::open(path);
        REQUIRE(file.has_value());
        read.facts = file->metadata();
        for (const auto& t : file->tensors()) {
            read.tensors.emplace(t.name, *file->vector<float>(t.name));
        }
    }
    std::filesystem::remove(path);
    auto resumed = fresh_trainer(w);
    REQUIRE(resumed.restore(read));
    train_steps(resumed, w, 4, 9);
    CHECK(resumed.state().tensors == whole.state().tensors);
}
