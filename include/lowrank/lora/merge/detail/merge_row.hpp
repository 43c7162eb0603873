// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_MERGE_DETAIL_MERGE_ROW_HPP
#define LOWRANK_LORA_MERGE_DETAIL_MERGE_ROW_HPP

/// \file
/// The arithmetic of a merge on one stretch of a row: the new values, what unmerge will see, and the audit's sums.
///
///     detail::merge_row<T> row(count);
///     if (!row.compute(w, d, scales, audit)) ...        // some value is not finite
///     row.commit(w, start, code);
///
/// Everything is computed for a fixed number of entries at a time, in loops without branches that a compiler turns into
/// vectors whatever the type is.

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/storage.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/lora/merge/detail/ulp_code.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// The factors an entry of W + delta is multiplied by; both may be left out.
template <real S>
struct merge_scales {
    double row = 1;
    const S* columns = nullptr;  ///< of the first entry of the stretch
    bool any = false;            ///< false: no scale at all
};

/// Sums over the entries of a merge, in a fixed order.
struct merge_sums {
    static constexpr int lanes = 8;

    double change_norm2[lanes] = {};
    double error_norm2[lanes] = {};
    std::uint64_t touched[lanes] = {};
    std::uint64_t unchanged[lanes] = {};
    double worst = 0;
    index worst_at = 0;  ///< within the stretch
};

template <storage T>
class merge_row {
    using S = compute_t<T>;
    static constexpr index step = 32;  ///< entries at a time
    static constexpr int lanes = merge_sums::lanes;

public:
    /// For stretches of `count` entries.
    explicit merge_row(index count)
        : count_(count), merged_(static_cast<std::size_t>(count)), back_(static_cast<std::size_t>(count)) {}

    /// Merges w[0, count) with the change d, without writing to w, and adds to `sums`. Without `undoable`, `commit`
    /// takes no code.
    /// \return whether all merged values are finite.
    template <bool undoable = true>
    [[nodiscard]] bool compute(const T* w, const double* d, const merge_scales<S>& scales, merge_sums& sums) {
        unsigned bad = 0;
        for (index j = 0; j < count_; j += step) {
            const index n = std::min(step, count_ - j);
            block b;
            b.load(w + j, d + j, n, scales, j);
            bad |=
                scales.any ? b.template compute<true, undoable>(sums, j) : b.template compute<false, undoable>(sums, j);
            std::copy_n(b.merged, n, merged_.data() + j);
            if constexpr (undoable) {
                std::copy_n(b.back, n, back_.data() + j);
            }
        }
        return bad == 0;
    }

    /// The first entry whose merged value is not finite.
    [[nodiscard]] index first_bad() const {
        return std::find_if(merged_.begin(), merged_.end(), [](T x) { return !is_finite(x); }) - merged_.begin();
    }

    /// Writes the merged values, and codes where unmerge would miss; entry 0 has position `start`.
    void commit(T* w, std::uint64_t start, ulp_encoder& code) const {
        using U = ulp_bits<T>;
        const auto put = [&](index i) {
            code.put(start + static_cast<std::uint64_t>(i), ulp_distance(at(back_, i), w[i]));
        };
        index j = 0;
        for (; j + step <= count_; j += step) {
            const T* back = back_.data() + j;
            std::uint8_t missed[step];  // without branches; then only the ones are visited
            for (index i = 0; i < step; ++i) {
                missed[i] = std::bit_cast<U>(back[i]) != std::bit_cast<U>(w[j + i]) ? 1 : 0;
            }
            for (index i = 0; i < step; i += 8) {
                std::uint64_t eight = 0;
                for (int b = 0; b < 8; ++b) {
                    eight |= static_cast<std::uint64_t>(missed[i + b]) << (8 * b);
                }
                for (; eight != 0; eight &= eight - 1) {
                    put(j + i + std::countr_zero(eight) / 8);
                }
            }
        }
        for (; j < count_; ++j) {
            if (std::bit_cast<U>(at(back_, j)) != std::bit_cast<U>(w[j])) {
                put(j);
            }
        }
        commit(w);
    }

    /// Writes the merged values.
    void commit(T* w) const { std::copy(merged_.begin(), merged_.end(), w); }

