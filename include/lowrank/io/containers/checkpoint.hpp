// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CONTAINERS_CHECKPOINT_HPP
#define LOWRANK_IO_CONTAINERS_CHECKPOINT_HPP

/// \file
/// A model's weights by name, whether they lie in one safetensors file or in many.
///
///     auto model = lowrank::checkpoint::open("Llama-3-8B");       // a folder, a file, or an index.json
///     if (!model) return log(model.error().message);
///     auto w = model->matrix<float>("model.layers.0.mlp.up_proj.weight");
///
/// Layout of sharded checkpoints: huggingface/transformers, model.safetensors.index.json.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/io/containers/detail/json.hpp>
#include <lowrank/io/containers/detail/text.hpp>
#include <lowrank/io/containers/mapped_file.hpp>
#include <lowrank/io/containers/safetensors.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// True for a plain file name that stays in its folder on every system.
[[nodiscard]] inline bool is_plain_name(std::string_view name) noexcept {
    return !name.empty() && name != "." && name != ".." && name.find_first_of("/\\:") == std::string_view::npos &&
           std::none_of(name.begin(), name.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20; });
}

/// Reads {"weight_map": {tensor: file name}}; everything else in the document is skipped.
class index_handler {
public:
    struct entry {
        std::string tensor;
        std::string file;
    };
    std::vector<entry> entries = {};
    bool has_map = false;
    status why = {};

    bool null() { return other("null"); }
    bool boolean(bool) { return other("a boolean"); }
    bool number_integer(std::int64_t) { return other("a number"); }
    bool number_unsigned(std::uint64_t) { return other("a number"); }
    bool number_float(double, const std::string&) { return other("a number"); }
    bool binary(json::binary_t&) { return other("binary data"); }
    bool string(std::string& text) {
        if (!in_map_) {
            return other("a string");
        }
        if (!is_plain_name(text) || !text.ends_with(".safetensors")) {
            return fail("the weight_map sends tensor " + in_quotes(entries.back().tensor) + " to " + in_quotes(text) +
                        "; only names of .safetensors files in the same folder are allowed");
        }
        entries.back().file = std::move(text);
        return true;
    }
    bool start_object(std::size_t) {
        if (!enter()) {
            return false;
        }
        if (depth_ == 2 && at_map_) {
            in_map_ = true;
            at_map_ = false;
            return true;
        }
        return in_map_ ? other("an object") : true;
    }
    bool end_object() {
        --depth_;
        in_map_ = in_map_ && depth_ != 1;
        return true;
    }
    bool start_array(std::size_t) { return other("an array") && enter(); }
    bool end_array() {
        --depth_;
        return true;
    }
    bool key(std::string& name) {
        if (in_map_) {
            entries.push_back({std::move(name), {}});
        } else if (depth_ == 1 && name == "weight_map") {
            at_map_ = true;
            return !std::exchange(has_map, true) || fail("weight_map appears twice");
        }
        return true;
    }
    bool parse_error(std::size_t position, const std::string&, const json::exception&) {
        return fail("the text is not valid JSON near its byte " + std::to_string(position));
    }

private:
    bool fail(std::string text) {
        why = {errc::invalid_format, std::move(text)};
        return false;
    }
    bool enter() {
        constexpr int deepest = 64;
        return ++depth_ <= deepest || fail("the JSON nests more than 64 levels deep");
    }
    bool other(const char* what) {
        if (in_map_) {
            return fail("the weight_map entry of tensor " + in_quotes(entries.back().tensor) +
                        " must be a file name, not " + what);
        }
        if (at_map_) {
            return fail(std::string("weight_map must be an object, not ") + what);
        }
        return depth_ != 0 || fail(std::string("the index must be a JSON object, not ") + what);
    }

    int depth_ = 0;
    bool at_map_ = false;  // the next value is that of weight_map
    bool in_map_ = false;
};

/// The entries of an index.json, sorted by tensor.
[[nodiscard]] inline result<std::vector<index_handler::entry>> read_index(std::span<const std::byte> bytes) {
    index_handler handler;
    if (status why = read_json_events(text_of(bytes), handler); !why) {
        return why;
    }
    if (!handler.has_map) {
        return status{errc::invalid_format, "the index has no weight_map"};
    }
    auto& entries = handler.entries;
    std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.tensor < b.tensor; });
    const auto twin = std::adjacent_find(entries.begin(), entries.end(),
                                         [](const auto& a, const auto& b) { return a.tensor == b.tensor; });
    if (twin != entries.end()) {
        return status{errc::invalid_format, "the weight_map has tensor " + in_quotes(twin->tensor) + " twice"};
    }
    return std::move(entries);
}

}  // namespace detail

