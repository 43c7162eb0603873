// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CHECKPOINTS_DIFF_CHECKPOINT_IPP
#define LOWRANK_IO_CHECKPOINTS_DIFF_CHECKPOINT_IPP

#include <lowrank/io/checkpoints/diff_checkpoint.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// Compares elements in double, some thousands at a time.
LOWRANK_API void compare_elements(const tensor_info& a, std::span<const std::byte> a_bytes, const tensor_info& b,
                                  std::span<const std::byte> b_bytes, tensor_difference& out) {
    constexpr std::size_t piece = 8192;
    double x[piece];
    double y[piece];
    const std::size_t a_size = bits_of(a.type) / 8;
    const std::size_t b_size = bits_of(b.type) / 8;
    double norm2 = 0;
    double first2 = 0;
    for (std::size_t at = 0; at < out.elements; at += piece) {
        const std::size_t count = std::min<std::size_t>(piece, static_cast<std::size_t>(out.elements) - at);
        const auto a_part = a_bytes.subspan(at * a_size, count * a_size);
        const auto b_part = b_bytes.subspan(at * b_size, count * b_size);
        convert_numbers(a.type, a_part, {x, count});
        convert_numbers(b.type, b_part, {y, count});
        const auto same_bits = [&](std::size_t i) {
            return a.type == b.type && std::memcmp(&a_part[i * a_size], &b_part[i * a_size], a_size) == 0;
        };
        const bool is_wide = a.type == b.type && (a.type == dtype::i64 || a.type == dtype::u64);
        double piece2 = 0;
        double piece_first2 = 0;
        for (std::size_t i = 0; i < count; ++i) {
            if (!std::isfinite(x[i]) || !std::isfinite(y[i])) {
                ++out.not_finite;
                out.is_broken = out.is_broken || std::isfinite(x[i]) != std::isfinite(y[i]);
                out.changed += same_bits(i) ? 0 : 1;
                continue;
            }
            const double d = y[i] - x[i];
            out.changed += d != 0 || (is_wide && !same_bits(i)) ? 1 : 0;  // a double has not all their bits
            out.largest = std::max(out.largest, std::abs(d));
            piece2 += d * d;
            piece_first2 += x[i] * x[i];
        }
        norm2 += piece2;
        first2 += piece_first2;
    }
    out.norm = std::sqrt(norm2);
    out.first_norm = std::sqrt(first2);
}

/// Counts elements of one type whose bits differ; of F4 and F6 several share bytes.
LOWRANK_API void compare_bits(dtype type, std::span<const std::byte> a, std::span<const std::byte> b,
                              tensor_difference& out) {
    const std::size_t bits = bits_of(type);
    out.has_values = false;
    for (std::uint64_t i = 0; i < out.elements; ++i) {
        bool differs = false;
        for (std::size_t bit = static_cast<std::size_t>(i) * bits; bit < (static_cast<std::size_t>(i) + 1) * bits;
             ++bit) {
            const auto mask = static_cast<std::byte>(1U << (bit % 8));
            differs = differs || (a[bit / 8] & mask) != (b[bit / 8] & mask);
        }
        out.changed += differs ? 1 : 0;
    }
}

}  // namespace detail

LOWRANK_BODY result<checkpoint_difference> diff_checkpoints(const checkpoint& first, const checkpoint& second,
                                                            const diff_options& opt) {
    checkpoint_difference out;
    index total = 0;
    for (const auto* side : {&first, &second}) {
        for (const checkpoint::place& p : side->tensors()) {
            total += static_cast<index>(side->bytes(p).size());
        }
    }
    index done = 0;
    auto a = first.tensors().begin();
    auto b = second.tensors().begin();
    while (a != first.tensors().end() || b != second.tensors().end()) {
        const bool has_a =
            a != first.tensors().end() && (b == second.tensors().end() || a->info->name <= b->info->name);
        const bool has_b =
            b != second.tensors().end() && (a == first.tensors().end() || b->info->name <= a->info->name);
        const tensor_info& t = has_a ? *a->info : *b->info;
        tensor_difference d{.name = t.name};
        if (!report(opt.on_progress, {.done = done, .total = total, .what = d.name})) {
            return status{errc::cancelled, "the comparison was stopped"};
        }
        if (!has_a || !has_b) {
            d.kind = has_a ? difference_kind::only_first : difference_kind::only_second;
        } else {
            const auto x = first.bytes(*a);
            const auto y = second.bytes(*b);
            const bool same_type = a->info->type == b->info->type;
            d.elements = bits_of(t.type) == 0 ? 0 : x.size() * 8 / bits_of(t.type);
            if (a->info->shape != b->info->shape) {
                d.kind = difference_kind::shape;
            } else if (same_type && x.size() == y.size() &&
                       (x.empty() || std::memcmp(x.data(), y.data(), x.size()) == 0)) {
                d.kind = difference_kind::same;
            } else {
                d.kind = same_type ? difference_kind::values : difference_kind::type;
                if (is_number(a->info->type) && is_number(b->info->type)) {
                    detail::compare_elements(*a->info, x, *b->info, y, d);
                } else if (same_type) {
                    detail::compare_bits(a->info->type, x, y, d);
                } else {
                    d.has_values = false;
                    d.changed = d.elements;
                }
            }
        }
        if (has_a) {
            done += static_cast<index>(first.bytes(*a).size());
            first.shards()[a->shard].file.release(*a->info);
            ++a;
        }
        if (has_b) {
            done += static_cast<index>(second.bytes(*b).size());
            second.shards()[b->shard].file.release(*b->info);
            ++b;
        }
        out.differing += d.kind != difference_kind::same ? 1 : 0;
        out.tensors.push_back(std::move(d));
    }
    return out;
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_CHECKPOINTS_DIFF_CHECKPOINT_IPP
