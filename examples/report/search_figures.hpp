// SPDX-License-Identifier: MIT
#ifndef LOWRANK_EXAMPLES_REPORT_SEARCH_FIGURES_HPP
#define LOWRANK_EXAMPLES_REPORT_SEARCH_FIGURES_HPP

/// \file
/// Figures of a rank-reduction search.

#include <span>
#include <string>
#include <vector>

#include <lowrank/core/types.hpp>

#include "figures.hpp"

namespace report {

/// "layer 1 mlp.gate_proj" of "model.layers.1.mlp.gate_proj[.weight]"; other names without ".weight".
[[nodiscard]] std::string short_name(std::string matrix);

/// Candidates that reduce a whole matrix, by matrix and by the share of its rank that is kept.
struct search_map {
    std::span<const std::string> matrices = {};
    std::span<const double> fractions = {};
    bool diverging = false;  ///< As in `heat_map`.
    double shown_times = 100;

    struct cell {
        lowrank::index matrix = 0;
        double fraction = 0;
        double value = 0;
        bool winner = false;
    };
    std::vector<cell> cells = {};

    void add(lowrank::index matrix, double fraction, double value, bool winner) {
        cells.push_back({matrix, fraction, value, winner});
    }
};
[[nodiscard]] std::string svg(const search_map& map);

/// Singular values by number, with a line behind the last one that is kept.
[[nodiscard]] std::string spectrum_chart(std::string y_label, std::vector<chart_line> spectra, lowrank::index kept);

}  // namespace report

#endif  // LOWRANK_EXAMPLES_REPORT_SEARCH_FIGURES_HPP
