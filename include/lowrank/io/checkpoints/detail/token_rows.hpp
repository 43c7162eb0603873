// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CHECKPOINTS_DETAIL_TOKEN_ROWS_HPP
#define LOWRANK_IO_CHECKPOINTS_DETAIL_TOKEN_ROWS_HPP

/// \file
/// Rows of an embedding table that an adapter has trained by themselves, written into a checkpoint.
///
///     auto why = detail::write_token_rows(out, shard.file, table, plan.token_rows.at(table.name));

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <span>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/storage.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/checkpoints/detail/merge_plan.hpp>
#include <lowrank/io/checkpoints/detail/merge_tiles.hpp>
#include <lowrank/io/containers/dtype.hpp>
#include <lowrank/io/containers/safetensors.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// `old` in the type T, moved to the new values; at strength 1 they are taken as they are.
template <storage T>
void replace_row(std::span<const std::byte> old, const token_row& row, std::vector<std::byte>& out) {
    out.resize(old.size());
    if (row.strength == 1 && row.type == dtype_of<T>) {
        std::copy(row.bytes.begin(), row.bytes.end(), out.begin());
        return;
    }
    std::vector<double> values(old.size() / sizeof(T));
    convert_elements<double>(row.type, row.bytes, values);
    for (std::size_t j = 0; j < values.size(); ++j) {
        T x;
        std::memcpy(&x, old.data() + j * sizeof(T), sizeof(T));
        x = to_storage<T>(row.strength == 1 ? values[j] : to_double(x) + row.strength * (values[j] - to_double(x)));
        std::memcpy(out.data() + j * sizeof(T), &x, sizeof(T));
    }
}

/// Writes the table with the rows in `rows` replaced. \pre they lie in the table and have its length.
LOWRANK_INLINE [[nodiscard]] status write_token_rows(const byte_sink& out, const safetensors_file& file,
                                                     const tensor_info& t,
                                                     const std::map<std::int64_t, token_row>& rows) {
    const auto all = file.bytes(t);
    const std::size_t length = all.size() / static_cast<std::size_t>(t.shape[0]);
    std::size_t at = 0;
    std::vector<std::byte> fresh;
    for (const auto& [token, row] : rows) {
        const std::size_t begin = static_cast<std::size_t>(token) * length;
        if (status why = write_unchanged(out, file, all.subspan(at, begin - at)); !why) {
            return why;
        }
        const auto old = all.subspan(begin, length);
        switch (t.type) {
            case dtype::f64: replace_row<double>(old, row, fresh); break;
            case dtype::f32: replace_row<float>(old, row, fresh); break;
            case dtype::f16: replace_row<half>(old, row, fresh); break;
            default: replace_row<bfloat16>(old, row, fresh); break;
        }
        if (status why = out(fresh); !why) {
            return why;
        }
        at = begin + length;
    }
    return write_unchanged(out, file, all.subspan(at));
}

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_CHECKPOINTS_DETAIL_TOKEN_ROWS_HPP
