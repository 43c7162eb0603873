// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CHECKPOINTS_DIFF_CHECKPOINT_IPP
#define LOWRANK_IO_CHECKPOINTS_DIFF_CHECKPOINT_IPP

#include <lowrank/io/checkpoints/diff_checkpoint.hpp>

#include <lowrank/io/checkpoints/detail/element_comparison.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

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
                    detail::element_comparison both(a->info->type, x, b->info->type);
                    both.add(y);
                    d.changed = both.changed();
                    d.largest = both.largest();
                    d.norm = both.change_norm();
                    d.first_norm = both.first_norm();
                    d.not_finite = both.not_finite();
                    d.is_broken = both.is_broken();
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
