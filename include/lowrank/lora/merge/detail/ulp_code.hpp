// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LORA_MERGE_DETAIL_ULP_CODE_HPP
#define LOWRANK_LORA_MERGE_DETAIL_ULP_CODE_HPP

/// \file
/// Sparse corrections in units of the last place, packed to about their entropy.
///
///     ulp_encoder code;
///     code.put(position, correction);                  // positions ascending, corrections not zero
///     auto bytes = code.finish(count);
///     ulp_decoder back(bytes, count);                  // back.position(), back.correction(), back.next()
///
/// Gaps between positions: Golomb-Rice codes whose parameter follows the mean of the gaps seen so far (as in
/// LOCO-I, Weinberger, Seroussi, Sapiro, IEEE Trans. Image Processing 9, 2000). Corrections: Elias gamma codes.

#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

#include <lowrank/core/checksum.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/types.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

template <storage T>
using ulp_bits =
    std::conditional_t<sizeof(T) == 8, std::uint64_t, std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint16_t>>;

/// Numbers the values of T in ascending order: neighbours differ by one, -0 comes just before +0.
template <storage T>
[[nodiscard]] ulp_bits<T> ulp_rank(T x) noexcept {
    using U = ulp_bits<T>;
    constexpr U sign = static_cast<U>(U{1} << (8 * sizeof(T) - 1));
    const U bits = std::bit_cast<U>(x);
    return static_cast<U>((bits & sign) != 0 ? ~bits : (bits | sign));
}

/// The value with that number.
template <storage T>
[[nodiscard]] T from_ulp_rank(ulp_bits<T> rank) noexcept {
    using U = ulp_bits<T>;
    constexpr U sign = static_cast<U>(U{1} << (8 * sizeof(T) - 1));
    return std::bit_cast<T>(static_cast<U>((rank & sign) != 0 ? (rank ^ sign) : ~rank));
}

/// The signed distance `to - from` in units of the last place, modulo 2^width.
template <storage T>
[[nodiscard]] std::int64_t ulp_distance(T from, T to) noexcept {
    using U = ulp_bits<T>;
    const auto difference = static_cast<U>(ulp_rank(to) - ulp_rank(from));
    return static_cast<std::int64_t>(static_cast<std::make_signed_t<U>>(difference));
}

/// The value `distance` units of the last place above `from`, modulo 2^width: ulp_shift(a, ulp_distance(a, b)) is b.
template <storage T>
[[nodiscard]] T ulp_shift(T from, std::int64_t distance) noexcept {
    using U = ulp_bits<T>;
    return from_ulp_rank<T>(static_cast<U>(ulp_rank(from) + static_cast<U>(static_cast<std::uint64_t>(distance))));
}

/// The running mean of gaps, as the parameter of a Golomb-Rice code. Encoder and decoder keep equal copies.
class gap_model {
public:
    [[nodiscard]] int parameter() const noexcept {
        int k = static_cast<int>(std::bit_width(sum_)) - static_cast<int>(std::bit_width(count_));
        if (k < 0) {
            return 0;
        }
        k += (count_ << k) < sum_ ? 1 : 0;  // the least with count 2^k >= sum
        k = k < 32 ? k : 32;
        return k > 0 ? k - 1 : 0;  // 2^k near mean * ln 2
    }
    void add(std::uint64_t gap) noexcept {
        sum_ += gap < (std::uint64_t{1} << 40) ? gap : (std::uint64_t{1} << 40);
        if (++count_ == 128) {
            count_ /= 2;
            sum_ /= 2;
        }
    }

private:
    std::uint64_t sum_ = 64;
    std::uint64_t count_ = 2;
};

/// Unary prefixes of this length announce a gap in 64 plain bits.
inline constexpr int longest_prefix = 24;

class ulp_encoder {
public:
    /// \pre positions ascend strictly; `correction` is not zero.
    void put(std::uint64_t position, std::int64_t correction) {
        put_gap(position - next_);
        next_ = position + 1;
        const auto u = static_cast<std::uint64_t>(correction);
        const std::uint64_t folded = (u << 1) ^ (correction < 0 ? ~std::uint64_t{0} : 0);  // 1 for -1, 2 for +1, ...
        const int extra = static_cast<int>(std::bit_width(folded)) - 1;
        if (extra < 16) {
            const std::uint64_t low = folded & ((std::uint64_t{1} << extra) - 1);
            put_bits((std::uint64_t{1} << extra) | (low << (extra + 1)), 2 * extra + 1);
        } else {
            put_bits(0, extra);
            put_bits(1, 1);
            put_bits(folded, extra);
        }
    }

