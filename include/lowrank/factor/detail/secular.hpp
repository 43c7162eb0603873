// SPDX-License-Identifier: MIT
#ifndef LOWRANK_FACTOR_DETAIL_SECULAR_HPP
#define LOWRANK_FACTOR_DETAIL_SECULAR_HPP

/// \file
/// The inner loops of divide and conquer: sums over poles and entrywise quotients, by packets.
///
///     secular_sums(base, z, tau, delta, n, value, slope);   // sum z^2 / (base - tau), and its slope

#include <lowrank/core/config.hpp>
#include <lowrank/core/packets.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI::detail {

/// delta = base - tau, and what these poles add to the secular function, sum z^2 / delta, and to its slope.
template <real S>
void secular_sums(const S* base, const S* z, S tau, S* delta, index n, S& value, S& slope) noexcept {
    using P = packet_of<S>;
    using namespace Eigen::internal;
    const P shift = pset1<P>(tau);
    P values = pset1<P>(S(0)), slopes = values;
    index i = 0;
    for (; i + lanes<S> <= n; i += lanes<S>) {
        const P d = psub(ploadu<P>(base + i), shift), weight = ploadu<P>(z + i), ratio = pdiv(weight, d);
        pstoreu(delta + i, d);
        values = pmadd(weight, ratio, values);
        slopes = pmadd(ratio, ratio, slopes);
    }
    value = predux(values);
    slope = predux(slopes);
    for (; i < n; ++i) {
        delta[i] = base[i] - tau;
        const S ratio = z[i] / delta[i];
        value += z[i] * ratio;
        slope += ratio * ratio;
    }
}

/// to *= difference / (poles - pole), entry by entry.
template <real S>
void multiply_by_ratios(S* to, const S* difference, const S* poles, S pole, index n) noexcept {
    using P = packet_of<S>;
    using namespace Eigen::internal;
    const P at = pset1<P>(pole);
    index i = 0;
    for (; i + lanes<S> <= n; i += lanes<S>) {
        const P ratio = pdiv(ploadu<P>(difference + i), psub(ploadu<P>(poles + i), at));
        pstoreu(to + i, pmul(ploadu<P>(to + i), ratio));
    }
    for (; i < n; ++i) {
        to[i] *= difference[i] / (poles[i] - pole);
    }
}

/// to = x / y, entry by entry; returns the sum of squares.
template <real S>
S divide(const S* x, const S* y, S* to, index n) noexcept {
    using P = packet_of<S>;
    using namespace Eigen::internal;
    P sums = pset1<P>(S(0));
    index i = 0;
    for (; i + lanes<S> <= n; i += lanes<S>) {
        const P ratio = pdiv(ploadu<P>(x + i), ploadu<P>(y + i));
        pstoreu(to + i, ratio);
        sums = pmadd(ratio, ratio, sums);
    }
    S sum = predux(sums);
    for (; i < n; ++i) {
        to[i] = x[i] / y[i];
        sum += to[i] * to[i];
    }
    return sum;
}

}  // namespace lowrank::inline LOWRANK_ABI::detail

#endif  // LOWRANK_FACTOR_DETAIL_SECULAR_HPP
