// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CONTAINERS_DETAIL_SAFETENSORS_HEADER_HPP
#define LOWRANK_IO_CONTAINERS_DETAIL_SAFETENSORS_HEADER_HPP

/// \file
/// The header of a safetensors file: its JSON, read without building a document, and every rule on offsets and sizes.
///
///     auto header = detail::read_safetensors_header(bytes);
///     for (const auto& t : header->tensors) ...        // in the order of their data, covering it exactly
///
/// Rules as in the reference implementation's `read_metadata` and `validate`; names must be unique in addition.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/containers/dtype.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// One tensor of a file: row-major elements in bytes [begin, end) of the data that follow the header.
struct tensor_info {
    std::string name = {};
    dtype type = dtype::f32;
    std::vector<std::uint64_t> shape = {};
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
};

namespace detail {

/// Reading and writing refuse longer headers, as the reference implementation does.
inline constexpr std::uint64_t longest_safetensors_header = 100'000'000;

struct safetensors_header {
    std::vector<tensor_info> tensors = {};  ///< By (begin, end); equal ones (both empty) by name.
    std::map<std::string, std::string> metadata = {};
    std::uint64_t data_begin = 0;
};

/// Bytes that `shape` elements of `type` take, or why that is no number of bytes.
LOWRANK_API [[nodiscard]] result<std::uint64_t> tensor_bytes(std::string_view name, dtype type,
                                                             std::span<const std::uint64_t> shape);

/// Tensors sorted by place must cover [0, size) without hole or overlap, each as large as its shape says.
LOWRANK_API [[nodiscard]] status check_layout(const std::vector<tensor_info>& tensors, std::uint64_t size);

/// Reads and checks everything before the tensor data, and that the data are all there.
///
/// \cost O(header log header) time, a small multiple of the header in memory; the tensor data are not touched.
LOWRANK_API [[nodiscard]] result<safetensors_header> read_safetensors_header(std::span<const std::byte> file);

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/io/containers/detail/safetensors_header.ipp>
#endif

#endif  // LOWRANK_IO_CONTAINERS_DETAIL_SAFETENSORS_HEADER_HPP
