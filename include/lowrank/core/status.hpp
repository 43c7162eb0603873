// SPDX-License-Identifier: MIT
#ifndef LOWRANK_CORE_STATUS_HPP
#define LOWRANK_CORE_STATUS_HPP

/// \file
/// Facts about data and files (NaN in a weight, a broken file, no convergence), as values with a sentence of advice.
///
///     lowrank::result<lowrank::spectrum<float>> f = lowrank::make_spectrum(w);
///     if (!f) return log(f.error().message);
///     use(*f);                                  // or f.value(), which throws `failure`
///
/// `result` is our own type in every standard: an alias to std::expected "if available" would change the ABI between
/// C++20 and C++23 translation units.

#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>

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

/// The base of every result that says why there is none and is empty then. Contextually true when all is well.
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

/// A `T`, or the `status` that says why there is none.
template <class T>
class [[nodiscard]] result {
public:
    using value_type = T;

    result(T value) : state_(std::in_place_index<0>, std::move(value)) {}  // NOLINT: conversion is the point
    /// \pre `why` is not ok.
    result(status why) : state_(std::in_place_index<1>, std::move(why)) {  // NOLINT
        detail::expects(!std::get<1>(state_), "result: a status that is ok carries no value");
    }

    [[nodiscard]] bool has_value() const noexcept { return state_.index() == 0; }
    explicit operator bool() const noexcept { return has_value(); }

    /// The value; throws `failure` if there is none.
    [[nodiscard]] T& value() & { return require(); }
    [[nodiscard]] const T& value() const& { return const_cast<result&>(*this).require(); }
    [[nodiscard]] T value() && { return std::move(require()); }

    /// \pre has_value()
    [[nodiscard]] T& operator*() & noexcept { return *std::get_if<0>(&state_); }
    [[nodiscard]] const T& operator*() const& noexcept { return *std::get_if<0>(&state_); }
    [[nodiscard]] T operator*() && noexcept { return std::move(*std::get_if<0>(&state_)); }
    [[nodiscard]] T* operator->() noexcept { return std::get_if<0>(&state_); }
    [[nodiscard]] const T* operator->() const noexcept { return std::get_if<0>(&state_); }

    /// \pre !has_value()
    [[nodiscard]] const status& error() const {
        detail::expects(!has_value(), "result::error: there is a value");
        return *std::get_if<1>(&state_);
    }

private:
    T& require() {
        if (!has_value()) [[unlikely]] {
            detail::throw_failure(*std::get_if<1>(&state_));
        }
        return *std::get_if<0>(&state_);
    }

    std::variant<T, status> state_;
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_CORE_STATUS_HPP