    /// w[0, count) as it must have been before the merge, up to rounding.
    void estimate(T* w, const double* d, const merge_scales<S>& scales) const {
        for (index j = 0; j < count_; j += step) {
            const index n = std::min(step, count_ - j);
            block b;
            b.load(w + j, d + j, n, scales, j);
            if (scales.any) {
                b.template estimate<true>(b.old);
            } else {
                b.template estimate<false>(b.old);
            }
            std::copy_n(b.back, n, w + j);
        }
    }

private:
    [[nodiscard]] static T at(const std::vector<T>& x, index i) { return x[static_cast<std::size_t>(i)]; }

    struct block {
        double old[step];
        double delta[step];
        double scale[step];
        T merged[step];
        T back[step];

        void load(const T* w, const double* d, index n, const merge_scales<S>& scales, index first) {
            if (n < step) {
                std::fill_n(old, step, 0.0);
                std::fill_n(delta, step, 0.0);
            }
            if (n == step) {  // a loop of fixed length
                for (index i = 0; i < step; ++i) {
                    old[i] = to_double(w[i]);
                    delta[i] = d[i];
                }
            } else {
                for (index i = 0; i < n; ++i) {
                    old[i] = to_double(w[i]);
                    delta[i] = d[i];
                }
            }
            if (scales.any) {
                std::fill_n(scale, step, scales.row);
                for (index i = 0; scales.columns != nullptr && i < n; ++i) {
                    scale[i] *= static_cast<double>(scales.columns[first + i]);
                }
            }
        }

        /// back = what unmerge makes of `values`, the merged ones.
        template <bool scaled>
        void estimate(const double (&values)[step]) {
            double x[step];
            for (index i = 0; i < step; ++i) {
                if constexpr (scaled) {
                    x[i] = scale[i] == 0 ? 0.0 : values[i] / scale[i] - delta[i];
                } else {
                    x[i] = delta[i] == 0 ? values[i] : values[i] - delta[i];
                }
            }
            for (index i = 0; i < step; ++i) {
                back[i] = to_storage<T>(x[i]);
            }
        }

        template <bool scaled, bool undoable>
        unsigned compute(merge_sums& sums, index first) {
            double change[step];
            double value[step];
            double error[step];
            for (index i = 0; i < step; ++i) {
                const double sum = old[i] + delta[i];
                value[i] = scaled ? scale[i] * sum : (delta[i] == 0 ? old[i] : sum);
                change[i] = scaled ? value[i] - old[i] : delta[i];
            }
            for (index i = 0; i < step; ++i) {
                merged[i] = to_storage<T>(value[i]);
            }
            unsigned bad = 0;
            for (index i = 0; i < step; ++i) {
                bad |= is_finite(merged[i]) ? 0U : 1U;
            }
            for (index i = 0; i < step; ++i) {
                value[i] = to_double(merged[i]);
                error[i] = (value[i] - old[i]) - change[i];
            }
            double worst[lanes] = {};
            for (index i = 0; i < step; i += lanes) {
                for (int l = 0; l < lanes; ++l) {
                    const double e = error[i + l], c = change[i + l], magnitude = std::abs(e);
                    sums.change_norm2[l] += c * c;
                    sums.error_norm2[l] += e * e;
                    worst[l] = magnitude > worst[l] ? magnitude : worst[l];
                }
                for (int l = 0; l < lanes; ++l) {
                    const auto moved =
                        std::bit_cast<std::uint64_t>(value[i + l]) ^ std::bit_cast<std::uint64_t>(old[i + l]);
                    const std::uint64_t touched = change[i + l] != 0 ? 1 : 0;
                    sums.touched[l] += touched;
                    sums.unchanged[l] += moved == 0 ? touched : 0;
                }
            }
            const double most = *std::max_element(worst, worst + lanes);
            if (most > sums.worst) {
                sums.worst = most;
                sums.worst_at = first;
                while (sums.worst_at < first + step - 1 && std::abs(error[sums.worst_at - first]) != most) {
                    ++sums.worst_at;
                }
            }
            if constexpr (undoable) {
                estimate<scaled>(value);
            }
            return bad;
        }
    };

    index count_;
    std::vector<T> merged_;
    std::vector<T> back_;  ///< what unmerge makes of them
};

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_MERGE_DETAIL_MERGE_ROW_HPP
