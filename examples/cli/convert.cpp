// SPDX-License-Identifier: MIT
/// \file
/// `lowrank convert`: adapters between the tools that use them, models between transformers and GGUF.

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <lowrank/io/formats/adapter_files.hpp>
#include <lowrank/io/formats/image_names.hpp>
#include <lowrank/io/formats/plain_lora.hpp>
#include <lowrank/io/models/gguf_model.hpp>
#include <lowrank/io/models/model_config.hpp>
#include <lowrank/quant/formats/ggml_blocks.hpp>

#include "checkpoint_edit.hpp"
#include "commands.hpp"
#include "console.hpp"
#include "inputs.hpp"
#include "models.hpp"
#include "options.hpp"
#include "staging.hpp"

namespace tool {
namespace {

namespace fs = std::filesystem;

struct convert_options {
    common_options common;
    output_options output;
    fs::path source;
    fs::path model;
    fs::path tokenizer;
    std::string to;
    std::optional<double> alpha;
    original_base_options original = {};
    bool skip_unsupported = false;
    double error = 1e-4;
    lowrank::index rank = 0;
    std::string kohya_prefix = "lora_unet_";
    std::string image_model;
    std::string type = "f32";
};

enum class source_kind { adapter, hf_model, gguf_model };

/// What lies at a path. Content decides, not names.
source_kind kind_of_source(const fs::path& source) {
    std::error_code error;
    if (!fs::exists(source, error)) {
        fail(source.string() + ": no such file or folder", lowrank::errc::not_found);
    }
    if (fs::is_directory(source, error)) {
        return fs::exists(source / "adapter_config.json", error) || !fs::exists(source / "config.json", error)
                   ? source_kind::adapter
                   : source_kind::hf_model;
    }
    const auto file = take(lowrank::mapped_file::open(source));
    const auto bytes = file.bytes();
    if (bytes.size() < 4 || std::memcmp(bytes.data(), "GGUF", 4) != 0) {
        return source_kind::adapter;
    }
    const auto gguf = take(lowrank::gguf_file::open(source));
    const auto* type = gguf.value("general.type");
    const std::string* text = type != nullptr ? type->as_string() : nullptr;
    return text != nullptr && *text == "adapter" ? source_kind::adapter : source_kind::gguf_model;
}

/// Names of types that factors can have in a GGUF adapter, as options spell them, and the types.
std::map<std::string, lowrank::ggml_type> factor_types() {
    std::map<std::string, lowrank::ggml_type> types;
    for (const auto& type : lowrank::quantized_types()) {
        std::string name(type.name);
        std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
        if (type.encode != nullptr) {
            types[name] = type.type;
        }
    }
    return types;
}

/// "mlx, peft, ..."
std::vector<std::string> format_names() {
    std::vector<std::string> names;
    for (const auto& format : lowrank::adapter_formats()) {
        names.emplace_back(format.name);
    }
    return names;
}

/// The keys llama.cpp needs for a llama2.c tokenizer: its pieces are those of a sentencepiece model.
std::vector<lowrank::gguf_entry> tokenizer_entries(const llama::tokenizer& tokenizer) {
    using lowrank::gguf_type;
    using lowrank::gguf_value;
    gguf_value tokens{.type = gguf_type::array, .element = gguf_type::string};
    gguf_value scores{.type = gguf_type::array, .element = gguf_type::f32};
    gguf_value types{.type = gguf_type::array, .element = gguf_type::i32};
    const auto append = [](gguf_value& array, auto number) {
        const auto* raw = reinterpret_cast<const std::byte*>(&number);
        array.elements.insert(array.elements.end(), raw, raw + sizeof number);
    };
    for (std::size_t id = 0; id < tokenizer.pieces().size(); ++id) {
        const auto& piece = tokenizer.pieces()[id];
        std::string text = id == 0 ? "<unk>" : id == 1 ? "<s>" : id == 2 ? "</s>" : piece.text;
        const bool is_byte = id > 2 && text.size() == 6 && text.starts_with("<0x") && text.back() == '>';
        if (id > 2 && !is_byte) {  // sentencepiece marks spaces
            std::string marked;
            for (const char c : text) {
                marked += c == ' ' ? std::string("\xE2\x96\x81") : std::string(1, c);
            }
            text = std::move(marked);
        }
        tokens.texts.push_back(std::move(text));
        append(scores, piece.score);
        append(types, std::int32_t{id == 0 ? 2 : id <= 2 ? 3 : is_byte ? 6 : 1});
    }
    return {{"tokenizer.ggml.model", gguf_value::of("llama")},
            {"tokenizer.ggml.tokens", std::move(tokens)},
            {"tokenizer.ggml.scores", std::move(scores)},
            {"tokenizer.ggml.token_type", std::move(types)},
            {"tokenizer.ggml.bos_token_id", gguf_value::of(std::uint32_t{1})},
            {"tokenizer.ggml.eos_token_id", gguf_value::of(std::uint32_t{2})},
            {"tokenizer.ggml.unknown_token_id", gguf_value::of(std::uint32_t{0})},
            {"tokenizer.ggml.add_bos_token", gguf_value::of(true)},
            {"tokenizer.ggml.add_eos_token", gguf_value::of(false)},
            {"tokenizer.ggml.add_space_prefix", gguf_value::of(true)}};
}

std::optional<fs::path> find_tokenizer(const convert_options& options) {
    if (!options.tokenizer.empty()) {
        return options.tokenizer;
    }
    std::error_code error;
    for (fs::directory_iterator it(options.source, error), end; !error && it != end; it.increment(error)) {
        if (glob_match("tok*.bin", it->path().filename().string())) {
            return it->path();
        }
    }
    return std::nullopt;
}

void convert_model_to_gguf(const convert_options& options) {
    require_writable_file(options.output.folder, options.output.force);
    lowrank::gguf_model_options how;
    const auto tokenizer = find_tokenizer(options);
    if (tokenizer) {
        how.tokenizer = tokenizer_entries(take_named(tokenizer->string(), llama::read_tokenizer(*tokenizer)));
    } else {
        say("warning: no llama2.c tokenizer (tok*.bin) was found, and llama.cpp loads no model without one");
    }
    progress_bar bar("converting");
    interruptible_calls calls;
    how.on_progress = bar.callback();
    how.write.calls = &calls;
    if (const auto why = lowrank::write_gguf_model(options.output.folder, options.source, how); !why) {
        fail(why.message, why.code);
    }
    if (options.common.json) {
        print_json({{"command", "convert"},
                    {"from", "hf"},
                    {"to", "gguf"},
                    {"output", options.output.folder.string()},
                    {"tokenizer", tokenizer.has_value()}});
    } else {
        print("written to " + options.output.folder.string() + "\n");
    }
}

void convert_model_to_hf(const convert_options& options) {
    staged_folder out(options.output.folder, options.output.force, {options.source}, options.output.resume);
    progress_bar bar("converting");
    interruptible_calls calls;
    const auto report =
        take(lowrank::write_hf_model(out.path(), take(lowrank::gguf_file::open(options.source)),
                                     {.resume = true, .on_progress = bar.callback(), .write = {.calls = &calls}}));
    out.commit();
    if (options.common.json) {
        print_json({{"command", "convert"},
                    {"from", "gguf"},
                    {"to", "hf"},
                    {"output", options.output.folder.string()},
                    {"resumed_files", report.kept_files},
                    {"copied", report.copied},
                    {"decoded", report.decoded}});
        return;
    }
    print(format("%zu tensors bit for bit, %zu decoded from quantized ones\nwritten to %s\n", report.copied,
                 report.decoded.size(), options.output.folder.string().c_str()));
}

void convert_adapter(const convert_options& options) {
    const auto to = lowrank::find_adapter_format(options.to);
    if (!to) {
        throw usage_error("--to: " + to.error().message);
    }
    const lowrank::adapter_format& target = **to;
    auto base = open_adapter_base(options.model, options.original);
    if (target.needs_model && !base.model) {
        fail(options.model.empty() ? "--to " + std::string(target.name) + " needs the base model: name it with --model"
                                   : "--to " + std::string(target.name) + ": " + base.why_no_model,
             lowrank::errc::unsupported);
    }
    auto source =
        load_any_adapter(options.source, base,
                         {.lora_alpha = options.alpha, .peft = {.activated_by_tokens = target.holds_invocation_tokens}},
                         options.skip_unsupported);
    const auto* image = options.image_model.empty() ? nullptr : take(lowrank::find_image_model(options.image_model));
    source = take_named(options.source.string(), lowrank::with_image_names(std::move(source), target, image));
    const bool has_flat_names = std::any_of(source.adapter.modules.begin(), source.adapter.modules.end(),
                                            [](const auto& m) { return m.first.find('.') == std::string::npos; });
    if (source.format == "kohya" && has_flat_names && base.modules.empty() && target.name != "kohya") {
        say("warning: " + options.source.string() +
            ": its names have lost their dots and are kept so; --model finds the modules they mean");
    }
    // What the target has no names for becomes plain LoRA, and the report says at what loss.
    std::map<std::string, double> losses;
    if (!lowrank::check_plain_lora(source.adapter) && !lowrank::can_hold(target, source.adapter)) {
        const auto choice =
            options.rank > 0 ? lowrank::fixed_rank(options.rank)
                             : lowrank::rank_choice{
                                   .rule = lowrank::rank_rule::relative_error, .value = options.error, .min_rank = 1};
        auto plain = take_named(
            options.source.string(),
            lowrank::to_plain_lora(source.adapter, base.weights ? &*base.weights : nullptr, {.rank = choice}));
        source.adapter = std::move(plain.adapter);
        losses = std::move(plain.relative_errors);
    }
    const lowrank::adapter_write_options writing{.model = base.model ? &*base.model : nullptr,
                                                 .kohya_prefix = options.kohya_prefix,
                                                 .type = factor_types().at(options.type)};
    const auto write = [&](const fs::path& path) {
        if (const auto why = lowrank::write_adapter(path, source.adapter, target.name, writing); !why) {
            fail(why.message, why.code);
        }
    };
    if (target.is_folder) {
        staged_folder out(options.output.folder, options.output.force, {options.source});
        write(out.path());
        out.commit();
    } else {
        require_writable_file(options.output.folder, options.output.force);
        write(options.output.folder);
    }
    const auto modules = static_cast<std::size_t>(
        std::count_if(source.adapter.modules.begin(), source.adapter.modules.end(),
                      [](const auto& m) { return lowrank::stored_tensor(m.second) == nullptr; }));
    if (options.common.json) {
        json renamed = json::object();
        for (const auto& [from, name] : source.renamed) {  // several names for a module that was split
            json& names = renamed[from];
            if (names.is_string()) {
                names = json::array({names});
            }
            names.is_array() ? names.push_back(name) : void(names = name);
        }
        json cut = json::object();
        for (const auto& [module, loss] : losses) {
            cut[module] = loss;
        }
        print_json({{"command", "convert"},
                    {"from", source.format},
                    {"to", target.name},
                    {"output", options.output.folder.string()},
                    {"modules", modules},
                    {"renamed", renamed},
                    {"relative_errors", cut},
                    {"unmapped", source.unmapped}});
        return;
    }
    for (const auto& [from, name] : source.renamed) {
        print(from + " -> " + name + "\n");
    }
    double worst = 0;
    for (const auto& [module, loss] : losses) {
        worst = std::max(worst, loss);
    }
    if (!losses.empty()) {
        print(format("%zu modules became plain LoRA by an SVD; the worst lost %.2e of its change\n", losses.size(),
                     worst));
    }
    print(format("%zu modules from %s to %s, %zu tensors left out\nwritten to %s\n", modules, source.format.c_str(),
                 options.to.c_str(), source.unmapped.size(), options.output.folder.string().c_str()));
}

void run_convert(const convert_options& options) {
    const source_kind kind = kind_of_source(options.source);
    if (options.output.resume && kind != source_kind::gguf_model) {
        throw usage_error(
            "--resume: only a GGUF model becomes several files; all else is one file, written from the start");
    }
    switch (kind) {
        case source_kind::adapter: return convert_adapter(options);
        case source_kind::hf_model:
            if (!options.to.empty() && options.to != "gguf") {
                throw usage_error("--to: a transformers model can be converted to gguf only");
            }
            return convert_model_to_gguf(options);
        case source_kind::gguf_model:
            if (!options.to.empty() && options.to != "hf") {
                throw usage_error("--to: a GGUF model can be converted to hf only");
            }
            return convert_model_to_hf(options);
    }
}

}  // namespace

void add_convert(CLI::App& app) {
    auto options = std::make_shared<convert_options>();
    auto targets = format_names();
    targets.emplace_back("hf");
    auto* command = app.add_subcommand("convert", "Convert adapters and models between the formats of other tools");
    command
        ->add_option("source", options->source,
                     "An adapter (PEFT or MLX folder, safetensors or GGUF file) or a model (folder or GGUF); its type "
                     "is detected from its content")
        ->type_name("SOURCE")
        ->required();
    command
        ->add_option("--to", options->to, CLI::detail::join(targets, ", ") + " for an adapter; gguf or hf for a model")
        ->check(CLI::IsMember(targets));
    command
        ->add_option("--model", options->model,
                     "The base model: GGUF and adapters with a magnitude need its weights, kohya's names find their "
                     "modules in it")
        ->type_name("MODEL");
    add_original_base(*command, options->original)->needs("--model");
    add_output(*command, options->output, true, "The new folder (peft, mlx, hf) or file (all others)");
    add_resume(*command, options->output);
    command->add_option("--alpha", options->alpha, "lora_alpha of adapter files whose tensors do not say it");
    command->add_flag("--skip-unsupported", options->skip_unsupported,
                      "Go on without modules of an adapter that cannot be read");
    command
        ->add_option("--error", options->error,
                     "Largest relative error of an SVD where the target cannot represent a module as it is")
        ->check(CLI::Range(0.0, 1.0))
        ->capture_default_str();
    command->add_option("--rank", options->rank, "The rank of such a module, instead of --error")
        ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 20));
    command->add_option("--kohya-prefix", options->kohya_prefix, "Put before names written for kohya's tools")
        ->capture_default_str();
    std::vector<std::string> image_models;
    for (const auto& m : lowrank::image_models()) {
        image_models.emplace_back(m.name);
    }
    command
        ->add_option("--image-model", options->image_model,
                     "The image model of the adapter, where its names may be those of several")
        ->check(CLI::IsMember(image_models));
    command->add_option("--type", options->type, "Of the factors in a GGUF adapter")
        ->check(CLI::IsMember(factor_types()))
        ->capture_default_str();
    command->add_option("--tokenizer", options->tokenizer, "A llama2.c tokenizer for a GGUF model (default: tok*.bin)");
    add_common(*command, options->common);
    command->footer(
        "Values keep their bits wherever the target can represent them; the report names what was left out or "
        "approximated.\n"
        "Example:\n"
        "  lowrank convert adapters/shakespeare --to gguf --model models/stories260K --output shakespeare.gguf");
    command->callback([options] { run_convert(*options); });
}

}  // namespace tool
