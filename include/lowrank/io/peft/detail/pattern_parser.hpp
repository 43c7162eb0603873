// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_DETAIL_PATTERN_PARSER_HPP
#define LOWRANK_IO_PEFT_DETAIL_PATTERN_PARSER_HPP

/// \file
/// Reads the text of a regular expression into postfix order, for the automaton of pattern.hpp.
///
///     detail::pattern_parser parser("a|b+");
///     if (!parser.run()) return log(parser.why);       // else parser.postfix is: a b b * join alternative

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

using byte_set = std::bitset<256>;

/// A pattern in postfix order: sets and anchors push an expression, the rest combine the last one or two.
struct pattern_item {
    enum class kind : std::uint8_t { set, begin, end, empty, join, alternative, star, optional, open } what;
    std::uint32_t set = 0;
};

/// Translates the text of a pattern to postfix (shunting-yard: nothing recurses), expanding counts.
class pattern_parser {
public:
    static constexpr std::size_t most_items = 1024;

    explicit pattern_parser(std::string_view text) : text_(text) {}

    std::vector<pattern_item> postfix = {};
    std::vector<byte_set> sets = {};
    errc code = errc::invalid_format;
    std::string why = {};

    bool run() {
        while (at_ < text_.size()) {
            if (!step(text_[at_++])) {
                return false;
            }
            if (postfix.size() > most_items) {
                return unsupported("is too large");
            }
        }
        close_alternative();
        while (!operators_.empty()) {
            if (operators_.back().what == kind::open) {
                return bad("opens a group that is not closed");
            }
            pop_operator();
        }
        return true;
    }

private:
    using kind = pattern_item::kind;

    bool bad(std::string text) {
        why = std::move(text);
        return false;
    }
    bool unsupported(std::string text) {
        code = errc::unsupported;
        return bad(std::move(text));
    }
    [[nodiscard]] bool next_is(char c) const { return at_ < text_.size() && text_[at_] == c; }

    bool step(char c) {
        byte_set set;
        switch (c) {
            case '(': return open_group();
            case ')': return close_group();
            case '|':
                close_alternative();
                push_operator({kind::alternative});
                has_operand_ = false;
                return true;
            case '*': return repeat(0, unlimited);
            case '+': return repeat(1, unlimited);
            case '?': return repeat(0, 1);
            case '{': {
                std::uint32_t low = 0;
                std::uint32_t high = 0;
                if (read_counts(low, high)) {
                    return repeat(low, high);
                }
                return literal(c);  // a brace that starts no count stands for itself
            }
            case '^': return operand({kind::begin}, false);
            case '$': return operand({kind::end}, false);
            case '.': set.set().reset('\n'); return operand(of(set), true);
            case '[': return read_class(set) && operand(of(set), true);
            case '\\': return escape(set) && operand(of(set), true);
            default: return literal(c);
        }
    }

    pattern_item of(const byte_set& set) {
        sets.push_back(set);
        return {kind::set, static_cast<std::uint32_t>(sets.size() - 1)};
    }
    bool literal(char c) {
        byte_set set;
        set.set(static_cast<unsigned char>(c));
        return operand(of(set), static_cast<unsigned char>(c) < 0x80);
    }
    bool operand(pattern_item item, bool repeatable) {
        join();
        operand_begin_ = postfix.size();
        postfix.push_back(item);
        has_operand_ = true;
        repeatable_ = repeatable;
        return true;
    }
    void join() {
        if (has_operand_) {
            push_operator({kind::join});
        }
    }
    void close_alternative() {
        if (!has_operand_) {
            postfix.push_back({kind::empty});
        }
    }
    void pop_operator() {
        postfix.push_back(operators_.back());
        operators_.pop_back();
    }
    /// Joining binds stronger than alternatives; both are associative.
    void push_operator(pattern_item o) {
        while (!operators_.empty() && operators_.back().what != kind::open &&
               (o.what == kind::alternative || operators_.back().what == kind::join)) {
            pop_operator();
        }
        operators_.push_back(o);
    }

    bool open_group() {
        join();
        if (next_is('?')) {
            if (text_.substr(at_, 2) != "?:") {
                return unsupported("uses lookaround, a named group or flags, which are not supported");
            }
            at_ += 2;
        }
        operators_.push_back({kind::open, static_cast<std::uint32_t>(postfix.size())});
        has_operand_ = false;
        return true;
    }
    bool close_group() {
        close_alternative();
        while (!operators_.empty() && operators_.back().what != kind::open) {
            pop_operator();
        }
        if (operators_.empty()) {
            return bad("closes a group that is not open");
        }
        operand_begin_ = operators_.back().set;
        operators_.pop_back();
        has_operand_ = repeatable_ = true;
        return true;
    }

    static constexpr std::uint32_t unlimited = UINT32_MAX;