    /// Ends the code; `count` is one past the last possible position.
    [[nodiscard]] std::vector<std::uint8_t> finish(std::uint64_t count) {
        put_gap(count - next_);
        for (; filled_ > 0; filled_ = filled_ > 8 ? filled_ - 8 : 0) {
            bytes_.push_back(static_cast<std::uint8_t>(buffer_));
            buffer_ >>= 8;
        }
        return std::move(bytes_);
    }

private:
    void put_gap(std::uint64_t gap) {
        const int k = model_.parameter();
        const std::uint64_t prefix = gap >> k;
        if (prefix < longest_prefix) {
            const std::uint64_t low = gap & ((std::uint64_t{1} << k) - 1);
            const int zeros = static_cast<int>(prefix);
            put_bits((std::uint64_t{1} << zeros) | (low << (zeros + 1)), zeros + 1 + k);  // at most 56 bits
        } else {
            put_bits(0, longest_prefix);
            put_bits(1, 1);
            put_bits(gap, 64);
        }
        model_.add(gap);
    }
    /// The low `count` bits of `value`, lowest first; count <= 64.
    void put_bits(std::uint64_t value, int count) {
        value &= count < 64 ? (std::uint64_t{1} << count) - 1 : ~std::uint64_t{0};
        buffer_ |= value << filled_;
        if (filled_ + count < 64) {
            filled_ += count;
            return;
        }
        std::uint8_t word[8];
        for (int i = 0; i < 8; ++i) {
            word[i] = static_cast<std::uint8_t>(buffer_ >> (8 * i));
        }
        bytes_.insert(bytes_.end(), word, word + 8);
        const int kept = 64 - filled_;  // bits of `value` that went out
        buffer_ = kept < 64 ? value >> kept : 0;
        filled_ += count - 64;
    }

    std::vector<std::uint8_t> bytes_ = {};
    std::uint64_t buffer_ = 0;
    int filled_ = 0;  ///< bits in the buffer, below 64
    std::uint64_t next_ = 0;
    gap_model model_ = {};
};

/// Reads what `ulp_encoder` wrote, one correction at a time. Safe on any bytes: a broken code ends early.
class ulp_decoder {
public:
    ulp_decoder(const std::vector<std::uint8_t>& bytes, std::uint64_t count) : bytes_(bytes), count_(count) { next(); }

    /// Where the current correction belongs; `count` at the end.
    [[nodiscard]] std::uint64_t position() const noexcept { return position_; }
    [[nodiscard]] std::int64_t correction() const noexcept { return correction_; }

    void next() {
        const std::uint64_t gap = take_gap();
        if (gap >= count_ - next_ || count_ <= next_) {
            position_ = count_;
            return;
        }
        position_ = next_ + gap;
        next_ = position_ + 1;
        int extra = 0;
        for (bool more = true; more && extra < 63;) {
            const std::uint64_t ahead = peek();
            const int zeros = ahead == 0 ? peeked : std::countr_zero(ahead);
            more = ahead == 0 && at_ < 8 * bytes_.size();
            at_ += static_cast<std::size_t>(zeros < 63 - extra ? zeros : 63 - extra);
            extra = zeros < 63 - extra ? extra + zeros : 63;
        }
        ++at_;  // the one that ends them
        const std::uint64_t folded = (std::uint64_t{1} << extra) | take_bits(extra);
        correction_ = static_cast<std::int64_t>((folded >> 1) ^ ((folded & 1) != 0 ? ~std::uint64_t{0} : 0));
    }

private:
    /// Bits that `peek` always provides.
    static constexpr int peeked = 57;

    /// The next bits, at least 57 of them, zeros past the end of the code.
    [[nodiscard]] std::uint64_t peek() const noexcept {
        const std::size_t first = at_ / 8;
        std::uint64_t word = 0;
        const std::size_t left = first < bytes_.size() ? bytes_.size() - first : 0;
        if (left >= 8) {
            const std::uint8_t* from = bytes_.data() + first;
            for (int i = 0; i < 8; ++i) {  // one load where bytes are stored lowest first
                word |= static_cast<std::uint64_t>(from[i]) << (8 * i);
            }
        } else {
            for (std::size_t i = 0; i < left; ++i) {
                word |= static_cast<std::uint64_t>(bytes_[first + i]) << (8 * i);
            }
        }
        return word >> (at_ % 8);
    }
    std::uint64_t take_gap() {
        const int k = model_.parameter();
        const std::uint64_t ahead = peek();
        const int prefix = ahead == 0 ? longest_prefix + 1 : std::countr_zero(ahead);
        if (prefix > longest_prefix) {
            return count_;
        }
        at_ += static_cast<std::size_t>(prefix) + 1;
        const std::uint64_t gap =
            prefix < longest_prefix ? (static_cast<std::uint64_t>(prefix) << k) | take_bits(k) : take_bits(64);
        model_.add(gap);
        return gap;
    }
    std::uint64_t take_bits(int count) {
        if (count > 32) {
            const std::uint64_t low = take_bits(32);
            return low | (take_bits(count - 32) << 32);
        }
        const std::uint64_t value = peek() & ((std::uint64_t{1} << count) - 1);
        at_ += static_cast<std::size_t>(count);
        return value;
    }

    const std::vector<std::uint8_t>& bytes_;
    std::uint64_t count_;
    std::size_t at_ = 0;  ///< in bits
    std::uint64_t next_ = 0;
    std::uint64_t position_ = 0;
    std::int64_t correction_ = 0;
    gap_model model_ = {};
};

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LORA_MERGE_DETAIL_ULP_CODE_HPP
