// SPDX-License-Identifier: MIT
#ifndef LOWRANK_QUANT_FORMATS_NORMAL_FLOAT_IPP
#define LOWRANK_QUANT_FORMATS_NORMAL_FLOAT_IPP

#include <lowrank/quant/formats/normal_float.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>

#include <lowrank/core/check.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/normal_quantile.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// The i-th of `count` float numbers from `first` to `last`, each end exact.
LOWRANK_INLINE float float_step(float first, float last, int count, int i) {
    const float step = (last - first) / static_cast<float>(count - 1);
    return i < count / 2 ? first + step * static_cast<float>(i) : last - step * static_cast<float>(count - 1 - i);
}

}  // namespace detail

LOWRANK_BODY std::vector<float> normal_float_levels(int bits) {
    detail::expects_in_range("normal_float_levels", "bits", bits, 2, 8);
    constexpr float offset = 0.9677083F;  // the probability of the outermost level
    const int positive = 1 << (bits - 1);
    std::vector<float> levels;
    for (int i = 0; i < positive; ++i) {
        levels.push_back(static_cast<float>(
            normal_quantile(static_cast<double>(detail::float_step(offset, 0.5F, positive + 1, i)))));
    }
    levels.push_back(0.0F);
    for (int i = 0; i < positive - 1; ++i) {
        levels.push_back(
            static_cast<float>(-normal_quantile(static_cast<double>(detail::float_step(offset, 0.5F, positive, i)))));
    }
    std::sort(levels.begin(), levels.end());
    const float largest = levels.back();
    for (float& x : levels) {
        x /= largest;
    }
    return levels;
}

LOWRANK_BODY unsigned normal_float_matrix::code(index position) const {
    const int per_byte = 8 / options.bits;
    const auto byte = packed[static_cast<std::size_t>(position / per_byte)];
    const auto shift = static_cast<int>(position % per_byte) * options.bits;
    return (static_cast<unsigned>(byte) >> shift) & ((1U << options.bits) - 1U);
}

LOWRANK_BODY row_matrix<float> normal_float_matrix::dense() const {
    row_matrix<float> w(rows, cols);
    for (index i = 0; i < w.size(); ++i) {
        w.data()[i] = levels[code(i)] * scales[static_cast<std::size_t>(i / options.block)];
    }
    return w;
}

namespace detail {

template <real S>
normal_float_matrix quantize_normal_float_of(const row_matrix<S>& x, const normal_float_options& options) {
    detail::expects((options.bits == 2 || options.bits == 4 || options.bits == 8) && options.block >= 1,
                    "quantize_normal_float: bits must be 2, 4 or 8, block at least 1");
    normal_float_matrix out{
        .rows = x.rows(), .cols = x.cols(), .options = options, .levels = normal_float_levels(options.bits)};
    detail::expects(all_finite(x), "quantize_normal_float: the weight must be finite; NaN has no nearest level");
    const int per_byte = 8 / options.bits;
    out.packed.assign(static_cast<std::size_t>((x.size() + per_byte - 1) / per_byte), 0);
    const auto& levels = out.levels;
    for (index first = 0; first < x.size(); first += options.block) {
        const index last = std::min(first + options.block, x.size());
        S scale = S(0);
        for (index i = first; i < last; ++i) {
            scale = std::max(scale, std::abs(x.data()[i]));
        }
        out.scales.push_back(static_cast<float>(scale));
        for (index i = first; i < last; ++i) {
            const S y = scale > S(0) ? x.data()[i] / scale : S(0);
            auto above = static_cast<std::size_t>(
                std::lower_bound(levels.begin(), levels.end(), y,
                                 [](float level, S value) { return static_cast<S>(level) < value; }) -
                levels.begin());
            above = std::min(above, levels.size() - 1);
            const bool lower = above > 0 && std::abs(y - static_cast<S>(levels[above - 1])) <=
                                                std::abs(y - static_cast<S>(levels[above]));
            const auto code = static_cast<unsigned>(lower ? above - 1 : above);
            auto& byte = out.packed[static_cast<std::size_t>(i / per_byte)];
            byte = static_cast<std::uint8_t>(byte | (code << (static_cast<int>(i % per_byte) * options.bits)));
        }
    }
    return out;
}

}  // namespace detail

#ifdef LOWRANK_COMPILED
template normal_float_matrix detail::quantize_normal_float_of(const row_matrix<float>&, const normal_float_options&);
template normal_float_matrix detail::quantize_normal_float_of(const row_matrix<double>&, const normal_float_options&);
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_QUANT_FORMATS_NORMAL_FLOAT_IPP
