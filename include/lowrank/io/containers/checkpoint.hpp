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

/// One line of an index: a tensor and the file it lies in.
struct index_entry {
    std::string tensor;
    std::string file;
};

/// The entries of an index.json, sorted by tensor.
LOWRANK_API [[nodiscard]] result<std::vector<index_entry>> read_index(std::span<const std::byte> bytes);

}  // namespace detail

/// Succeeds unless `file`, of the folder `folder`, is a symbolic link that leads elsewhere: a folder from elsewhere must
/// not make a program read another file of this machine. A link may lead to a file of the same folder, or to where the
/// Hugging Face cache keeps files: ../../blobs.
LOWRANK_API [[nodiscard]] status check_link(const std::filesystem::path& folder, const std::filesystem::path& file);

/// The sub-folders that hold a model: of a diffusion pipeline (`unet`, `text_encoder`, ...), or the snapshots of a
/// repository in the Hugging Face cache. Symbolic links are left out. Empty where there are none.
LOWRANK_API [[nodiscard]] std::vector<std::filesystem::path> model_folders(const std::filesystem::path& folder);

struct checkpoint_options {
    bool follow_links = false;  ///< Open shards that are symbolic links to anywhere.
    bool map = true;            ///< As in `mapping_options`.
};

/// The tensors of one or more safetensors files. Copies are cheap and share the files.
/// All members are const and safe to call concurrently.
class checkpoint {
public:
    /// Opens a safetensors file, an index.json with its shards, or a folder that holds `model.safetensors` or
    /// `model.safetensors.index.json`, or the same of `diffusion_pytorch_model`.
    ///
    /// \return `not_found` for a missing file or shard, with the sub-folders that hold a model; `invalid_format` for a broken one, names that leave the folder,
    ///         a tensor that is listed but not in its shard or that lies in two shards; `unsupported` for pickle files.
    /// \cost   reads headers only.
    LOWRANK_API [[nodiscard]] static result<checkpoint> open(const std::filesystem::path& path,
                                                             const checkpoint_options& opt = {});

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

    /// The place of the tensor of this name, or null. \cost O(log tensors)
    [[nodiscard]] const place* locate(std::string_view name) const noexcept {
        const auto& all = content_->places;
        const auto at = std::lower_bound(all.begin(), all.end(), name,
                                         [](const place& p, std::string_view n) { return p.info->name < n; });
        return at != all.end() && at->info->name == name ? &*at : nullptr;
    }

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

    LOWRANK_API static result<checkpoint> collect(std::vector<shard> shards);
    LOWRANK_API static result<checkpoint> open_index(const std::filesystem::path& path, const checkpoint_options& opt);
    LOWRANK_API static result<shard> open_shard(const std::filesystem::path& folder, const std::string& name,
                                                const checkpoint_options& opt);

    static status missing(std::string_view name) {
        return {errc::not_found, "there is no tensor " + detail::in_quotes(name) + " in the checkpoint"};
    }

    std::shared_ptr<const content> content_;
};

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/io/containers/checkpoint.ipp>
#endif

#endif  // LOWRANK_IO_CONTAINERS_CHECKPOINT_HPP
