// SPDX-License-Identifier: MIT
#include "figures.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "text.hpp"

namespace report {
namespace {

constexpr double chart_width = 640;

std::string number(double x) { return format("%.5g", x); }

std::string open_svg(double height, const std::string& label) {
    return format("<svg viewBox=\"0 0 %g %g\" role=\"img\" aria-label=\"", chart_width, height) + html_escaped(label) +
           "\">\n";
}

std::string text_at(double x, double y, const char* anchor, std::string_view words, const char* css = "") {
    return format("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" class=\"%s\">", x, y, anchor, css) +
           html_escaped(words) + "</text>\n";
}

std::string line_at(double x1, double y1, double x2, double y2, const char* css, const char* more = "") {
    return format("<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" class=\"%s\" %s/>\n", x1, y1, x2, y2, css,
                  more);
}

/// Round steps for about `count` ticks over a span.
double tick_step(double span, int count) {
    const double rough = span / count;
    const double power = std::pow(10.0, std::floor(std::log10(rough)));
    for (const double nice : {1.0, 2.0, 2.5, 5.0}) {
        if (nice * power >= rough) {
            return nice * power;
        }
    }
    return 10 * power;
}

}  // namespace

std::string svg(const line_chart& chart) {
    constexpr double height = 260, left = 52, right = 20, top = 26, bottom = 44;
    double low = HUGE_VAL, high = -HUGE_VAL, first = HUGE_VAL, last = -HUGE_VAL;
    for (const auto& line : chart.lines) {
        for (const double y : line.y) {
            low = std::min(low, y);
            high = std::max(high, y);
        }
        first = std::min(first, line.first_x);
        last = std::max(last, line.first_x + static_cast<double>(line.y.size()) - 1);
    }
    if (!(low <= high)) {
        return "";
    }
    low = chart.from_zero ? std::min(0.0, low) : low;
    const double y_step = tick_step(high > low ? high - low : 1, 5);
    low = std::floor(low / y_step) * y_step;
    high = std::max(std::ceil(high / y_step) * y_step, low + y_step);
    last = last > first ? last : first + 1;
    const auto at_x = [&](double x) { return left + (x - first) / (last - first) * (chart_width - left - right); };
    const auto at_y = [&](double y) { return top + (high - y) / (high - low) * (height - top - bottom); };

    std::string out = open_svg(height, chart.y_label + " by " + chart.x_label);
    for (double y = low; y <= high + y_step / 2; y += y_step) {
        out += line_at(left, at_y(y), chart_width - right, at_y(y), "rule");
        out += text_at(left - 8, at_y(y) + 4, "end", number(std::abs(y) < y_step / 1e6 ? 0 : y), "quiet");
    }
    const double x_step = std::max(1.0, tick_step(last - first, 8));
    for (double x = std::ceil(first / x_step) * x_step; x <= last; x += x_step) {
        out += text_at(at_x(x), height - bottom + 18, "middle", number(x), "quiet");
    }
    out += text_at((left + chart_width - right) / 2, height - 6, "middle", chart.x_label, "quiet");
    out += text_at(4, 14, "start", chart.y_label, "quiet");
    double legend = chart_width - right;
    int colour = 0;
    for (const auto& line : chart.lines) {
        const char* css = colour == 0 ? "one" : "two";
        std::string path;
        for (std::size_t i = 0; i < line.y.size(); ++i) {
            path +=
                format("%s%.1f %.1f", i == 0 ? "M" : "L", at_x(line.first_x + static_cast<double>(i)), at_y(line.y[i]));
        }
        out += format("<path d=\"%s\" fill=\"none\" class=\"%s\" stroke-width=\"%s\"%s/>\n", path.c_str(), css,
                      line.faint ? "1" : "2", line.faint ? " stroke-opacity=\".3\"" : "");
        for (std::size_t i = 0; chart.points && i < line.y.size(); ++i) {
            const double x = line.first_x + static_cast<double>(i);
            out += format("<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" class=\"fill-%s\"><title>%s: %s</title></circle>\n",
                          at_x(x), at_y(line.y[i]), css, number(x).c_str(), number(line.y[i]).c_str());
        }
        if (!line.name.empty() && chart.lines.size() > 1) {
            out += text_at(legend, 14, "end", line.name);
            legend -= 7.0 * static_cast<double>(line.name.size()) + 8;
            out +=
                line_at(legend - 14, 10, legend, 10, css, line.faint ? "stroke-opacity=\".3\"" : "stroke-width=\"2\"");
            legend -= 30;
        }
        colour += line.faint ? 0 : 1;
    }
    if (chart.mark_x) {
        const double x = at_x(*chart.mark_x);
        out += line_at(x, top, x, height - bottom, "two", "stroke-dasharray=\"4 4\"");
        const bool fits_right = x < chart_width - 200;
        out += text_at(fits_right ? x + 6 : x - 6, top + 12, fits_right ? "start" : "end", chart.mark_label);
    }
    return out + "</svg>\n";
}

std::string svg(const heat_map& map) {
    constexpr double cell_height = 24, top = 40;
    std::size_t longest = 0;
    for (const auto& name : map.rows) {
        longest = std::max(longest, name.size());
    }
    const double left = 7.0 * static_cast<double>(longest) + 12;
    const double cell_width =
        (chart_width - left - 4) / static_cast<double>(std::max<std::size_t>(1, map.columns.size()));
    const double height = top + cell_height * static_cast<double>(map.rows.size()) + 4;
    double top_gain = 0;
    for (const auto& row : map.values) {
        for (const double v : row) {
            top_gain = std::isnan(v) ? top_gain : std::max(top_gain, v);
        }
    }
    std::string out =
        open_svg(height, (map.diverging ? "change" : "accuracy") + (" by matrix and " + map.column_label));
    out += text_at(left, 14, "start", map.column_label, "quiet");
    for (std::size_t j = 0; j < map.columns.size(); ++j) {
        out += text_at(left + cell_width * (static_cast<double>(j) + 0.5), top - 8, "middle", map.columns[j], "quiet");
    }
    for (std::size_t i = 0; i < map.rows.size(); ++i) {
        const double y = top + cell_height * static_cast<double>(i);
        out += text_at(left - 8, y + 16, "end", map.rows[i]);
        for (std::size_t j = 0; j < map.columns.size() && j < map.values[i].size(); ++j) {
            const double x = left + cell_width * static_cast<double>(j);
            const double value = map.values[i][j];
            if (std::isnan(value)) {
                continue;
            }
            const bool best = map.best_row == i && map.best_column == j;
            const double strength =
                std::clamp(map.diverging ? std::abs(value) / std::max(top_gain, 1e-12) : value, 0.0, 1.0);
            out += format(
                       "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" rx=\"2\" class=\"fill-%s\" "
                       "fill-opacity=\"%.3f\"%s><title>",
                       x + 1, y + 1, cell_width - 2, cell_height - 2, map.diverging && value < 0 ? "two" : "one",
                       0.06 + 0.94 * (map.diverging && value < 0 ? 0.5 : 1.0) * strength,
                       best ? " stroke=\"var(--frame)\" stroke-width=\"2\"" : "") +
                   html_escaped(map.rows[i] + ", " + map.columns[j]) +
                   (map.diverging ? format(": %+.3f", map.shown_times * value) : format(": %.1f %%", 100 * value)) +
                   "</title></rect>\n";
            const std::string shown = map.diverging && std::abs(map.shown_times * value) < 0.5
                                          ? std::string("0")
                                          : (map.diverging ? format("%+.0f", map.shown_times * value)
                                                           : format("%.0f", map.shown_times * value));
            out += text_at(x + cell_width / 2, y + 16, "middle", shown,
                           strength > 0.5 && !(map.diverging && value < 0) ? "on" : "");
        }
    }
    return out + "</svg>\n";
}

std::string svg(const bar_chart& chart) {
    constexpr double row = 34, bar_height = 20;
    std::size_t longest = 0;
    for (const auto& b : chart.bars) {
        longest = std::max(longest, b.label.size());
    }
    const double left = 6.6 * static_cast<double>(longest) + 14;
    const double width = chart_width - left - 56;
    const double height = row * static_cast<double>(chart.bars.size()) + 24;
    std::string out = open_svg(height, "accuracy");
    for (int percent = 0; percent <= 100; percent += 25) {
        const double x = left + width * percent / 100;
        out += line_at(x, 0, x, height - 20, "rule");
        out += text_at(x, height - 4, "middle", format("%d %%", percent), "quiet");
    }
    for (std::size_t i = 0; i < chart.bars.size(); ++i) {
        const auto& b = chart.bars[i];
        const double y = row * static_cast<double>(i) + 4, middle = y + bar_height / 2;
        const double end = left + width * std::clamp(b.value, 0.0, 1.0);
        out += text_at(left - 8, middle + 4, "end", b.label);
        out += format(
            "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" rx=\"2\" class=\"fill-%s\">"
            "<title>%.1f %%</title></rect>\n",
            left, y, std::max(1.0, end - left), bar_height, b.second ? "two" : "one", 100 * b.value);
        double label = end;
        if (b.low && b.high) {
            const double x1 = left + width * std::clamp(*b.low, 0.0, 1.0);
            const double x2 = left + width * std::clamp(*b.high, 0.0, 1.0);
            for (const auto& [xa, ya, xb, yb] :
                 {std::array{x1, middle, x2, middle}, std::array{x1, middle - 5, x1, middle + 5},
                  std::array{x2, middle - 5, x2, middle + 5}}) {
                out += line_at(xa, ya, xb, yb, "", "stroke=\"var(--text)\" stroke-width=\"1.5\"");
            }
            label = std::max(label, x2);
        }
        out += text_at(label + 6, middle + 4, "start", format("%.1f %%", 100 * b.value));
    }
    return out + "</svg>\n";
}

}  // namespace report
