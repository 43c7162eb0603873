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
    heat_map shown{.column_label = "share of the full rank that is kept",
                   .diverging = map.diverging,
                   .shown_times = map.shown_times};
    for (const double f : map.fractions) {
        shown.columns.push_back(format("%g", f));
    }
    for (const auto& name : map.matrices) {
        shown.rows.push_back(short_name(name));
        shown.values.emplace_back(map.fractions.size(), std::numeric_limits<double>::quiet_NaN());
    }
    for (const auto& c : map.cells) {
        const auto row = static_cast<std::size_t>(c.matrix);
        const auto column = static_cast<std::size_t>(std::find(map.fractions.begin(), map.fractions.end(), c.fraction) -
                                                     map.fractions.begin());
        if (column >= map.fractions.size()) {
            continue;
        }
        shown.values[row][column] = c.value;
        if (c.winner) {
            shown.best_row = row;
            shown.best_column = column;
        }
    }
    return svg(shown);
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
