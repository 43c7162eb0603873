// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_DETAIL_PATTERN_HPP
#define LOWRANK_IO_PEFT_DETAIL_PATTERN_HPP

/// \file
/// Regular expressions as adapter configurations use them, matched in time linear in the text whatever the pattern.
///
///     auto p = detail::pattern::compile("layers\\.[0-3]\\.mlp\\.up_proj");
///     p->matches("layers.2.mlp.up_proj")               // true: the whole text must match
///
/// Thompson's simulation of a nondeterministic automaton over bytes. Understood: characters, `.`, classes, \d \w \s and
/// their complements, groups, alternatives, `* + ?` and `{m,n}` (lazy or not), `^` and `$`. Refused with a sentence:
/// what needs backtracking (back-references, lookaround), flags, and non-ASCII characters in classes or repetitions.

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/peft/detail/pattern_parser.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// A compiled pattern.
class pattern {
public:
    /// \return `unsupported` for a construct that is not understood or a pattern that is too large;
    ///         `invalid_format` for what is no regular expression.
    [[nodiscard]] static result<pattern> compile(std::string_view text) {
        pattern_parser parser(text);
        if (!parser.run()) {
            return status{parser.code, "the pattern " + in_quotes(text) + " " + parser.why};
        }
        pattern out;
        out.sets_ = std::move(parser.sets);
        out.build(parser.postfix);
        return out;
    }

    /// True if all of `text` matches. \cost O(size of the pattern) per character.
    [[nodiscard]] bool matches(std::string_view text) const {
        std::vector<std::uint32_t> now, next, stack;
        std::vector<std::size_t> seen(states_.size(), SIZE_MAX);
        // Adds `from` and all that is reached from it at position `at` without a character.
        const auto add = [&](std::vector<std::uint32_t>& set, std::uint32_t from, std::size_t at) {
            stack.push_back(from);
            while (!stack.empty()) {
                const std::uint32_t s = stack.back();
                stack.pop_back();
                if (std::exchange(seen[s], at) == at) {
                    continue;
                }
                const state& here = states_[s];
                if (here.kind == op::set || here.kind == op::accept) {
                    set.push_back(s);
                } else if (here.kind == op::split) {
                    stack.push_back(here.other);
                    stack.push_back(here.next);
                } else if (here.kind == op::begin ? at == 0 : at == text.size()) {
                    stack.push_back(here.next);
                }
            }
        };
        add(now, start_, 0);
        for (std::size_t i = 0; i < text.size() && !now.empty(); ++i) {
            next.clear();
            for (const std::uint32_t s : now) {
                if (states_[s].kind == op::set && sets_[states_[s].other][static_cast<unsigned char>(text[i])]) {
                    add(next, states_[s].next, i + 1);
                }
            }
            now.swap(next);
        }
        for (const std::uint32_t s : now) {
            if (states_[s].kind == op::accept) {
                return true;
            }
        }
        return false;
    }

    /// States of the automaton.
    [[nodiscard]] std::size_t size() const noexcept { return states_.size(); }

private:
    enum class op : std::uint8_t { set, split, begin, end, accept };
    struct state {
        op kind = op::accept;
        std::uint32_t next = 0;
        std::uint32_t other = 0;  ///< The second way of a split, or the index of a set.
    };
    /// A piece of the automaton: where it starts, and the state (a split whose `next` is still open) where it ends.
    struct piece {
        std::uint32_t start;
        std::uint32_t end;
    };

    std::uint32_t add(state s) {
        states_.push_back(s);
        return static_cast<std::uint32_t>(states_.size() - 1);
    }
    /// A state that leads on to whatever its `next` will be.
    std::uint32_t add_joint() {
        const std::uint32_t s = add({op::split});
        states_[s].next = states_[s].other = s;
        return s;
    }
    void lead(std::uint32_t from, std::uint32_t to) { states_[from].next = states_[from].other = to; }

    void build(const std::vector<pattern_item>& postfix) {
        using kind = pattern_item::kind;
        std::vector<piece> pieces;
        const auto pop = [&] {
            const piece p = pieces.back();
            pieces.pop_back();
            return p;
        };
        for (const pattern_item& item : postfix) {
            switch (item.what) {
                case kind::join: {
                    const piece right = pop();
                    const piece left = pop();
                    lead(left.end, right.start);
                    pieces.push_back({left.start, right.end});
                    break;
                }
                case kind::alternative: {
                    const piece right = pop();
                    const piece left = pop();
                    const std::uint32_t end = add_joint();
                    lead(left.end, end);
                    lead(right.end, end);
                    pieces.push_back({add({op::split, left.start, right.start}), end});
                    break;
                }
                case kind::star:
                case kind::optional: {
                    const piece inner = pop();
                    const std::uint32_t end = add_joint();
                    const std::uint32_t start = add({op::split, inner.start, end});
                    lead(inner.end, item.what == kind::star ? start : end);
                    pieces.push_back({start, end});
                    break;
                }
                case kind::empty: {
                    const std::uint32_t s = add_joint();
                    pieces.push_back({s, s});
                    break;
                }
                default: {
                    const std::uint32_t end = add_joint();
                    const op what = item.what == kind::set ? op::set : item.what == kind::begin ? op::begin : op::end;
                    pieces.push_back({add({what, end, item.set}), end});
                }
            }
        }
        const piece whole = pop();
        lead(whole.end, add({op::accept}));
        start_ = whole.start;
    }

    std::vector<state> states_ = {};
    std::vector<byte_set> sets_ = {};
    std::uint32_t start_ = 0;
};

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_DETAIL_PATTERN_HPP
