// SPDX-License-Identifier: MIT
/// \file
/// `lowrank laser`: which matrix, reduced to which rank, makes the model better on a text.

#include <algorithm>
#include <chrono>
#include <fstream>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <variant>
#include <vector>

#include <lowrank/factor/ranks/noise_threshold.hpp>
#include <lowrank/io/containers/atomic_file.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/laser/edits/random_change.hpp>
#include <lowrank/laser/search/gradient_search.hpp>
#include <lowrank/laser/search/greedy_search.hpp>
#include <lowrank/laser/search/group_search.hpp>
#include <lowrank/laser/search/halving_search.hpp>
#include <lowrank/laser/search/sample_split.hpp>
#include <lowrank/laser/search/search.hpp>

#include "llama/search_hooks.hpp"
#include "report/laser_report.hpp"

#include "checkpoint_edit.hpp"
#include "commands.hpp"
#include "console.hpp"
#include "inputs.hpp"
#include "matrices.hpp"
#include "models.hpp"
#include "options.hpp"
#include "staging.hpp"
#include "threads.hpp"

namespace tool {
namespace {

using lowrank::index;

struct laser_options {
    common_options common;
    text_options text;
    output_options output;
    std::filesystem::path model;
    std::filesystem::path edit_adapter;
    std::vector<std::string> matrices = {"*_proj"};
    std::string rho = "0.9,0.8,0.6,0.4,0.2,0.1,0.05,0.01";
    std::string metric = "nll";
    std::string method = "exhaustive";
    std::string groups = "1";
    std::string density;
    bool clusters = false;
    bool unimodal = false;
    std::int64_t first_samples = 8;
    std::int64_t screen_samples = 100;
    std::int64_t screen_matrices = 5;
    std::string screen_policy = "trusted-tail";
    std::int64_t probe_matrices = 12;
    std::int64_t probe_samples = 8;
    std::int64_t passes = 1;
    std::int64_t beam = 1;
    std::int64_t cache_mb = 1024;
    std::int64_t factor_mb = 1024;
    std::filesystem::path journal;
    std::filesystem::path report;
    double validation = 0.2;
    std::uint64_t seed = 0;
    std::int64_t top = 10;
};

/// The sequences in a random order given by the seed: validation first, held-out after.
struct split_batch {
    llama::batch batch = {};
    index validation = 0;  ///< How many sequences are for validation.
};

split_batch split_by_seed(const llama::batch& all, double fraction, std::uint64_t seed) {
    const index n = all.sequences();
    if (n < 2) {
        fail(
            "the search needs at least two windows or documents, one for validation and one held out; "
            "give more text or a smaller --window");
    }
    const auto parts = lowrank::split_samples(n, {.validation = fraction, .seed = seed});
    return {llama::select(all, parts.order), parts.validation.end};
}

/// The journal of a search in a file: lines are appended as they come, an interrupted search continues from them.
class journal_file {
public:
    journal_file(const std::filesystem::path& file, std::string label) {
        std::string text;
        if (std::filesystem::exists(file)) {
            text = read_text(file);
        }
        const auto keep = [this, file](std::string_view line) {
            return out_ << line << std::flush
                       ? lowrank::status{}
                       : lowrank::status{lowrank::errc::io_failure, "cannot write to the journal " + file.string()};
        };
        log_.emplace(take_named(file.string(), lowrank::search_journal::read(text, keep, std::move(label))));
        if (!text.empty()) {
            std::filesystem::resize_file(file, log_->accepted_bytes());
            say("continuing from " + std::to_string(log_->size()) + " evaluations in " + file.string());
        }
        out_.open(file, std::ios::binary | std::ios::app);
        if (!out_) {
            fail("cannot write to the journal " + file.string(), lowrank::errc::io_failure);
        }
    }
    journal_file(const journal_file&) = delete;
    journal_file& operator=(const journal_file&) = delete;

