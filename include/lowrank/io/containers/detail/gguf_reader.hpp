// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CONTAINERS_DETAIL_GGUF_READER_HPP
#define LOWRANK_IO_CONTAINERS_DETAIL_GGUF_READER_HPP

/// \file
/// The header of a GGUF file and every rule on it. Nothing recurses, and nothing is reserved that the rest of the file
/// could not hold.
///
///     auto header = detail::read_gguf_header(bytes);

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/containers/gguf_value.hpp>
#include <lowrank/quant/formats/ggml_blocks.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

static_assert(std::endian::native == std::endian::little, "the file formats here are little-endian, as is the memory");

inline constexpr std::uint64_t gguf_default_alignment = 32;
inline constexpr std::size_t longest_gguf_key = 65535;
inline constexpr std::size_t longest_gguf_name = 63;

struct gguf_header {
    std::uint32_t version = 3;
    std::vector<gguf_entry> entries = {};
    std::vector<gguf_tensor> tensors = {};
    std::uint64_t alignment = gguf_default_alignment;
    std::uint64_t data_begin = 0;
};

/// x up to a multiple of a power of two, or false if that overflows.
[[nodiscard]] constexpr bool checked_align(std::uint64_t x, std::uint64_t alignment, std::uint64_t& out) noexcept {
    if (!checked_add(x, alignment - 1, out)) {
        return false;
    }
    out &= ~(alignment - 1);
    return true;
}

/// Bytes of a tensor, or why there is no such tensor.
[[nodiscard]] inline result<std::uint64_t> gguf_tensor_bytes(const gguf_tensor& t,
                                                             std::span<const quantized_type> types) {
    const quantized_type facts = facts_of(t.type, types);
    if (facts.block == 0) {
        return status{errc::unsupported, "tensor " + in_quotes(t.name) + " has the type number " +
                                             std::to_string(static_cast<std::int32_t>(t.type)) +
                                             ", which is removed or unknown"};
    }
    std::uint64_t count = 1;
    for (const std::uint64_t n : t.ne) {
        if (n == 0 || n > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()) ||
            !checked_multiply(count, n, count) ||
            count > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
            return status{errc::invalid_format,
                          "tensor " + in_quotes(t.name) + " has a dimension that is 0, negative or too large"};
        }
    }
    const std::uint64_t row = t.ne.empty() ? 1 : t.ne[0];
    if (row % facts.block != 0) {
        return status{errc::invalid_format, "tensor " + in_quotes(t.name) + " has rows of " + std::to_string(row) +
                                                " elements, not a multiple of the " + std::to_string(facts.block) +
                                                " of " + std::string(facts.name)};
    }
    std::uint64_t bytes = 0;
    if (!checked_multiply(count / facts.block, facts.bytes, bytes)) {
        return status{errc::invalid_format, "tensor " + in_quotes(t.name) + " is larger than 2^64 bytes"};
    }
    return bytes;
}

/// Takes values from the front of a file and never more than there is.
class gguf_reader {
public:
    gguf_reader(std::span<const std::byte> file, std::span<const quantized_type> types) : file_(file), types_(types) {}

    [[nodiscard]] result<gguf_header> run() {
        gguf_header out;
        if (!read(out)) {
            return why_;
        }
        return out;
    }

private:
    bool fail(std::string text, errc code = errc::invalid_format) {
        why_ = {code, std::move(text)};
        return false;
    }
    bool cut_short() { return fail("the file ends inside its header; it was cut short, copy or download it again"); }
    [[nodiscard]] std::size_t left() const { return file_.size() - at_; }

    template <class T>
    bool take(T& out) {
        if (left() < sizeof(T)) {
            return cut_short();
        }
        std::memcpy(&out, file_.data() + at_, sizeof(T));
        at_ += sizeof(T);
        return true;
    }
    bool take(std::string& out) {
        std::uint64_t length = 0;
        if (!take(length)) {
            return false;
        }
        if (length > left()) {
            return fail("a string claims " + std::to_string(length) + " bytes where " + std::to_string(left()) +
                        " are left");
        }
        out.assign(reinterpret_cast<const char*>(file_.data() + at_), static_cast<std::size_t>(length));
        at_ += static_cast<std::size_t>(length);
        return true;
    }

