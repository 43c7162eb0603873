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

#include <string>
#include <string_view>
#include <vector>

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
    LOWRANK_API [[nodiscard]] static component_set first(index count);

    /// {begin, .., end - 1}. \pre 0 <= begin <= end
    LOWRANK_API [[nodiscard]] static component_set band(index begin, index end);

    /// The set of the given numbers, in any order, repeated or not. \pre none is negative
    LOWRANK_API [[nodiscard]] static component_set of(std::vector<index> members);

    /// Reads what `text()` writes: "none", or numbers and closed ranges in rising order, "0-4,9,12-20".
    /// \return `invalid_format` for anything else, with the text quoted.
    LOWRANK_API [[nodiscard]] static result<component_set> parse(std::string_view text);

    /// The set in words: "none", "0-4", "0-4,9". Canonical: equal sets have equal texts.
    LOWRANK_API [[nodiscard]] std::string text() const;

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
    LOWRANK_API [[nodiscard]] std::vector<index> members() const;

    /// One more than the largest member; 0 for the empty set.
    [[nodiscard]] index bound() const noexcept { return ranges_.empty() ? 0 : ranges_.back().end; }

    LOWRANK_API [[nodiscard]] bool contains(index i) const noexcept;

    /// {0, .., count - 1} without this set. \pre count >= bound()
    LOWRANK_API [[nodiscard]] component_set complement(index count) const;

    friend bool operator==(const component_set&, const component_set&) = default;

private:
    /// Adds a range that begins at or after the last one's last member.
    LOWRANK_API void append(range r);

    /// Takes a plain decimal number below 2^53 off the front of `text`.
    LOWRANK_API [[nodiscard]] static bool read_number(std::string_view& text, index& number);

    std::vector<range> ranges_ = {};
};

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/laser/edits/component_set.ipp>
#endif

#endif  // LOWRANK_LASER_EDITS_COMPONENT_SET_HPP