    [[nodiscard]] lowrank::search_journal* get() { return &*log_; }

private:
    std::ofstream out_;
    std::optional<lowrank::search_journal> log_;
};

/// What a journal's samples are: the tokens in their order, the metric and how they are divided.
std::string samples_label(const llama::batch& batch, const std::string& metric, index validation) {
    std::uint64_t hash = 0xcbf29ce484222325U;
    const auto mix = [&](std::uint64_t x) { hash = (hash ^ x) * 0x9E3779B97F4A7C15U, hash ^= hash >> 29; };
    for (const int t : batch.tokens) {
        mix(static_cast<std::uint64_t>(t));
    }
    for (const index s : batch.starts) {
        mix(static_cast<std::uint64_t>(s));
    }
    return metric + format(" %lld of %lld sequences %016llx", static_cast<long long>(validation),
                           static_cast<long long>(batch.sequences()), static_cast<unsigned long long>(hash));
}

/// What the report says of a search. A row of its table stands for each candidate: of the edit that is new in it.
void take_result(lowrank::search_result found, report::laser_results& out) {
    stop_if_interrupted();
    lowrank::throw_if_failed(found.why);
    for (const auto& c : found.candidates) {
        const auto& e = c.newest();
        out.candidates.push_back({.weight = e.weight,
                                  .fraction = e.fraction,
                                  .rank = e.rank,
                                  .relative_error = e.size.relative_error,
                                  .parameters = e.size.parameters,
                                  .validation = c.validation,
                                  .why = c.why,
                                  .what = e.what,
                                  .predicted = c.predicted});
    }
    if (const auto* best = found.winning()) {
        out.steps = best->edits;
    }
    found.candidates.clear();
    out.found = std::move(found);
}

/// The groups of LASER's code: the mlp, the attention, and all matrices of each layer and of the whole model.
std::vector<lowrank::weight_group> module_groups(const lowrank::search_model<float>& model) {
    std::vector<lowrank::weight_group> out;
    for (const bool by_layer : {true, false}) {
        for (const std::string part : {".mlp.", ".self_attn.", ""}) {
            const std::string kind = part == ".mlp." ? "mlp" : part.empty() ? "all" : "attention";
            const auto name_of = [&](const std::string& name, index layer) {
                return name.find(part) == std::string::npos ? std::string()
                       : by_layer                           ? kind + " of layer " + std::to_string(layer)
                                                            : kind + " of all layers";
            };
            for (auto& group : lowrank::group_weights(model, name_of)) {
                const auto same = [&](const auto& other) { return other.weights == group.weights; };
                if (std::none_of(out.begin(), out.end(), same)) {
                    out.push_back(std::move(group));
                }
            }
        }
    }
    return out;
}

/// Candidates that stand for several edits: the matrices of the table are groups, the rank is the largest of theirs.
void take_groups(lowrank::search_result found, const std::vector<lowrank::weight_group>& groups,
                 report::laser_results& out) {
    out.matrices.clear();
    for (const auto& group : groups) {
        out.matrices.push_back(group.name);
    }
    const auto candidates = found.candidates;
    take_result(std::move(found), out);
    for (std::size_t i = 0; i < candidates.size(); ++i) {
        const auto& c = candidates[i];
        auto& row = out.candidates[i];
        row.weight = std::find(out.matrices.begin(), out.matrices.end(), c.name) - out.matrices.begin();
        row.relative_error = c.relative_error;
        row.parameters = c.parameters;
        row.what = {c.name, c.edits.front().what.kept};
        row.rank = 0;
        for (const auto& e : c.edits) {
            row.rank = std::max(row.rank, e.what.keep().size());
        }
    }
}

lowrank::screening_policy policy_named(const std::string& name) {
    using enum lowrank::screening_policy;
    static const std::map<std::string, lowrank::screening_policy> policies = {{"trusted-tail", trusted_tail},
                                                                              {"best-tail", best_tail},
                                                                              {"positive-part", positive_part},
                                                                              {"fisher-tail", fisher_tail},
                                                                              {"best-tail-z-score", best_tail_z_score},
                                                                              {"taylor", taylor},
                                                                              {"gradient", gradient}};
    return policies.at(name);
}

/// Searches as the options say; `sequences` of them are for validation.
void search(const laser_options& options, const llama::searchable<float>& engine,
            const lowrank::search_model<float>& model, const lowrank::search_options& how, index sequences,
            report::laser_results& out) {
    const auto samples_in = [&](index windows) { return engine.samples_in(std::min(windows, sequences)); };
    const lowrank::halving_options race{.first_samples = samples_in(options.first_samples)};
    if (options.method == "exhaustive") {
        take_result(lowrank::exhaustive_search(model, how, {.unimodal = options.unimodal}), out);
    } else if (options.method == "halving") {
        take_result(lowrank::halving_search(model, how, race), out);
    } else if (options.method == "gradient") {
        take_result(lowrank::gradient_search(model, how,
                                             {.samples = samples_in(options.screen_samples),
                                              .policy = policy_named(options.screen_policy),
                                              .matrices = options.screen_matrices,
                                              .probed = options.probe_matrices,
                                              .probe_samples = samples_in(options.probe_samples),
                                              .scan = race}),
                    out);
    } else if (options.method == "modules") {
        const auto groups = module_groups(model);
        take_groups(lowrank::group_search<float>(model, groups, how), groups, out);
    } else {
        take_result(
            lowrank::greedy_search(
                model, how,
                {.passes = static_cast<int>(options.passes), .width = options.beam, .unimodal = options.unimodal}),
            out);
        out.found.winner.reset();  // the winner is a list of edits, not one row of the table
    }
}

/// A weight from the file, with its factorization.
lowrank::weight_editor<float> open_weight(const lowrank::search_model<float>& model, index weight) {
    return take(lowrank::weight_editor<float>::open(model.weights[static_cast<std::size_t>(weight)].name,
                                                    take(model.read(weight))));
}

/// Takes the changes of the control back.
struct random_changes {
    const lowrank::search_model<float>& model;
    const std::vector<lowrank::candidate_edit>& steps;
    ~random_changes() {
        for (const auto& step : steps) {
            model.override_weight(step.weight, nullptr);
        }
    }
};

/// Spectra of the edited matrices, and the control: the same weights changed at random by as much.
void look_closer(const lowrank::search_model<float>& model, const lowrank::search_options& how, std::uint64_t seed,
                 report::laser_results& out) {
    const random_changes changed{model, out.steps};
    std::uint64_t number = 0;
    for (const auto& step : out.steps) {
        auto editor = open_weight(model, step.weight);
        const auto& s = editor.whole();
        const index m = s.rows(), n = s.cols();
        if (std::holds_alternative<lowrank::kept_components>(step.what.kept)) {
            const lowrank::vector<double> values = s.s.cast<double>();
            out.spectra.push_back({.matrix = editor.name(),
                                   .values = {values.begin(), values.end()},
                                   .kept = step.what.keep().size(),
                                   .marchenko_pastur = lowrank::marchenko_pastur_rank(s.s, m, n),
                                   .gavish_donoho = lowrank::gavish_donoho_rank(s.s, m, n)});
        }
        lowrank::row_matrix<float> edited(m, n);
        const auto size = take(editor.write(step.what, edited));
        edited = editor.original();
        (void)take(lowrank::apply_random_change<float>(edited, size.removed_norm, seed + ++number));
        const lowrank::weight_override<float> instead{
            .map = lowrank::any_operator<float>(lowrank::owned_operator<float>(std::move(edited)))};
        model.override_weight(step.weight, &instead);
    }
    index first = model.layers;
    for (const auto& step : out.steps) {
        first = std::min(first, model.layer(step.weight));
    }
    const auto scores = how.held_out.size() > 0 && !out.steps.empty()
                            ? model.evaluate_from_layer(how.held_out, first)
                            : lowrank::result<lowrank::sample_scores>(lowrank::sample_scores{});
    if (scores && scores->size() > 0) {
        out.random_change = lowrank::summarize(*scores);
    }
}

/// The checkpoint with the edits made, each in the storage type of its tensor.
void write_checkpoint(const std::filesystem::path& source, const std::vector<lowrank::candidate_edit>& steps,
                      const std::filesystem::path& target) {
    std::map<std::string, lowrank::edit> edits;
    for (const auto& step : steps) {
        edits[step.what.weight] = step.what;
    }
    progress_bar bar("writing");
    write_edited_checkpoint(
        source, target, [&](const lowrank::tensor_info& t) { return edits.contains(t.name); },
        [&](const lowrank::tensor_info& t, std::span<std::byte> bytes) {
            with_matrix(t, bytes, [&]<lowrank::storage T>(lowrank::weight_view<T> w) {
                auto editor = take_named(t.name, lowrank::weight_editor<T>::open({t.name, w}));
                (void)take_named(t.name, lowrank::apply_edit<T>(w, editor, edits.at(t.name)));
            });
            return std::vector<double>();
        },
        bar);
}

/// The edits as one PEFT adapter: W' - W of each edited matrix, with scaling 1.
void write_adapter(const lowrank::search_model<float>& model, const std::vector<lowrank::candidate_edit>& steps,
                   const std::filesystem::path& base, const std::filesystem::path& target) {
    lowrank::peft_adapter adapter;
    for (const auto& step : steps) {
        auto editor = open_weight(model, step.weight);
        const auto original = editor.original();
        lowrank::low_rank<float> delta;
        if (const auto* part = std::get_if<lowrank::kept_components>(&step.what.kept)) {
            delta = lowrank::edit_delta(editor.whole(), part->keep);
        } else {
            lowrank::row_matrix<float> change(original.rows(), original.cols());
            (void)take(editor.write(step.what, change));
            change -= original;
            const auto s = take(lowrank::svd(change));
            delta = s.truncate(lowrank::rank_from_relative_error(s.s, 1e-7));
        }
        if (delta.rank() == 0) {
            fail("the best edit keeps the full rank, so there is nothing an adapter could take away",
                 lowrank::errc::not_found);
        }
        std::string module = step.what.weight;
        if (module.ends_with(".weight")) {
            module.erase(module.size() - std::string_view(".weight").size());
        }
        const auto rank = static_cast<double>(delta.rank());
        adapter.config.r = std::max(adapter.config.r, delta.rank());
        adapter.config.lora_alpha = static_cast<double>(adapter.config.r);
        adapter.config.target_modules.push_back(module);
        adapter.modules[module] = lowrank::lora_adapter<float>{
            .lora_A = std::move(delta.right), .lora_B = std::move(delta.left), .lora_alpha = rank};
    }
    adapter.config.base_model_name_or_path = base.string();
    adapter.config.task_type = "CAUSAL_LM";
    lowrank::throw_if_failed(lowrank::write_peft(target, adapter));
}

void run_laser(const laser_options& options) {
    const auto fractions = parse_numbers("--rho", options.rho, 0.0, 1.0);
    const auto groups = parse_numbers("--groups", options.groups, 1.0, 1e6);
    const auto densities =
        options.density.empty() ? std::vector<double>{} : parse_numbers("--density", options.density, 0.0, 1.0);
    for (const auto* target : {&options.output.folder, &options.edit_adapter}) {
        if (!target->empty()) {
            require_writable_target(*target, options.output.force, {options.model});
        }
    }
    if (!options.report.empty()) {
        require_writable_file(options.report, true);
    }
    const auto start = std::chrono::steady_clock::now();
    thread_pool pool(options.common.threads);
    require_model_folder(options.model);
    auto weights = take_named(options.model.string(), llama::mapped_model<float>::open(options.model));
    stop_if_interrupted();
    report::laser_results found{.model = options.model.string(),
                                .method = options.method,
                                .metric = options.metric,
                                .seed = options.seed,
                                .fractions = fractions};
    const auto [batch, validation] =
        split_by_seed(load_batch(options.text, options.model, weights.net().shape), options.validation, options.seed);

    const matrix_choice chosen(options.matrices);
    llama::searchable<float> engine(
        weights, batch,
        {.kind = found.accuracy() ? llama::sample_kind::token : llama::sample_kind::sequence,
         .run = pool.as_executor(),
         .cache_bytes = static_cast<std::size_t>(options.cache_mb) << 20});
    auto model = engine.hooks([&](const std::string& name) { return chosen.contains(name + ".weight"); });
    chosen.require_all_used();
    if (options.method == "greedy") {  // the last layer first: what comes before it stays valid
        std::vector<index> order(model.weights.size());
        std::iota(order.rbegin(), order.rend(), index{0});
        model = lowrank::reordered(model, order);
    }
    for (const auto& w : model.weights) {
        found.matrices.push_back(w.name);
    }

    progress_bar bar("searching");
    lowrank::search_options how{.validation = {0, engine.samples_in(validation)},
                                .held_out = {engine.samples_in(validation), engine.samples_in(batch.sequences())},
                                .fractions = fractions,
                                .on_progress = bar.callback()};
    how.samples_per_call = engine.samples_in(batch.sequences());  // the engine itself works in parallel
    how.groups.clear();
    for (const double g : groups) {
        how.groups.push_back(static_cast<index>(g));
    }
    how.densities = densities;
    how.clusters = options.clusters;
    how.factor_bytes = static_cast<std::size_t>(options.factor_mb) << 20;
    std::optional<journal_file> journal;
    if (!options.journal.empty()) {
        journal.emplace(options.journal, samples_label(batch, options.metric, validation));
        how.log = journal->get();
    }
    search(options, engine, model, how, validation, found);
    look_closer(model, how, options.seed, found);
    found.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();

    const bool write = !options.output.folder.empty() || !options.edit_adapter.empty();
    if (!found.steps.empty() && write) {
        std::optional<staged_folder> edited;
        std::optional<staged_folder> adapter;
        if (!options.output.folder.empty()) {
            edited.emplace(options.output.folder, options.output.force, std::vector{options.model});
            write_checkpoint(options.model, found.steps, edited->path());
        }
        if (!options.edit_adapter.empty()) {
            adapter.emplace(options.edit_adapter, options.output.force, std::vector{options.model});
            write_adapter(model, found.steps, options.model, adapter->path());
        }
        for (auto* out : {&edited, &adapter}) {
            if (*out) {
                (*out)->commit();
            }
        }
    }
    if (!options.report.empty()) {
        lowrank::throw_if_failed(lowrank::write_file(options.report, report::laser_page(found)));
    }
    if (options.common.json) {
        print_json(report::laser_json(found));
    } else {
        print(report::laser_text(found, static_cast<std::size_t>(options.top)));
    }
    if (write && found.steps.empty()) {
        fail("no candidate beats the unedited model, nothing was written", lowrank::errc::not_found);
    }
}

}  // namespace

void add_laser(CLI::App& app) {
    auto options = std::make_shared<laser_options>();
    auto* command =
        app.add_subcommand("laser", "Search the matrix and rank whose truncation helps the model on a text (LASER)");
    command->add_option("model", options->model, "Model folder (config.json and safetensors)")
        ->type_name("MODEL")
        ->required();
    add_text(*command, options->text);
    command
        ->add_option("--matrix", options->matrices,
                     "Matrices to try: names, ends of names or patterns with * and ?; may be given several times")
        ->type_name("PATTERN")
        ->take_all()
        ->allow_extra_args(false)
        ->capture_default_str();
    command->add_option("--rho", options->rho, "Fractions of the full rank to keep, with commas between")
        ->type_name("LIST")
        ->capture_default_str();
    command
        ->add_option("--metric", options->metric,
                     "nll: mean NLL of a window decides; accuracy: more tokens predicted right, then NLL")
        ->check(CLI::IsMember({"nll", "accuracy"}))
        ->capture_default_str();
    command
        ->add_option("--method", options->method,
                     "exhaustive: every matrix at every fraction; gradient: one backward pass picks the matrices; "
                     "halving: all on few samples, the better ones on more; greedy: several edits, last layer first; "
                     "modules: mlp, attention and all matrices of a layer and of the model together")
        ->check(CLI::IsMember({"exhaustive", "gradient", "halving", "greedy", "modules"}))
        ->capture_default_str();
    command->add_option("--groups", options->groups, "Numbers of row blocks to cut each matrix into, 1 for none")
        ->type_name("LIST")
        ->capture_default_str();
    command
        ->add_option("--density", options->density,
                     "Also keep only these shares of the entries of each matrix, the largest by magnitude")
        ->type_name("LIST");
    command->add_flag("--clusters", options->clusters, "Also group similar rows, for each number of blocks");
    command->add_flag("--unimodal", options->unimodal,
                      "exhaustive, greedy: look for each matrix's best fraction by golden section");
    command
        ->add_option(
            "--first-samples", options->first_samples,
            "gradient, halving: windows (or documents) of the first round; four times as many in each after it")
        ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 40))
        ->capture_default_str();
    command
        ->add_option("--screen-samples", options->screen_samples,
                     "gradient: windows (or documents) of the backward pass")
        ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 40))
        ->capture_default_str();
    command->add_option("--screen-matrices", options->screen_matrices, "gradient: matrices that are tried")
        ->check(CLI::Range(std::int64_t{1}, std::int64_t{100000}))
        ->capture_default_str();
    command->add_option("--screen-policy", options->screen_policy, "gradient: what ranks the matrices")
        ->check(CLI::IsMember(
            {"trusted-tail", "best-tail", "positive-part", "fisher-tail", "best-tail-z-score", "taylor", "gradient"}))
        ->capture_default_str();
    command
        ->add_option("--probe-matrices", options->probe_matrices,
                     "gradient: so many of the best matrices are measured before those to try are chosen; 0: none")
        ->check(CLI::Range(std::int64_t{0}, std::int64_t{100000}))
        ->capture_default_str();
    command
        ->add_option("--probe-samples", options->probe_samples, "gradient: windows (or documents) of that measurement")
        ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 40))
        ->capture_default_str();
    command->add_option("--passes", options->passes, "greedy: times the matrices are visited at most")
        ->check(CLI::Range(std::int64_t{1}, std::int64_t{1000}))
        ->capture_default_str();
    command->add_option("--beam", options->beam, "greedy: sets of edits followed at a time")
        ->check(CLI::Range(std::int64_t{1}, std::int64_t{1000}))
        ->capture_default_str();
    command
        ->add_option("--cache-mb", options->cache_mb,
                     "Memory for kept layer inputs, each hidden size x tokens x 4 bytes; at least one is kept")
        ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 30))
        ->capture_default_str();
    command->add_option("--factor-mb", options->factor_mb, "Memory for kept factorizations; at least one is kept")
        ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 30))
        ->capture_default_str();
    command
        ->add_option("--journal", options->journal,
                     "Write every evaluation to this file; an interrupted search continues from it")
        ->type_name("FILE");
    command->add_option("--report", options->report, "Write an HTML report to this file")->type_name("FILE");
    command
        ->add_option("--validation", options->validation,
                     "Share of the windows (or documents) for validation; the others are held out")
        ->check(CLI::Range(0.001, 0.999))
        ->capture_default_str();
    command->add_option("--seed", options->seed, "Seed of the split into validation and held-out windows")
        ->capture_default_str();
    command->add_option("--top", options->top, "Rows of the table")
        ->check(CLI::Range(std::int64_t{1}, std::int64_t{100000}))
        ->capture_default_str();
    add_output(*command, options->output, false, "Write the model with the best edit here");
    command
        ->add_option("--edit-adapter", options->edit_adapter,
                     "Write the best edit here as a PEFT adapter: the model plus this adapter is the edited model")
        ->type_name("DIR");
    add_common(*command, options->common);
    command->footer(
        "Example:\n"
        "  lowrank laser models/stories260K --text play.txt --matrix mlp.up_proj --matrix mlp.down_proj \\\n"
        "      --rho 0.8,0.4,0.1 --output edited");
    command->callback([options] { run_laser(*options); });
}

}  // namespace tool
