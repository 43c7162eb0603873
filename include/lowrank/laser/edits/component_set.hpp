// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_EDITS_COMPONENT_SET_HPP
#define LOWRANK_LASER_EDITS_COMPONENT_SET_HPP

/// \file
/// Which singular components an edit keeps: a set of indices, held as ranges and written as plain text.
///
///     auto keep = lowrank::component_set::first(5);          // "0-4": what rank 5 keeps
///     auto tail = keep.complement(64);                       // "5-63": what it removes
///     auto same = lowrank::component_set::parse("0-4");      // a result<component_set>
///
/// LASER keeps a prefix; analyses of it keep a suffix or a band (Sharma, Ash, Misra, arXiv 2312.13558, section 5);
/// importance scores keep any set.

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A finite set of component numbers 0, 1, 2, ... (0 is the largest singular value). Equal sets compare equal.
class component_set {
public:
    /// Components begin, .., end - 1.
    struct range {
        index begin = 0;
        index end = 0;
        friend bool operator==(const range&, const range&) = default;
    };

    /// The empty set: a weight that keeps none becomes zero.
    component_set() = default;

    /// {0, .., count - 1}, what the best rank-`count` approximation keeps. \pre count >= 0
    [[nodiscard]] static component_set first(index count) { return band(0, count); }

    /// {begin, .., end - 1}. \pre 0 <= begin <= end
    [[nodiscard]] static component_set band(index begin, index end) {
        detail::expects(begin >= 0, "component_set::band: begin must not be negative");
        detail::expects_in_range("component_set::band", "begin", begin, index{0}, end);
        component_set s;
        if (begin < end) {
            s.ranges_.push_back({begin, end});
        }
        return s;
    }

    /// The set of the given numbers, in any order, repeated or not. \pre none is negative
    [[nodiscard]] static component_set of(std::vector<index> members) {
        std::sort(members.begin(), members.end());
        component_set s;
        for (const index i : members) {
            detail::expects(i >= 0, "component_set::of: a component number must not be negative");
            s.append({i, i + 1});
        }
        return s;
    }

    /// Reads what `text()` writes: "none", or numbers and closed ranges in rising order, "0-4,9,12-20".
    /// \return `invalid_format` for anything else, with the text quoted.
    [[nodiscard]] static result<component_set> parse(std::string_view text) {
        const auto refuse = [&] {
            return status{errc::invalid_format,
                          "component_set: expected \"none\" or rising ranges like \"0-4,9\", got \"" +
                              std::string(text.substr(0, 80)) + "\""};
        };
        component_set s;
        if (text == "none") {
            return s;
        }
        std::string_view rest = text;
        while (true) {
            index low = 0;
            if (!read_number(rest, low)) {
                return refuse();
            }
            index high = low;
            if (rest.starts_with('-')) {
                rest.remove_prefix(1);
                if (!read_number(rest, high)) {
                    return refuse();
                }
            }
            if (high < low || (!s.ranges_.empty() && low < s.ranges_.back().end)) {
                return refuse();
            }
            s.append({low, high + 1});
            if (rest.empty()) {
                return s;
            }
            if (!rest.starts_with(',')) {
                return refuse();
            }
            rest.remove_prefix(1);
        }
    }

    /// The set in words: "none", "0-4", "0-4,9". Canonical: equal sets have equal texts.
    [[nodiscard]] std::string text() const {
        if (ranges_.empty()) {
            return "none";
        }
        std::string out;
        for (const auto& r : ranges_) {
            if (!out.empty()) {
                out.push_back(',');
            }
            out.append(std::to_string(r.begin));
            if (r.end - r.begin > 1) {
                out.push_back('-');
                out.append(std::to_string(r.end - 1));
            }
        }
        return out;
    }

    /// Maximal ranges, rising, never empty, never touching.
    [[nodiscard]] const std::vector<range>& ranges() const noexcept { return ranges_; }

    /// How many components the set holds.
    [[nodiscard]] index size() const noexcept {
        index sum = 0;
        for (const auto& r : ranges_) {
            sum += r.end - r.begin;
        }
        return sum;
    }

    /// The members, rising.
    [[nodiscard]] std::vector<index> members() const {
        std::vector<index> all;
        all.reserve(static_cast<std::size_t>(size()));
        for (const auto& r : ranges_) {
            for (index i = r.begin; i < r.end; ++i) {
                all.push_back(i);
            }
        }
        return all;
    }

    /// One more than the largest member; 0 for the empty set.
    [[nodiscard]] index bound() const noexcept { return ranges_.empty() ? 0 : ranges_.back().end; }

    [[nodiscard]] bool contains(index i) const noexcept {
        return std::any_of(ranges_.begin(), ranges_.end(), [&](const range& r) { return r.begin <= i && i < r.end; });
    }

    /// {0, .., count - 1} without this set. \pre count >= bound()
    [[nodiscard]] component_set complement(index count) const {
        detail::expects_in_range("component_set::complement", "the largest member plus one", bound(), index{0}, count);
        component_set s;
        index at = 0;
        for (const auto& r : ranges_) {
            s.append({at, r.begin});
            at = r.end;
        }
        s.append({at, count});
        return s;
    }

    friend bool operator==(const component_set&, const component_set&) = default;

private:
    /// Adds a range that begins at or after the last one's last member.
    void append(range r) {
        if (r.begin == r.end) {
            return;
        }
        if (!ranges_.empty() && r.begin <= ranges_.back().end) {
            ranges_.back().end = std::max(ranges_.back().end, r.end);
        } else {
            ranges_.push_back(r);
        }
    }

    /// Takes a plain decimal number below 2^53 off the front of `text`.
    [[nodiscard]] static bool read_number(std::string_view& text, index& number) {
        const char* const begin = text.data();
        const char* const end = begin + text.size();
        if (begin == end || *begin < '0' || *begin > '9') {
            return false;
        }
        const auto [stop, error] = std::from_chars(begin, end, number);
        if (error != std::errc() || number >= (index{1} << 53)) {
            return false;
        }
        text.remove_prefix(static_cast<std::size_t>(stop - begin));
        return true;
    }

    std::vector<range> ranges_ = {};
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_EDITS_COMPONENT_SET_HPP
