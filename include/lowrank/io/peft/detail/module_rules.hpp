// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_DETAIL_MODULE_RULES_HPP
#define LOWRANK_IO_PEFT_DETAIL_MODULE_RULES_HPP

/// \file
/// Values for modules by pattern: rank_pattern and alpha_pattern, compiled once.
///
///     auto rules = detail::module_rules<index>::compile({{"q_proj", 4}, {"layers\\.[0-3]\\..*", 2}});
///     rules->find("model.layers.7.q_proj");            // points at 4
///
/// The rule of huggingface/peft: the first key for which `(.*\.)?(key)` matches the whole path. Plain keys, which are
/// nearly all, are compared; the others run in an automaton.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/peft/detail/pattern.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// One key.
class module_key {
public:
    /// \return as `pattern::compile`.
    [[nodiscard]] static result<module_key> compile(std::string_view key) {
        module_key out;
        if (out.read_plain(key)) {
            return out;
        }
        if (auto alone = pattern::compile(key); !alone) {  // so that "a)|(b" cannot borrow the group around it
            return alone.error();
        }
        auto compiled = pattern::compile("(.*\\.)?(" + std::string(key) + ")");
        if (!compiled) {
            return compiled.error();
        }
        out.pattern_ = std::move(*compiled);
        return out;
    }

    [[nodiscard]] bool matches(std::string_view module) const {
        if (pattern_) {
            return pattern_->matches(module);
        }
        if (module.size() < plain_.size()) {
            return false;
        }
        const std::size_t before = module.size() - plain_.size();
        if (before != 0 && (anchored_ || module[before - 1] != '.')) {
            return false;
        }
        for (std::size_t i = 0; i < plain_.size(); ++i) {
            if (plain_[i] == any ? module[before + i] == '\n' : module[before + i] != plain_[i]) {
                return false;
            }
        }
        return true;
    }

    /// What matching costs per byte of a path.
    [[nodiscard]] std::size_t cost() const noexcept { return pattern_ ? pattern_->size() : 1; }

private:
    static constexpr char any = '\0';  ///< An unescaped dot, which stands for any character.

    /// Letters, digits, `_`, `-`, `.`, escaped punctuation, and one `^` in front.
    bool read_plain(std::string_view key) {
        anchored_ = key.starts_with('^');
        for (std::size_t i = anchored_ ? 1 : 0; i < key.size(); ++i) {
            const char c = key[i];
            const auto is_word = [](char x) {
                return (x >= '0' && x <= '9') || (x >= 'a' && x <= 'z') || (x >= 'A' && x <= 'Z') || x == '_' ||
                       x == '-';
            };
            if (is_word(c)) {
                plain_ += c;
            } else if (c == '.') {
                plain_ += any;
            } else if (c == '\\' && i + 1 < key.size() && key[i + 1] > 0x20 && key[i + 1] < 0x7f &&
                       (!is_word(key[i + 1]) || key[i + 1] == '_' || key[i + 1] == '-')) {
                plain_ += key[++i];
            } else {
                plain_.clear();
                return false;
            }
        }
        return true;
    }

    std::string plain_ = {};
    bool anchored_ = false;
    std::optional<pattern> pattern_ = {};
};

/// Keys in order, each with its value; the first that matches wins.
template <class T>
class module_rules {
public:
    /// \return as `pattern::compile`; `unsupported` if the patterns are too large together.
    [[nodiscard]] static result<module_rules> compile(const std::vector<std::pair<std::string, T>>& patterns) {
        constexpr std::size_t most = std::size_t{1} << 15;
        module_rules out;
        for (const auto& [key, value] : patterns) {
            auto compiled = module_key::compile(key);
            if (!compiled) {
                return compiled.error();
            }
            out.cost_ += compiled->cost();
            if (out.cost_ > most) {
                return status{errc::unsupported, "the patterns are too large together; use fewer or simpler ones"};
            }
            out.rules_.emplace_back(std::move(*compiled), value);
        }
        return out;
    }

    /// The value for a module, or null.
    [[nodiscard]] const T* find(std::string_view module) const {
        for (const auto& [key, value] : rules_) {
            if (key.matches(module)) {
                return &value;
            }
        }
        return nullptr;
    }

    [[nodiscard]] const std::vector<std::pair<module_key, T>>& rules() const noexcept { return rules_; }
    [[nodiscard]] std::size_t cost() const noexcept { return cost_; }

private:
    std::vector<std::pair<module_key, T>> rules_ = {};
    std::size_t cost_ = 0;
};

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_DETAIL_MODULE_RULES_HPP
