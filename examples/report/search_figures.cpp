// SPDX-License-Identifier: MIT
#include "search_figures.hpp"

#include <algorithm>
#include <limits>
#include <string_view>
#include <utility>

#include "text.hpp"

namespace report {

std::string short_name(std::string matrix) {
    constexpr std::string_view prefix = "model.layers.", suffix = ".weight";
    if (matrix.starts_with(prefix)) {
        matrix = "layer " + matrix.substr(prefix.size());
        if (const auto dot = matrix.find('.'); dot != std::string::npos) {
            matrix[dot] = ' ';
        }
    }
    if (matrix.ends_with(suffix)) {
        matrix.resize(matrix.size() - suffix.size());
    }
    return matrix;
}

std::string svg(const search_map& map) {
    heat_map cells{.column_label = "share of the full rank that is kept",
                   .diverging = map.diverging,
                   .shown_times = map.shown_times};
    for (const double f : map.fractions) {
        cells.columns.push_back(format("%g", f));
    }
    for (const auto& name : map.matrices) {
        cells.rows.push_back(short_name(name));
        cells.values.emplace_back(map.fractions.size(), std::numeric_limits<double>::quiet_NaN());
    }
    for (std::size_t i = 0; i < map.candidates.size(); ++i) {
        const auto& c = map.candidates[i];
        const auto column = static_cast<std::size_t>(std::find(map.fractions.begin(), map.fractions.end(), c.fraction) -
                                                     map.fractions.begin());
        if (!c.why || c.what.groups != 1 || c.what.entries || column >= map.fractions.size()) {
            continue;
        }
        const auto row = static_cast<std::size_t>(c.weight);
        cells.values[row][column] = map.value(c);
        if (map.winner && static_cast<std::size_t>(*map.winner) == i) {
            cells.best_row = row;
            cells.best_column = column;
        }
    }
    return svg(cells);
}

std::string spectrum_chart(std::string y_label, std::vector<chart_line> spectra, lowrank::index kept) {
    const bool points = std::all_of(spectra.begin(), spectra.end(), [](const auto& s) { return s.y.size() <= 200; });
    return svg(line_chart{.x_label = "number of the singular value",
                          .y_label = std::move(y_label),
                          .lines = std::move(spectra),
                          .mark_x = static_cast<double>(kept) + 0.5,
                          .mark_label = format("kept: the first %lld", static_cast<long long>(kept)),
                          .points = points});
}

}  // namespace report
