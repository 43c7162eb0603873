// SPDX-License-Identifier: MIT
#ifndef LLAMA_TOKENIZER_HPP
#define LLAMA_TOKENIZER_HPP

/// \file
/// The tokenizer of llama2.c: byte-pair encoding by scores, with byte fallback.
///
///     lowrank::result<llama::tokenizer> t = llama::read_tokenizer("tok512.bin");
///     std::vector<int> ids = t->encode("Once upon a time", {.bos = true});
///     std::string text = t->decode(ids);
///
/// File: int32 longest piece, then per token float32 score, int32 length, bytes; little-endian. Pairs merge best score
/// first, leftmost first among equals, as in run.c of llama2.c, here in n log n instead of n^2.

#include <bit>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <queue>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <lowrank/core/finite.hpp>
#include <lowrank/io/containers/mapped_file.hpp>

#include "config.hpp"
#include "contract.hpp"

namespace llama {

struct encode_options {
    bool bos = false;  ///< Put the begin-of-text token first.
    bool eos = false;  ///< Put the end-of-text token last.
};

class tokenizer {
public:
    static constexpr int bos_id = 1;
    static constexpr int eos_id = 2;

    struct piece {
        std::string text;
        float score = 0;
    };

    /// Reads the bytes of a tokenizer file. \return invalid_format if they are not one.
    [[nodiscard]] static result<tokenizer> parse(std::span<const std::byte> bytes) {
        static_assert(std::endian::native == std::endian::little, "the file is little-endian");
        const auto fail = [](const char* text) {
            return status{errc::invalid_format, std::string("tokenizer: ") + text};
        };
        std::size_t at = 0;
        const auto read = [&](auto& value) {
            if (bytes.size() - at < sizeof value) {
                return false;
            }
            std::memcpy(&value, bytes.data() + at, sizeof value);
            at += sizeof value;
            return true;
        };
        std::int32_t longest = 0;
        if (!read(longest) || longest < 1 || longest > 1024) {
            return fail("the file does not start with the length of the longest piece");
        }
        std::vector<piece> pieces;
        while (at < bytes.size()) {
            piece p;
            std::int32_t length = 0;
            if (!read(p.score) || !read(length) || length < 0 || static_cast<std::size_t>(length) > bytes.size() - at ||
                !lowrank::is_finite(p.score)) {
                return fail("the list of pieces is cut off or broken");
            }
            p.text.assign(reinterpret_cast<const char*>(bytes.data()) + at, static_cast<std::size_t>(length));
            at += static_cast<std::size_t>(length);
            pieces.push_back(std::move(p));
        }
        if (pieces.size() < first_byte + 256) {
            return fail("there are fewer pieces than the 3 special ones and the 256 bytes");
        }
        return tokenizer(std::move(pieces));
    }

    [[nodiscard]] index size() const noexcept { return static_cast<index>(pieces_.size()); }
    [[nodiscard]] const std::vector<piece>& pieces() const noexcept { return pieces_; }

    /// The tokens of `text`. A non-empty text gets a space in front, as SentencePiece does.
    /// \cost n log n for n characters.
    [[nodiscard]] std::vector<int> encode(std::string_view text, const encode_options& options = {}) const {
        std::vector<int> ids;
        if (options.bos) {
            ids.push_back(bos_id);
        }
        std::vector<int> symbols;
        if (!text.empty()) {
            append_character(" ", symbols);
            while (!text.empty()) {
                const std::size_t n = character_length(text);
                append_character(text.substr(0, n), symbols);
                text.remove_prefix(n);
            }
        }
        merge_pairs(symbols);
        ids.insert(ids.end(), symbols.begin(), symbols.end());
        if (options.eos) {
            ids.push_back(eos_id);
        }
        return ids;
    }

    /// The text of one token; `previous` matters because the space in front of a text is dropped after `bos`.
    /// \pre token in [0, size())
    [[nodiscard]] std::string decode(int previous, int token) const {
        expects_in_range("tokenizer::decode", "token", token, 0, size() - 1);
        const auto id = static_cast<std::size_t>(token);
        if (id >= first_byte && id < first_byte + 256) {
            return std::string(1, static_cast<char>(id - first_byte));
        }
        const std::string& text = pieces_[id].text;
        return previous == bos_id && !text.empty() && text.front() == ' ' ? text.substr(1) : text;
    }

