// SPDX-License-Identifier: MIT
/// \file
/// `lowrank dequantize`: a quantized checkpoint as one of floats.

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <system_error>

#include <lowrank/io/containers/atomic_file.hpp>
#include <lowrank/io/containers/mapped_file.hpp>
#include <lowrank/io/quantized/dequantize_checkpoint.hpp>

#include "checkpoint_edit.hpp"
#include "commands.hpp"
#include "console.hpp"
#include "options.hpp"
#include "staging.hpp"
#include "threads.hpp"

namespace tool {
namespace {

struct dequantize_options {
    common_options common;
    output_options output;
    std::filesystem::path model;
    std::string type;
};

/// What `--type` says, else what config.json says that the model computes in, else BF16.
lowrank::dtype chosen_type(const dequantize_options& options, const lowrank::checkpoint& base) {
    if (!options.type.empty()) {
        return options.type == "f32"   ? lowrank::dtype::f32
               : options.type == "f16" ? lowrank::dtype::f16
                                       : lowrank::dtype::bf16;
    }
    return take_named(options.model.string(), lowrank::read_quantization_config(base))
        .float_type.value_or(lowrank::dtype::bf16);
}

/// config.json of the decoded model; files that only say how weights were quantized go.
void rewrite_companions(const std::filesystem::path& folder, lowrank::dtype type) {
    for (const char* name : {"quantize_config.json", "quant_config.json", "hf_quant_config.json"}) {
        std::error_code error;
        std::filesystem::remove(folder / name, error);
    }
    const auto path = folder / "config.json";
    const auto file = lowrank::mapped_file::open(path, {.map = false});
    if (!file) {
        return;
    }
    const auto bytes = file->bytes();
    const auto text = take_named(
        path.string(), lowrank::dequantized_config({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, type));
    lowrank::throw_if_failed(lowrank::write_file(path, text));
}

void print_report(const dequantize_options& options, lowrank::dtype type, const lowrank::dequantize_report& report) {
    if (options.common.json) {
        json weights = json::array();
        for (const auto& [name, w] : report.weights) {
            weights.push_back({{"matrix", name},
                               {"scheme", w.scheme},
                               {"shape", w.shape},
                               {"relative_error", w.relative_error},
                               {"not_finite", w.not_finite}});
        }
        print_json({{"command", "dequantize"},
                    {"model", options.model.string()},
                    {"output", options.output.folder.string()},
                    {"dtype", lowrank::name_of(type)},
                    {"resumed_files", report.kept_files},
                    {"weights", weights}});
        return;
    }
    struct sum {
        std::size_t weights = 0;
        double worst = 0;
        std::uint64_t not_finite = 0;
    };
    std::map<std::string, sum> schemes;
    for (const auto& [name, w] : report.weights) {
        sum& s = schemes[w.scheme];
        ++s.weights;
        s.worst = std::max(s.worst, w.relative_error);
        s.not_finite += w.not_finite;
    }
    table rows({"stored as", "weights", "largest rel. error of rounding", "NaN or infinite"});
    for (const auto& [scheme, s] : schemes) {
        rows.add({scheme, std::to_string(s.weights), format("%.2e", s.worst), std::to_string(s.not_finite)});
    }
    print(rows.text() +
          format("\n%zu weights decoded to %s\n", report.weights.size(), std::string(lowrank::name_of(type)).c_str()));
    if (report.kept_files > 0) {
        print(format("%lld files were finished by an earlier run\n", static_cast<long long>(report.kept_files)));
    }
    print("written to " + options.output.folder.string() + "\n");
}

void run_dequantize(const dequantize_options& options) {
    const auto base = open_checkpoint(options.model);
    const auto type = chosen_type(options, base);
    staged_folder out(options.output.folder, options.output.force, {options.model}, options.output.resume);
    thread_pool pool(options.common.threads);
    progress_bar bar("decoding");
    interruptible_calls calls;
    const auto report =
        take_named(options.model.string(), lowrank::dequantize_checkpoint(base, out.path(),
                                                                          {.type = type,
                                                                           .resume = true,
                                                                           .exec = pool.as_executor(),
                                                                           .on_progress = bar.callback(),
                                                                           .write = {.calls = &calls}}));
    copy_companions(folder_of_model(options.model), out.path());
    rewrite_companions(out.path(), type);
    out.commit();
    print_report(options, type, report);
}

}  // namespace

void add_dequantize(CLI::App& app) {
    auto options = std::make_shared<dequantize_options>();
    auto* command = app.add_subcommand("dequantize", "Decode a quantized checkpoint to floats");
    command->add_option("model", options->model, "Model folder or shards")->type_name("MODEL")->required();
    command
        ->add_option("--type", options->type,
                     "Of the decoded weights; default: the model's own (torch_dtype), else bf16")
        ->check(CLI::IsMember({"bf16", "f16", "f32"}));
    add_output(*command, options->output, true, "The new checkpoint folder");
    add_resume(*command, options->output);
    add_common(*command, options->common);
    command->footer(
        "Reads FP8 (a scale per tensor, row or block), int8, GPTQ, AWQ, compressed-tensors integers, bitsandbytes 8 "
        "and\n"
        "4 bits, NVFP4 and MXFP4, found by their tensors. Weights that are floats stay as they are.\n"
        "Example:\n"
        "  lowrank dequantize Qwen3-8B-FP8 --output decoded\n"
        "  lowrank merge decoded --adapter my-adapter --output merged");
    command->callback([options] { run_dequantize(*options); });
}

}  // namespace tool
