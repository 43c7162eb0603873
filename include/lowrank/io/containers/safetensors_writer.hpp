// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CONTAINERS_SAFETENSORS_WRITER_HPP
#define LOWRANK_IO_CONTAINERS_SAFETENSORS_WRITER_HPP

/// \file
/// Writes safetensors files, byte for byte as the reference implementation does.
///
///     auto why = lowrank::write_safetensors(
///         "ab.safetensors", {lowrank::tensor_of("a", w), lowrank::tensor_of("b", base)}, {{"format", "pt"}});
///
/// For data larger than memory, `safetensors_writer` takes them piece by piece. The file appears whole or not at all.

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/containers/atomic_file.hpp>
#include <lowrank/io/containers/detail/safetensors_header.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/containers/dtype.hpp>

namespace lowrank::inline LOWRANK_ABI {

static_assert(std::endian::native == std::endian::little, "the file formats here are little-endian, as is the memory");

/// One tensor for a file: row-major bytes, borrowed, or kept alive by `owned`.
struct tensor_to_write {
    std::string name = {};
    dtype type = dtype::f32;
    std::vector<std::uint64_t> shape = {};
    std::span<const std::byte> bytes = {};
    std::shared_ptr<const std::vector<std::byte>> owned = {};
};

/// A weight as it lies in memory, not copied: it must outlive the write. Shape [rows, cols].
/// \pre the rows follow each other without gaps.
template <storage T>
[[nodiscard]] tensor_to_write borrowed_tensor(std::string name, const_weight_view<T> w) {
    detail::expects(w.rows() <= 1 || w.outerStride() == w.cols(), "borrowed_tensor: the rows must be contiguous");
    return {.name = std::move(name),
            .type = dtype_of<T>,
            .shape = {static_cast<std::uint64_t>(w.rows()), static_cast<std::uint64_t>(w.cols())},
            .bytes = std::as_bytes(std::span(w.data(), static_cast<std::size_t>(w.size())))};
}

/// Any dense matrix or vector, copied in the order files use. A vector has shape [size], a matrix [rows, cols].
template <detail::eigen_dense D>
requires storage<typename detail::plain_t<D>::Scalar>
[[nodiscard]] tensor_to_write tensor_of(std::string name, const D& x) {
    using T = typename detail::plain_t<D>::Scalar;
    auto bytes = std::make_shared<std::vector<std::byte>>(static_cast<std::size_t>(x.size()) * sizeof(T));
    if (x.size() != 0) {
        const row_matrix<T> rows = x;
        std::memcpy(bytes->data(), rows.data(), bytes->size());
    }
    tensor_to_write out{.name = std::move(name), .type = dtype_of<T>, .bytes = *bytes, .owned = bytes};
    if constexpr (detail::plain_t<D>::IsVectorAtCompileTime) {
        out.shape = {static_cast<std::uint64_t>(x.size())};
    } else {
        out.shape = {static_cast<std::uint64_t>(x.rows()), static_cast<std::uint64_t>(x.cols())};
    }
    return out;
}

/// What a streamed file will hold: a tensor without its data.
struct tensor_plan {
    std::string name = {};
    dtype type = dtype::f32;
    std::vector<std::uint64_t> shape = {};
};

namespace detail {

/// The order of the reference writer: larger element types first, then by name.
[[nodiscard]] inline bool written_before(dtype type_a, std::string_view a, dtype type_b, std::string_view b) noexcept {
    return type_a != type_b ? type_a > type_b : a < b;
}

/// Length and JSON text that precede the data. Fills begin and end of `tensors`, which are in the order of the data.
[[nodiscard]] inline result<std::string> safetensors_preamble(std::vector<tensor_info>& tensors,
                                                              const std::map<std::string, std::string>& metadata) {
    const auto bad = [](std::string text) { return status{errc::invalid_format, std::move(text)}; };
    std::vector<std::string_view> names;
    for (const tensor_info& t : tensors) {
        if (t.name == "__metadata__" || !is_utf8(t.name)) {
            return bad("a tensor cannot be named " + in_quotes(t.name) + ": names are UTF-8 and not \"__metadata__\"");
        }
        names.push_back(t.name);
    }
    std::sort(names.begin(), names.end());
    if (const auto twin = std::adjacent_find(names.begin(), names.end()); twin != names.end()) {
        return bad("two tensors are named " + in_quotes(*twin));
    }
    std::string text(8, '\0');
    text += '{';
    if (!metadata.empty()) {
        text += "\"__metadata__\":{";
        bool first = true;
        for (const auto& [key, value] : metadata) {
            if (!is_utf8(key) || !is_utf8(value)) {
                return bad("the metadata entry " + in_quotes(key) + " is not UTF-8 text");
            }
            text += std::exchange(first, false) ? "" : ",";
            append_json_string(text, key);
            text += ':';
            append_json_string(text, value);
        }
        text += '}';
    }
    std::uint64_t at = 0;
    for (tensor_info& t : tensors) {
        const auto bytes = tensor_bytes(t.name, t.type, t.shape);
        if (!bytes) {
            return bytes.error();
        }
        t.begin = at;
        if (!checked_add(at, *bytes, at)) {
            return bad("the tensors are larger than 2^64 bytes together");
        }
        t.end = at;
        text += text.size() > 9 ? "," : "";
        append_json_string(text, t.name);
        text += ":{\"dtype\":\"";
        text += name_of(t.type);
        text += "\",\"shape\":[";
        for (std::size_t i = 0; i < t.shape.size(); ++i) {
            text += i == 0 ? "" : ",";
            text += std::to_string(t.shape[i]);
        }
        text += "],\"data_offsets\":[" + std::to_string(t.begin) + "," + std::to_string(t.end) + "]}";
    }
    text += '}';
    text.append((8 - text.size() % 8) % 8, ' ');  // the data start aligned, relative to the file
    const std::uint64_t length = text.size() - 8;
    if (length > longest_safetensors_header) {
        return bad("the header would have " + std::to_string(length) +
                   " bytes, more than the 100000000 a reader accepts; use fewer tensors per file");
    }
    for (std::size_t i = 0; i < 8; ++i) {
        text[i] = static_cast<char>(length >> (8 * i) & 0xff);
    }
    return text;
}

}  // namespace detail

/// Writes a file tensor by tensor in bounded memory: shapes first, then the data in the order of `order()`.
///
///     auto file = lowrank::safetensors_writer::create("big.safetensors", plans);
///     for (const auto& t : file->order()) file->write(rows_of(t.name));   // as many pieces per tensor as you like
///     auto why = file->commit();
class safetensors_writer {
public:
    /// \return `invalid_format` for names that repeat or are not UTF-8, sizes that overflow; what `atomic_file` says.
    [[nodiscard]] static result<safetensors_writer> create(const std::filesystem::path& path,
                                                           std::vector<tensor_plan> plans,
                                                           const std::map<std::string, std::string>& metadata = {},
                                                           const write_options& opt = {}) {
        std::vector<tensor_info> tensors;
        tensors.reserve(plans.size());
        for (tensor_plan& p : plans) {
            tensors.push_back({.name = std::move(p.name), .type = p.type, .shape = std::move(p.shape)});
        }
        std::sort(tensors.begin(), tensors.end(), [](const tensor_info& a, const tensor_info& b) {
            return detail::written_before(a.type, a.name, b.type, b.name);
        });
        auto preamble = detail::safetensors_preamble(tensors, metadata);
        if (!preamble) {
            return detail::in_file(path, preamble.error());
        }
        auto file = atomic_file::create(path, opt);
        if (!file) {
            return file.error();
        }
        if (status why = file->write(*preamble); !why) {
            return why;
        }
        return safetensors_writer(std::move(*file), std::move(tensors));
    }

