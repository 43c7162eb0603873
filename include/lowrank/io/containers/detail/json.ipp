// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CONTAINERS_DETAIL_JSON_IPP
#define LOWRANK_IO_CONTAINERS_DETAIL_JSON_IPP

#include <lowrank/io/containers/detail/json.hpp>

#include <algorithm>

namespace lowrank::inline LOWRANK_ABI::detail {

/// Accepts a document whose nesting is bounded and whose objects have no key twice.
class json_guard {
public:
    status why = {};
    /// Keys of the objects directly inside the root object, as (its key, their key), in the order of the file; a
    /// document sorts them.
    std::vector<std::pair<std::string, std::string>> inner_keys = {};

    bool null() { return true; }
    bool boolean(bool) { return true; }
    bool number_integer(std::int64_t) { return true; }
    bool number_unsigned(std::uint64_t) { return true; }
    bool number_float(double, const std::string&) { return true; }
    bool string(std::string&) { return true; }
    bool binary(json::binary_t&) { return true; }
    bool start_object(std::size_t) { return enter(); }
    bool start_array(std::size_t) { return enter(); }
    bool end_array() { return leave(); }
    bool key(std::string& name) {
        if (keys_.size() == 2 && !keys_.front().empty()) {
            inner_keys.emplace_back(keys_.front().back(), name);
        }
        keys_.back().push_back(std::move(name));
        return true;
    }
    bool end_object() {
        auto& keys = keys_.back();
        std::sort(keys.begin(), keys.end());
        const auto twin = std::adjacent_find(keys.begin(), keys.end());
        if (twin != keys.end()) {
            why = {errc::invalid_format, "the key " + in_quotes(*twin) + " appears twice in one object"};
            return false;
        }
        return leave();
    }
    bool parse_error(std::size_t position, const std::string&, const json::exception&) {
        why = {errc::invalid_format, "the text is not valid JSON near its byte " + std::to_string(position)};
        return false;
    }

private:
    bool enter() {
        constexpr std::size_t deepest = 64;
        if (keys_.size() == deepest) {
            why = {errc::invalid_format, "the JSON nests more than 64 levels deep"};
            return false;
        }
        keys_.emplace_back();
        return true;
    }
    bool leave() {
        keys_.pop_back();
        return true;
    }

    std::vector<std::vector<std::string>> keys_ = {};
};

LOWRANK_BODY result<json> read_json(std::span<const std::byte> bytes,
                                    std::vector<std::pair<std::string, std::string>>* inner_keys) {
    constexpr std::size_t largest = std::size_t{4} << 20;
    if (bytes.size() > largest) {
        return status{errc::invalid_format, "a configuration of " + std::to_string(bytes.size()) +
                                                " bytes is not believable; at most 4 MiB are read"};
    }
    const std::string_view text = text_of(bytes);
    json_guard guard;
    if (status why = read_json_events(text, guard); !why) {
        return why;
    }
    json document = json::parse(text.begin(), text.end(), nullptr, false);
    if (document.is_discarded()) {
        return status{errc::invalid_format, "the text is not valid JSON"};
    }
    if (inner_keys != nullptr) {
        *inner_keys = std::move(guard.inner_keys);
    }
    return document;
}

}  // namespace lowrank::inline LOWRANK_ABI::detail

#endif  // LOWRANK_IO_CONTAINERS_DETAIL_JSON_IPP
