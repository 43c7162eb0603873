// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CONTAINERS_DETAIL_SAFETENSORS_HEADER_IPP
#define LOWRANK_IO_CONTAINERS_DETAIL_SAFETENSORS_HEADER_IPP

#include <lowrank/io/containers/detail/safetensors_header.hpp>

#include <algorithm>
#include <cstring>
#include <optional>
#include <tuple>
#include <utility>

#include <nlohmann/json.hpp>

namespace lowrank::inline LOWRANK_ABI::detail {

/// Receives the events of the JSON parser and keeps where it is in a fixed number of states. It never recurses, and
/// what it stores is bounded by the bytes it has seen.
class safetensors_handler {
public:
    using json = nlohmann::json;

    std::vector<tensor_info> tensors = {};
    std::map<std::string, std::string> metadata = {};
    status why = {};

    bool start_object(std::size_t) {
        if (!enter()) {
            return false;
        }
        switch (at_) {
            case place::start: at_ = place::names; return true;
            case place::metadata_value: at_ = place::metadata_keys; return true;
            case place::tensor_value: at_ = place::fields; return true;
            case place::ignored: return true;
            default: return unexpected("an object");
        }
    }
    bool end_object() {
        --depth_;
        switch (at_) {
            case place::metadata_keys: at_ = place::names; return true;
            case place::fields: at_ = place::names; return finish_tensor();
            case place::names: return true;
            default: return leave_ignored();
        }
    }
    bool start_array(std::size_t) {
        if (!enter()) {
            return false;
        }
        switch (at_) {
            case place::shape_value: at_ = place::shape_items; return true;
            case place::offsets_value: at_ = place::offsets_items; return true;
            case place::ignored: return true;
            default: return unexpected("an array");
        }
    }
    bool end_array() {
        --depth_;
        if (at_ == place::shape_items) {
            at_ = place::fields;
            return true;
        }
        if (at_ == place::offsets_items) {
            at_ = place::fields;
            return offset_count_ == 2 || fail("data_offsets of tensor " + in_quotes(current_.name) +
                                              " must be two numbers, got " + std::to_string(offset_count_));
        }
        return leave_ignored();
    }
    bool key(std::string& name) {
        switch (at_) {
            case place::names: return start_member(name);
            case place::metadata_keys:
                metadata_key_ = std::move(name);
                return !metadata.contains(metadata_key_) ||
                       fail("the metadata key " + in_quotes(metadata_key_) + " appears twice");
            case place::fields: return start_field(name);
            default: return true;
        }
    }
    bool string(std::string& text) {
        switch (at_) {
            case place::metadata_keys: metadata.emplace(std::move(metadata_key_), std::move(text)); return true;
            case place::dtype_value: {
                const auto type = dtype_named(text);
                if (!type) {
                    return fail("tensor " + in_quotes(current_.name) + " has the unknown dtype " + in_quotes(text));
                }
                current_.type = *type;
                at_ = place::fields;
                return true;
            }
            default: return scalar("a string");
        }
    }
    bool number_unsigned(std::uint64_t value) {
        if (at_ == place::shape_items) {
            current_.shape.push_back(value);
            return true;
        }
        if (at_ == place::offsets_items) {
            if (offset_count_ < 2) {
                (offset_count_ == 0 ? current_.begin : current_.end) = value;
            }
            ++offset_count_;
            return true;
        }
        return scalar("a number");
    }
    bool number_integer(std::int64_t) { return scalar("a negative number"); }
    bool number_float(double, const std::string&) { return scalar("a number that is not a 64-bit integer"); }
    bool boolean(bool) { return scalar("a boolean"); }
    bool binary(json::binary_t&) { return scalar("binary data"); }
    bool null() {
        if (at_ == place::metadata_value) {  // the reference implementation reads null as "none"
            at_ = place::names;
            return true;
        }
        return scalar("null");
    }
    bool parse_error(std::size_t position, const std::string&, const json::exception&) {
        return fail("the header is not valid JSON near its byte " + std::to_string(position));
    }

private:
    enum class place {
        start,           // before the root object
        names,           // at a member of the root object
        metadata_value,  // after "__metadata__":
        metadata_keys,   // inside it
        tensor_value,    // after a tensor's name
        fields,          // inside a tensor's object
        dtype_value,
        shape_value,
        shape_items,
        offsets_value,
        offsets_items,
        ignored,  // inside the value of an unknown field
    };

