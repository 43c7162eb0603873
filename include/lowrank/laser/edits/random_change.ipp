// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_EDITS_RANDOM_CHANGE_IPP
#define LOWRANK_LASER_EDITS_RANDOM_CHANGE_IPP

#include <lowrank/laser/edits/random_change.hpp>

#include <cmath>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/philox.hpp>
#include <lowrank/core/storage.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <storage T>
result<edit_receipt<T>> apply_random_change(weight_view<T> w, double norm, std::uint64_t seed) {
    using S = compute_t<T>;
    detail::expects(norm >= 0 && is_finite(norm), "apply_random_change: the norm must be finite and not negative");
    if (!all_finite(w)) {
        return status{errc::non_finite, "apply_random_change: the weight holds NaN or infinity"};
    }
    const auto bits = const_weight_view<T>(w.data(), w.rows(), w.cols(), w.outerStride());
    edit_receipt<T> receipt;
    receipt.before.resize(w.rows(), w.cols());
    detail::copy_bits<T>(bits, weight_view<T>(receipt.before));
    row_matrix<S> row(1, w.cols());
    double squares = 0;
    for (int pass = 0; pass < 2; ++pass) {
        const S scale = static_cast<S>(squares > 0 ? norm / std::sqrt(squares) : 0.0);
        for (index i = 0; i < w.rows(); ++i) {
            fill_normal(row, S(1), philox(seed, static_cast<std::uint64_t>(i)));
            if (pass == 0) {
                squares += std::pow(norm_of(row), 2);
            }
            for (index j = 0; pass == 1 && j < w.cols(); ++j) {
                w(i, j) = to_storage<T>(static_cast<double>(static_cast<S>(receipt.before(i, j)) + scale * row(j)));
            }
        }
    }
    if (!all_finite(w)) {
        detail::copy_bits<T>(const_weight_view<T>(receipt.before), w);
        return status{errc::non_finite, "apply_random_change: the changed weight does not fit its stored type"};
    }
    const double whole = norm_of(receipt.before);
    receipt.removed_norm = detail::change_norm<T>(const_weight_view<T>(receipt.before), bits);
    receipt.relative_error = whole > 0 ? receipt.removed_norm / whole : 0.0;
    receipt.after_hash = detail::bits_hash<T>(bits);
    return receipt;
}

#ifdef LOWRANK_COMPILED
template result<edit_receipt<float>> apply_random_change(weight_view<float>, double, std::uint64_t);
template result<edit_receipt<double>> apply_random_change(weight_view<double>, double, std::uint64_t);
template result<edit_receipt<half>> apply_random_change(weight_view<half>, double, std::uint64_t);
template result<edit_receipt<bfloat16>> apply_random_change(weight_view<bfloat16>, double, std::uint64_t);
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_EDITS_RANDOM_CHANGE_IPP
