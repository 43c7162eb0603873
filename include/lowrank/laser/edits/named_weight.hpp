// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_EDITS_NAMED_WEIGHT_HPP
#define LOWRANK_LASER_EDITS_NAMED_WEIGHT_HPP

/// \file
/// A weight of a model, borrowed under its name.
///
///     std::vector<lowrank::named_weight<float>> weights = {{"mlp.up", up}, {"mlp.down", down}};

#include <memory>
#include <string>
#include <utility>

#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A weight of a model, borrowed under its name. Searches and edit lists write to it. Assigning one to another points
/// it elsewhere and touches no weight, so that lists of them can be sorted and reversed.
template <storage T>
struct named_weight {
    std::string name;
    weight_view<T> weight;

    named_weight(std::string called, weight_view<T> borrowed) : name(std::move(called)), weight(borrowed) {}
    named_weight(const named_weight&) = default;
    ~named_weight() = default;
    named_weight& operator=(const named_weight& other) {
        if (this != &other) {
            name = other.name;
            std::construct_at(&weight, other.weight);  // assigning views would copy the entries they show
        }
        return *this;
    }

    /// The weight, read-only.
    [[nodiscard]] const_weight_view<T> values() const {
        return const_weight_view<T>(weight.data(), weight.rows(), weight.cols(), weight.outerStride());
    }
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_EDITS_NAMED_WEIGHT_HPP
