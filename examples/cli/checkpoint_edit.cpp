// SPDX-License-Identifier: MIT
#include "checkpoint_edit.hpp"

#include <algorithm>
#include <system_error>

#include <lowrank/io/containers/atomic_file.hpp>
#include <lowrank/io/containers/checkpoint.hpp>

#include "options.hpp"

namespace tool {
namespace fs = std::filesystem;
namespace {

/// What belongs to a model besides its weights: configuration, tokenizer, licence.
bool belongs_to_model(const std::string& name) {
    for (const char* pattern : {"*.json", "*.txt", "*.model", "*.jinja", "*.tsv", "tok*.bin", "LICENSE*", "NOTICE*"}) {
        if (glob_match(pattern, name)) {
            return name != "model.safetensors.index.json" && name != "pytorch_model.bin.index.json" &&
                   name != "adapter_config.json";
        }
    }
    return false;
}

void copy_small_file(const fs::path& from, const fs::path& to) {
    const auto source = take(lowrank::mapped_file::open(from, {.map = false}));
    lowrank::throw_if_failed(lowrank::write_file(to, source.bytes()));
}

/// What a file that is no safetensors file is instead, for the kinds people mix up with it.
const char* other_format(const fs::path& file) {
    const auto mapped = lowrank::mapped_file::open(file);
    if (!mapped) {
        return nullptr;
    }
    const auto bytes = mapped->bytes();
    const std::string_view head(reinterpret_cast<const char*>(bytes.data()), std::min<std::size_t>(bytes.size(), 4));
    if (head.starts_with("PK\x03\x04") || head.starts_with("\x80")) {
        return "a pickle, which can run code when it is read, and is refused; save the weights as safetensors";
    }
    if (head == "GGUF") {
        return "a GGUF file, which this command does not read";
    }
    return nullptr;
}

}  // namespace

std::ptrdiff_t interruptible_calls::write(int file, const std::byte* data, std::size_t size) {
    constexpr std::size_t piece = std::size_t{16} << 20;
    return interrupted() ? -ECANCELED : lowrank::file_calls::write(file, data, std::min(size, piece));
}

void copy_companions(const fs::path& source, const fs::path& target) {
    std::error_code error;
    if (!fs::is_directory(source, error)) {
        return;
    }
    std::vector<fs::path> files;
    for (fs::directory_iterator it(source, error), end; !error && it != end; it.increment(error)) {
        if (it->is_regular_file(error) && belongs_to_model(it->path().filename().string())) {
            files.push_back(it->path());
        }
    }
    if (error) {
        fail("cannot list " + source.string() + ": " + error.message(), lowrank::errc::io_failure);
    }
    std::sort(files.begin(), files.end());
    for (const auto& file : files) {
        stop_if_interrupted();
        // A folder from elsewhere must not make the result hold a file of this machine.
        lowrank::throw_if_failed(lowrank::check_link(source, file));
        copy_small_file(file, target / file.filename());
    }
}

fs::path folder_of_model(const fs::path& source) {
    std::error_code error;
    if (!fs::is_directory(source, error) || lowrank::checkpoint::open(source)) {
        return source;
    }
    const auto inside = lowrank::model_folders(source);
    return inside.size() == 1 ? inside.front() : source;
}

lowrank::checkpoint open_checkpoint(const fs::path& named) {
    std::error_code error;
    if (!fs::exists(named, error)) {
        fail(named.string() + ": no such file or folder", lowrank::errc::not_found);
    }
    const fs::path source = folder_of_model(named);
    if (source != named) {
        say("the model is in " + source.string());
    }
    auto checkpoint = lowrank::checkpoint::open(source);
    if (!checkpoint && fs::is_regular_file(source, error)) {
        if (const char* format = other_format(source)) {
            fail(source.string() + " is " + format, lowrank::errc::unsupported);
        }
    }
    return take(std::move(checkpoint));
}

std::vector<lowrank::tensor_info> list_tensors(const fs::path& source) {
    const auto checkpoint = open_checkpoint(source);
    std::vector<lowrank::tensor_info> all;
    for (const auto& place : checkpoint.tensors()) {
        all.push_back(*place.info);
    }
    return all;
}

lowrank::edit_checkpoint_report write_edited_checkpoint(const fs::path& source, const fs::path& target,
                                                        const std::function<bool(const lowrank::tensor_info&)>& wanted,
                                                        const lowrank::tensor_edit& edit, progress_bar& bar,
                                                        std::optional<std::uint64_t> resumed_edits) {
    const auto checkpoint = open_checkpoint(source);
    interruptible_calls calls;
    auto report = take_named(source.string(), lowrank::edit_checkpoint(checkpoint, target, wanted, edit,
                                                                       {.resume = resumed_edits.has_value(),
                                                                        .edits = resumed_edits.value_or(0),
                                                                        .on_progress = bar.callback(),
                                                                        .write = {.calls = &calls}}));
    copy_companions(source, target);
    return report;
}

}  // namespace tool