    bool fail(std::string text) {
        why = {errc::invalid_format, std::move(text)};
        return false;
    }

    bool enter() {
        constexpr int deepest = 127;  // serde_json's limit
        return ++depth_ <= deepest || fail("the header nests more than 127 levels deep");
    }

    /// A scalar where one may stand only if it belongs to an unknown field.
    bool scalar(const char* what) {
        if (at_ != place::ignored) {
            return unexpected(what);
        }
        return leave_ignored();
    }

    /// After a whole value inside an unknown field: the field ends when the depth is that of its tensor again.
    bool leave_ignored() {
        if (depth_ == 2) {
            at_ = place::fields;
        }
        return true;
    }

    bool unexpected(const char* what) {
        switch (at_) {
            case place::start: return fail(std::string("the header must be a JSON object, not ") + what);
            case place::metadata_value: return fail(std::string("__metadata__ must be an object, not ") + what);
            case place::metadata_keys:
                return fail("the metadata value of " + in_quotes(metadata_key_) + " must be a string, not " + what);
            case place::tensor_value:
                return fail("the entry of tensor " + in_quotes(current_.name) + " must be an object, not " + what);
            case place::dtype_value:
                return fail("dtype of tensor " + in_quotes(current_.name) + " must be a string, not " + what);
            case place::shape_value:
            case place::shape_items:
                return fail("shape of tensor " + in_quotes(current_.name) +
                            " must be an array of non-negative 64-bit integers, got " + what);
            default:
                return fail("data_offsets of tensor " + in_quotes(current_.name) +
                            " must be two non-negative 64-bit integers, got " + what);
        }
    }

    bool start_member(std::string& name) {
        if (name == "__metadata__") {
            if (std::exchange(has_metadata_, true)) {
                return fail("__metadata__ appears twice");
            }
            at_ = place::metadata_value;
            return true;
        }
        current_ = {};
        current_.name = std::move(name);
        has_dtype_ = has_shape_ = has_offsets_ = false;
        at_ = place::tensor_value;
        return true;
    }

    bool start_field(const std::string& name) {
        bool* seen = nullptr;
        if (name == "dtype") {
            seen = &has_dtype_;
            at_ = place::dtype_value;
        } else if (name == "shape") {
            seen = &has_shape_;
            at_ = place::shape_value;
        } else if (name == "data_offsets") {
            seen = &has_offsets_;
            offset_count_ = 0;
            at_ = place::offsets_value;
        } else {
            at_ = place::ignored;
            return true;
        }
        return !std::exchange(*seen, true) ||
               fail("tensor " + in_quotes(current_.name) + " has the field " + in_quotes(name) + " twice");
    }

    bool finish_tensor() {
        const char* missing = !has_dtype_ ? "dtype" : !has_shape_ ? "shape" : !has_offsets_ ? "data_offsets" : nullptr;
        if (missing != nullptr) {
            return fail("tensor " + in_quotes(current_.name) + " has no " + missing);
        }
        current_.shape.shrink_to_fit();
        tensors.push_back(std::move(current_));
        return true;
    }

