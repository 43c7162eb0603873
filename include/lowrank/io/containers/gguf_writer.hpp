// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CONTAINERS_GGUF_WRITER_HPP
#define LOWRANK_IO_CONTAINERS_GGUF_WRITER_HPP

/// \file
/// Writes GGUF version 3 files, whole or not at all.
///
///     auto why = lowrank::write_gguf("adapter.gguf", {{"general.type", lowrank::gguf_value::of("adapter")}},
///                                    {lowrank::gguf_tensor_of("blk.0.attn_q.weight.lora_a", lora_A)});

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
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
#include <lowrank/io/containers/detail/gguf_reader.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/containers/gguf_value.hpp>
#include <lowrank/io/containers/mapped_file.hpp>
#include <lowrank/quant/formats/ggml_blocks.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// One tensor for a file: bytes borrowed, or kept alive by `owned`.
struct gguf_tensor_to_write {
    std::string name = {};
    ggml_type type = ggml_type::f32;
    std::vector<std::uint64_t> ne = {};  ///< The fastest dimension first.
    std::span<const std::byte> bytes = {};
    std::shared_ptr<const std::vector<std::byte>> owned = {};
};

/// A matrix (ne = {cols, rows}) or vector (ne = {size}) of floats, rounded to `type`.
/// \pre `type` can be written by `quantize_ggml`; the rows are whole blocks of it; the values are finite.
template <detail::eigen_dense D>
[[nodiscard]] gguf_tensor_to_write gguf_tensor_of(std::string name, const D& x, ggml_type type = ggml_type::f32,
                                                  std::span<const quantized_type> types = quantized_types()) {
    const row_matrix<float> rows = x.template cast<float>();
    const bool is_vector = detail::plain_t<D>::IsVectorAtCompileTime;
    detail::expects((is_vector ? rows.size() : rows.cols()) % static_cast<index>(facts_of(type, types).block) == 0,
                    "gguf_tensor_of: rows must be whole blocks of the type");
    const std::span<const float> values(rows.data(), static_cast<std::size_t>(rows.size()));
    auto bytes = std::make_shared<std::vector<std::byte>>(ggml_bytes(type, values.size(), types));
    quantize_ggml(type, values, *bytes, types);
    gguf_tensor_to_write out{.name = std::move(name), .type = type, .bytes = *bytes, .owned = bytes};
    if (is_vector) {
        out.ne = {static_cast<std::uint64_t>(rows.size())};
    } else {
        out.ne = {static_cast<std::uint64_t>(rows.cols()), static_cast<std::uint64_t>(rows.rows())};
    }
    return out;
}

namespace detail {

template <class T>
void append_raw(std::string& out, T value) {
    char bytes[sizeof(T)];
    std::memcpy(bytes, &value, sizeof(T));
    out.append(bytes, sizeof(T));
}
inline void append_gguf_string(std::string& out, std::string_view text) {
    append_raw(out, static_cast<std::uint64_t>(text.size()));
    out += text;
}

inline void append_gguf_value(std::string& out, const gguf_value& v) {
    append_raw(out, static_cast<std::int32_t>(v.type));
    if (v.type == gguf_type::string) {
        append_gguf_string(out, v.text);
    } else if (v.type != gguf_type::array) {
        out.append(reinterpret_cast<const char*>(&v.bits), size_of(v.type));
    } else {
        append_raw(out, static_cast<std::int32_t>(v.element));
        if (v.element == gguf_type::string) {
            append_raw(out, static_cast<std::uint64_t>(v.texts.size()));
            for (const std::string& text : v.texts) {
                append_gguf_string(out, text);
            }
        } else {
            append_raw(out, static_cast<std::uint64_t>(v.elements.size() / size_of(v.element)));
            out.append(reinterpret_cast<const char*>(v.elements.data()), v.elements.size());
        }
    }
}

}  // namespace detail

/// What a streamed file will hold: a tensor without its data.
struct gguf_tensor_plan {
    std::string name = {};
    ggml_type type = ggml_type::f32;
    std::vector<std::uint64_t> ne = {};  ///< The fastest dimension first.
};

