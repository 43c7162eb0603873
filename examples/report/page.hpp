// SPDX-License-Identifier: MIT
#ifndef LOWRANK_EXAMPLES_REPORT_PAGE_HPP
#define LOWRANK_EXAMPLES_REPORT_PAGE_HPP

/// \file
/// One HTML file with everything in it: no scripts, no fonts, no pictures from elsewhere.
///
///     report::page page("lowrank demo", "seed 0");
///     page.section("Training", report::paragraph("...") + report::svg(report::line_chart{...}));
///     write(page.text());

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace report {

/// Plain text as a paragraph.
[[nodiscard]] std::string paragraph(std::string_view text);

/// A table with aligned columns; cells are escaped.
[[nodiscard]] std::string html_table(const std::vector<std::string>& head,
                                     const std::vector<std::vector<std::string>>& rows);

/// A page of sections under one heading.
class page {
public:
    page(std::string_view title, std::string_view lead);

    /// `body` is HTML.
    void section(std::string_view heading, std::string_view body);
    /// A row of large numbers under the heading, each with a caption.
    void numbers(const std::vector<std::pair<std::string, std::string>>& number_and_caption);

    [[nodiscard]] std::string text() const;

private:
    std::string body_;
    std::string title_;
};

}  // namespace report

#endif  // LOWRANK_EXAMPLES_REPORT_PAGE_HPP
