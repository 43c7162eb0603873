// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_EDITS_JOURNAL_IPP
#define LOWRANK_LASER_EDITS_JOURNAL_IPP

#include <lowrank/laser/edits/journal.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <system_error>
#include <utility>

#include <lowrank/core/check.hpp>

namespace lowrank::inline LOWRANK_ABI {

LOWRANK_BODY search_journal::search_journal(sink keep, std::string label)
    : keep_(std::move(keep)), label_(std::move(label)) {
    detail::expects(label_.find_first_of("\r\n") == std::string::npos,
                    "search_journal: the label must not hold a line break");
}

LOWRANK_BODY result<search_journal> search_journal::read(std::string_view text, sink keep, std::string label) {
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

LOWRANK_BODY status search_journal::begin(std::uint64_t fingerprint) {
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

LOWRANK_BODY const sample_scores* search_journal::find(sample_range range, std::string_view edits) const {
    const std::size_t at = place(range, edits);
    return at < scored_.size() && scored_[at].range == range && scored_[at].edits == edits ? &scored_[at].scores
                                                                                           : nullptr;
}

LOWRANK_BODY status search_journal::add(sample_range range, std::string_view edits, const sample_scores& scores) {
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
    remember(range, edits, scores);
    return write(line);
}

LOWRANK_BODY std::size_t search_journal::place(sample_range range, std::string_view edits) const {
    const auto at = std::lower_bound(scored_.begin(), scored_.end(), edits,
                                     [range](const evaluation& known, std::string_view wanted) {
                                         const sample_range r = known.range;
                                         return r.begin != range.begin ? r.begin < range.begin
                                                : r.end != range.end   ? r.end < range.end
                                                                       : known.edits.compare(wanted) < 0;
                                     });
    return static_cast<std::size_t>(at - scored_.begin());
}

LOWRANK_BODY void search_journal::remember(sample_range range, std::string_view edits, sample_scores scores) {
    const std::size_t at = place(range, edits);
    if (find(range, edits) == nullptr) {
        scored_.insert(scored_.begin() + static_cast<std::ptrdiff_t>(at), {range, std::string(edits), {}});
    }
    scored_[at].scores = std::move(scores);
}

LOWRANK_BODY status search_journal::write(std::string_view line) { return keep_ ? keep_(line) : status{}; }

LOWRANK_BODY std::string search_journal::hex(std::uint64_t x) {
    std::string out(16, '0');
    for (std::size_t i = 16; i-- > 0; x >>= 4) {
        out[i] = "0123456789abcdef"[x & 15];
    }
    return out;
}

LOWRANK_BODY bool search_journal::read_hex(std::string_view text, std::uint64_t& x) {
    if (text.size() != 16) {
        return false;
    }
    const auto [stop, error] = std::from_chars(text.data(), text.data() + 16, x, 16);
    return error == std::errc() && stop == text.data() + 16;
}

LOWRANK_BODY bool search_journal::take_word(std::string_view& text, std::string_view& word) {
    const auto space = text.find(' ');
    if (space == text.npos) {
        return false;
    }
    word = text.substr(0, space);
    text.remove_prefix(space + 1);
    return true;
}

LOWRANK_BODY bool search_journal::read_index(std::string_view word, index& x) {
    const auto [stop, error] = std::from_chars(word.data(), word.data() + word.size(), x);
    return !word.empty() && error == std::errc() && stop == word.data() + word.size() && x >= 0;
}

LOWRANK_BODY bool search_journal::read_head(std::string_view line) {
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

LOWRANK_BODY bool search_journal::read_scored(std::string_view line) {
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
    remember({first, last}, line, std::move(scores));
    return true;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_EDITS_JOURNAL_IPP