    bool read(gguf_header& out) {
        char magic[4] = {};
        std::uint64_t tensors = 0;
        std::uint64_t entries = 0;
        if (file_.size() >= 22 && std::memcmp(file_.data(), "version https://git-lfs", 22) == 0) {
            return fail("this is a Git LFS pointer, not the data; run \"git lfs pull\" in the repository it came from");
        }
        if (!take(magic)) {
            return false;
        }
        if (std::memcmp(magic, "GGUF", 4) != 0) {
            return fail("the file does not start with \"GGUF\"");
        }
        if (!take(out.version)) {
            return false;
        }
        if (out.version == 0x03000000 || out.version == 0x02000000) {
            return fail("the file is big-endian, which is not supported", errc::unsupported);
        }
        if (out.version != 2 && out.version != 3) {
            return fail("the file has version " + std::to_string(out.version) + "; versions 2 and 3 are read",
                        errc::unsupported);
        }
        if (!take(tensors) || !take(entries)) {
            return false;
        }
        constexpr std::size_t least_entry = 8 + 1 + 4 + 1;
        constexpr std::size_t least_tensor = 8 + 1 + 4 + 4 + 8;
        if (entries > left() / least_entry || tensors > left() / least_tensor) {
            return fail("the file claims " + std::to_string(entries) + " keys and " + std::to_string(tensors) +
                        " tensors, more than it can hold");
        }
        for (std::uint64_t i = 0; i < entries; ++i) {
            if (!read_entry(out.entries.emplace_back())) {
                return false;
            }
        }
        if (!check_unique(
                out.entries, [](const gguf_entry& e) -> auto& { return e.key; }, "key")) {
            return false;
        }
        for (const gguf_entry& e : out.entries) {
            if (e.key == "general.alignment") {
                if (e.value.type != gguf_type::u32 || !std::has_single_bit(e.value.bits)) {
                    return fail("general.alignment must be a power of two of type u32");
                }
                out.alignment = e.value.bits;
            }
        }
        for (std::uint64_t i = 0; i < tensors; ++i) {
            if (!read_tensor(out.tensors.emplace_back())) {
                return false;
            }
        }
        return check_unique(
                   out.tensors, [](const gguf_tensor& t) -> auto& { return t.name; }, "tensor") &&
               check_layout(out);
    }

    bool read_entry(gguf_entry& e) {
        if (!take(e.key)) {
            return false;
        }
        if (e.key.empty() || e.key.size() > longest_gguf_key || !is_utf8(e.key) ||
            e.key.find('\0') != std::string::npos) {
            return fail("the key " + in_quotes(e.key) + " is empty, too long, or not text");
        }
        return take(e.value.type) && read_value(e);
    }

    bool read_value(gguf_entry& e) {
        gguf_value& v = e.value;
        if (v.type == gguf_type::string) {
            return take(v.text);
        }
        if (v.type == gguf_type::array) {
            std::uint64_t count = 0;
            return take(v.element) && take(count) && read_array(e, count);
        }
        const std::size_t size = size_of(v.type);
        if (size == 0) {
            return fail("the key " + in_quotes(e.key) + " has a value of unknown type " +
                        std::to_string(static_cast<std::int32_t>(v.type)));
        }
        if (left() < size) {
            return cut_short();
        }
        std::memcpy(&v.bits, file_.data() + at_, size);
        at_ += size;
        return v.type != gguf_type::boolean || v.bits <= 1 ||
               fail("the key " + in_quotes(e.key) + " has a boolean that is neither 0 nor 1");
    }

