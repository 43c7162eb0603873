// SPDX-License-Identifier: MIT
#include "report.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "console.hpp"

namespace tool {
namespace {

constexpr double chart_width = 640;

constexpr const char* style = R"css(
:root{--ground:#f6f7f9;--card:#fff;--text:#1c2430;--quiet:#5c6675;--rule:#dfe3e8;--one:#2563c9;--two:#c2570c;--frame:#111}
@media(prefers-color-scheme:dark){:root{--ground:#12161c;--card:#1b2129;--text:#e6eaf0;--quiet:#9aa5b4;--rule:#323b47;
--one:#6ea0f5;--two:#f0964f;--frame:#fff}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--text);font:16px/1.55 system-ui,sans-serif}
main{max-width:46rem;margin:0 auto;padding:2.5rem 1.25rem 4rem}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 .4rem}
h2{font-size:1.15rem;margin:0 0 .5rem}
p{margin:.4rem 0 .8rem}
.lead{color:var(--quiet);margin:0 0 1.5rem}
section,.numbers div{background:var(--card);border:1px solid var(--rule);border-radius:8px}
section{padding:1.2rem 1.4rem;margin:0 0 1.1rem;overflow-x:auto}
.numbers{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.8rem;margin:0 0 1.1rem}
.numbers div{padding:.8rem 1rem}
.numbers b{display:block;font-size:1.5rem;line-height:1.25;font-variant-numeric:tabular-nums}
.numbers span{color:var(--quiet);font-size:.85rem;line-height:1.35;display:block}
svg{display:block;width:100%;height:auto;min-width:34rem}
svg text{fill:var(--text);font:12px system-ui,sans-serif;font-variant-numeric:tabular-nums}
svg .quiet{fill:var(--quiet)} svg .on{fill:var(--card);font-weight:600}
svg .rule{stroke:var(--rule)} svg .one{stroke:var(--one)} svg .two{stroke:var(--two)}
svg .fill-one{fill:var(--one)} svg .fill-two{fill:var(--two)}
table{border-collapse:collapse;width:100%;font-size:.92rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.35rem .8rem .35rem 0;border-bottom:1px solid var(--rule);vertical-align:top}
th{color:var(--quiet);font-weight:600} tr:last-child td{border-bottom:0}
code{font:.88em ui-monospace,monospace;overflow-wrap:anywhere}
)css";

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

std::string html_escaped(std::string_view text) {
    std::string out;
    for (const char c : text) {
        switch (c) {
            case '&': out += "&amp;"; break;
            case '<': out += "&lt;"; break;
            case '>': out += "&gt;"; break;
            case '"': out += "&quot;"; break;
            case '\'': out += "&#39;"; break;
            default: out += c;
        }
    }
    return out;
}

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
        const bool room = x < chart_width - 200;
        out += text_at(room ? x + 6 : x - 6, top + 12, room ? "start" : "end", chart.mark_label);
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

std::string html_table(const std::vector<std::string>& head, const std::vector<std::vector<std::string>>& rows) {
    std::string out = "<table>";
    if (!head.empty()) {
        out += "<tr>";
        for (const auto& cell : head) {
            out += "<th>" + html_escaped(cell) + "</th>";
        }
        out += "</tr>\n";
    }
    for (const auto& row : rows) {
        out += "<tr>";
        for (const auto& cell : row) {
            out += "<td>" + html_escaped(cell) + "</td>";
        }
        out += "</tr>\n";
    }
    return out + "</table>\n";
}

report_page::report_page(std::string_view title, std::string_view lead) : title_(html_escaped(title)) {
    body_ = "<h1>" + title_ + "</h1>\n<p class=\"lead\">" + html_escaped(lead) + "</p>\n";
}

void report_page::section(std::string_view heading, std::string_view body) {
    body_ += "<section>\n<h2>" + html_escaped(heading) + "</h2>\n" + std::string(body) + "</section>\n";
}

void report_page::numbers(const std::vector<std::pair<std::string, std::string>>& number_and_caption) {
    body_ += "<div class=\"numbers\">\n";
    for (const auto& [large, caption] : number_and_caption) {
        body_ += "<div><b>" + html_escaped(large) + "</b><span>" + html_escaped(caption) + "</span></div>\n";
    }
    body_ += "</div>\n";
}

std::string report_page::text() const {
    std::string body = body_;  // no line break between a number and its per cent
    for (auto at = body.find(" %"); at != std::string::npos; at = body.find(" %", at)) {
        body.replace(at, 1, "\xC2\xA0");
    }
    return "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
           "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>" +
           title_ + "</title>\n<style>" + style + "</style>\n</head>\n<body>\n<main>\n" + body +
           "</main>\n</body>\n</html>\n";
}

}  // namespace tool
