// SPDX-License-Identifier: MIT
#ifndef LOWRANK_IO_CONTAINERS_CHECKPOINT_IPP
#define LOWRANK_IO_CONTAINERS_CHECKPOINT_IPP

#include <lowrank/io/containers/checkpoint.hpp>

#include <algorithm>

#include <lowrank/io/containers/detail/json.hpp>

namespace lowrank::inline LOWRANK_ABI {

namespace detail {

/// Reads {"weight_map": {tensor: file name}}; everything else in the document is skipped.
class index_handler {
public:
    std::vector<index_entry> entries = {};
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

LOWRANK_BODY result<std::vector<index_entry>> read_index(std::span<const std::byte> bytes) {
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

LOWRANK_BODY status check_link(const std::filesystem::path& folder, const std::filesystem::path& file) {
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
                                   " leads out of its folder and is not followed: put a copy of the file in its place"};
}

LOWRANK_BODY result<checkpoint> checkpoint::collect(std::vector<shard> shards) {
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

LOWRANK_BODY result<checkpoint::shard> checkpoint::open_shard(const std::filesystem::path& folder,
                                                              const std::string& name, const checkpoint_options& opt) {
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

LOWRANK_BODY result<checkpoint> checkpoint::open_index(const std::filesystem::path& path,
                                                       const checkpoint_options& opt) {
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

LOWRANK_BODY std::vector<std::filesystem::path> model_folders(const std::filesystem::path& folder) {
    std::vector<std::filesystem::path> out;
    std::error_code ignored;
    const auto has_model = [&](const std::filesystem::path& path) {
        for (const char* name :
             {"model.safetensors", "model.safetensors.index.json", "diffusion_pytorch_model.safetensors",
              "diffusion_pytorch_model.safetensors.index.json"}) {
            if (std::filesystem::exists(path / name, ignored)) {
                return true;
            }
        }
        return false;
    };
    for (const auto& below : {folder, folder / "snapshots"}) {  // of the Hugging Face cache
        std::error_code error;
        auto entry = std::filesystem::directory_iterator(below, error);
        for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
            if (!entry->is_symlink(ignored) && entry->is_directory(ignored) && has_model(entry->path())) {
                out.push_back(entry->path());
            }
        }
    }
    std::sort(out.begin(), out.end());
    return out;
}

LOWRANK_BODY result<checkpoint> checkpoint::open(const std::filesystem::path& path, const checkpoint_options& opt) {
    std::error_code ignored;
    if (std::filesystem::is_directory(path, ignored)) {
        for (const char* name : {"model.safetensors", "diffusion_pytorch_model.safetensors"}) {
            const std::string list = name + std::string(".index.json");
            if (std::filesystem::exists(path / name, ignored)) {
                auto only = open_shard(path, name, opt);
                return only ? collect({std::move(*only)}) : result<checkpoint>(only.error());
            }
            if (std::filesystem::exists(path / list, ignored)) {
                return open_index(path / list, opt);
            }
        }
        for (const char* pickle : {"pytorch_model.bin", "pytorch_model.bin.index.json"}) {
            if (std::filesystem::exists(path / pickle, ignored)) {
                return status{errc::unsupported,
                              detail::path_in_quotes(path / pickle) +
                                  " is a pickle, which can run code when it is read, and is refused; save the model "
                                  "again with save_pretrained(safe_serialization=True)"};
            }
        }
        std::string inside;
        for (const std::filesystem::path& folder : model_folders(path)) {
            inside += (inside.empty() ? "; its sub-folders with a model are " : ", ") +
                      detail::path_in_quotes(folder.lexically_relative(path));
        }
        return status{errc::not_found,
                      "there is no model.safetensors, model.safetensors.index.json or "
                      "diffusion_pytorch_model.safetensors in " +
                          detail::path_in_quotes(path) + inside};
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

#endif  // LOWRANK_IO_CONTAINERS_CHECKPOINT_IPP
