// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CONTAINERS_DETAIL_TEXT_HPP
#define LOWRANK_IO_CONTAINERS_DETAIL_TEXT_HPP

/// \file
/// Words for messages, and the few text rules that file formats share.
///
///     detail::in_quotes(name)               // "model.norm.weight", cut and escaped if the file is hostile
///     detail::system_failure("cannot open", path, errno)

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <iterator>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <lowrank/core/status.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// A name from a file in double quotes, safe to print: control bytes as \xNN, at most 96 bytes of it.
[[nodiscard]] inline std::string in_quotes(std::string_view name) {
    constexpr std::size_t longest = 96;
    constexpr char digits[] = "0123456789abcdef";
    std::string text = "\"";
    for (const char c : name.substr(0, longest)) {
        const auto byte = static_cast<unsigned char>(c);
        if (byte < 0x20 || byte == 0x7f || c == '"' || c == '\\') {
            if (c == '"' || c == '\\') {
                text += '\\';
                text += c;
            } else {
                text += "\\x";
                text += digits[byte >> 4];
                text += digits[byte & 15];
            }
        } else {
            text += c;
        }
    }
    text += name.size() > longest ? "...\"" : "\"";
    return text;
}

/// A path of the caller in double quotes, whole.
[[nodiscard]] inline std::string path_in_quotes(const std::filesystem::path& path) { return '"' + path.string() + '"'; }

/// "context: message", for a status that travels up through files.
[[nodiscard]] inline status in_context(std::string_view context, status why) {
    std::string text(context);
    text += ": ";
    text += why.message;
    return {why.code, std::move(text)};
}

[[nodiscard]] inline status in_file(const std::filesystem::path& path, status why) {
    return in_context(path.string(), std::move(why));
}

/// The name among `names` that `wanted` may have meant: the fewest letters changed, dots and underscores counting as
/// one; empty if more than half of them would change. \cost the product of both lengths a name.
template <class Names>
[[nodiscard]] std::string nearest_name(std::string_view wanted, const Names& names) {
    const auto letter = [](char c) { return c == '.' ? '_' : c; };
    std::string best;
    std::size_t fewest = wanted.size() / 2 + 1;
    std::vector<std::size_t> row;
    for (const auto& each : names) {
        const std::string_view name(each);
        if (name.size() >= wanted.size() + fewest || wanted.size() >= name.size() + fewest) {
            continue;
        }
        row.resize(name.size() + 1);
        for (std::size_t j = 0; j <= name.size(); ++j) {
            row[j] = j;
        }
        for (std::size_t i = 0; i < wanted.size(); ++i) {
            std::size_t diagonal = std::exchange(row[0], i + 1);
            for (std::size_t j = 0; j < name.size(); ++j) {
                const std::size_t change = diagonal + (letter(wanted[i]) == letter(name[j]) ? 0 : 1);
                diagonal = row[j + 1];
                row[j + 1] = std::min({change, row[j] + 1, diagonal + 1});
            }
        }
        if (row.back() < fewest) {
            fewest = row.back();
            best = std::string(name);
        }
    }
    return best;
}

/// "; the nearest name there is ...", or what there is where none is near.
template <class Names>
[[nodiscard]] std::string nearest_in_words(std::string_view wanted, const Names& names) {
    const std::string near = nearest_name(wanted, names);
    if (!near.empty()) {
        return "; the nearest name there is " + in_quotes(near);
    }
    return std::begin(names) == std::end(names) ? std::string("; there is none at all")
                                                : "; there are names like " + in_quotes(*std::begin(names));
}

/// What the operating system refused, as one sentence with advice where there is some.
[[nodiscard]] inline status system_failure(const char* what, const std::filesystem::path& path, int error) {
    std::string text(what);
    text += ' ';
    text += path_in_quotes(path);
    text += ": ";
    switch (error) {
        case ENOENT: return {errc::not_found, text + "no such file or folder"};
        case EACCES:
        case EPERM: text += "permission denied; check the access rights of the file and its folder"; break;
        case ENOSPC: text += "the disk is full; free some space and try again"; break;
#ifdef EDQUOT
        case EDQUOT: text += "the disk quota is used up; free some space and try again"; break;
#endif
        case EROFS: text += "the file system is read-only; write somewhere else"; break;
        case EFBIG: text += "the file would be larger than the file system or the process limit allows"; break;
        case EISDIR: text += "it is a folder, not a file"; break;
        default: text += std::error_code(error, std::generic_category()).message();
    }
    return {errc::io_failure, std::move(text)};
}

/// True if `text` is well-formed UTF-8 (no overlong forms, no surrogates, at most U+10FFFF).
[[nodiscard]] inline bool is_utf8(std::string_view text) noexcept {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    for (std::size_t i = 0; i < text.size();) {
        const unsigned lead = byte(i);
        const std::size_t more = lead < 0x80   ? 0
                                 : lead < 0xc2 ? 4
                                 : lead < 0xe0 ? 1
                                 : lead < 0xf0 ? 2
                                 : lead < 0xf5 ? 3
                                               : 4;
        if (more == 4 || text.size() - i <= more) {
            return false;
        }
        for (std::size_t k = 1; k <= more; ++k) {
            if ((byte(i + k) & 0xc0U) != 0x80) {
                return false;
            }
        }
        if (more >= 2) {
            const unsigned second = byte(i + 1);
            if ((lead == 0xe0 && second < 0xa0) || (lead == 0xed && second > 0x9f) || (lead == 0xf0 && second < 0x90) ||
                (lead == 0xf4 && second > 0x8f)) {
                return false;
            }
        }
        i += more + 1;
    }
    return true;
}

/// Appends `text` as a JSON string with the fewest escapes, as serde_json writes it: non-ASCII stays UTF-8.
inline void append_json_string(std::string& out, std::string_view text) {
    constexpr char digits[] = "0123456789abcdef";
    out += '"';
    for (const char c : text) {
        switch (c) {
            case '"': out += "\\\""; break;
            case '\\': out += "\\\\"; break;
            case '\b': out += "\\b"; break;
            case '\f': out += "\\f"; break;
            case '\n': out += "\\n"; break;
            case '\r': out += "\\r"; break;
            case '\t': out += "\\t"; break;
            default:
                if (static_cast<unsigned char>(c) < 0x20) {
                    out += "\\u00";
                    out += digits[static_cast<unsigned char>(c) >> 4];
                    out += digits[static_cast<unsigned char>(c) & 15];
                } else {
                    out += c;
                }
        }
    }
    out += '"';
}

/// a * b, or false if it does not fit.
[[nodiscard]] constexpr bool checked_multiply(std::uint64_t a, std::uint64_t b, std::uint64_t& product) noexcept {
    if (b != 0 && a > UINT64_MAX / b) {
        return false;
    }
    product = a * b;
    return true;
}

/// a + b, or false if it does not fit.
[[nodiscard]] constexpr bool checked_add(std::uint64_t a, std::uint64_t b, std::uint64_t& sum) noexcept {
    if (a > UINT64_MAX - b) {
        return false;
    }
    sum = a + b;
    return true;
}

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_CONTAINERS_DETAIL_TEXT_HPP
