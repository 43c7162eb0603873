// SPDX-License-Identifier: MIT
#ifndef LOWRANK_CORE_STATUS_HPP
#define LOWRANK_CORE_STATUS_HPP

/// \file
/// Facts about data and files (NaN in a weight, a broken file, no convergence), as values with a sentence of advice.
///
///     lowrank::result<lowrank::vector<float>> f = lowrank::singular_values(w);
///     if (!f) return log(f.error().message);
///     use(*f);                                  // or f.value(), which throws `failure`; *f of a failure is a bug
///
/// `result` is our own type in every standard: an alias to std::expected "if available" would change the ABI between
/// C++20 and C++23 translation units.

#include <concepts>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// What kind of fact a `status` states.
enum class errc {
    ok,
    non_finite,      ///< NaN or infinity where finite numbers are needed.
    no_convergence,  ///< An iteration used up its limit.
    invalid_format,  ///< A file breaks the rules of its format.
    unsupported,     ///< Valid, but something this library does not do; the message names it.
    mismatch,        ///< Two things that belong together disagree (an adapter and its base, a receipt and its weight).
    not_found,       ///< A file or a named entry does not exist.
    io_failure,      ///< The operating system refused: permission, full disk, read error.
    cancelled,       ///< A progress callback asked to stop.
};

/// The stable name of a code, for logs and machine-readable output.
[[nodiscard]] inline const char* to_string(errc code) noexcept {
    switch (code) {
        case errc::ok: return "ok";
        case errc::non_finite: return "non_finite";
        case errc::no_convergence: return "no_convergence";
        case errc::invalid_format: return "invalid_format";
        case errc::unsupported: return "unsupported";
        case errc::mismatch: return "mismatch";
        case errc::not_found: return "not_found";
        case errc::io_failure: return "io_failure";
        case errc::cancelled: return "cancelled";
    }
    return "unknown";
}

/// A code and one sentence that says what happened and what to do. Contextually true when all is well.
struct [[nodiscard]] status {
    errc code = errc::ok;
    std::string message = {};

    explicit operator bool() const noexcept { return code == errc::ok; }
};

namespace detail {

/// The failure of a function: "function: what happened, what to do".
[[nodiscard]] LOWRANK_COLD inline status failed_in(std::string_view function, errc code, std::string_view sentence) {
    status out{code};
    out.message.reserve(function.size() + 2 + sentence.size());
    out.message.append(function).append(": ").append(sentence);
    return out;
}

}  // namespace detail

/// The base of everything that may have failed: `why` says why, and whatever else there is is empty then. Contextually
/// true when all is well. A type of its own (`decomposition`, `cur_result`) derives from it; `result<T>` gives it to a T.
/// With `struct thing : fallible { matrix<float> u; }` a failure is `thing{{.why = {errc::non_finite, "thing: ..."}}}`.
struct fallible {
    status why = {};

    explicit operator bool() const noexcept { return static_cast<bool>(why); }
};

/// What `.value()` throws when there is no value: a `status` as an exception.
class failure : public std::runtime_error {
public:
    explicit failure(status why) : std::runtime_error(why.message), why_(std::move(why)) {}
    [[nodiscard]] const status& why() const noexcept { return why_; }

private:
    status why_;
};

namespace detail {

[[noreturn]] LOWRANK_COLD inline void throw_failure(const status& why) {
#if LOWRANK_EXCEPTIONS
    throw failure(why);
#else
    std::fprintf(stderr, "lowrank: %s\n", why.message.c_str());
    std::abort();
#endif
}

}  // namespace detail

/// Throws `failure` (aborts under -fno-exceptions) unless `why` is ok.
inline void throw_if_failed(const status& why) {
    if (!why) {
        detail::throw_failure(why);
    }
}

/// The same for everything that may have failed.
template <std::derived_from<fallible> R>
void throw_if_failed(const R& x) {
    throw_if_failed(x.why);
}

/// A `T`, or the `status` that says why there is none.
template <class T>
class [[nodiscard]] result : public fallible {
public:
    using value_type = T;

    result(T value) : value_(std::move(value)) {}  // NOLINT: conversion is the point
    /// \pre `why` is not ok.
    result(status failed) : fallible{std::move(failed)} {  // NOLINT
        detail::expects(!why, "result: a status that is ok carries no value");
    }

    [[nodiscard]] bool has_value() const noexcept { return value_.has_value(); }
    explicit operator bool() const noexcept { return has_value(); }

    /// The value; throws `failure` if there is none.
    [[nodiscard]] T& value() & { return require(); }
    [[nodiscard]] const T& value() const& { return const_cast<result&>(*this).require(); }
    [[nodiscard]] T value() && { return std::move(require()); }

    /// The value. \pre has_value(): what there is to say about a failure stands in the text of the broken contract.
    [[nodiscard]] T& operator*() & { return expect(); }
    [[nodiscard]] const T& operator*() const& { return const_cast<result&>(*this).expect(); }
    [[nodiscard]] T operator*() && { return std::move(expect()); }
    [[nodiscard]] T* operator->() { return &expect(); }
    [[nodiscard]] const T* operator->() const { return &const_cast<result&>(*this).expect(); }

    /// `why`. \pre !has_value()
    [[nodiscard]] const status& error() const {
        detail::expects(!has_value(), "result::error: there is a value");
        return why;
    }

private:
    T& require() {
        if (!has_value()) [[unlikely]] {
            detail::throw_failure(why);
        }
        return *value_;
    }
    T& expect() {
        if (!has_value()) [[unlikely]] {
            detail::fail_contract("result: there is no value; " + why.message);
        }
        return *value_;
    }

    std::optional<T> value_ = {};
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_CORE_STATUS_HPP
