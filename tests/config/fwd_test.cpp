// SPDX-License-Identifier: MIT
// Only the names first: an engine's own header looks like this.
#include <memory>

#include <lowrank/fwd.hpp>

#ifdef EIGEN_CORE_H
#error "fwd.hpp must not include Eigen"
#endif

namespace {
struct engine {
    std::shared_ptr<const lowrank::lora_adapter<float>> adapter;
    std::shared_ptr<const lowrank::any_operator<float>> base;
    lowrank::matrix<float>* activations = nullptr;
};
engine make_engine();
}  // namespace

#include <doctest/doctest.h>

#include <lowrank/lowrank.hpp>

// Declared after fwd.hpp and complete now: a name whose kind or constraint had drifted would not compile.
namespace {
engine make_engine() {
    engine e;
    e.adapter = std::make_shared<const lowrank::lora_adapter<float>>(lowrank::make_lora<float>(3, 2, {.r = 1}));
    e.base = std::make_shared<const lowrank::any_operator<float>>(
        lowrank::owned_operator<float>(lowrank::row_matrix<float>::Identity(3, 2)));
    return e;
}
}  // namespace

TEST_CASE("fwd: classes named before Eigen are complete afterwards") {
    const engine e = make_engine();
    CHECK(e.activations == nullptr);
    CHECK(e.base->rows() == e.adapter->rows());
    CHECK(e.base->cols() == e.adapter->cols());
    const lowrank::matrix<float> x = lowrank::matrix<float>::Identity(2, 2);
    CHECK(lowrank::apply(*e.base, x).topRows(2) == x);
}
