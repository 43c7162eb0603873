// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CONTAINERS_DETAIL_CONFIG_READER_HPP
#define LOWRANK_IO_CONTAINERS_DETAIL_CONFIG_READER_HPP

/// \file
/// Typed values out of a JSON object, the first that is wrong remembered as one sentence.
///
///     detail::config_reader in(document);
///     in.rank("r", config.r);
///     if (!in.why) return in.why;                      // "r must be a positive integer, got 0"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/containers/detail/json.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// Reads the values of one document and remembers the first that is wrong.
class config_reader {
public:
    explicit config_reader(const json& document) : document_(document) {}

    status why = {};

    /// The value of `key`, or null if it is absent or null.
    [[nodiscard]] const json* find(const char* key) const {
        const auto at = document_.find(key);
        return at == document_.end() || at->is_null() ? nullptr : &*at;
    }
    void boolean(const char* key, bool& out) {
        if (const json* v = find(key)) {
            v->is_boolean() ? void(out = v->get<bool>()) : wrong(key, "true or false", *v);
        }
    }
    void rank(const char* key, index& out) {
        if (const json* v = find(key)) {
            rank(key, *v, out);
        }
    }
    void rank(const std::string& key, const json& v, index& out) {
        constexpr std::int64_t largest = 1 << 24;
        if (!v.is_number_integer() || v.get<std::int64_t>() < 1 || v.get<std::int64_t>() > largest ||
            (v.is_number_unsigned() && v.get<std::uint64_t>() > std::uint64_t{largest})) {
            return wrong(key, "a positive integer", v);
        }
        out = static_cast<index>(v.get<std::int64_t>());
    }
    /// As `rank`, 0 included.
    void count(const char* key, std::int64_t& out) {
        constexpr std::int64_t largest = std::int64_t{1} << 40;
        if (const json* v = find(key)) {
            if (!v->is_number_integer() || v->get<std::int64_t>() < 0 || v->get<std::int64_t>() > largest ||
                (v->is_number_unsigned() && v->get<std::uint64_t>() > std::uint64_t{largest})) {
                return wrong(key, "an integer that is not negative", *v);
            }
            out = v->get<std::int64_t>();
        }
    }
    void number(const char* key, double& out) {
        if (const json* v = find(key)) {
            number(key, *v, out);
        }
    }
    void number(const std::string& key, const json& v, double& out) {
        if (!v.is_number() || !std::isfinite(v.get<double>())) {
            return wrong(key, "a number", v);
        }
        out = v.get<double>();
    }
    template <class Text>  // std::string or an optional one
    void text(const char* key, Text& out) {
        if (const json* v = find(key)) {
            v->is_string() ? void(out = v->get<std::string>()) : wrong(key, "a string or null", *v);
        }
    }
    void names(const char* key, std::vector<std::string>& out) {
        const json* v = find(key);
        if (v == nullptr) {
            return;
        }
        if (!v->is_array()) {
            return wrong(key, "a list of names", *v);
        }
        for (const json& name : *v) {
            if (!name.is_string()) {
                return wrong(key, "a list of names", *v);
            }
            out.push_back(name.get<std::string>());
        }
    }
    /// Lists of true and false by name.
    void flags(const char* key, std::map<std::string, std::vector<bool>>& out) {
        const json* v = find(key);
        if (v == nullptr) {
            return;
        }
        if (!v->is_object()) {
            return wrong(key, "an object", *v);
        }
        for (const auto& [name, list] : v->items()) {
            auto& to = out[name];
            bool fits = list.is_array();
            for (std::size_t i = 0; fits && i < list.size(); ++i) {
                fits = list[i].is_boolean();
                to.push_back(fits && list[i].get<bool>());
            }
            if (!fits) {
                return wrong(std::string(key) + " of \"" + name + '"', "a list of true and false", list);
            }
        }
    }
    void tokens(const char* key, std::vector<std::int64_t>& out) {
        if (const json* v = find(key)) {
            tokens(key, *v, out);
        }
    }
    void tokens(const char* key, const json& v, std::vector<std::int64_t>& out) {
        if (!v.is_array()) {
            return wrong(key, "a list of token ids", v);
        }
        for (const json& id : v) {
            constexpr std::int64_t largest = std::int64_t{1} << 31;
            if (!id.is_number_integer() || id.get<std::int64_t>() < 0 || id.get<std::int64_t>() >= largest) {
                return wrong(key, "a list of token ids", v);
            }
            out.push_back(id.get<std::int64_t>());
        }
    }
    /// [[begin, end], ...] with begin < end.
    void ranges(const char* key, std::vector<std::pair<std::int64_t, std::int64_t>>& out) {
        const json* v = find(key);
        if (v == nullptr) {
            return;
        }
        std::vector<std::int64_t> ends;
        for (const json& range : v->is_array() ? *v : json(json::array())) {
            ends.clear();
            tokens(key, range, ends);
            if (!why || ends.size() != 2 || ends[0] >= ends[1]) {
                return wrong(key, "a list of ranges [begin, end] of layers", *v);
            }
            out.emplace_back(ends[0], ends[1]);
        }
        if (!v->is_array()) {
            wrong(key, "a list of ranges [begin, end] of layers", *v);
        }
    }
    /// Fails if a feature that changes the result is switched on.
    void refuse(const char* key, const char* feature) {
        const json* v = find(key);
        if (v != nullptr && *v != json(false) && !(v->is_structured() && v->empty()) && why) {
            why = {errc::unsupported,
                   std::string(key) + " is set: " + feature + " would change the result and is not supported"};
        }
    }
    void wrong(const std::string& key, const char* expected, const json& got) {
        if (why) {
            std::string value = got.is_structured() ? (got.is_array() ? "a list" : "an object")
                                                    : got.dump(-1, ' ', true, json::error_handler_t::replace);
            why = {errc::invalid_format,
                   key + " must be " + expected + ", got " + (value.size() > 80 ? value.substr(0, 80) + "..." : value)};
        }
    }

private:
    const json& document_;
};

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_CONTAINERS_DETAIL_CONFIG_READER_HPP
