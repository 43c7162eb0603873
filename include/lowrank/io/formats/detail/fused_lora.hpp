// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_FORMATS_DETAIL_FUSED_LORA_HPP
#define LOWRANK_IO_FORMATS_DETAIL_FUSED_LORA_HPP

/// \file
/// LoRA of several layers with the same input as LoRA of one whose rows are theirs, and back.
///
///     auto parts = detail::split_lora(qkv, {rows, rows, rows});         // parts[1] is k's
///     auto whole = detail::fuse_lora({{q, k, v}}, {rows, rows, rows});  // the same again

#include <cmath>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/formats/detail/lora_tensors.hpp>
#include <lowrank/io/peft/kinds/lora.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// Of a vector with a value per row: those of some rows; empty stays empty.
[[nodiscard]] inline vector<float> some_rows(const vector<float>& all, index first, index count) {
    return all.size() == 0 ? vector<float>() : vector<float>(all.segment(first, count));
}

/// The part that each column of B belongs to, if no column has entries in two and the columns lie in the order of the
/// parts; empty otherwise. Columns of zeros say nothing; if all are, parts have the same number of them.
LOWRANK_INLINE [[nodiscard]] std::vector<std::size_t> parts_of_columns(const matrix<float>& b,
                                                                       std::span<const index> rows) {
    const auto is_zero = [](float x) { return x == 0.0F && !std::signbit(x); };
    std::vector<std::size_t> out;
    for (index c = 0; c < b.cols(); ++c) {
        index row = 0;
        std::optional<std::size_t> part;
        for (std::size_t p = 0; p < rows.size(); ++p) {
            bool is_used = false;
            for (index i = 0; i < rows[p]; ++i, ++row) {
                is_used = is_used || !is_zero(b(row, c));
            }
            if (is_used && part) {
                return {};
            }
            part = is_used ? std::optional(p) : part;
        }
        if (!part || (!out.empty() && *part < out.back())) {
            break;
        }
        out.push_back(*part);
    }
    if (out.size() == static_cast<std::size_t>(b.cols())) {
        return out;
    }
    out.clear();
    const auto count = static_cast<index>(rows.size());
    const bool is_untrained = b.size() != 0 && b.isZero(0.0F) && b.cols() % count == 0;
    for (index c = 0; is_untrained && c < b.cols(); ++c) {
        out.push_back(static_cast<std::size_t>(c / (b.cols() / count)));
    }
    return out;
}

/// LoRA of consecutive groups of rows. Of a block-diagonal B each part has its block, and none where it has no column;
/// of any other B each part has A, and its rows.
/// \pre the sum of `rows` is m.lora.rows()
LOWRANK_INLINE [[nodiscard]] std::vector<std::optional<peft_lora>> split_lora(const peft_lora& m,
                                                                              std::span<const index> rows) {
    const lora_adapter<float>& whole = m.lora;
    const bool has_more = m.magnitude.size() != 0 || m.bias.size() != 0;
    const std::vector<std::size_t> owner = has_more ? std::vector<std::size_t>() : parts_of_columns(whole.lora_B, rows);
    std::vector<std::optional<peft_lora>> out;
    index row = 0;
    index column = 0;
    for (std::size_t p = 0; p < rows.size(); ++p) {
        index columns = owner.empty() ? whole.rank() : 0;
        for (const std::size_t o : owner) {
            columns += o == p ? 1 : 0;
        }
        if (columns != 0) {
            peft_lora part{.lora = whole,
                           .magnitude = some_rows(m.magnitude, row, rows[p]),
                           .bias = some_rows(m.bias, row, rows[p])};
            part.lora.lora_A = whole.lora_A.middleRows(column, columns);
            part.lora.lora_B = whole.lora_B.block(row, column, rows[p], columns);
            if (columns != whole.rank()) {
                part.lora.lora_alpha = whole.use_rslora ? scaling_of(whole) * std::sqrt(static_cast<double>(columns))
                                                        : whole.lora_alpha * static_cast<double>(columns) /
                                                              static_cast<double>(whole.rank());
            }
            out.emplace_back(std::move(part));
        } else {
            out.emplace_back();
        }
        row += rows[p];
        column += owner.empty() ? 0 : columns;
    }
    return out;
}