/// Succeeds unless `file`, of the folder `folder`, is a symbolic link that leads elsewhere: a folder from elsewhere must
/// not make a program read another file of this machine. A link may lead to a file of the same folder, or to where the
/// Hugging Face cache keeps files: ../../blobs.
[[nodiscard]] inline status check_link(const std::filesystem::path& folder, const std::filesystem::path& file) {
    std::error_code error;
    if (!std::filesystem::is_symlink(file, error)) {
        return {};
    }
    const auto home = std::filesystem::canonical(folder, error);
    const auto target = std::filesystem::canonical(file, error).parent_path();
    if (error) {
        return {errc::not_found, "the link " + detail::path_in_quotes(file) + " leads nowhere"};
    }
    if (target == home || target == home.parent_path().parent_path() / "blobs") {
        return {};
    }
    return {errc::unsupported, "the link " + detail::path_in_quotes(file) +
                                   " leads out of its folder and is not followed; copy the file, or set follow_links"};
}

struct checkpoint_options {
    bool follow_links = false;  ///< Open shards that are symbolic links to anywhere.
    bool map = true;            ///< As in `mapping_options`.
};

/// The tensors of one or more safetensors files. Copies are cheap and share the files.
/// All members are const and safe to call concurrently.
class checkpoint {
public:
    /// Opens a safetensors file, an index.json with its shards, or a folder that holds `model.safetensors` or
    /// `model.safetensors.index.json`.
    ///
    /// \return `not_found` for a missing file or shard; `invalid_format` for a broken one, names that leave the folder,
    ///         a tensor that is listed but not in its shard or that lies in two shards; `unsupported` for pickle files.
    /// \cost   reads headers only.
    [[nodiscard]] static result<checkpoint> open(const std::filesystem::path& path, const checkpoint_options& opt = {});

    /// One of the files behind it.
    struct shard {
        std::filesystem::path path;
        safetensors_file file;
    };
    [[nodiscard]] const std::vector<shard>& shards() const noexcept { return content_->shards; }

    /// Where a tensor lies.
    struct place {
        std::size_t shard;
        const tensor_info* info;
    };
    /// Every tensor, sorted by name.
    [[nodiscard]] const std::vector<place>& tensors() const noexcept { return content_->places; }

    /// The tensor of this name, or null. \cost O(log tensors)
    [[nodiscard]] const tensor_info* find(std::string_view name) const noexcept {
        const place* at = locate(name);
        return at != nullptr ? at->info : nullptr;
    }

    /// The raw bytes of a tensor. \pre `p` is one of `tensors()`.
    [[nodiscard]] std::span<const std::byte> bytes(const place& p) const noexcept {
        return shards()[p.shard].file.bytes(*p.info);
    }
    [[nodiscard]] result<std::span<const std::byte>> bytes(std::string_view name) const {
        const place* at = locate(name);
        return at != nullptr ? result<std::span<const std::byte>>(bytes(*at)) : missing(name);
    }

    /// As the members of `safetensors_file` of the same name.
    template <storage T>
    [[nodiscard]] result<const_weight_view<T>> view(std::string_view name) const {
        const place* at = locate(name);
        return at != nullptr ? shards()[at->shard].file.template view<T>(name)
                             : result<const_weight_view<T>>(missing(name));
    }
    template <real S>
    [[nodiscard]] result<row_matrix<S>> matrix(std::string_view name) const {
        const place* at = locate(name);
        return at != nullptr ? shards()[at->shard].file.template matrix<S>(name) : result<row_matrix<S>>(missing(name));
    }
    template <real S>
    [[nodiscard]] result<lowrank::vector<S>> vector(std::string_view name) const {
        const place* at = locate(name);
        return at != nullptr ? shards()[at->shard].file.template vector<S>(name)
                             : result<lowrank::vector<S>>(missing(name));
    }

private:
    struct content {
        std::vector<shard> shards;
        std::vector<place> places;
    };

    explicit checkpoint(std::shared_ptr<const content> c) : content_(std::move(c)) {}

    static result<checkpoint> collect(std::vector<shard> shards);
    static result<checkpoint> open_index(const std::filesystem::path& path, const checkpoint_options& opt);
    static result<shard> open_shard(const std::filesystem::path& folder, const std::string& name,
                                    const checkpoint_options& opt);

    [[nodiscard]] const place* locate(std::string_view name) const noexcept {
        const auto& all = content_->places;
        const auto at = std::lower_bound(all.begin(), all.end(), name,
                                         [](const place& p, std::string_view n) { return p.info->name < n; });
        return at != all.end() && at->info->name == name ? &*at : nullptr;
    }

