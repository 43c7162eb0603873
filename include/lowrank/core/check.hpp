// SPDX-License-Identifier: MIT
#ifndef LOWRANK_CORE_CHECK_HPP
#define LOWRANK_CORE_CHECK_HPP

/// \file
/// Broken contracts: a wrong shape, a rank out of range. A mistake of the program, never of its data.
///
///     lowrank::detail::expects_in_range("truncated_svd", "rank", rank, lowrank::index(0), lowrank::index(768));
///     // throws contract_violation: "truncated_svd: rank must be in [0, 768], got 900"
///
/// Facts about data and files are not contracts; they come back as `status` (status.hpp).

#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <type_traits>

#include <lowrank/core/config.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// Thrown when a caller breaks a documented precondition. The text names the function, the argument, what was given
/// and what is allowed. Under `-fno-exceptions` the text goes to stderr and the program aborts.
class contract_violation : public std::logic_error {
public:
    using std::logic_error::logic_error;
};

namespace detail {

/// The one cold place where broken contracts end.
[[noreturn]] LOWRANK_COLD inline void fail_contract(const std::string& text) {
#if LOWRANK_EXCEPTIONS
    throw contract_violation(text);
#else
    std::fprintf(stderr, "lowrank: %s\n", text.c_str());
    std::abort();
#endif
}

template <class T>
std::string in_words(const T& value) {
    if constexpr (requires { std::string(value); }) {
        return std::string(value);
    } else if constexpr (std::is_floating_point_v<T>) {
        char text[32];
        std::snprintf(text, sizeof text, "%.9g", static_cast<double>(value));
        return text;
    } else {
        return std::to_string(value);
    }
}

/// Fails with all parts joined. Parts are strings or numbers.
template <class... Parts>
[[noreturn]] LOWRANK_COLD void fail_contract_with(const Parts&... parts) {
    std::string text;
    (text.append(in_words(parts)), ...);
    fail_contract(text);
}

/// `text` says what is allowed: "merge: scale must be finite".
inline void expects(bool condition, const char* text) {
    if (!condition) [[unlikely]] {
        fail_contract(text);
    }
}

/// "function: argument must be in [low, high], got value".
template <class T>
void expects_in_range(const char* function, const char* argument, T value, T low, T high) {
    if (!(low <= value && value <= high)) [[unlikely]] {
        fail_contract_with(function, ": ", argument, " must be in [", low, ", ", high, "], got ", value);
    }
}

/// "function: argument must be rows x cols, got rows x cols".
template <class I>
void expects_shape(const char* function, const char* argument, I rows, I cols, I want_rows, I want_cols) {
    if (rows != want_rows || cols != want_cols) [[unlikely]] {
        fail_contract_with(function, ": ", argument, " must be ", want_rows, " x ", want_cols, ", got ", rows, " x ",
                           cols);
    }
}

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_CORE_CHECK_HPP
