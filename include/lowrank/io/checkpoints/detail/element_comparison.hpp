// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CHECKPOINTS_DETAIL_ELEMENT_COMPARISON_HPP
#define LOWRANK_IO_CHECKPOINTS_DETAIL_ELEMENT_COMPARISON_HPP

/// \file
/// Two tensors compared element by element while the second comes in pieces.
///
///     detail::element_comparison both(t.type, file.bytes(t), t.type);
///     both.add(bytes);                                                   // as often as there are more
///     log(both.change_norm());

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include <lowrank/core/config.hpp>
#include <lowrank/io/containers/dtype.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// In double, some thousands of elements at a time.
class element_comparison {
public:
    /// \pre both are types of numbers.
    element_comparison(dtype first, std::span<const std::byte> bytes, dtype second)
        : first_type_(first), second_type_(second), first_(bytes) {}

    /// The next elements of the second tensor. \pre whole elements, and no more than the first has.
    LOWRANK_INLINE void add(std::span<const std::byte> second) {
        constexpr std::size_t piece = 8192;
        double x[piece];
        double y[piece];
        const std::size_t first_size = bits_of(first_type_) / 8;
        const std::size_t second_size = bits_of(second_type_) / 8;
        const bool is_same_type = first_type_ == second_type_;
        const bool is_wide = is_same_type && (first_type_ == dtype::i64 || first_type_ == dtype::u64);
        while (!second.empty()) {
            const std::size_t count = std::min(piece, second.size() / second_size);
            const auto a = first_.first(count * first_size);
            const auto b = second.first(count * second_size);
            convert_numbers(first_type_, a, {x, count});
            convert_numbers(second_type_, b, {y, count});
            const auto same_bits = [&](std::size_t i) {
                return is_same_type && std::memcmp(&a[i * first_size], &b[i * first_size], first_size) == 0;
            };
            double change2 = 0;
            double norm2 = 0;
            for (std::size_t i = 0; i < count; ++i) {
                const double d = y[i] - x[i];
                all_change2_ += d * d;
                all_norm2_ += x[i] * x[i];
                if (!std::isfinite(x[i]) || !std::isfinite(y[i])) {
                    ++not_finite_;
                    is_broken_ = is_broken_ || std::isfinite(x[i]) != std::isfinite(y[i]);
                    changed_ += same_bits(i) ? 0 : 1;
                    continue;
                }
                changed_ += d != 0 || (is_wide && !same_bits(i)) ? 1 : 0;  // a double has not all their bits
                largest_ = std::max(largest_, std::abs(d));
                change2 += d * d;
                norm2 += x[i] * x[i];
            }
            change2_ += change2;
            norm2_ += norm2;
            first_ = first_.subspan(a.size());
            second = second.subspan(b.size());
        }
    }

    /// Those that differ; a NaN differs from everything but its own bits.
    [[nodiscard]] std::uint64_t changed() const noexcept { return changed_; }
    /// Those that are NaN or infinite in either.
    [[nodiscard]] std::uint64_t not_finite() const noexcept { return not_finite_; }
    /// A finite one became NaN or infinite, or the other way round.
    [[nodiscard]] bool is_broken() const noexcept { return is_broken_; }
    /// max |second - first| over finite elements.
    [[nodiscard]] double largest() const noexcept { return largest_; }
    /// ||second - first||_F and ||first||_F over these.
    [[nodiscard]] double change_norm() const { return std::sqrt(change2_); }
    [[nodiscard]] double first_norm() const { return std::sqrt(norm2_); }
    /// The same over all elements: NaN or infinity where one is.
    [[nodiscard]] double change_norm_of_all() const { return std::sqrt(all_change2_); }
    [[nodiscard]] double first_norm_of_all() const { return std::sqrt(all_norm2_); }

private:
    dtype first_type_;
    dtype second_type_;
    std::span<const std::byte> first_;
    std::uint64_t changed_ = 0;
    std::uint64_t not_finite_ = 0;
    bool is_broken_ = false;
    double largest_ = 0;
    double change2_ = 0;
    double norm2_ = 0;
    double all_change2_ = 0;
    double all_norm2_ = 0;
};

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_CHECKPOINTS_DETAIL_ELEMENT_COMPARISON_HPP
