// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CONTAINERS_SAFETENSORS_HPP
#define LOWRANK_IO_CONTAINERS_SAFETENSORS_HPP

/// \file
/// Reads safetensors files: checked completely when opened, mapped, and borrowed or converted tensor by tensor.
///
///     auto file = lowrank::safetensors_file::open("model.safetensors");
///     if (!file) return log(file.error().message);
///     auto w = file->matrix<float>("model.layers.0.mlp.up_proj.weight");    // a copy in float, whatever it was
///     auto v = file->view<lowrank::bfloat16>("lm_head.weight");             // the file's own bytes, not copied
///
/// Strict: every rule of the reference implementation, and tensor names must be unique. Values are not looked at; a
/// file may hold NaN. Format: huggingface/safetensors.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/containers/detail/safetensors_header.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/containers/dtype.hpp>
#include <lowrank/io/containers/mapped_file.hpp>
#include <lowrank/io/containers/safetensors_writer.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// "[4, 64]", at most eight extents of it.
[[nodiscard]] inline std::string shape_in_words(std::span<const std::uint64_t> shape) {
    std::string text = "[";
    for (std::size_t i = 0; i < shape.size() && i < 8; ++i) {
        text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
    }
    return text + (shape.size() > 8 ? ", ...]" : "]");
}

struct matrix_extents {
    index rows = 1;
    index cols = 1;
};

/// A scalar is 1 x 1, a vector n x 1, a matrix itself; more dimensions have no one answer.
[[nodiscard]] inline result<matrix_extents> extents_of(const tensor_info& t) {
    if (t.shape.size() > 2) {
        return status{errc::unsupported, "tensor " + in_quotes(t.name) + " has shape " + shape_in_words(t.shape) +
                                             "; only matrices, vectors and scalars can be read as a matrix"};
    }
    // An empty tensor may claim any extent, over which programs loop: no one has rows or columns by the million there.
    const bool is_empty = std::find(t.shape.begin(), t.shape.end(), 0U) != t.shape.end();
    const auto most = is_empty ? std::uint64_t{1} << 24 : static_cast<std::uint64_t>(std::numeric_limits<index>::max());
    if (std::any_of(t.shape.begin(), t.shape.end(), [&](std::uint64_t extent) { return extent > most; })) {
        return status{errc::unsupported,
                      "tensor " + in_quotes(t.name) + " has shape " + shape_in_words(t.shape) +
                          (is_empty ? ", too much for one without elements" : ", beyond the index type")};
    }
    return matrix_extents{t.shape.empty() ? 1 : static_cast<index>(t.shape[0]),
                          t.shape.size() < 2 ? 1 : static_cast<index>(t.shape[1])};
}

[[nodiscard]] inline status not_real(const tensor_info& t) {
    return {errc::unsupported, "tensor " + in_quotes(t.name) + " has dtype " + std::string(name_of(t.type)) +
                                   "; only F64, F32, F16 and BF16 hold weights that can be converted"};
}

/// A copy of a tensor's elements in S.
template <real S>
[[nodiscard]] result<row_matrix<S>> matrix_from(const tensor_info& t, std::span<const std::byte> bytes) {
    const auto extents = extents_of(t);
    if (!extents) {
        return extents.error();
    }
    if (!is_real(t.type)) {
        return not_real(t);
    }
    row_matrix<S> out(extents->rows, extents->cols);
    convert_elements<S>(t.type, bytes, {out.data(), static_cast<std::size_t>(out.size())});
    return out;
}

/// A tensor's own bytes as a matrix.
template <storage T>
[[nodiscard]] result<const_weight_view<T>> view_of(const tensor_info& t, std::span<const std::byte> bytes) {
    const auto extents = extents_of(t);
    if (!extents) {
        return extents.error();
    }
    if (t.type != dtype_of<T>) {
        return status{errc::mismatch, "tensor " + in_quotes(t.name) + " has dtype " + std::string(name_of(t.type)) +
                                          ", a view of " + std::string(name_of(dtype_of<T>)) +
                                          " was asked for; use matrix<float>() to convert"};
    }
    if (!bytes.empty() && reinterpret_cast<std::uintptr_t>(bytes.data()) % alignof(T) != 0) {
        return status{errc::unsupported, "tensor " + in_quotes(t.name) +
                                             " is not aligned in the file and cannot be viewed in place; use matrix<" +
                                             (sizeof(T) == 8 ? "double" : "float") +
                                             ">(), which copies, or write the file again"};
    }
    return const_weight_view<T>(reinterpret_cast<const T*>(bytes.data()), extents->rows, extents->cols);
}

}  // namespace detail

/// An open safetensors file. Copies are cheap and share the memory; views live as long as any copy.
/// All members are const and safe to call concurrently.
class safetensors_file {
public:
    /// Opens and checks `path`. The tensor data are not read.
    ///
    /// \return as `mapped_file::open`; `invalid_format` with the rule that is broken.
    /// \cost   O(h log h) for a header of h bytes, and a small multiple of h in memory.
    [[nodiscard]] static result<safetensors_file> open(const std::filesystem::path& path,
                                                       const mapping_options& opt = {}) {
        auto file = mapped_file::open(path, opt);
        if (!file) {
            return file.error();
        }
        auto parsed = parse(std::move(*file));
        if (!parsed) {
            return detail::in_file(path, parsed.error());
        }
        return parsed;
    }

