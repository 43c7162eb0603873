// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CONTAINERS_DETAIL_JSON_HPP
#define LOWRANK_IO_CONTAINERS_DETAIL_JSON_HPP

/// \file
/// JSON from untrusted files: bounded depth and size, no duplicate keys, no exceptions.
///
///     auto config = detail::read_json(bytes);          // a document
///     auto why = detail::read_json_events(bytes, handler);   // or events, for large files

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/io/containers/detail/text.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

using json = nlohmann::json;

[[nodiscard]] inline std::string_view text_of(std::span<const std::byte> bytes) noexcept {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// What the JSON parser accepts and the formats do not: it takes a NUL for the end of input and skips a byte order mark.
[[nodiscard]] inline status check_json_text(std::string_view text) {
    if (text.starts_with("version https://git-lfs")) {
        return {errc::invalid_format,
                "this is a Git LFS pointer, not the data; run \"git lfs pull\" in the repository it came from"};
    }
    if (text.find('\0') != std::string_view::npos || text.starts_with("\xEF\xBB\xBF")) {
        return {errc::invalid_format, "the text holds a NUL byte or starts with a byte order mark"};
    }
    if (!is_utf8(text)) {
        return {errc::invalid_format, "the text is not UTF-8"};
    }
    return {};
}

/// Feeds the events of `text` to `handler`, which has nlohmann's SAX members and a `status why`.
template <class Handler>
[[nodiscard]] status read_json_events(std::string_view text, Handler& handler) {
    if (status why = check_json_text(text); !why) {
        return why;
    }
    if (!json::sax_parse(text.begin(), text.end(), &handler)) {
        return handler.why ? status{errc::invalid_format, "the text is not valid JSON"} : handler.why;
    }
    return {};
}

/// A small document, such as a configuration file, and if asked for the keys of the objects directly inside
/// the root object, as (its key, their key), in the order of the file, which a document does not keep.
///
/// \return `invalid_format` for broken JSON, duplicate keys, more than 64 levels or 4 MiB.
LOWRANK_API [[nodiscard]] result<json> read_json(
    std::span<const std::byte> bytes, std::vector<std::pair<std::string, std::string>>* inner_keys = nullptr);

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/io/containers/detail/json.ipp>
#endif

#endif  // LOWRANK_IO_CONTAINERS_DETAIL_JSON_HPP