    static status missing(std::string_view name) {
        return {errc::not_found, "there is no tensor " + detail::in_quotes(name) + " in the checkpoint"};
    }

    std::shared_ptr<const content> content_;
};

inline result<checkpoint> checkpoint::collect(std::vector<shard> shards) {
    auto c = std::make_shared<content>();
    c->shards = std::move(shards);
    for (std::size_t s = 0; s < c->shards.size(); ++s) {
        for (const tensor_info& t : c->shards[s].file.tensors()) {
            c->places.push_back({s, &t});
        }
    }
    auto& all = c->places;
    std::sort(all.begin(), all.end(), [](const place& a, const place& b) { return a.info->name < b.info->name; });
    const auto twin = std::adjacent_find(all.begin(), all.end(),
                                         [](const place& a, const place& b) { return a.info->name == b.info->name; });
    if (twin != all.end()) {
        return status{errc::invalid_format, "tensor " + detail::in_quotes(twin->info->name) + " lies in two shards, " +
                                                detail::path_in_quotes(c->shards[twin->shard].path.filename()) +
                                                " and " +
                                                detail::path_in_quotes(c->shards[(twin + 1)->shard].path.filename())};
    }
    return checkpoint(std::move(c));
}

inline result<checkpoint::shard> checkpoint::open_shard(const std::filesystem::path& folder, const std::string& name,
                                                        const checkpoint_options& opt) {
    const std::filesystem::path path = folder / name;
    if (!opt.follow_links) {
        if (status why = check_link(folder.empty() ? std::filesystem::path(".") : folder, path); !why) {
            return why;
        }
    }
    auto file = safetensors_file::open(path, {.map = opt.map});
    if (!file) {
        return file.error();
    }
    return shard{path, std::move(*file)};
}

inline result<checkpoint> checkpoint::open_index(const std::filesystem::path& path, const checkpoint_options& opt) {
    auto text = mapped_file::open(path, {.map = opt.map});
    if (!text) {
        return text.error();
    }
    const auto entries = detail::read_index(text->bytes());
    if (!entries) {
        return detail::in_file(path, entries.error());
    }
    std::vector<std::string> names;
    for (const auto& e : *entries) {
        names.push_back(e.file);
    }
    std::sort(names.begin(), names.end());
    names.erase(std::unique(names.begin(), names.end()), names.end());
    std::vector<shard> shards;
    for (const std::string& name : names) {
        auto opened = open_shard(path.parent_path(), name, opt);
        if (!opened) {
            return opened.error();
        }
        shards.push_back(std::move(*opened));
    }
    for (const auto& e : *entries) {
        const auto at = static_cast<std::size_t>(std::lower_bound(names.begin(), names.end(), e.file) - names.begin());
        if (shards[at].file.find(e.tensor) == nullptr) {
            return detail::in_file(
                path, {errc::invalid_format,
                       "tensor " + detail::in_quotes(e.tensor) + " is not in its shard " + detail::in_quotes(e.file)});
        }
    }
    auto all = collect(std::move(shards));
    return all ? std::move(all) : result<checkpoint>(detail::in_file(path, all.error()));
}

inline result<checkpoint> checkpoint::open(const std::filesystem::path& path, const checkpoint_options& opt) {
    std::error_code ignored;
    if (std::filesystem::is_directory(path, ignored)) {
        if (std::filesystem::exists(path / "model.safetensors", ignored)) {
            auto only = open_shard(path, "model.safetensors", opt);
            return only ? collect({std::move(*only)}) : result<checkpoint>(only.error());
        }
        if (std::filesystem::exists(path / "model.safetensors.index.json", ignored)) {
            return open_index(path / "model.safetensors.index.json", opt);
        }
        for (const char* pickle : {"pytorch_model.bin", "pytorch_model.bin.index.json"}) {
            if (std::filesystem::exists(path / pickle, ignored)) {
                return status{errc::unsupported,
                              detail::path_in_quotes(path / pickle) +
                                  " is a pickle, which can run code when it is read, and is refused; save the model "
                                  "again with save_pretrained(safe_serialization=True)"};
            }
        }
        return status{errc::not_found, "there is no model.safetensors and no model.safetensors.index.json in " +
                                           detail::path_in_quotes(path)};
    }
    if (path.extension() == ".json") {
        return open_index(path, opt);
    }
    auto file = safetensors_file::open(path, {.map = opt.map});  // named by the caller, so links are followed
    if (!file) {
        return file.error();
    }
    return collect({shard{path, std::move(*file)}});
}

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_IO_CONTAINERS_CHECKPOINT_HPP
