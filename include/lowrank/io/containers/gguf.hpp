// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CONTAINERS_GGUF_HPP
#define LOWRANK_IO_CONTAINERS_GGUF_HPP

/// \file
/// Reads GGUF files, versions 2 and 3: checked completely when opened, mapped, decoded tensor by tensor.
///
///     auto file = lowrank::gguf_file::open("model-Q4_K_M.gguf");
///     if (!file) return log(file.error().message);
///     auto w = file->matrix<float>("blk.0.attn_q.weight");       // out x in, whatever it is stored in
///
/// Format: ggml-org/ggml, docs/gguf.md; the packing of tensors is checked as llama.cpp does, and more strictly.

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/containers/detail/gguf_reader.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/containers/gguf_value.hpp>
#include <lowrank/io/containers/mapped_file.hpp>
#include <lowrank/quant/formats/ggml_blocks.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// An open GGUF file. Copies are cheap and share the memory. All members are const and safe to call concurrently.
class gguf_file {
public:
    /// Opens and checks `path`. The tensor data are not read.
    ///
    /// \return as `mapped_file::open`; `invalid_format` with the rule that is broken; `unsupported` for other versions
    ///         and tensor types.
    /// \cost   O(h log h) for a header of h bytes, and a small multiple of h in memory.
    [[nodiscard]] static result<gguf_file> open(const std::filesystem::path& path, const mapping_options& opt = {},
                                                std::span<const quantized_type> types = quantized_types()) {
        auto file = mapped_file::open(path, opt);
        if (!file) {
            return file.error();
        }
        auto parsed = parse(std::move(*file), types);
        return parsed ? std::move(parsed) : result<gguf_file>(detail::in_file(path, parsed.error()));
    }

    /// The same from bytes in memory.
    [[nodiscard]] static result<gguf_file> from_bytes(std::vector<std::byte> bytes,
                                                      std::span<const quantized_type> types = quantized_types()) {
        return parse(mapped_file::own(std::move(bytes)), types);
    }

    /// Keys and values in the order of the file.
    [[nodiscard]] const std::vector<gguf_entry>& entries() const noexcept { return content_->header.entries; }
    /// Tensors in the order of their data.
    [[nodiscard]] const std::vector<gguf_tensor>& tensors() const noexcept { return content_->header.tensors; }
    [[nodiscard]] std::uint64_t alignment() const noexcept { return content_->header.alignment; }

    /// The types that the file was opened with.
    [[nodiscard]] std::span<const quantized_type> types() const noexcept { return content_->types; }

    /// The value of a key, or null.
    [[nodiscard]] const gguf_value* value(std::string_view key) const noexcept {
        const auto at = std::lower_bound(content_->by_key.begin(), content_->by_key.end(), key,
                                         [&](std::size_t i, std::string_view k) { return entries()[i].key < k; });
        return at != content_->by_key.end() && entries()[*at].key == key ? &entries()[*at].value : nullptr;
    }

    /// The tensor of this name, or null.
    [[nodiscard]] const gguf_tensor* find(std::string_view name) const noexcept {
        const auto at = std::lower_bound(content_->by_name.begin(), content_->by_name.end(), name,
                                         [&](std::size_t i, std::string_view n) { return tensors()[i].name < n; });
        return at != content_->by_name.end() && tensors()[*at].name == name ? &tensors()[*at] : nullptr;
    }

    /// The raw bytes of a tensor of this file.
    [[nodiscard]] std::span<const std::byte> bytes(const gguf_tensor& t) const noexcept {
        return content_->file.bytes().subspan(static_cast<std::size_t>(content_->header.data_begin + t.offset),
                                              static_cast<std::size_t>(t.bytes));
    }

    /// The elements of a tensor of at most two dimensions as float: rows ne[1], columns ne[0]; a vector is n x 1.
    ///
    /// \return `not_found`; `unsupported` for more dimensions or a type without a decoder.
    template <real S>
    [[nodiscard]] result<row_matrix<S>> matrix(std::string_view name) const {
        const gguf_tensor* t = find(name);
        if (t == nullptr) {
            return status{errc::not_found, "there is no tensor " + detail::in_quotes(name) + " in the file"};
        }
        return matrix<S>(*t);
    }
    template <real S>
    [[nodiscard]] result<row_matrix<S>> matrix(const gguf_tensor& t) const {
        if (t.ne.size() > 2) {
            return status{errc::unsupported, "tensor " + detail::in_quotes(t.name) + " has " +
                                                 std::to_string(t.ne.size()) +
                                                 " dimensions; only matrices and vectors can be read as a matrix"};
        }
        if (!is_decodable(t.type, types())) {
            return status{errc::unsupported, "tensor " + detail::in_quotes(t.name) + " has type " +
                                                 std::string(facts_of(t.type, types()).name) +
                                                 ", which has no decoder here"};
        }
        const auto extent = [&](std::size_t i) { return i < t.ne.size() ? static_cast<index>(t.ne[i]) : index{1}; };
        row_matrix<S> out(t.ne.size() < 2 ? extent(0) : extent(1), t.ne.size() < 2 ? 1 : extent(0));
        if constexpr (std::same_as<S, float>) {
            dequantize_ggml(t.type, bytes(t), {out.data(), static_cast<std::size_t>(out.size())}, types());
        } else if (t.type == ggml_type::f64) {
            std::memcpy(out.data(), bytes(t).data(), bytes(t).size());
        } else {
            row_matrix<float> narrow(out.rows(), out.cols());
            dequantize_ggml(t.type, bytes(t), {narrow.data(), static_cast<std::size_t>(narrow.size())}, types());
            out = narrow.template cast<S>();
        }
        return out;
    }

private:
    struct content {
        mapped_file file;
        detail::gguf_header header;
        std::span<const quantized_type> types;
        std::vector<std::size_t> by_key;
        std::vector<std::size_t> by_name;
    };

    explicit gguf_file(std::shared_ptr<const content> c) : content_(std::move(c)) {}

    static result<gguf_file> parse(mapped_file file, std::span<const quantized_type> types) {
        auto header = detail::read_gguf_header(file.bytes(), types);
        if (!header) {
            return header.error();
        }
        auto c = std::make_shared<content>();
        c->file = std::move(file);
        c->header = std::move(*header);
        c->types = types;
        const auto order = [](std::vector<std::size_t>& out, std::size_t count, const auto& name) {
            out.resize(count);
            for (std::size_t i = 0; i < count; ++i) {
                out[i] = i;
            }
            std::sort(out.begin(), out.end(), [&](std::size_t a, std::size_t b) { return name(a) < name(b); });
        };
        order(
            c->by_key, c->header.entries.size(), [&](std::size_t i) -> auto& { return c->header.entries[i].key; });
        order(
            c->by_name, c->header.tensors.size(), [&](std::size_t i) -> auto& { return c->header.tensors[i].name; });
        return gguf_file(std::move(c));
    }

    std::shared_ptr<const content> content_;
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_CONTAINERS_GGUF_HPP