    bool read_array(gguf_entry& e, std::uint64_t count) {
        gguf_value& v = e.value;
        const std::size_t size = v.element == gguf_type::string ? 8 : size_of(v.element);
        if (size == 0) {
            return fail("the key " + in_quotes(e.key) + " holds an array of arrays or of an unknown type");
        }
        if (count > left() / size) {
            return fail("the key " + in_quotes(e.key) + " claims an array of " + std::to_string(count) +
                        " elements, more than the file can hold");
        }
        if (v.element == gguf_type::string) {
            for (std::uint64_t i = 0; i < count; ++i) {
                if (!take(v.texts.emplace_back())) {
                    return false;
                }
            }
            return true;
        }
        const auto bytes = file_.subspan(at_, static_cast<std::size_t>(count) * size);
        if (v.element == gguf_type::boolean &&
            std::any_of(bytes.begin(), bytes.end(), [](std::byte b) { return b > std::byte{1}; })) {
            return fail("the key " + in_quotes(e.key) + " has a boolean that is neither 0 nor 1");
        }
        v.elements.assign(bytes.begin(), bytes.end());
        at_ += bytes.size();
        return true;
    }

    bool read_tensor(gguf_tensor& t) {
        std::uint32_t dimensions = 0;
        if (!take(t.name) || !take(dimensions)) {
            return false;
        }
        if (t.name.empty() || t.name.size() > longest_gguf_name || !is_utf8(t.name) ||
            t.name.find('\0') != std::string::npos) {
            return fail("the tensor name " + in_quotes(t.name) + " is empty, longer than 63 bytes, or not text");
        }
        if (dimensions > 4) {
            return fail("tensor " + in_quotes(t.name) + " claims " + std::to_string(dimensions) +
                        " dimensions; at most 4 are allowed");
        }
        for (std::uint32_t i = 0; i < dimensions; ++i) {
            if (!take(t.ne.emplace_back())) {
                return false;
            }
        }
        if (!take(t.type) || !take(t.offset)) {
            return false;
        }
        auto bytes = gguf_tensor_bytes(t, types_);
        if (!bytes) {
            why_ = bytes.error();
            return false;
        }
        t.bytes = *bytes;
        return true;
    }

    template <class T, class Name>
    bool check_unique(const std::vector<T>& all, const Name& name, const char* what) {
        std::vector<std::string_view> names;
        names.reserve(all.size());
        for (const T& one : all) {
            names.push_back(name(one));
        }
        std::sort(names.begin(), names.end());
        const auto twin = std::adjacent_find(names.begin(), names.end());
        return twin == names.end() || fail(std::string("the ") + what + " " + in_quotes(*twin) + " appears twice");
    }

    /// Tensors lie one after the other, each at the next multiple of the alignment, and nothing follows the last.
    bool check_layout(gguf_header& out) {
        if (out.tensors.empty()) {
            return left() < out.alignment || fail("the file goes on after its header, but has no tensors");
        }
        std::uint64_t at = 0;
        if (!checked_align(at_, out.alignment, out.data_begin) || out.data_begin > file_.size()) {
            return cut_short();
        }
        const std::uint64_t size = file_.size() - out.data_begin;
        std::uint64_t end = 0;
        for (const gguf_tensor& t : out.tensors) {
            if (t.offset != at) {
                return fail("tensor " + in_quotes(t.name) + " has offset " + std::to_string(t.offset) + ", expected " +
                            std::to_string(at) + ": tensors must follow each other at the alignment");
            }
            if (!checked_add(at, t.bytes, end) || end > size) {
                return fail("tensor " + in_quotes(t.name) + " reaches past the end of the file; it was cut short");
            }
            if (!checked_align(end, out.alignment, at)) {
                return fail("the tensors are larger than 2^64 bytes together");
            }
        }
        return size <= at || fail("the file has " + std::to_string(size - at) + " bytes that belong to no tensor");
    }

    std::span<const std::byte> file_;
    std::span<const quantized_type> types_;
    std::size_t at_ = 0;
    status why_ = {};
};

/// Reads and checks everything before the tensor data, and that the data are all there.
[[nodiscard]] inline result<gguf_header> read_gguf_header(std::span<const std::byte> file,
                                                          std::span<const quantized_type> types = quantized_types()) {
    return gguf_reader(file, types).run();
}

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_CONTAINERS_DETAIL_GGUF_READER_HPP
