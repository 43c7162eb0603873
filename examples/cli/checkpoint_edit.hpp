// SPDX-License-Identifier: MIT
#ifndef LOWRANK_EXAMPLES_CLI_CHECKPOINT_EDIT_HPP
#define LOWRANK_EXAMPLES_CLI_CHECKPOINT_EDIT_HPP

/// \file
/// New checkpoints from old ones: every tensor copied bit for bit, some changed, one of them in memory at a time.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <lowrank/core/types.hpp>
#include <lowrank/io/checkpoints/edit_checkpoint.hpp>
#include <lowrank/io/containers/atomic_file.hpp>
#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/containers/safetensors.hpp>

#include "console.hpp"

namespace tool {

/// Writes that a stop request ends within a few megabytes.
class interruptible_calls : public lowrank::file_calls {
public:
    std::ptrdiff_t write(int file, const std::byte* data, std::size_t size) override;
};

/// Copies what belongs to a model besides its weights: configuration, tokenizer, licence. Nothing if `source` is a file.
void copy_companions(const std::filesystem::path& source, const std::filesystem::path& target);

/// Writes the checkpoint in `source` into the folder `target`: the same files with the same tensors, those that
/// `wanted` names changed by `edit`, with config and tokenizer files beside them. With `resumed_edits`, a checksum of
/// what the edits depend on, continues where an earlier run stopped.
lowrank::edit_checkpoint_report write_edited_checkpoint(const std::filesystem::path& source,
                                                        const std::filesystem::path& target,
                                                        const std::function<bool(const lowrank::tensor_info&)>& wanted,
                                                        const lowrank::tensor_edit& edit, progress_bar& bar,
                                                        std::optional<std::uint64_t> resumed_edits = std::nullopt);

/// The folder that holds a model's weights: the one named, or the only one in it (a snapshot of the Hugging Face cache).
[[nodiscard]] std::filesystem::path folder_of_model(const std::filesystem::path& source);

/// Opens a checkpoint folder, a safetensors file or an index; a failure names what the path is instead, where it can.
[[nodiscard]] lowrank::checkpoint open_checkpoint(const std::filesystem::path& source);

/// All tensors of a checkpoint folder or a safetensors file.
[[nodiscard]] std::vector<lowrank::tensor_info> list_tensors(const std::filesystem::path& source);

/// Calls `body(weight_view<T>)` with the bytes of a matrix as what they are. Fails with a sentence unless the tensor is
/// a matrix of F64, F32, F16 or BF16.
template <class F>
void with_matrix(const lowrank::tensor_info& tensor, std::span<std::byte> bytes, F&& body) {
    if (tensor.shape.size() != 2) {
        fail(tensor.name + " is not a matrix", lowrank::errc::unsupported);
    }
    const auto rows = static_cast<lowrank::index>(tensor.shape[0]);
    const auto cols = static_cast<lowrank::index>(tensor.shape[1]);
    const auto run = [&]<lowrank::storage T>(T) {
        // A copy gives the scalars the alignment their type asks for.
        lowrank::row_matrix<T> w(rows, cols);
        std::memcpy(w.data(), bytes.data(), bytes.size());
        body(lowrank::weight_view<T>(w));
        std::memcpy(bytes.data(), w.data(), bytes.size());
    };
    switch (tensor.type) {
        case lowrank::dtype::f64: return run(double{});
        case lowrank::dtype::f32: return run(float{});
        case lowrank::dtype::f16: return run(lowrank::half{});
        case lowrank::dtype::bf16: return run(lowrank::bfloat16{});
        default:
            fail(tensor.name + " holds " + std::string(lowrank::name_of(tensor.type)) +
                     " numbers; only F64, F32, F16 and BF16 weights can be changed",
                 lowrank::errc::unsupported);
    }
}

}  // namespace tool

#endif  // LOWRANK_EXAMPLES_CLI_CHECKPOINT_EDIT_HPP