    /// x{low,high} as low copies of x, then x* or high - low times x?.
    bool repeat(std::uint32_t low, std::uint32_t high) {
        if (!has_operand_ || !repeatable_) {
            return has_operand_ && postfix.back().what == kind::set
                       ? unsupported("repeats a character that is not ASCII, or a repetition")
                       : bad("repeats nothing, or a repetition");
        }
        if (low > high) {
            return bad("has a count whose minimum is above its maximum");
        }
        if (next_is('?')) {
            ++at_;  // lazy: another order of trying, the same texts match
        } else if (next_is('+')) {
            return unsupported("uses a possessive repetition, which is not supported");
        }
        repeatable_ = false;
        const std::vector<pattern_item> x(postfix.begin() + static_cast<std::ptrdiff_t>(operand_begin_), postfix.end());
        postfix.resize(operand_begin_);
        bool any = false;
        const auto append = [&](kind suffix) {
            postfix.insert(postfix.end(), x.begin(), x.end());
            if (suffix != kind::join) {
                postfix.push_back({suffix});
            }
            if (std::exchange(any, true)) {
                postfix.push_back({kind::join});
            }
            return postfix.size() <= most_items || unsupported("is too large");
        };
        for (std::uint32_t i = 0; i < low; ++i) {
            if (!append(kind::join)) {
                return false;
            }
        }
        if (high == unlimited) {
            return append(kind::star);
        }
        for (std::uint32_t i = low; i < high; ++i) {
            if (!append(kind::optional)) {
                return false;
            }
        }
        if (!any) {
            postfix.push_back({kind::empty});
        }
        return true;
    }

    /// After "{": m}, m,} ,n} or m,n} of at most five digits each.
    bool read_counts(std::uint32_t& low, std::uint32_t& high) {
        std::size_t i = at_;
        const auto number = [&](std::uint32_t& value) {
            const std::size_t first = i;
            while (i < text_.size() && text_[i] >= '0' && text_[i] <= '9' && i - first < 5) {
                value = value * 10 + static_cast<std::uint32_t>(text_[i++] - '0');
            }
            return i > first;
        };
        const bool has_low = number(low);
        const bool comma = i < text_.size() && text_[i] == ',';
        i += comma ? 1 : 0;
        if (!comma) {
            high = low;
        } else if (!number(high)) {
            high = unlimited;
        }
        if ((!has_low && !comma) || i >= text_.size() || text_[i] != '}') {
            low = high = 0;
            return false;
        }
        at_ = i + 1;
        return true;
    }

    bool class_member(byte_set& one) {
        const char c = text_[at_++];
        if (static_cast<unsigned char>(c) >= 0x80) {
            return unsupported("has a class with characters that are not ASCII");
        }
        if (c == '\\') {
            return escape(one);
        }
        one.set(static_cast<unsigned char>(c));
        return true;
    }
    static std::size_t first_of(const byte_set& set) {
        std::size_t b = 0;
        while (b < set.size() && !set[b]) {
            ++b;
        }
        return b;
    }
    bool read_class(byte_set& set) {
        const bool complement = next_is('^');
        at_ += complement ? 1 : 0;
        for (const std::size_t first = at_; !next_is(']') || at_ == first;) {
            byte_set one;
            if (at_ >= text_.size()) {
                return bad("opens a class that is not closed");
            }
            if (!class_member(one)) {
                return false;
            }
            if (next_is('-') && at_ + 1 < text_.size() && text_[at_ + 1] != ']') {
                ++at_;
                byte_set last;
                if (!class_member(last)) {
                    return false;
                }
                if (one.count() != 1 || last.count() != 1 || first_of(last) < first_of(one)) {
                    return bad("has a class with a range that is none");
                }
                for (std::size_t b = first_of(one), end = first_of(last); b <= end; ++b) {
                    one.set(b);
                }
            }
            set |= one;
        }
        ++at_;
        if (complement) {
            set.flip();
        }
        return true;
    }

    bool escape(byte_set& set) {
        if (at_ >= text_.size()) {
            return bad("ends in a backslash");
        }
        const char c = text_[at_++];
        const auto range = [&](char from, char to) {
            for (char b = from; b <= to; ++b) {
                set.set(static_cast<unsigned char>(b));
            }
        };
        const char lower = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
        if (lower == 'd' || lower == 'w') {
            range('0', '9');
        }
        if (lower == 'w') {
            range('a', 'z');
            range('A', 'Z');
            set.set('_');
        } else if (lower == 's') {
            range('\t', '\r');
            set.set(' ');
        } else if (c == 't' || c == 'n') {
            set.set(c == 't' ? '\t' : '\n');
        } else if (lower != 'd') {
            if ((c >= '0' && c <= '9') || (lower >= 'a' && lower <= 'z') || static_cast<unsigned char>(c) >= 0x80) {
                return unsupported(std::string("uses \\") + c + ", which is not supported");
            }
            set.set(static_cast<unsigned char>(c));
        }
        if (c == 'D' || c == 'W' || c == 'S') {
            set.flip();
        }
        return true;
    }

    std::string_view text_;
    std::size_t at_ = 0;
    std::vector<pattern_item> operators_ = {};
    std::size_t operand_begin_ = 0;  ///< Where in `postfix` the last operand starts.
    bool has_operand_ = false;
    bool repeatable_ = false;
};

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_DETAIL_PATTERN_PARSER_HPP
