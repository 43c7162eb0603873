// SPDX-License-Identifier: MIT
/// \file
/// `lowrank inspect`: what a checkpoint, a safetensors or GGUF file, or an adapter holds, and what its spectra look like.

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <optional>

#include <lowrank/core/finite.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/factor/orthonormalize.hpp>
#include <lowrank/factor/ranks/rank_rules.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/io/containers/checkpoint.hpp>
#include <lowrank/io/containers/gguf.hpp>
#include <lowrank/io/formats/gguf_lora.hpp>
#include <lowrank/io/peft.hpp>

#include "checkpoint_edit.hpp"
#include "commands.hpp"
#include "console.hpp"
#include "matrices.hpp"
#include "models.hpp"
#include "options.hpp"
#include "threads.hpp"

namespace tool {
namespace {

namespace fs = std::filesystem;
using lowrank::index;

struct inspect_options {
    common_options common;
    fs::path path;
    bool spectra = false;
    std::vector<std::string> matrices;
};

/// The numbers people read off a spectrum.
struct spectrum_summary {
    index size = 0;
    double largest = 0;
    double smallest = 0;
    double norm = 0;
    double effective_rank = 0;
    double stable_rank = 0;
    index energy_50 = 0;
    index energy_90 = 0;
    index energy_99 = 0;
};

spectrum_summary summarize(const lowrank::vector<double>& s) {
    if (s.size() == 0) {
        return {};
    }
    return {.size = s.size(),
            .largest = s(0),
            .smallest = s(s.size() - 1),
            .norm = s.norm(),
            .effective_rank = lowrank::effective_rank(s),
            .stable_rank = lowrank::stable_rank(s),
            .energy_50 = lowrank::rank_from_energy(s, 0.50),
            .energy_90 = lowrank::rank_from_energy(s, 0.90),
            .energy_99 = lowrank::rank_from_energy(s, 0.99)};
}

json to_json(const spectrum_summary& s) {
    return {{"size", s.size},
            {"sigma_1", s.largest},
            {"sigma_min", s.smallest},
            {"frobenius_norm", s.norm},
            {"effective_rank", s.effective_rank},
            {"stable_rank", s.stable_rank},
            {"energy_rank_50", s.energy_50},
            {"energy_rank_90", s.energy_90},
            {"energy_rank_99", s.energy_99}};
}

std::vector<std::string> spectrum_head() {
    return {"sigma_1", "eff. rank", "stable rank", "50 %", "90 %", "99 %", "of"};
}

std::vector<std::string> spectrum_cells(const std::optional<spectrum_summary>& s) {
    if (!s) {
        return std::vector<std::string>(7);
    }
    return {format("%.4g", s->largest),   format("%.1f", s->effective_rank), format("%.1f", s->stable_rank),
            std::to_string(s->energy_50), std::to_string(s->energy_90),      std::to_string(s->energy_99),
            std::to_string(s->size)};
}

void append(std::vector<std::string>& row, std::vector<std::string> more) {
    row.insert(row.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
}

std::string in_bytes(std::uint64_t n) {
    if (n < 10'000) {
        return std::to_string(n) + " bytes";
    }
    const char* unit = "kB";
    auto x = static_cast<double>(n) / 1e3;
    for (const char* next : {"MB", "GB", "TB"}) {
        if (x < 1000) {
            break;
        }
        x /= 1e3;
        unit = next;
    }
    return format("%.1f %s", x, unit);
}

/// Runs `body(i)` for all i on the pool, with progress.
template <class F>
void for_each_with_progress(std::size_t n, thread_pool& pool, const char* label, F&& body) {
    progress_bar bar(label);
    std::mutex drawing;
    index done = 0;
    pool.run(static_cast<index>(n), [&](index i) {
        if (interrupted()) {
            return;
        }
        body(static_cast<std::size_t>(i));
        const std::lock_guard lock(drawing);
        bar.update({.done = ++done, .total = static_cast<index>(n)});
    });
    stop_if_interrupted();
}

/// A tensor of a file of any format.
struct tensor_line {
    std::string name;
    std::string type;
    std::vector<std::uint64_t> shape;
    std::uint64_t bytes = 0;
    std::function<lowrank::matrix<double>()> read = {};  ///< Of a matrix of real numbers.
    std::optional<spectrum_summary> spectrum = {};

    [[nodiscard]] std::uint64_t parameters() const {
        return std::accumulate(shape.begin(), shape.end(), std::uint64_t{1}, std::multiplies<>());
    }
};

struct tensor_listing {
    const char* kind = "checkpoint";
    std::size_t files = 1;
    json metadata = json::object();
    std::vector<tensor_line> tensors = {};
};

tensor_listing listing_of(const lowrank::checkpoint& checkpoint) {
    tensor_listing out{.files = checkpoint.shards().size()};
    for (const auto& place : checkpoint.tensors()) {
        const auto& t = *place.info;
        tensor_line& line = out.tensors.emplace_back(
            tensor_line{t.name, std::string(lowrank::name_of(t.type)), t.shape, t.end - t.begin});
        if (t.shape.size() == 2 && lowrank::is_real(t.type)) {
            line.read = [checkpoint, name = t.name] { return take(checkpoint.matrix<double>(name)); };
        }
    }
    for (const auto& shard : checkpoint.shards()) {
        for (const auto& [key, value] : shard.file.metadata()) {
            out.metadata[key] = value;
        }
    }
    return out;
}

/// A scalar of any type as a number.
json number_of(const lowrank::gguf_value& v) {
    if (v.type == lowrank::gguf_type::boolean) {
        return v.bits != 0;
    }
    if (const auto x = v.as_f32()) {
        return static_cast<double>(*x);
    }
    if (v.type == lowrank::gguf_type::f64) {
        return std::bit_cast<double>(v.bits);
    }
    if (const auto x = v.as_count()) {
        return *x;
    }
    const auto shift = 64 - 8 * lowrank::size_of(v.type);  // a negative number of fewer bits
    return static_cast<std::int64_t>(v.bits << shift) >> shift;
}

/// A vocabulary has a hundred thousand entries: of arrays only the length is told.
json value_of(const lowrank::gguf_value& v) {
    if (const auto* text = v.as_string()) {
        return *text;
    }
    if (v.type != lowrank::gguf_type::array) {
        return number_of(v);
    }
    const auto size = lowrank::size_of(v.element);
    return {{"array_of", size > 0 ? v.elements.size() / size : v.texts.size()}};
}

tensor_listing listing_of(const lowrank::gguf_file& file) {
    tensor_listing out{.kind = "gguf"};
    for (const auto& t : file.tensors()) {
        tensor_line& line = out.tensors.emplace_back(tensor_line{
            t.name, std::string(lowrank::facts_of(t.type, file.types()).name), {t.ne.rbegin(), t.ne.rend()}, t.bytes});
        if (t.ne.size() == 2 && lowrank::is_decodable(t.type, file.types())) {
            line.read = [file, &t] { return lowrank::matrix<double>(take(file.matrix<double>(t))); };
        }
    }
    for (const auto& [key, value] : file.entries()) {
        out.metadata[key] = value_of(value);
    }
    return out;
}

void inspect_tensors(const inspect_options& options, thread_pool& pool, tensor_listing listing) {
    const matrix_choice chosen(options.matrices);
    std::vector<tensor_line*> wanted;
    std::uint64_t parameters = 0;
    std::uint64_t bytes = 0;
    std::map<std::string, std::uint64_t> dtypes;
    for (auto& t : listing.tensors) {
        parameters += t.parameters();
        bytes += t.bytes;
        dtypes[t.type] += t.parameters();
        const bool is_chosen = options.matrices.empty() || chosen.contains(t.name);
        if (is_chosen && options.spectra && t.read) {
            wanted.push_back(&t);
        }
    }
    chosen.require_all_used();
    for_each_with_progress(wanted.size(), pool, "factorizing", [&](std::size_t i) {
        tensor_line& at = *wanted[i];
        at.spectrum = summarize(take_named(at.name, lowrank::singular_values(at.read())));
    });

    if (options.common.json) {
        json tensors = json::array();
        for (const auto& at : listing.tensors) {
            json one = {{"name", at.name},
                        {"dtype", at.type},
                        {"shape", at.shape},
                        {"parameters", at.parameters()},
                        {"bytes", at.bytes}};
            if (at.spectrum) {
                one["spectrum"] = to_json(*at.spectrum);
            }
            tensors.push_back(std::move(one));
        }
        print_json({{"command", "inspect"},
                    {"kind", listing.kind},
                    {"path", options.path.string()},
                    {"files", listing.files},
                    {"parameters", parameters},
                    {"bytes", bytes},
                    {"dtypes", dtypes},
                    {"metadata", listing.metadata},
                    {"tensors", tensors}});
        return;
    }
    std::vector<std::string> head = {"tensor", "dtype", "shape", "parameters"};
    if (options.spectra) {
        append(head, spectrum_head());
    }
    table rows(std::move(head));
    for (const auto& at : listing.tensors) {
        std::string shape;
        for (const auto extent : at.shape) {
            shape += (shape.empty() ? "" : "x") + std::to_string(extent);
        }
        std::vector<std::string> row = {at.name, at.type, shape.empty() ? "scalar" : shape, grouped(at.parameters())};
        if (options.spectra) {
            append(row, spectrum_cells(at.spectrum));
        }
        rows.add(std::move(row));
    }
    std::string types;
    for (const auto& [type, count] : dtypes) {
        types += (types.empty() ? "" : ", ") + grouped(count) + " " + type;
    }
    const auto architecture = listing.metadata.find("general.architecture");
    print(rows.text() +
          format("\n%zu tensors in %zu files, %s parameters (%s), %s\n", listing.tensors.size(), listing.files,
                 grouped(parameters).c_str(), types.c_str(), in_bytes(bytes).c_str()) +
          (architecture != listing.metadata.end() && architecture->is_string()
               ? "architecture " + architecture->get<std::string>() + "\n"
               : std::string()));
}

/// Singular values of left * right from two small triangular factors, never from the product.
lowrank::vector<double> singular_values_of(const lowrank::low_rank<float>& delta) {
    const auto core = [](lowrank::matrix<double> factor) {
        return factor.rows() > factor.cols() ? lowrank::thin_qr(std::move(factor)).r : std::move(factor);
    };
    const lowrank::matrix<double> left = core(delta.left.cast<double>());
    const lowrank::matrix<double> right = core(delta.right.transpose().cast<double>());
    const lowrank::matrix<double> small = left * right.transpose();
    return take(lowrank::singular_values(small));
}

/// The change of a module as a product of two factors, empty if it is none or, as a small Kronecker product may claim, enormous.
lowrank::low_rank<float> product_of(const lowrank::peft_module& module) {
    constexpr index most = index{1} << 28;
    const auto shape = lowrank::shape_of(module);
    if (shape.in != 0 && shape.out > most / shape.in) {
        return {};
    }
    const lowrank::weight_change<float> change = lowrank::change_of(module).weight;
    const lowrank::low_rank<float>* delta = lowrank::factors_of(change);
    return delta != nullptr ? *delta : lowrank::low_rank<float>();
}

void inspect_adapter(const inspect_options& options, thread_pool& pool, const lowrank::peft_adapter& adapter) {
    const auto& base = adapter.config.base_model_name_or_path;
    const matrix_choice chosen(options.matrices);
    struct line {
        std::string module;
        std::string kind;
        std::function<lowrank::low_rank<float>()> make_delta;  // of some types larger than the adapter
        double alpha = 0;
        double scaling = 1;
        std::uint64_t parameters = 0;
        double norm = 0;
        std::optional<spectrum_summary> spectrum = {};
        index out = 0;  // 0 for scales, rotations and other changes that are no product of two factors
        index in = 0;
        index rank = 0;
    };
    std::vector<line> lines;
    std::uint64_t parameters = 0;
    const auto wanted = [&](const std::string& module) { return options.matrices.empty() || chosen.contains(module); };
    std::string first_other;  // the first kind that is more than plain LoRA
    std::size_t modules_read = 0;
    for (const auto& [path, module] : adapter.modules) {
        if (stored_tensor(module) != nullptr) {
            continue;
        }
        ++modules_read;
        const auto own = lowrank::parameter_count(module);
        parameters += own;
        if (!is_plain_lora(module) && first_other.empty()) {
            first_other = kind_of(module);
        }
        if (wanted(path)) {
            const auto* lora = lowrank::find_lora(module);
            lines.push_back(
                {path, kind_of(module), [from = &module] { return product_of(*from); },
                 lora != nullptr ? lora->lora_alpha : adapter.config.alpha_for(path),
                 lora != nullptr ? lowrank::lora_scaling(lora->lora_alpha, lora->rank(), lora->use_rslora) : 1.0, own});
        }
    }
    const bool is_plain = first_other.empty();
    chosen.require_all_used();
    for_each_with_progress(lines.size(), pool, "measuring", [&](std::size_t i) {
        line& at = lines[i];
        const auto delta = at.make_delta();
        at.out = delta.rows();
        at.in = delta.cols();
        at.rank = delta.rank();
        at.norm = at.rank > 0 ? lowrank::frobenius_norm(delta) : 0;
        if (options.spectra && at.rank > 0) {
            at.spectrum = summarize(singular_values_of(delta));
        }
    });

    if (options.common.json) {
        json modules = json::array();
        for (const auto& at : lines) {
            json one = {{"module", at.module}, {"adapter", at.kind}, {"parameters", at.parameters}};
            if (at.out > 0) {
                one.update({{"in", at.in},
                            {"out", at.out},
                            {"r", at.rank},
                            {"lora_alpha", at.alpha},
                            {"scaling", at.scaling},
                            {"delta_norm", at.norm}});
            }
            if (at.spectrum) {
                one["spectrum"] = to_json(*at.spectrum);
            }
            modules.push_back(std::move(one));
        }
        print_json({{"command", "inspect"},
                    {"kind", "adapter"},
                    {"path", options.path.string()},
                    {"base_model", base ? json(*base) : json(nullptr)},
                    {"peft_type", adapter.config.peft_type},
                    {"use_dora", adapter.config.options.get<bool>("use_dora")},
                    {"r", adapter.config.r},
                    {"lora_alpha", adapter.config.lora_alpha},
                    {"use_rslora", adapter.config.options.get<bool>("use_rslora")},
                    {"target_modules", adapter.config.target_modules},
                    {"parameters", parameters},
                    {"warnings", adapter.warnings},
                    {"modules", modules}});
        return;
    }
    std::vector<std::string> head = {"module", "parameters", "shape", "r", "alpha", "scaling", "delta norm"};
    if (!is_plain) {
        head.insert(head.begin() + 1, "kind");
    }
    if (options.spectra) {
        append(head, spectrum_head());
    }
    table rows(std::move(head));
    for (const auto& at : lines) {
        std::vector<std::string> row = {at.module, std::to_string(at.parameters), "-", "-", "-", "-", "-"};
        if (at.out > 0) {
            row = {at.module,
                   std::to_string(at.parameters),
                   std::to_string(at.out) + "x" + std::to_string(at.in),
                   std::to_string(at.rank),
                   format("%g", at.alpha),
                   format("%.4g", at.scaling),
                   format("%.4g", at.norm)};
        }
        if (!is_plain) {
            row.insert(row.begin() + 1, at.kind);
        }
        if (options.spectra) {
            append(row, spectrum_cells(at.spectrum));
        }
        rows.add(std::move(row));
    }
    print(rows.text() + format("\n%s adapter for %s: %zu modules, %s parameters\n",
                               (is_plain ? std::string("LoRA") : first_other).c_str(),
                               base ? base->c_str() : "an unnamed model", modules_read, grouped(parameters).c_str()));
}

/// Whether a folder is an adapter's, or no model's and has adapters in sub-folders.
bool holds_adapter(const fs::path& path) {
    std::error_code error;
    if (!fs::is_directory(path, error) || fs::exists(path / "config.json", error)) {
        return fs::exists(path / "adapter_config.json", error);
    }
    const auto folders = lowrank::peft_folders(path);
    return folders && !folders->empty();
}

/// A GGUF adapter under its own names.
lowrank::peft_adapter adapter_in(const lowrank::gguf_file& file, const std::string& name) {
    auto read = take_named(name, lowrank::read_gguf_lora(file, {.activated_by_tokens = true}));
    lowrank::peft_adapter out;
    out.warnings = std::move(read.warnings);
    for (auto& [tensor, lora] : read.tensors) {
        out.modules.emplace(tensor, std::move(lora));
    }
    out.config = lowrank::peft_config_for(
        out, {.alora_invocation_tokens = {read.alora_invocation_tokens.begin(), read.alora_invocation_tokens.end()},
              .base_model_name_or_path = "a model of architecture " + read.architecture});
    return out;
}

void inspect_gguf(const inspect_options& options, thread_pool& pool) {
    const auto file = take_named(options.path.string(), lowrank::gguf_file::open(options.path));
    const auto* type = file.value("general.type");
    if (type != nullptr && type->as_string() != nullptr && *type->as_string() == "adapter") {
        inspect_adapter(options, pool, adapter_in(file, options.path.string()));
    } else {
        inspect_tensors(options, pool, listing_of(file));
    }
}

void run_inspect(const inspect_options& options) {
    std::error_code error;
    if (!fs::exists(options.path, error)) {
        fail(options.path.string() + ": no such file or folder", lowrank::errc::not_found);
    }
    thread_pool pool(options.common.threads);
    if (holds_adapter(options.path)) {
        // Nothing is applied, so it does not matter which base weights the adapter belongs to.
        inspect_adapter(options, pool, load_adapter(options.path, {.base_is_residual = true}));
    } else if (options.path.extension() == ".gguf") {
        inspect_gguf(options, pool);
    } else {
        inspect_tensors(options, pool, listing_of(open_checkpoint(options.path)));
    }
}

}  // namespace

void add_inspect(CLI::App& app) {
    auto options = std::make_shared<inspect_options>();
    auto* command = app.add_subcommand("inspect", "List what a model, a safetensors or GGUF file, or an adapter holds");
    command->add_option("path", options->path, "Model folder, safetensors file, index.json, GGUF file or PEFT folder")
        ->type_name("PATH")
        ->required();
    command->add_flag("--spectra", options->spectra,
                      "Add the spectrum of every matrix: largest singular value, effective and stable rank, and the "
                      "ranks that hold 50, 90 and 99 % of the squared norm");
    command
        ->add_option("--matrix", options->matrices,
                     "Spectra of these matrices only: names, ends of names or patterns with * and ?")
        ->type_name("PATTERN")
        ->take_all()
        ->allow_extra_args(false);
    add_common(*command, options->common);
    command->footer(
        "Example:\n"
        "  lowrank inspect models/stories260K --spectra --matrix 'layers.0.*'\n"
        "  lowrank inspect adapters/shakespeare");
    command->callback([options] { run_inspect(*options); });
}

}  // namespace tool
