// SPDX-License-Identifier: MIT
#ifndef LOWRANK_EXAMPLES_REPORT_FIGURES_HPP
#define LOWRANK_EXAMPLES_REPORT_FIGURES_HPP

/// \file
/// Charts as inline SVG in the colours of the page, light or dark as the reader's system says. Hovering a point, cell or
/// bar shows its number.
///
///     page.section("Training", report::svg(report::line_chart{.x_label = "step", .lines = {{.y = loss}}}));

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

namespace report {

/// A line through y[0], y[1], ... at x = first_x, first_x + 1, ...
struct chart_line {
    std::string name = {};
    std::vector<double> y = {};
    double first_x = 0;
    bool faint = false;  ///< Raw values behind a smoothed line.
};

struct line_chart {
    std::string x_label = {};
    std::string y_label = {};
    std::vector<chart_line> lines = {};
    std::optional<double> mark_x = {};  ///< A dashed vertical line,
    std::string mark_label = {};        ///< and what it says.
    bool points = false;                ///< Draw a dot at each value.
    bool from_zero = true;              ///< The y axis begins at 0.
};

/// Values in [0, 1] by row and column; NaN is drawn as an empty cell. `diverging`: gains in one colour, losses in the
/// other, as strong as they are large beside the largest gain.
struct heat_map {
    std::vector<std::string> rows = {};
    std::vector<std::string> columns = {};
    std::string column_label = {};
    std::vector<std::vector<double>> values = {};
    std::optional<std::size_t> best_row = {};  ///< The cell that is framed.
    std::optional<std::size_t> best_column = {};
    bool diverging = false;
    double shown_times = 100;  ///< Cells show their value times this.
};

/// Shares in [0, 1] as bars, some with an interval.
struct bar_chart {
    struct bar {
        std::string label = {};
        double value = 0;
        std::optional<double> low = {};
        std::optional<double> high = {};
        bool second = false;  ///< In the second colour.
    };
    std::vector<bar> bars = {};
};

[[nodiscard]] std::string svg(const line_chart& chart);
[[nodiscard]] std::string svg(const heat_map& map);
[[nodiscard]] std::string svg(const bar_chart& chart);

}  // namespace report

#endif  // LOWRANK_EXAMPLES_REPORT_FIGURES_HPP
