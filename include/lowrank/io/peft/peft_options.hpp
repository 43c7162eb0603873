// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_PEFT_PEFT_OPTIONS_HPP
#define LOWRANK_IO_PEFT_PEFT_OPTIONS_HPP

/// \file
/// What the adapter_config.json of single adapter types says besides what all types say: values by key.
///
///     poet->config.options.set("use_rslora", true);
///     if (poet->config.options.get<bool>("use_rslora")) log("alpha / sqrt(r)");
///
/// Which keys there are, and their defaults, is told by the description of a kind: `peft_type::keys`.

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Lists of true and false by name.
using peft_flags = std::map<std::string, std::vector<bool>>;

/// An object of plain values by name; std::monostate is null.
using peft_fields =
    std::map<std::string,
             std::variant<std::monostate, bool, std::int64_t, double, std::string, std::vector<std::string>>>;

/// The value of a key.
using peft_value =
    std::variant<bool, std::int64_t, double, std::string, std::vector<std::string>, peft_flags, peft_fields>;

/// A field of an object, or T() if there is none of that type.
template <class T>
[[nodiscard]] T field_of(const peft_fields& fields, const std::string& name) {
    const auto at = fields.find(name);
    const T* value = at != fields.end() ? std::get_if<T>(&at->second) : nullptr;
    return value != nullptr ? *value : T();
}

/// A key of a type. `normal` is what an absent key means; its alternative says which values are allowed.
struct peft_key {
    std::string_view name;
    peft_value normal;
    bool may_be_text = false;     ///< A string is allowed besides.
    bool normal_is_null = false;  ///< The normal value is written as null.
    bool is_rare = false;         ///< A new file has it only where it is not normal.
    bool changes_base = false;    ///< Where it is not normal, the adapter is for a base that PEFT changes first.
};

/// Values by key.
class peft_options {
public:
    /// The value of a key, or T() if there is none of that type.
    template <class T>
    [[nodiscard]] T get(std::string_view key) const {
        const auto at = values_.find(key);
        const T* value = at != values_.end() ? std::get_if<T>(&at->second) : nullptr;
        return value != nullptr ? *value : T();
    }
    [[nodiscard]] bool contains(std::string_view key) const { return values_.find(key) != values_.end(); }
    /// \pre the key has a value.
    [[nodiscard]] const peft_value& value(std::string_view key) const { return values_.find(key)->second; }
    void set(std::string_view key, peft_value value) { values_.insert_or_assign(std::string(key), std::move(value)); }
    /// Gives the keys that have no value their normal one.
    void complete(const std::vector<peft_key>& keys) {
        for (const peft_key& key : keys) {
            values_.try_emplace(std::string(key.name), key.normal);
        }
    }

    [[nodiscard]] bool operator==(const peft_options&) const = default;

private:
    std::map<std::string, peft_value, std::less<>> values_ = {};
};

/// `invalid_format`: "eps must be not negative, got -1".
[[nodiscard]] inline status wrong_value(std::string_view key, std::string_view expected, std::string_view got) {
    return {errc::invalid_format, std::string(key) + " must be " + std::string(expected) + ", got " + std::string(got)};
}

/// Of blocks, either the size or the number is given, and the other is 0. An absent size is `usual`.
[[nodiscard]] inline status check_blocks(const peft_options& o, std::string_view size_key, std::string_view count_key,
                                         std::int64_t usual) {
    const std::int64_t size = o.contains(size_key) ? o.get<std::int64_t>(size_key) : usual;
    return (size == 0) != (o.get<std::int64_t>(count_key) == 0)
               ? status{}
               : status{errc::invalid_format, "one of " + std::string(size_key) + " and " + std::string(count_key) +
                                                  " must be 0 and the other positive"};
}

namespace detail {

/// True if a version "0.17.1" is before major.minor; an absent one is before everything.
[[nodiscard]] inline bool is_version_before(std::string_view version, int major, int minor) {
    int parts[2] = {0, 0};
    std::size_t at = 0;
    for (int& part : parts) {
        while (at < version.size() && version[at] >= '0' && version[at] <= '9' && part < 1'000'000) {
            part = 10 * part + (version[at++] - '0');
        }
        at += at < version.size() && version[at] == '.' ? 1 : 0;
    }
    return std::pair(parts[0], parts[1]) < std::pair(major, minor);
}

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_PEFT_PEFT_OPTIONS_HPP
