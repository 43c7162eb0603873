// SPDX-License-Identifier: MIT
#include <lowrank/io/checkpoints/detail/merge_rows.hpp>

#include <string>
#include <vector>

#include <lowrank/core/philox.hpp>
#include <lowrank/io/checkpoints/merge_checkpoint.hpp>
#include <lowrank/io/peft/kinds/rotations/boft.hpp>
#include <lowrank/io/peft/kinds/hira.hpp>
#include <lowrank/io/peft/kinds/rotations/hra.hpp>
#include <lowrank/io/peft/kinds/miss.hpp>
#include <lowrank/lora/merge/merge_change.hpp>

#include "io_support.hpp"

using namespace lowrank;
using lowrank_tests::temporary_folder;

namespace {

/// Adapters whose change is no sum, for a 70 x 8 weight: more rows than one group, blocks that do not end with it.
std::vector<peft_module> row_modules() {
    const auto normal = [](lowrank::index rows, lowrank::index cols, std::uint64_t stream) {
        matrix<float> m(rows, cols);
        fill_normal(m, 0.2F, philox(3, stream));
        return m;
    };
    auto boft = make_boft<float>(70, 8, {.block_size = 4});
    boft.boft_R = normal(8, 4, 1);
    boft.boft_s = normal(70, 1, 2);
    auto bat = make_miss_bat<float>(70, 8, {.r = 2});
    bat.miss_block = normal(70, 2, 3);
    return {peft_boft{.boft = boft}, bat, hira_adapter<float>{.hira_A = normal(3, 8, 4), .hira_B = normal(70, 3, 5)},
            hra_adapter<float>{.hra_u = normal(8, 2, 6)}};
}

matrix<double> changed_rows(peft_module module, const matrix<double>& w) {
    throw_if_failed(fit_module(module, w.rows(), w.cols()));
    const auto change = change_of(module);
    REQUIRE(std::holds_alternative<row_change>(change.weight));
    return changed(change.weight, w);
}

}  // namespace

TEST_CASE_TEMPLATE("a weight that an adapter turns is written in tiles of any size, at any strength", T, float,
                   bfloat16) {
    matrix<float> normal(70, 8);
    fill_normal(normal, 1.0F, philox(8));
    const row_matrix<T> w = normal.template cast<T>();
    const matrix<double> exact = w.template cast<float>().template cast<double>();
    temporary_folder folder;
    for (const bool flipped : {false, true}) {
        const row_matrix<T> stored = flipped ? row_matrix<T>(w.transpose()) : w;
        REQUIRE(write_safetensors(folder / "model.safetensors", {tensor_of("l.weight", stored)}));
        const auto base = checkpoint::open(folder / "model.safetensors");
        REQUIRE(base);
        for (const peft_module& module : row_modules()) {
            CAPTURE(std::string(kind_of(module)) + (flipped ? " stored in x out" : ""));
            peft_adapter a;
            a.modules["l"] = module;
            a.config.fan_in_fan_out = flipped;
            for (const std::size_t tile : {std::size_t{1}, std::size_t{1} << 20}) {
                const auto report = merge_checkpoint(*base, a, folder / "out", {.tile_bytes = tile, .check = true});
                REQUIRE_MESSAGE(report, (report ? std::string() : report.error().message));
                CHECK(report->weights.at("l.weight").touched > 0);
                const auto merged = checkpoint::open(folder / "out");
                REQUIRE(merged);
                const row_matrix<float> got = *merged->template matrix<float>("l.weight");
                const matrix<double> to = flipped ? matrix<double>(got.transpose().cast<double>()) : got.cast<double>();
                const matrix<double> want = changed_rows(module, exact);
                CHECK((to - want).cwiseAbs().maxCoeff() <= (sizeof(T) == 4 ? 1e-6 : 1.6e-2));
            }
            REQUIRE(merge_checkpoint(*base, a, folder / "half", {.strength = 0.5, .check = true}));
            const row_matrix<float> half_way = *checkpoint::open(folder / "half")->template matrix<float>("l.weight");
            const matrix<double> to =
                flipped ? matrix<double>(half_way.transpose().cast<double>()) : half_way.cast<double>();
            const matrix<double> want = exact + 0.5 * (changed_rows(module, exact) - exact);
            CHECK((to - want).cwiseAbs().maxCoeff() <= (sizeof(T) == 4 ? 1e-6 : 1.6e-2));
        }
    }
    peft_adapter wide;
    wide.modules["l"] = hra_adapter<float>{.hra_u = matrix<float>::Ones(9, 2)};
    const auto base = checkpoint::open(folder / "model.safetensors");
    const auto refused = merge_checkpoint(*base, wide, folder / "wide");
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == errc::mismatch);
}