    /// The same from bytes in memory.
    [[nodiscard]] static result<safetensors_file> from_bytes(std::vector<std::byte> bytes) {
        return parse(mapped_file::own(std::move(bytes)));
    }

    /// All tensors in the order of their data.
    [[nodiscard]] const std::vector<tensor_info>& tensors() const noexcept { return content_->header.tensors; }
    /// The free text entries; {"format", "pt"} in files from PyTorch.
    [[nodiscard]] const std::map<std::string, std::string>& metadata() const noexcept {
        return content_->header.metadata;
    }

    /// The tensor of this name, or null. \cost O(log tensors)
    [[nodiscard]] const tensor_info* find(std::string_view name) const noexcept {
        const auto& order = content_->by_name;
        const auto at = std::lower_bound(order.begin(), order.end(), name,
                                         [&](std::size_t i, std::string_view n) { return tensors()[i].name < n; });
        return at != order.end() && tensors()[*at].name == name ? &tensors()[*at] : nullptr;
    }

    /// The raw bytes of a tensor of this file.
    [[nodiscard]] std::span<const std::byte> bytes(const tensor_info& t) const noexcept {
        return content_->file.bytes().subspan(static_cast<std::size_t>(content_->header.data_begin + t.begin),
                                              static_cast<std::size_t>(t.end - t.begin));
    }

    /// Lets the system drop a tensor's bytes from memory until they are touched again.
    void release(const tensor_info& t) const noexcept { release(bytes(t)); }
    /// The same for a part of it, and its opposite: the system may fetch the part now.
    void release(std::span<const std::byte> part) const noexcept { content_->file.release(part); }
    void will_need(std::span<const std::byte> part) const noexcept { content_->file.will_need(part); }

    /// The file's own bytes as a matrix: a vector is n x 1, a scalar 1 x 1. Valid while a copy of this object lives.
    ///
    /// \return `not_found`; `mismatch` if the dtype is not T; `unsupported` for more than two dimensions or data that
    ///         are not aligned for T (possible in files of other writers; then `matrix` copies).
    template <storage T>
    [[nodiscard]] result<const_weight_view<T>> view(std::string_view name) const {
        const tensor_info* t = find(name);
        return t != nullptr ? detail::view_of<T>(*t, bytes(*t)) : result<const_weight_view<T>>(missing(name));
    }

    /// A copy in S of a tensor of type F64, F32, F16 or BF16; dimensions as in `view`.
    ///
    /// \return `not_found`; `unsupported` for other types and for more than two dimensions.
    template <real S>
    [[nodiscard]] result<row_matrix<S>> matrix(std::string_view name) const {
        const tensor_info* t = find(name);
        return t != nullptr ? detail::matrix_from<S>(*t, bytes(*t)) : result<row_matrix<S>>(missing(name));
    }

    /// A copy in S of a one-dimensional tensor or a scalar; otherwise as `matrix`, and `mismatch` for a matrix.
    template <real S>
    [[nodiscard]] result<lowrank::vector<S>> vector(std::string_view name) const {
        const tensor_info* t = find(name);
        if (t == nullptr) {
            return missing(name);
        }
        if (t->shape.size() > 1) {
            return status{errc::mismatch, "tensor " + detail::in_quotes(name) + " has shape " +
                                              detail::shape_in_words(t->shape) + ", expected a vector"};
        }
        if (!is_real(t->type)) {
            return detail::not_real(*t);
        }
        lowrank::vector<S> out(static_cast<index>((t->end - t->begin) / (bits_of(t->type) / 8)));
        convert_elements<S>(t->type, bytes(*t), {out.data(), static_cast<std::size_t>(out.size())});
        return out;
    }

private:
    struct content {
        mapped_file file;
        detail::safetensors_header header;
        std::vector<std::size_t> by_name;
    };

    explicit safetensors_file(std::shared_ptr<const content> c) : content_(std::move(c)) {}

    static result<safetensors_file> parse(mapped_file file) {
        auto header = detail::read_safetensors_header(file.bytes());
        if (!header) {
            return header.error();
        }
        auto c = std::make_shared<content>();
        c->file = std::move(file);
        c->header = std::move(*header);
        c->by_name.resize(c->header.tensors.size());
        for (std::size_t i = 0; i < c->by_name.size(); ++i) {
            c->by_name[i] = i;
        }
        std::sort(c->by_name.begin(), c->by_name.end(),
                  [&](std::size_t a, std::size_t b) { return c->header.tensors[a].name < c->header.tensors[b].name; });
        return safetensors_file(std::move(c));
    }

    static status missing(std::string_view name) {
        return {errc::not_found, "there is no tensor " + detail::in_quotes(name) + " in the file"};
    }

    std::shared_ptr<const content> content_;
};

/// A tensor of an open file, to be written to another one. \pre a copy of `file` outlives the write.
[[nodiscard]] inline tensor_to_write tensor_of(const safetensors_file& file, const tensor_info& t) {
    return {.name = t.name, .type = t.type, .shape = t.shape, .bytes = file.bytes(t)};
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_CONTAINERS_SAFETENSORS_HPP
