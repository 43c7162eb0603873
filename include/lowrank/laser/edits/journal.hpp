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

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

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
    LOWRANK_API explicit search_journal(sink keep = {}, std::string label = {});

    /// The journal that earlier runs left in `text`; new lines go to `keep`. A last line without its line break was cut
    /// off and does not count: `accepted_bytes` says how much of the text is good, so that the caller can cut the rest
    /// before it appends.
    /// \return `invalid_format` if a whole line is not one of a journal, with its number.
    LOWRANK_API [[nodiscard]] static result<search_journal> read(std::string_view text, sink keep = {},
                                                                 std::string label = {});

    /// Called by a search with the fingerprint of its weights: writes the first line, or checks the one read.
    /// \return `mismatch` if the journal is of other weights or another label.
    LOWRANK_API [[nodiscard]] status begin(std::uint64_t fingerprint);

    /// The scores of these samples with these edits in place, or null.
    LOWRANK_API [[nodiscard]] const sample_scores* find(sample_range range, std::string_view edits) const;

    /// Adds what the evaluator returned.
    /// \pre one score for each sample of the range; `edits` holds no line break
    LOWRANK_API [[nodiscard]] status add(sample_range range, std::string_view edits, const sample_scores& scores);

    /// How many evaluations it holds.
    [[nodiscard]] std::size_t size() const noexcept { return scored_.size(); }
    /// How many bytes of the text given to `read` are whole lines.
    [[nodiscard]] std::size_t accepted_bytes() const noexcept { return accepted_; }

private:
    struct evaluation {
        sample_range range = {};
        std::string edits = {};
        sample_scores scores = {};
    };
    static constexpr std::string_view head = "lowrank-journal 1 ", scored = "scored ";

    LOWRANK_API [[nodiscard]] status write(std::string_view line);
    /// The first evaluation that is not before this one.
    LOWRANK_API [[nodiscard]] std::size_t place(sample_range range, std::string_view edits) const;
    LOWRANK_API void remember(sample_range range, std::string_view edits, sample_scores scores);

    LOWRANK_API [[nodiscard]] static std::string hex(std::uint64_t x);
    LOWRANK_API [[nodiscard]] static bool read_hex(std::string_view text, std::uint64_t& x);
    /// The text up to the next space, which is taken off as well.
    LOWRANK_API [[nodiscard]] static bool take_word(std::string_view& text, std::string_view& word);
    LOWRANK_API [[nodiscard]] static bool read_index(std::string_view word, index& x);

    LOWRANK_API [[nodiscard]] bool read_head(std::string_view line);

    LOWRANK_API [[nodiscard]] bool read_scored(std::string_view line);

    sink keep_;
    std::string label_;
    std::string read_label_ = {};
    std::uint64_t fingerprint_ = 0;
    bool started_ = false;
    std::size_t accepted_ = 0;
    std::vector<evaluation> scored_ = {};  ///< In the order of ranges, then of edits.
};

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/laser/edits/journal.ipp>
#endif

#endif  // LOWRANK_LASER_EDITS_JOURNAL_HPP
