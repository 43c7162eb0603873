// SPDX-License-Identifier: MIT
#include "page.hpp"

#include "text.hpp"

namespace report {
namespace {

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

}  // namespace

std::string paragraph(std::string_view text) { return "<p>" + html_escaped(text) + "</p>\n"; }

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

page::page(std::string_view title, std::string_view lead) : title_(html_escaped(title)) {
    body_ = "<h1>" + title_ + "</h1>\n<p class=\"lead\">" + html_escaped(lead) + "</p>\n";
}

void page::section(std::string_view heading, std::string_view body) {
    body_ += "<section>\n<h2>" + html_escaped(heading) + "</h2>\n" + std::string(body) + "</section>\n";
}

void page::numbers(const std::vector<std::pair<std::string, std::string>>& number_and_caption) {
    body_ += "<div class=\"numbers\">\n";
    for (const auto& [large, caption] : number_and_caption) {
        body_ += "<div><b>" + html_escaped(large) + "</b><span>" + html_escaped(caption) + "</span></div>\n";
    }
    body_ += "</div>\n";
}

std::string page::text() const {
    std::string body = body_;  // no line break between a number and its per cent
    for (auto at = body.find(" %"); at != std::string::npos; at = body.find(" %", at)) {
        body.replace(at, 1, "\xC2\xA0");
    }
    return "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
           "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>" +
           title_ + "</title>\n<style>" + style + "</style>\n</head>\n<body>\n<main>\n" + body +
           "</main>\n</body>\n</html>\n";
}

}  // namespace report
