// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_EDITS_COMPONENT_SET_IPP
#define LOWRANK_LASER_EDITS_COMPONENT_SET_IPP

#include <lowrank/laser/edits/component_set.hpp>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <system_error>

#include <lowrank/core/check.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_BODY component_set component_set::first(index count) { return band(0, count); }

LOWRANK_BODY component_set component_set::band(index begin, index end) {
    detail::expects(begin >= 0, "component_set::band: begin must not be negative");
    detail::expects_in_range("component_set::band", "begin", begin, index{0}, end);
    component_set s;
    if (begin < end) {
        s.ranges_.push_back({begin, end});
    }
    return s;
}

LOWRANK_BODY component_set component_set::of(std::vector<index> members) {
    std::sort(members.begin(), members.end());
    component_set s;
    for (const index i : members) {
        detail::expects(i >= 0, "component_set::of: a component number must not be negative");
        s.append({i, i + 1});
    }
    return s;
}

LOWRANK_BODY result<component_set> component_set::parse(std::string_view text) {
    const auto refuse = [&] {
        return status{errc::invalid_format, "component_set: expected \"none\" or rising ranges like \"0-4,9\", got \"" +
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

LOWRANK_BODY std::string component_set::text() const {
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

LOWRANK_BODY std::vector<index> component_set::members() const {
    std::vector<index> all;
    all.reserve(static_cast<std::size_t>(size()));
    for (const auto& r : ranges_) {
        for (index i = r.begin; i < r.end; ++i) {
            all.push_back(i);
        }
    }
    return all;
}

LOWRANK_BODY bool component_set::contains(index i) const noexcept {
    return std::any_of(ranges_.begin(), ranges_.end(), [&](const range& r) { return r.begin <= i && i < r.end; });
}

LOWRANK_BODY component_set component_set::complement(index count) const {
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

LOWRANK_BODY void component_set::append(range r) {
    if (r.begin == r.end) {
        return;
    }
    if (!ranges_.empty() && r.begin <= ranges_.back().end) {
        ranges_.back().end = std::max(ranges_.back().end, r.end);
    } else {
        ranges_.push_back(r);
    }
}

LOWRANK_BODY bool component_set::read_number(std::string_view& text, index& number) {
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

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_EDITS_COMPONENT_SET_IPP
