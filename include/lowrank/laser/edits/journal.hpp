// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_EDITS_JOURNAL_HPP
#define LOWRANK_LASER_EDITS_JOURNAL_HPP

/// \file
/// What a search has evaluated so far, as plain lines, so that an interrupted search goes on where it stopped.
///
///     std::ofstream file("search.log", std::ios::app);
///     auto journal = lowrank::search_journal::read(old_text, [&](std::string_view line) {
///         return file << line << std::flush ? lowrank::status{} : lowrank::status{lowrank::errc::io_failure, "disk"};
///     }).value();
///     auto r = lowrank::exhaustive_search(model, {.validation = {0, 200}, .log = &journal});
///
/// A search is a function of its evaluations. Those in the journal are read instead of evaluated again, bit for bit, so
/// that the resumed search ends where the uninterrupted one does. The library writes no file: the caller keeps the
/// lines. Several edits are separated by tabs.
///
///     lowrank-journal 1 <16 hex digits: names and bits of the unedited weights> <label>
///     scored <begin> <end> <0 and 1: right answers> <16 hex digits per log-loss> <edits in place>

#include <array>
#include <bit>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <system_error>
#include <tuple>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/laser/evidence/evaluation.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Evaluations by sample range and edits in place. One journal serves one search.
class search_journal {
public:
    /// Keeps a line (it ends in a line break) before the search goes on. A status ends the search.
    using sink = std::function<status(std::string_view line)>;

    /// An empty journal. `label` names what the evaluator's samples are: a resumed search must have the same.
    /// \pre the label holds no line break
    explicit search_journal(sink keep = {}, std::string label = {}) : keep_(std::move(keep)), label_(std::move(label)) {
        detail::expects(label_.find_first_of("\r\n") == std::string::npos,
                        "search_journal: the label must not hold a line break");
    }

    /// The journal that earlier runs left in `text`; new lines go to `keep`. A last line without its line break was cut
    /// off and does not count: `accepted_bytes` says how much of the text is good, so that the caller can cut the rest
    /// before it appends.
    /// \return `invalid_format` if a whole line is not one of a journal, with its number.
    [[nodiscard]] static result<search_journal> read(std::string_view text, sink keep = {}, std::string label = {}) {
        search_journal out(std::move(keep), std::move(label));
        std::size_t number = 0;
        while (!text.empty()) {
            const auto end = text.find('\n');
            if (end == text.npos) {
                break;
            }
            ++number;
            const auto line = text.substr(0, end);
            if (!(number == 1 ? out.read_head(line) : out.read_scored(line))) {
                return status{errc::invalid_format, "search_journal: line " + std::to_string(number) +
                                                        " is not a line of a journal; start a new one"};
            }
            out.accepted_ += end + 1;
            text.remove_prefix(end + 1);
        }
        return out;
    }

    /// Called by a search with the fingerprint of its weights: writes the first line, or checks the one read.
    /// \return `mismatch` if the journal is of other weights or another label.
    [[nodiscard]] status begin(std::uint64_t fingerprint) {
        if (started_) {
            if (fingerprint != fingerprint_ || label_ != read_label_) {
                return {errc::mismatch,
                        "search_journal: the journal is of other weights or other samples; start a new one"};
            }
            return {};
        }
        started_ = true;
        fingerprint_ = fingerprint;
        read_label_ = label_;
        return write(std::string(head) + hex(fingerprint) + " " + label_ + "\n");
    }

    /// The scores of these samples with these edits in place, or null.
    [[nodiscard]] const sample_scores* find(sample_range range, std::string_view edits) const {
        const auto at = scored_.find(key(range.begin, range.end, std::string(edits)));
        return at == scored_.end() ? nullptr : &at->second;
    }