    /// The text of all tokens, without the special ones.
    [[nodiscard]] std::string decode(std::span<const int> ids) const {
        std::string text;
        int previous = -1;
        for (const int id : ids) {
            if (id != bos_id && id != eos_id) {
                text += decode(previous, id);
            }
            previous = id;
        }
        return text;
    }

private:
    static constexpr std::size_t first_byte = 3;  // token 3 + b is the byte b

    explicit tokenizer(std::vector<piece> pieces) : pieces_(std::move(pieces)) {
        for (std::size_t i = 0; i < pieces_.size(); ++i) {
            ids_.try_emplace(pieces_[i].text, static_cast<int>(i));
        }
    }

    /// Bytes of the first UTF-8 character: a lead byte and up to three continuation bytes.
    static std::size_t character_length(std::string_view text) {
        std::size_t n = 1;
        while (n < 4 && n < text.size() && (static_cast<unsigned char>(text[n]) & 0xC0U) == 0x80U) {
            ++n;
        }
        return n;
    }

    void append_character(std::string_view character, std::vector<int>& symbols) const {
        if (const auto at = ids_.find(std::string(character)); at != ids_.end()) {
            symbols.push_back(at->second);
            return;
        }
        for (const char c : character) {
            symbols.push_back(static_cast<int>(static_cast<unsigned char>(c)) + static_cast<int>(first_byte));
        }
    }

    void merge_pairs(std::vector<int>& symbols) const {
        struct candidate {
            float score;
            std::size_t left, right;
            int left_id, right_id, merged;
            bool operator<(const candidate& other) const {  // the queue's top: best score, then leftmost
                return score != other.score ? score < other.score : left > other.left;
            }
        };
        const std::size_t n = symbols.size();
        std::vector<std::size_t> next(n), previous(n);
        for (std::size_t i = 0; i < n; ++i) {
            next[i] = i + 1;
            previous[i] = i - 1;  // wraps to npos at 0, which is >= n like the end
        }
        std::unordered_map<std::uint64_t, int> known;
        std::priority_queue<candidate> queue;
        const auto offer = [&](std::size_t left, std::size_t right) {
            if (left >= n || right >= n) {
                return;
            }
            const auto key =
                (static_cast<std::uint64_t>(symbols[left]) << 32) | static_cast<std::uint64_t>(symbols[right]);
            auto at = known.find(key);
            if (at == known.end()) {
                const auto joined = ids_.find(pieces_[static_cast<std::size_t>(symbols[left])].text +
                                              pieces_[static_cast<std::size_t>(symbols[right])].text);
                at = known.emplace(key, joined == ids_.end() ? -1 : joined->second).first;
            }
            if (at->second >= 0) {
                queue.push({pieces_[static_cast<std::size_t>(at->second)].score, left, right, symbols[left],
                            symbols[right], at->second});
            }
        };
        for (std::size_t i = 0; i + 1 < n; ++i) {
            offer(i, i + 1);
        }
        while (!queue.empty()) {
            const candidate best = queue.top();
            queue.pop();
            if (symbols[best.left] != best.left_id || symbols[best.right] != best.right_id ||
                next[best.left] != best.right) {
                continue;  // one of the two has merged since
            }
            symbols[best.left] = best.merged;
            symbols[best.right] = -1;
            next[best.left] = next[best.right];
            if (next[best.left] < n) {
                previous[next[best.left]] = best.left;
            }
            offer(previous[best.left], best.left);
            offer(best.left, next[best.left]);
        }
        std::erase(symbols, -1);
    }

    std::vector<piece> pieces_;
    std::unordered_map<std::string, int> ids_;
};

/// Reads a tokenizer file. \return not_found or io_failure from the system, invalid_format if it is not a tokenizer.
[[nodiscard]] inline result<tokenizer> read_tokenizer(const std::filesystem::path& path) {
    auto file = lowrank::mapped_file::open(path);
    if (!file) {
        return file.error();
    }
    return tokenizer::parse(file->bytes());
}

}  // namespace llama

#endif  // LLAMA_TOKENIZER_HPP
