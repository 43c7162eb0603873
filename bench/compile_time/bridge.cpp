// SPDX-License-Identifier: MIT
// What an engine compiles to serve adapters: read a PEFT folder, merge and unmerge, truncate a weight and undo it. Compiled,
// not run, by measure.py.
#include <filesystem>

#include <lowrank/factor/svd.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/laser/edits/edit.hpp>
#include <lowrank/lora/merge/merge.hpp>

int main(int, char** argv) {
    lowrank::row_matrix<float> w(64, 64);
    const auto adapter = lowrank::read_peft(argv[1]);
    if (!adapter) {
        return 1;
    }
    const lowrank::low_rank<float> change{.left = lowrank::matrix<float>(64, 4),
                                          .right = lowrank::matrix<float>(4, 64)};
    const auto receipt = lowrank::merge(lowrank::weight_view<float>(w), change);
    if (!receipt || !lowrank::unmerge(lowrank::weight_view<float>(w), *receipt, change)) {
        return 1;
    }
    const auto spectrum = lowrank::svd(w);
    return spectrum ? static_cast<int>(spectrum.truncate(8).rank()) : 1;
}
