// SPDX-License-Identifier: MIT
#ifndef LOWRANK_CORE_OPERATOR_REFERENCE_HPP
#define LOWRANK_CORE_OPERATOR_REFERENCE_HPP

/// \file
/// A borrowed linear operator of any type: what a function takes that multiplies by a base and does not keep it.
///
///     auto layer = [](lowrank::operator_reference<float> base) { return base.rows(); };
///     layer(lowrank::as_operator(w));                       // any linear operator; nothing is allocated or copied
///
/// Where `any_operator` shares ownership and may be stored, a reference is two pointers and must not outlive its map.

#include <concepts>
#include <type_traits>

#include <lowrank/core/config.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/core/workspace.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A non-owning, type-erased reference to a linear operator of scalar S; itself a linear operator.
template <real S>
class operator_reference {
public:
    using scalar = S;

    /// Borrows `map`, which must live as long as the reference is used (a temporary: to the end of the full
    /// expression).
    template <linear_operator M>
    requires(!std::same_as<std::remove_cvref_t<M>, operator_reference> && std::same_as<typename M::scalar, S>)
        operator_reference(const M& map)  // NOLINT: conversion is the point
        : map_(&map), calls_(&calls_of<M>) {}

    [[nodiscard]] index rows() const { return calls_->rows(map_); }
    [[nodiscard]] index cols() const { return calls_->cols(map_); }

    void add_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
        calls_->add_product(map_, alpha, x, y, ws);
    }
    void add_transposed_product(S alpha, const_column_view<S> x, column_view<S> y, workspace& ws) const {
        calls_->add_transposed_product(map_, alpha, x, y, ws);
    }

private:
    using product = void (*)(const void*, S, const_column_view<S>&, column_view<S>&, workspace&);
    struct calls {
        index (*rows)(const void*);
        index (*cols)(const void*);
        product add_product;
        product add_transposed_product;
    };
    template <class M>
    static constexpr calls calls_of = {
        [](const void* m) -> index { return static_cast<const M*>(m)->rows(); },
        [](const void* m) -> index { return static_cast<const M*>(m)->cols(); },
        [](const void* m, S alpha, const_column_view<S>& x, column_view<S>& y, workspace& ws) {
            static_cast<const M*>(m)->add_product(alpha, x, y, ws);
        },
        [](const void* m, S alpha, const_column_view<S>& x, column_view<S>& y, workspace& ws) {
            static_cast<const M*>(m)->add_transposed_product(alpha, x, y, ws);
        }};

    const void* map_;
    const calls* calls_;
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_CORE_OPERATOR_REFERENCE_HPP