    /// Adds what the evaluator returned.
    /// \pre one score for each sample of the range; `edits` holds no line break
    [[nodiscard]] status add(sample_range range, std::string_view edits, const sample_scores& scores) {
        detail::expects(scores.size() == range.size() && scores.log_loss.size() == scores.correct.size(),
                        "search_journal::add: there must be one score for each sample of the range");
        std::string line = std::string(scored) + std::to_string(range.begin) + " " + std::to_string(range.end) + " ";
        for (const auto c : scores.correct) {
            line.push_back(c != 0 ? '1' : '0');
        }
        line.push_back(' ');
        for (const double x : scores.log_loss) {
            line.append(hex(std::bit_cast<std::uint64_t>(x)));
        }
        line.push_back(' ');
        line.append(edits);
        line.push_back('\n');
        scored_.insert_or_assign(key(range.begin, range.end, std::string(edits)), scores);
        return write(line);
    }

    /// How many evaluations it holds.
    [[nodiscard]] std::size_t size() const noexcept { return scored_.size(); }
    /// How many bytes of the text given to `read` are whole lines.
    [[nodiscard]] std::size_t accepted_bytes() const noexcept { return accepted_; }

private:
    using key = std::tuple<index, index, std::string>;
    static constexpr std::string_view head = "lowrank-journal 1 ", scored = "scored ";

    [[nodiscard]] status write(std::string_view line) { return keep_ ? keep_(line) : status{}; }

    [[nodiscard]] static std::string hex(std::uint64_t x) {
        std::string out(16, '0');
        for (std::size_t i = 16; i-- > 0; x >>= 4) {
            out[i] = "0123456789abcdef"[x & 15];
        }
        return out;
    }
    [[nodiscard]] static bool read_hex(std::string_view text, std::uint64_t& x) {
        if (text.size() != 16) {
            return false;
        }
        const auto [stop, error] = std::from_chars(text.data(), text.data() + 16, x, 16);
        return error == std::errc() && stop == text.data() + 16;
    }
    /// The text up to the next space, which is taken off as well.
    [[nodiscard]] static bool take_word(std::string_view& text, std::string_view& word) {
        const auto space = text.find(' ');
        if (space == text.npos) {
            return false;
        }
        word = text.substr(0, space);
        text.remove_prefix(space + 1);
        return true;
    }
    [[nodiscard]] static bool read_index(std::string_view word, index& x) {
        const auto [stop, error] = std::from_chars(word.data(), word.data() + word.size(), x);
        return !word.empty() && error == std::errc() && stop == word.data() + word.size() && x >= 0;
    }

    [[nodiscard]] bool read_head(std::string_view line) {
        std::string_view word;
        if (!line.starts_with(head)) {
            return false;
        }
        line.remove_prefix(head.size());
        if (!take_word(line, word) || !read_hex(word, fingerprint_)) {
            return false;
        }
        read_label_ = line;
        return started_ = true;
    }

    [[nodiscard]] bool read_scored(std::string_view line) {
        if (!line.starts_with(scored)) {
            return false;
        }
        line.remove_prefix(scored.size());
        std::array<std::string_view, 4> word;
        for (auto& w : word) {
            if (!take_word(line, w)) {
                return false;
            }
        }
        index first = 0, last = 0;
        if (!read_index(word[0], first) || !read_index(word[1], last) || last < first ||
            word[2].size() != static_cast<std::size_t>(last - first) || word[3].size() != 16 * word[2].size()) {
            return false;
        }
        sample_scores scores;
        for (std::size_t i = 0; i < word[2].size(); ++i) {
            std::uint64_t bits = 0;
            if ((word[2][i] != '0' && word[2][i] != '1') || !read_hex(word[3].substr(16 * i, 16), bits)) {
                return false;
            }
            scores.add(word[2][i] == '1', std::bit_cast<double>(bits));
        }
        if (line.ends_with('\t')) {  // journals of 0.1 ended some lists of edits so
            line.remove_suffix(1);
        }
        scored_.insert_or_assign(key(first, last, std::string(line)), std::move(scores));
        return true;
    }

    sink keep_;
    std::string label_;
    std::string read_label_ = {};
    std::uint64_t fingerprint_ = 0;
    bool started_ = false;
    std::size_t accepted_ = 0;
    std::map<key, sample_scores> scored_ = {};
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_EDITS_JOURNAL_HPP