    place at_ = place::start;
    int depth_ = 0;
    bool has_metadata_ = false;
    bool has_dtype_ = false;
    bool has_shape_ = false;
    bool has_offsets_ = false;
    std::size_t offset_count_ = 0;
    std::string metadata_key_ = {};
    tensor_info current_ = {};
};

LOWRANK_BODY result<std::uint64_t> tensor_bytes(std::string_view name, dtype type,
                                                std::span<const std::uint64_t> shape) {
    std::uint64_t bits = 1;
    bool fits = true;
    for (const std::uint64_t extent : shape) {  // in order: [0, huge, huge] is no overflow, [huge, huge, 0] is one
        fits = fits && checked_multiply(bits, extent, bits);
    }
    if (!fits || !checked_multiply(bits, bits_of(type), bits)) {
        return status{errc::invalid_format, "the shape of tensor " + in_quotes(name) + " overflows 64 bits"};
    }
    if (bits % 8 != 0) {
        return status{errc::invalid_format, "tensor " + in_quotes(name) + " of dtype " + std::string(name_of(type)) +
                                                " does not end at a whole byte"};
    }
    return bits / 8;
}

LOWRANK_BODY status check_layout(const std::vector<tensor_info>& tensors, std::uint64_t size) {
    std::uint64_t at = 0;
    for (const tensor_info& t : tensors) {
        if (t.begin != at || t.end < t.begin) {
            return {errc::invalid_format, "tensor " + in_quotes(t.name) + " has data_offsets [" +
                                              std::to_string(t.begin) + ", " + std::to_string(t.end) +
                                              "], expected them to start at " + std::to_string(at) +
                                              ": tensors must follow each other without holes"};
        }
        const auto bytes = tensor_bytes(t.name, t.type, t.shape);
        if (!bytes) {
            return bytes.error();
        }
        if (t.end - t.begin != *bytes) {
            return {errc::invalid_format, "tensor " + in_quotes(t.name) + " has " + std::to_string(t.end - t.begin) +
                                              " bytes of data, but its shape and dtype need " + std::to_string(*bytes)};
        }
        at = t.end;
    }
    if (at != size) {
        return {errc::invalid_format,
                at > size ? "the file ends after " + std::to_string(size) + " bytes of tensor data, " +
                                std::to_string(at) + " are described; it was cut short, copy or download it again"
                          : "the file has " + std::to_string(size - at) + " bytes that belong to no tensor"};
    }
    return {};
}

LOWRANK_BODY result<safetensors_header> read_safetensors_header(std::span<const std::byte> file) {
    const auto bad = [](std::string text) { return status{errc::invalid_format, std::move(text)}; };
    const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
    if (text.starts_with("version https://git-lfs")) {
        return bad("this is a Git LFS pointer, not the data; run \"git lfs pull\" in the repository it came from");
    }
    if (file.size() < 8) {
        return bad("the file has " + std::to_string(file.size()) + " bytes, a safetensors file has at least 8");
    }
    std::uint64_t length = 0;
    for (std::size_t i = 8; i-- > 0;) {
        length = length << 8 | static_cast<std::uint64_t>(file[i]);
    }
    if (length > longest_safetensors_header) {
        const bool is_zip = text.starts_with("PK\x03\x04");  // what torch.save writes since 1.6
        if (is_zip || (text[0] == '\x80' && text[1] >= 2 && text[1] <= 5)) {
            return status{errc::unsupported,
                          "this is a pickle, whatever its name says: it can run code when it is read, and is refused; "
                          "save the weights as safetensors"};
        }
        if (text.starts_with("GGUF")) {
            return status{errc::unsupported, "this is a GGUF file, not a safetensors file"};
        }
        return bad("the header claims " + std::to_string(length) +
                   " bytes, more than the 100000000 allowed; this is not a safetensors file");
    }
    if (length > file.size() - 8) {
        return bad("the header claims " + std::to_string(length) + " bytes, the file has " +
                   std::to_string(file.size() - 8) + " after the length; it was cut short, copy or download it again");
    }
    const std::string_view header = text.substr(8, static_cast<std::size_t>(length));
    // The JSON parser would take a NUL for the end of input and skip a byte order mark; the format allows neither.
    if (header.find('\0') != std::string_view::npos || header.starts_with("\xEF\xBB\xBF")) {
        return bad("the header holds a NUL byte or starts with a byte order mark");
    }
    if (!is_utf8(header)) {
        return bad("the header is not UTF-8 text");
    }
    safetensors_handler handler;
    if (!nlohmann::json::sax_parse(header.begin(), header.end(), &handler)) {
        return handler.why ? bad("the header is not valid JSON") : handler.why;
    }

    safetensors_header out;
    out.data_begin = 8 + length;
    out.metadata = std::move(handler.metadata);
    out.tensors = std::move(handler.tensors);
    std::sort(out.tensors.begin(), out.tensors.end(),
              [](const tensor_info& a, const tensor_info& b) { return a.name < b.name; });
    const auto twin = std::adjacent_find(out.tensors.begin(), out.tensors.end(),
                                         [](const tensor_info& a, const tensor_info& b) { return a.name == b.name; });
    if (twin != out.tensors.end()) {
        return bad("the tensor name " + in_quotes(twin->name) + " appears twice");
    }
    std::sort(out.tensors.begin(), out.tensors.end(), [](const tensor_info& a, const tensor_info& b) {
        return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
    });
    if (status why = check_layout(out.tensors, file.size() - out.data_begin); !why) {
        return why;
    }
    return out;
}

}  // namespace lowrank::inline LOWRANK_ABI::detail

#endif  // LOWRANK_IO_CONTAINERS_DETAIL_SAFETENSORS_HEADER_IPP