/// Writes a file tensor by tensor in bounded memory: keys and shapes first, then the data in the order of the plans.
///
///     auto file = lowrank::gguf_writer::create("model.gguf", entries, plans);
///     for (const auto& p : plans) file->write(bytes_of(p.name));     // as many pieces per tensor as you like
///     auto why = file->commit();
class gguf_writer {
public:
    /// \return `invalid_format` for what our own reader would refuse (a key or name that repeats, is empty or too long,
    ///         an alignment that is no power of two); what `atomic_file` says.
    [[nodiscard]] static result<gguf_writer> create(const std::filesystem::path& path,
                                                    const std::vector<gguf_entry>& entries,
                                                    const std::vector<gguf_tensor_plan>& plans,
                                                    const write_options& opt = {},
                                                    std::span<const quantized_type> types = quantized_types()) {
        std::string header("GGUF\3\0\0\0", 8);
        detail::append_raw(header, static_cast<std::uint64_t>(plans.size()));
        detail::append_raw(header, static_cast<std::uint64_t>(entries.size()));
        std::uint64_t alignment = detail::gguf_default_alignment;
        for (const gguf_entry& e : entries) {
            if (e.key == "general.alignment" && e.value.type == gguf_type::u32 && std::has_single_bit(e.value.bits)) {
                alignment = e.value.bits;
            }
            detail::append_gguf_string(header, e.key);
            detail::append_gguf_value(header, e.value);
        }
        std::uint64_t at = 0;
        std::vector<std::uint64_t> sizes;
        for (const gguf_tensor_plan& t : plans) {
            const auto bytes = detail::gguf_tensor_bytes({.name = t.name, .type = t.type, .ne = t.ne}, types);
            if (!bytes) {
                return detail::in_file(path, bytes.error());
            }
            sizes.push_back(*bytes);
            detail::append_gguf_string(header, t.name);
            detail::append_raw(header, static_cast<std::uint32_t>(t.ne.size()));
            for (const std::uint64_t n : t.ne) {
                detail::append_raw(header, n);
            }
            detail::append_raw(header, static_cast<std::int32_t>(t.type));
            detail::append_raw(header, at);
            std::uint64_t end = 0;
            if (!detail::checked_add(at, *bytes, end) || !detail::checked_align(end, alignment, at)) {
                return detail::in_file(path, {errc::invalid_format, "the tensors are larger than 2^64 bytes together"});
            }
        }
        if (!plans.empty()) {
            header.append((alignment - header.size() % alignment) % alignment, '\0');
        }
        auto file = atomic_file::create(path, opt);
        if (!file) {
            return file.error();
        }
        if (status why = file->write(header); !why) {
            return why;
        }
        return gguf_writer(std::move(*file), path, std::move(sizes), alignment, types);
    }

    /// Appends the next bytes of the data. \pre no more than the plans describe.
    status write(std::span<const std::byte> bytes) {
        while (!bytes.empty()) {
            detail::expects(tensor_ < sizes_.size(), "gguf_writer::write: more data than described");
            const auto part = bytes.first(
                static_cast<std::size_t>(std::min<std::uint64_t>(bytes.size(), sizes_[tensor_] - in_tensor_)));
            if (status why = file_.write(part); !why) {
                return why;
            }
            bytes = bytes.subspan(part.size());
            in_tensor_ += part.size();
            if (status why = finish_tensors(); !why) {
                return why;
            }
        }
        return {};
    }

    /// Completes the file. \pre all data were written, unless a write failed.
    /// \return `invalid_format` for what our own reader would refuse: it is not left behind.
    status commit() {
        if (status why = finish_tensors(); !why) {
            return why;
        }
        if (status why = file_.write(std::span<const std::byte>{}); !why) {
            return why;  // an earlier write failed
        }
        detail::expects(tensor_ == sizes_.size(), "gguf_writer::commit: less data than described");
        const auto written = mapped_file::open(file_.temporary());
        if (!written) {
            return written.error();
        }
        if (const auto check = detail::read_gguf_header(written->bytes(), types_); !check) {
            return detail::in_file(path_, check.error());
        }
        return file_.commit();
    }

private:
    gguf_writer(atomic_file file, std::filesystem::path path, std::vector<std::uint64_t> sizes, std::uint64_t alignment,
                std::span<const quantized_type> types)
        : file_(std::move(file)),
          path_(std::move(path)),
          sizes_(std::move(sizes)),
          alignment_(alignment),
          types_(types) {}

    /// Pads what is complete and steps over it.
    status finish_tensors() {
        static constexpr std::array<std::byte, 4096> zeros{};
        while (tensor_ < sizes_.size() && in_tensor_ == sizes_[tensor_]) {
            for (std::uint64_t pad = (alignment_ - in_tensor_ % alignment_) % alignment_; pad != 0;) {
                const auto count = static_cast<std::size_t>(std::min<std::uint64_t>(pad, zeros.size()));
                if (status why = file_.write(std::span(zeros).first(count)); !why) {
                    return why;
                }
                pad -= count;
            }
            ++tensor_;
            in_tensor_ = 0;
        }
        return {};
    }

    atomic_file file_;
    std::filesystem::path path_;
    std::vector<std::uint64_t> sizes_;
    std::uint64_t alignment_;
    std::span<const quantized_type> types_;
    std::size_t tensor_ = 0;
    std::uint64_t in_tensor_ = 0;
};

/// Writes keys and tensors in the order given.
///
/// \pre    the bytes of each tensor are as many as its type and dimensions say; arrays hold whole scalars.
/// \return as `gguf_writer`.
inline status write_gguf(const std::filesystem::path& path, const std::vector<gguf_entry>& entries,
                         const std::vector<gguf_tensor_to_write>& tensors, const write_options& opt = {},
                         std::span<const quantized_type> types = quantized_types()) {
    std::vector<gguf_tensor_plan> plans;
    for (const gguf_tensor_to_write& t : tensors) {
        const auto bytes = detail::gguf_tensor_bytes({.name = t.name, .type = t.type, .ne = t.ne}, types);
        if (!bytes) {
            return detail::in_file(path, bytes.error());
        }
        if (*bytes != t.bytes.size()) {
            detail::fail_contract_with("write_gguf: tensor ", detail::in_quotes(t.name), " has ", t.bytes.size(),
                                       " bytes, its type and dimensions need ", *bytes);
        }
        plans.push_back({t.name, t.type, t.ne});
    }
    auto file = gguf_writer::create(path, entries, plans, opt, types);
    if (!file) {
        return file.error();
    }
    for (const gguf_tensor_to_write& t : tensors) {
        if (status why = file->write(t.bytes); !why) {
            return why;
        }
    }
    return file->commit();
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_CONTAINERS_GGUF_WRITER_HPP