/// One LoRA whose rows are those of its parts, in order; zeros for a part that is not there.
/// \return `unsupported` for a magnitude that not every part has; `mismatch` for parts with other inputs or rows.
LOWRANK_INLINE [[nodiscard]] result<peft_lora> fuse_lora(std::span<const std::optional<peft_lora>> parts,
                                                         std::span<const index> rows) {
    const peft_lora* first = nullptr;
    index all_rows = 0;
    index all_columns = 0;
    bool has_one_input = true;  // the same A and alpha: their rows of B are those of one adapter
    bool has_one_scaling = true;
    bool has_bias = false;
    std::size_t magnitudes = 0;
    for (std::size_t p = 0; p < parts.size(); ++p) {
        all_rows += rows[p];
        if (!parts[p]) {
            continue;
        }
        const lora_adapter<float>& lora = parts[p]->lora;
        first = first == nullptr ? &*parts[p] : first;
        if (lora.cols() != first->lora.cols() || lora.rows() != rows[p]) {
            return status{errc::mismatch, "has parts of shapes " + std::to_string(first->lora.rows()) + " x " +
                                              std::to_string(first->lora.cols()) + " and " +
                                              std::to_string(lora.rows()) + " x " + std::to_string(lora.cols()) +
                                              ", which are no rows of one layer"};
        }
        all_columns += lora.rank();
        has_one_scaling = has_one_scaling && scaling_of(lora) == scaling_of(first->lora);
        has_one_input = has_one_input && has_one_scaling && lora.lora_alpha == first->lora.lora_alpha &&
                        lora.lora_A == first->lora.lora_A;
        has_bias = has_bias || parts[p]->bias.size() != 0;
        magnitudes += parts[p]->magnitude.size() != 0 ? 1 : 0;
    }
    if (magnitudes != 0 && magnitudes != parts.size()) {
        return status{errc::unsupported,
                      std::string("has a magnitude (") + magnitude_names::label + ") for some of its rows only"};
    }
    peft_lora out{.lora = first->lora};
    if (!has_one_input) {
        out.lora.lora_A.resize(all_columns, first->lora.cols());
        out.lora.use_rslora = false;
        out.lora.lora_alpha =
            has_one_scaling && !first->lora.use_rslora
                ? first->lora.lora_alpha * static_cast<double>(all_columns) / static_cast<double>(first->lora.rank())
            : has_one_scaling ? scaling_of(first->lora) * static_cast<double>(all_columns)
                              : static_cast<double>(all_columns);
    }
    out.lora.lora_B.setZero(all_rows, out.lora.rank());
    out.magnitude.setZero(magnitudes != 0 ? all_rows : 0);
    out.bias.setZero(has_bias ? all_rows : 0);
    index row = 0;
    index column = 0;
    for (std::size_t p = 0; p < parts.size(); ++p) {
        if (parts[p]) {
            const lora_adapter<float>& lora = parts[p]->lora;
            const double factor = has_one_scaling ? 1 : scaling_of(lora);
            out.lora.lora_A.middleRows(column, lora.rank()) = lora.lora_A;
            out.lora.lora_B.block(row, column, rows[p], lora.rank()) = scaled_factor(lora.lora_B, factor);
            if (magnitudes != 0) {
                out.magnitude.segment(row, rows[p]) = parts[p]->magnitude;
            }
            for (index i = 0; i < parts[p]->bias.size(); ++i) {  // scaled as lora_B is
                out.bias[row + i] = static_cast<float>(static_cast<double>(parts[p]->bias[i]) * factor);
            }
            column += has_one_input ? 0 : lora.rank();
        }
        row += rows[p];
    }
    return out;
}

/// The second half of the rows first.
LOWRANK_INLINE void swap_halves(peft_lora& m) {
    const index half = m.lora.rows() / 2;
    const auto swap = [half](auto& x) {
        if (x.size() != 0) {
            const auto top = x.topRows(half).eval();
            x.topRows(half) = x.bottomRows(half).eval();
            x.bottomRows(half) = top;
        }
    };
    swap(m.lora.lora_B);
    swap(m.magnitude);
    swap(m.bias);
}

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_FORMATS_DETAIL_FUSED_LORA_HPP