    /// The tensors in the order their data must come.
    [[nodiscard]] const std::vector<tensor_info>& order() const noexcept { return tensors_; }

    /// Appends the next bytes of the data. \pre no more bytes than `order()` describes.
    status write(std::span<const std::byte> bytes) {
        detail::expects(bytes.size() <= total() - data_written_, "safetensors_writer::write: more data than described");
        data_written_ += bytes.size();
        return file_.write(bytes);
    }

    /// Completes the file. \pre all data were written, unless a write failed.
    status commit() {
        if (status why = check_complete(); !why) {
            return why;
        }
        return file_.commit();
    }

    /// The complete file without its name yet, for `commit_together`. \pre as `commit`.
    [[nodiscard]] result<atomic_file> finish() && {
        if (status why = check_complete(); !why) {
            return why;
        }
        return std::move(file_);
    }

private:
    safetensors_writer(atomic_file file, std::vector<tensor_info> tensors)
        : file_(std::move(file)), tensors_(std::move(tensors)) {}

    status check_complete() {
        if (status why = file_.write(std::span<const std::byte>{}); !why) {
            return why;  // an earlier write failed
        }
        detail::expects(data_written_ == total(), "safetensors_writer: less data than described");
        return {};
    }
    [[nodiscard]] std::uint64_t total() const noexcept { return tensors_.empty() ? 0 : tensors_.back().end; }

    atomic_file file_;
    std::vector<tensor_info> tensors_;
    std::uint64_t data_written_ = 0;
};

namespace detail {

/// A complete file that has no name yet.
[[nodiscard]] inline result<atomic_file> unnamed_safetensors(const std::filesystem::path& path,
                                                             std::vector<tensor_to_write> tensors,
                                                             const std::map<std::string, std::string>& metadata,
                                                             const write_options& opt) {
    std::sort(tensors.begin(), tensors.end(), [](const tensor_to_write& a, const tensor_to_write& b) {
        return detail::written_before(a.type, a.name, b.type, b.name);
    });
    std::vector<tensor_plan> plans;
    for (const tensor_to_write& t : tensors) {
        const auto bytes = detail::tensor_bytes(t.name, t.type, t.shape);
        if (!bytes) {
            return detail::in_file(path, bytes.error());
        }
        if (*bytes != t.bytes.size()) {
            detail::fail_contract_with("write_safetensors: tensor ", detail::in_quotes(t.name), " has ", t.bytes.size(),
                                       " bytes, its shape and dtype need ", *bytes);
        }
        plans.push_back({t.name, t.type, t.shape});
    }
    auto file = safetensors_writer::create(path, std::move(plans), metadata, opt);
    if (!file) {
        return file.error();
    }
    for (const tensor_to_write& t : tensors) {
        if (status why = file->write(t.bytes); !why) {
            return why;
        }
    }
    return std::move(*file).finish();
}

}  // namespace detail

/// Writes `tensors`, in any order given, as the file `path`.
///
/// \pre    the bytes of each tensor are as many as its shape says.
/// \return as `safetensors_writer`; on failure nothing is left behind and an old file at `path` stays.
inline status write_safetensors(const std::filesystem::path& path, std::vector<tensor_to_write> tensors,
                                const std::map<std::string, std::string>& metadata = {},
                                const write_options& opt = {}) {
    auto file = detail::unnamed_safetensors(path, std::move(tensors), metadata, opt);
    return file ? file->commit() : file.error();
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_CONTAINERS_SAFETENSORS_WRITER_HPP
