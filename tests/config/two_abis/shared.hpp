// SPDX-License-Identifier: MIT
#ifndef LOWRANK_TESTS_CONFIG_TWO_ABIS_SHARED_HPP
#define LOWRANK_TESTS_CONFIG_TWO_ABIS_SHARED_HPP

/// What a file sees of the library under its own switches.
struct seen {
    bool exceptions;         ///< LOWRANK_EXCEPTIONS.
    bool nan_is_finite;      ///< What `all_finite` says about a NaN.
    double product;          ///< One entry of a product.
    const void* fail_place;  ///< Address of the one cold function: different code, different address.
};

seen see_plain();
seen see_without_exceptions();
seen see_with_fast_math();

#endif  // LOWRANK_TESTS_CONFIG_TWO_ABIS_SHARED_HPP
