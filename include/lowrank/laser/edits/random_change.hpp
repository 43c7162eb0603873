// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_EDITS_RANDOM_CHANGE_HPP
#define LOWRANK_LASER_EDITS_RANDOM_CHANGE_HPP

/// \file
/// The control of an edit: a random change of the same size.
///
///     auto receipt = lowrank::apply_random_change<float>(w, edited.removed_norm, 7).value();   // as large as an edit
///     // evaluate: if this helps as much as the edit, it was not the components that the edit removed
///     lowrank::throw_if_failed(lowrank::undo_edit<float>(w, receipt));

#include <cmath>
#include <cstdint>
#include <utility>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/laser/edits/edit.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// W := W + E with ||E||_F = norm and E in a random direction, independent normal entries before scaling.
///
/// \pre    norm >= 0 and finite.
/// \return `non_finite` if the weight or the changed weight is not finite; the weight is then as it was.
/// \cost   Two passes over the weight, one copy.
/// \note   The entries of E are a function of the seed and the position alone.
template <storage T>
[[nodiscard]] result<edit_receipt<T>> apply_random_change(weight_view<T> w, double norm, std::uint64_t seed = 0) {
    using S = compute_t<T>;
    detail::expects(norm >= 0 && is_finite(norm), "apply_random_change: the norm must be finite and not negative");
    if (!all_finite(w)) {
        return status{errc::non_finite, "apply_random_change: the weight holds NaN or infinity"};
    }
    const auto bits = const_weight_view<T>(w.data(), w.rows(), w.cols(), w.outerStride());
    edit_receipt<T> receipt;
    receipt.before.resize(w.rows(), w.cols());
    detail::copy_bits<T>(bits, weight_view<T>(receipt.before));
    receipt.removed_norm = norm;
    row_matrix<S> row(1, w.cols());
    double squares = 0;
    for (int pass = 0; pass < 2; ++pass) {
        const S scale = static_cast<S>(squares > 0 ? norm / std::sqrt(squares) : 0.0);
        for (index i = 0; i < w.rows(); ++i) {
            fill_normal(row, S(1), philox(seed, static_cast<std::uint64_t>(i)));
            if (pass == 0) {
                squares += row.template cast<double>().squaredNorm();
            } else {
                w.row(i) = (receipt.before.row(i).template cast<S>() + scale * row).template cast<T>();
            }
        }
    }
    if (!all_finite(w)) {
        detail::copy_bits<T>(const_weight_view<T>(receipt.before), w);
        return status{errc::non_finite, "apply_random_change: the changed weight does not fit its stored type"};
    }
    const double whole = receipt.before.template cast<double>().norm();
    receipt.relative_error = whole > 0 ? norm / whole : 0.0;
    receipt.after_hash = detail::bits_hash<T>(bits);
    return receipt;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_EDITS_RANDOM_CHANGE_HPP
