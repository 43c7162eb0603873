// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CHECKPOINTS_DETAIL_PLANNED_TENSOR_HPP
#define LOWRANK_IO_CHECKPOINTS_DETAIL_PLANNED_TENSOR_HPP

/// \file
/// One tensor of a checkpoint as a plan of adapters leaves it, to a file or to whoever else wants the bytes.
///
///     auto merged = detail::write_planned(out, shard.file, tensor, plan, {.exec = exec});

#include <optional>
#include <string>
#include <utility>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/io/checkpoints/detail/merge_codes.hpp>
#include <lowrank/io/checkpoints/detail/merge_plan.hpp>
#include <lowrank/io/checkpoints/detail/merge_tiles.hpp>
#include <lowrank/io/checkpoints/detail/token_rows.hpp>
#include <lowrank/io/checkpoints/merge_types.hpp>
#include <lowrank/io/containers/dtype.hpp>
#include <lowrank/io/containers/safetensors.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// What the plan makes of a weight that is stored as codes. Scales may lie before codes, and both are more than memory
/// holds of a model, so each makes it anew.
LOWRANK_INLINE [[nodiscard]] result<merged_codes> merge_planned_codes(const merge_plan& plan, const std::string& codes,
                                                                      dtype type, const tile_options& tiles) {
    return merge_into_codes(plan.quantized.at(codes), type, plan.changes.at(codes).form(), tiles);
}

/// Gives all bytes of the tensor to `out`: changed, replaced, with single rows replaced, or as they are.
/// \return what merging lost, of a tensor that is changed.
LOWRANK_INLINE [[nodiscard]] result<std::optional<merged_weight>> write_planned(const byte_sink& out,
                                                                                const safetensors_file& file,
                                                                                const tensor_info& t,
                                                                                const merge_plan& plan,
                                                                                const tile_options& tiles) {
    using merged = result<std::optional<merged_weight>>;
    if (const auto codes = plan.quantized.find(t.name); codes != plan.quantized.end()) {
        const auto now = merge_planned_codes(plan, t.name, t.type, tiles);
        const status why = now ? out(now->encoded.codes) : now.why;
        return why ? merged(now->weight) : merged(why);
    }
    if (const auto codes = plan.codes_of_scales.find(t.name); codes != plan.codes_of_scales.end()) {
        const auto now = merge_planned_codes(plan, codes->second, t.type, tiles);
        const status why = now ? out(now->encoded.scales) : now.why;
        return why ? merged(std::nullopt) : merged(why);
    }
    if (const auto change = plan.changes.find(t.name); change != plan.changes.end()) {
        auto weight = write_changed(out, t.type, {file.bytes(t), &file}, change->second.form(), tiles);
        return weight ? merged(std::move(*weight)) : merged(weight.error());
    }
    const auto replacement = plan.replacements.find(t.name);
    const auto rows = plan.token_rows.find(t.name);
    const status why = replacement != plan.replacements.end() ? out(replacement->second)
                       : rows != plan.token_rows.end()        ? write_token_rows(out, file, t, rows->second)
                                                              : write_unchanged(out, file, t);
    return why ? merged(std::nullopt) : merged(why);
}

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_CHECKPOINTS_DETAIL_PLANNED_TENSOR_HPP
