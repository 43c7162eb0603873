// SPDX-License-Identifier: MIT
#ifndef LOWRANK_EXAMPLES_REPORT_TEXT_HPP
#define LOWRANK_EXAMPLES_REPORT_TEXT_HPP

/// \file
/// Numbers, names and tables as text.
///
///     report::table rows({"matrix", "rank"});
///     rows.add({"k_proj", report::format("%d", 8)});
///     print(rows.text());

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace report {

/// "1 234 567" for people.
[[nodiscard]] std::string grouped(std::uint64_t n);

/// `printf` into a string.
[[gnu::format(printf, 1, 2)]] [[nodiscard]] std::string format(const char* pattern, ...);

/// A name between quotes on one line: control characters and invalid bytes are shown as \xNN.
[[nodiscard]] std::string in_quotes(std::string_view text);

/// A plain-text table with aligned columns; the first row is the head. Numbers align right.
class table {
public:
    explicit table(std::vector<std::string> head) : rows_{std::move(head)} {}
    void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
    [[nodiscard]] std::string text() const;

private:
    std::vector<std::vector<std::string>> rows_;
};

/// Text as it may stand between tags and in attributes of HTML.
[[nodiscard]] std::string html_escaped(std::string_view text);

}  // namespace report

#endif  // LOWRANK_EXAMPLES_REPORT_TEXT_HPP
