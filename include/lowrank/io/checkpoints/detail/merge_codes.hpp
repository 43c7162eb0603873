// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CHECKPOINTS_DETAIL_MERGE_CODES_HPP
#define LOWRANK_IO_CHECKPOINTS_DETAIL_MERGE_CODES_HPP

/// \file
/// A weight that the checkpoint stores as codes, decoded, changed and encoded again.
///
///     auto merged = detail::merge_into_codes(weight, tensor.type, change, {.exec = exec});
///     out(merged->encoded.codes);

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/checkpoints/detail/merge_rows.hpp>
#include <lowrank/io/checkpoints/detail/merge_tiles.hpp>
#include <lowrank/io/checkpoints/detail/stored_change.hpp>
#include <lowrank/io/checkpoints/merge_types.hpp>
#include <lowrank/io/containers/dtype.hpp>
#include <lowrank/io/quantized/quantized_weight.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// The elements of a tensor of real numbers as a change leaves them.
LOWRANK_INLINE [[nodiscard]] result<merged_weight> write_changed(const byte_sink& out, dtype type,
                                                                 const stored_bytes& from, stored_change change,
                                                                 const tile_options& opt) {
    return change.rows ? write_merged_rows(out, type, from, change, opt)
                       : write_merged(out, type, from, std::move(change), opt);
}

struct merged_codes {
    encoded_weight encoded = {};
    merged_weight weight = {};        ///< Of what the codes stand for.
    double norm = 0;                  ///< ||W||_F of the weight of before.
    double realized_change_norm = 0;  ///< ||what was written - W||_F
};

/// \pre `w.encode` is set. \cost Memory for two copies of the weight in float.
LOWRANK_INLINE [[nodiscard]] result<merged_codes> merge_into_codes(const quantized_weight& w, dtype type,
                                                                   stored_change change, const tile_options& opt) {
    if (opt.check) {
        return status{errc::unsupported, "the weight is stored as codes (" + w.scheme +
                                             "), and rounding to codes cannot be undone; merge without the check"};
    }
    const auto count = static_cast<std::size_t>(w.rows() * w.cols());
    std::vector<float> before(count);
    w.decode(0, w.rows(), before.data());
    std::vector<float> wanted(count);
    std::size_t at = 0;
    const byte_sink sink = [&](std::span<const std::byte> bytes) {
        std::memcpy(wanted.data() + at, bytes.data(), bytes.size());
        at += bytes.size() / sizeof(float);
        return status{};
    };
    const auto merged =
        write_changed(sink, dtype::f32, {.bytes = std::as_bytes(std::span(before))}, std::move(change), opt);
    if (!merged) {
        return merged.error();
    }
    std::vector<float> written = std::move(before);
    std::copy(wanted.begin(), wanted.end(), written.begin());
    merged_codes out{.encoded = w.encode(written.data())};
    out.weight.type = type;
    out.weight.rank = merged->rank;
    out.weight.entries = count;
    const index cols = w.cols();
    std::vector<float> row(static_cast<std::size_t>(cols));
    double wanted2 = 0;
    double error2 = 0;
    double norm2 = 0;
    double realized2 = 0;
    for (index r = 0; r < w.rows(); ++r) {
        w.decode(r, 1, row.data());
        for (index c = 0; c < cols; ++c) {
            const auto k = static_cast<std::size_t>(r * cols + c);
            const auto old = static_cast<double>(row[static_cast<std::size_t>(c)]);
            const double change_of = static_cast<double>(wanted[k]) - old;
            const double realized = static_cast<double>(written[k]) - old;
            const double error = std::abs(realized - change_of);
            out.weight.touched += change_of != 0 ? 1U : 0U;
            out.weight.unchanged += change_of != 0 && realized == 0 ? 1U : 0U;
            if (error > out.weight.worst_error) {
                out.weight.worst_error = error;
                out.weight.worst_row = r;
                out.weight.worst_col = c;
            }
            wanted2 += change_of * change_of;
            error2 += error * error;
            norm2 += old * old;
            realized2 += realized * realized;
        }
    }
    out.weight.change_norm = std::sqrt(wanted2);
    out.weight.relative_error = wanted2 > 0 ? std::sqrt(error2 / wanted2) : 0;
    out.norm = std::sqrt(norm2);
    out.realized_change_norm = std::sqrt(realized2);
    return out;
}

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_CHECKPOINTS_DETAIL_MERGE_CODES_HPP
