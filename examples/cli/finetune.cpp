// SPDX-License-Identifier: MIT
/// \file
/// `lowrank finetune`: trains an adapter of a chosen kind on a text and writes it as a PEFT folder.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <optional>
#include <sstream>

#include <lowrank/io/peft.hpp>
#include <lowrank/io/peft/kinds/adalora.hpp>
#include <lowrank/io/peft/to_any_adapters.hpp>

#include "llama/train.hpp"

#include "commands.hpp"
#include "console.hpp"
#include "inputs.hpp"
#include "models.hpp"
#include "options.hpp"
#include "staging.hpp"
#include "threads.hpp"

namespace tool {
namespace {

using lowrank::index;

struct finetune_command {
    common_options common;
    text_options text;
    output_options output;
    std::filesystem::path model;
    std::string variant = "lora";
    std::int64_t rank = 4;
    double alpha = 0;  ///< 0: twice the rank.
    bool rslora = false;
    double dropout = 0;
    std::string targets;
    std::int64_t steps = llama::training_options{}.steps;
    std::int64_t batch = llama::finetune_options{}.sequences;
    double learning_rate = 0;  ///< 0: what suits the variant.
    double weight_decay = 0;
    double lora_plus_ratio = 1;
    bool lora_fa = false;
    double riemannian = 0;
    std::uint64_t seed = 0;
    std::int64_t train_bytes = 1'000'000;
    std::int64_t eval_bytes = 20'000;
};

/// What is learned, and what the result is measured on: text the training has not seen.
struct training_data {
    std::vector<int> train;
    std::vector<int> unseen;
};

training_data load_data(const finetune_command& options, const llama::config& config) {
    training_data data;
    if (!options.text.ids.empty()) {
        const auto tokens = parse_ids(read_text(options.text.ids), options.text.ids.string());
        std::vector<int> stream;
        for (const auto& list : tokens.lists) {
            if (!stream.empty()) {
                stream.push_back(config.bos_token_id);
            }
            stream.insert(stream.end(), list.begin(), list.end());
        }
        const auto border = stream.begin() + static_cast<std::ptrdiff_t>(stream.size() - stream.size() / 10);
        data.train.assign(stream.begin(), border);
        data.unseen.assign(border, stream.end());
        return data;
    }
    const auto tokenizer = load_tokenizer(options.text.tokenizer, options.model, config);
    const std::string text = cut_range(read_text(options.text.text), options.text.range);
    if (text.empty()) {
        fail(options.text.text.string() + " holds no text");
    }
    // A tenth of a short text is kept back; of a long one, what is left behind the training bytes.
    const auto train = std::min(static_cast<std::size_t>(options.train_bytes), text.size() - text.size() / 10);
    const auto border = std::to_string(train);
    data.train = tokenizer.encode(cut_range(text, ":" + border));
    if (options.eval_bytes > 0 && train < text.size()) {
        const auto end = std::min(text.size(), train + static_cast<std::size_t>(options.eval_bytes));
        data.unseen = tokenizer.encode(cut_range(text, border + ":" + std::to_string(end)));
    }
    return data;
}

std::vector<std::string> split_list(const std::string& text) {
    std::vector<std::string> parts;
    std::istringstream in(text);
    for (std::string part; std::getline(in, part, ',');) {
        parts.push_back(part);
    }
    return parts;
}

/// A rank above the smaller side of a target adds parameters and nothing else.
void check_rank(const llama::model<float>& model, const llama::finetune_options& how) {
    llama::for_each_projection(model, [&](const llama::projection<float>& p) {
        for (const auto& target : how.target_modules) {
            const bool chosen = p.name == target || p.name.ends_with("." + target);
            if (chosen && how.lora.r > std::min(p.rows(), p.cols())) {
                fail("--rank " + std::to_string(how.lora.r) + " is larger than the full rank " +
                         std::to_string(std::min(p.rows(), p.cols())) + " of " + p.name,
                     lowrank::errc::mismatch);
            }
        }
    });
}

const lowrank::makeable_kind<float>& parse_variant(const std::string& name) {
    if (const auto* kind = llama::find_variant(name)) {
        return *kind;
    }
    throw usage_error("--variant " + name + " is unknown; try 'lowrank finetune --help'");
}

/// Kinds that allocate ranks start with half of the rank more, as PEFT does by default.
index first_rank(const finetune_command& options, bool allocates_ranks) {
    const auto r = static_cast<index>(options.rank);
    return allocates_ranks ? r + (r + 1) / 2 : r;
}

/// A tenth of the steps before, three tenths behind the phase that takes ranks away.
lowrank::adalora_schedule adalora_schedule_for(const finetune_command& options) {
    return {.target_r = static_cast<index>(options.rank),
            .tinit = options.steps / 10,
            .tfinal = 3 * options.steps / 10,
            .deltaT = std::max<std::int64_t>(1, options.steps / 100),
            .total_step = options.steps};
}

void check_tokens(const std::vector<int>& tokens, const llama::config& config, const std::filesystem::path& source) {
    for (const int t : tokens) {
        if (t < 0 || t >= config.vocab_size) {
            fail(source.string() + ": token id " + std::to_string(t) + " is not in the model's vocabulary of " +
                     std::to_string(config.vocab_size) + " tokens",
                 lowrank::errc::mismatch);
        }
    }
}

void run_finetune(const finetune_command& options) {
    const auto& source = options.text.ids.empty() ? options.text.text : options.text.ids;
    if (source.empty()) {
        throw usage_error("say what to learn: --text FILE or --ids FILE");
    }
    staged_folder out(options.output.folder, options.output.force, {options.model, source});
    thread_pool pool(options.common.threads);
    auto model = load_model(options.model);
    const auto data = load_data(options, model.shape);
    check_tokens(data.train, model.shape, source);
    check_tokens(data.unseen, model.shape, source);

    const auto window = options.text.window > 0 ? static_cast<index>(options.text.window)
                                                : std::min<index>(256, model.shape.max_position_embeddings);
    progress_bar bar("training");
    const auto& kind = parse_variant(options.variant);
    const index r = first_rank(options, kind.allocates_ranks);
    llama::finetune_options how{.kind = options.variant,
                                .lora = {.r = r,
                                         .lora_alpha = options.alpha > 0 ? options.alpha : 2 * static_cast<double>(r),
                                         .use_rslora = options.rslora,
                                         .lora_dropout = options.dropout},
                                .window = window,
                                .sequences = static_cast<index>(options.batch)};
    if (!options.targets.empty()) {
        how.target_modules = split_list(options.targets);
    } else if (!kind.usual_modules.empty()) {
        how.target_modules.assign(kind.usual_modules.begin(), kind.usual_modules.end());
    }
    if (kind.allocates_ranks) {
        how.adalora = adalora_schedule_for(options);
    }
    how.training.steps = static_cast<index>(options.steps);
    how.training.learning_rate = options.learning_rate > 0 ? options.learning_rate : kind.learning_rate;
    how.training.lora_plus_ratio = options.lora_plus_ratio;
    how.training.freeze_lora_A = options.lora_fa;
    how.training.riemannian_delta = options.riemannian;
    how.training.weight_decay = options.weight_decay;
    how.training.seed = options.seed;
    how.training.on_progress = bar.callback();
    how.training.run = pool.as_executor();
    check_rank(model, how);

    std::optional<double> before;
    llama::batch unseen;
    if (!data.unseen.empty()) {
        unseen = llama::windows(data.unseen, window, model.shape.bos_token_id);
        before = evaluate(model, unseen, pool, "measuring").mean_nll();
    }
    const auto start = std::chrono::steady_clock::now();
    const auto trained = take(llama::finetune(model, data.train, how));
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    std::optional<double> after;
    if (before) {
        after = evaluate(model, unseen, pool, "measuring").mean_nll();
    }

    lowrank::peft_adapter adapter;
    adapter.config.r = how.lora.r;
    adapter.config.lora_alpha = how.lora.lora_alpha;
    adapter.config.options.set("use_rslora", how.lora.use_rslora || options.variant == "rslora");
    adapter.config.lora_dropout = how.lora.lora_dropout;
    adapter.config.target_modules = how.target_modules;
    adapter.config.base_model_name_or_path = options.model.string();
    adapter.config.task_type = "CAUSAL_LM";
    for (const auto& [name, module] : trained.modules) {
        lowrank::throw_if_failed(lowrank::put_module(adapter, name, module));
    }
    if (kind.allocates_ranks) {
        lowrank::set_schedule(adapter.config.options, how.adalora);
        adapter.config.options.set("orth_reg_weight", how.orth_reg_weight);
        lowrank::peft_flags kept;
        for (const auto& [name, keep] : trained.kept) {
            kept[name + ".lora_E"] = keep;
        }
        adapter.config.options.set("rank_pattern", std::move(kept));
    }
    if (!lowrank::check_plain_lora(adapter)) {
        adapter.config = lowrank::peft_config_for(adapter, adapter.config);
    }
    lowrank::throw_if_failed(lowrank::write_peft(out.path(), adapter));
    out.commit();

    std::uint64_t parameters = 0;
    for (const auto& [name, module] : trained.modules) {
        parameters += static_cast<std::uint64_t>(module.parameter_count());
    }
    const auto& loss = trained.report.loss;
    if (options.common.json) {
        const auto number = [](const std::optional<double>& x) { return x ? json(*x) : json(nullptr); };
        print_json({{"command", "finetune"},
                    {"model", options.model.string()},
                    {"output", options.output.folder.string()},
                    {"variant", options.variant},
                    {"r", how.lora.r},
                    {"lora_alpha", how.lora.lora_alpha},
                    {"use_rslora", adapter.config.options.get<bool>("use_rslora")},
                    {"target_modules", how.target_modules},
                    {"parameters", parameters},
                    {"steps", loss.size()},
                    {"train_tokens", data.train.size()},
                    {"tokens_seen", trained.report.tokens},
                    {"seed", options.seed},
                    {"learning_rate", how.training.learning_rate},
                    {"loss", loss},
                    {"unseen_tokens", data.unseen.size()},
                    {"unseen_nll_before", number(before)},
                    {"unseen_nll_after", number(after)},
                    {"seconds", seconds}});
        return;
    }
    std::string text = format("%zu matrices, %s of rank %lld, %s parameters, trained %zu steps in %.0f s\n",
                              trained.modules.size(), options.variant.c_str(), static_cast<long long>(how.lora.r),
                              grouped(parameters).c_str(), loss.size(), seconds);
    text += format("training loss  %.4f at the first step, %.4f at the last\n", loss.front(), loss.back());
    if (before) {
        text += format("unseen text    NLL %.5f before, %.5f after (%s tokens)\n", *before, *after,
                       grouped(data.unseen.size()).c_str());
    }
    print(text + "written to " + options.output.folder.string() + "\n");
}

}  // namespace

void add_finetune(CLI::App& app) {
    auto options = std::make_shared<finetune_command>();
    auto* command = app.add_subcommand("finetune", "Train an adapter on a text and write it as a PEFT folder");
    const auto positive = CLI::Range(std::int64_t{1}, std::int64_t{1} << 40);
    command->add_option("model", options->model, "Model folder (config.json and safetensors)")
        ->type_name("MODEL")
        ->required();
    add_text(*command, options->text);
    add_output(*command, options->output, true, "The new adapter folder");
    std::string kinds;
    for (const auto name : llama::variant_names()) {
        kinds += (kinds.empty() ? "" : ", ") + std::string(name);
    }
    command->add_option("--variant", options->variant, "Kind of adapter: " + kinds)
        ->type_name("NAME")
        ->capture_default_str();
    command->add_option("--rank", options->rank, "Rank r of the adapter")->check(positive)->capture_default_str();
    command->add_option("--alpha", options->alpha, "lora_alpha; the scaling is alpha / rank. Twice the rank by default")
        ->check(CLI::PositiveNumber);
    command->add_flag("--rslora", options->rslora, "Scale by alpha / sqrt(rank) instead, as --variant rslora");
    command->add_option("--dropout", options->dropout, "Share of a layer's inputs that training drops")
        ->check(CLI::Range(0.0, 0.99))
        ->capture_default_str();
    command
        ->add_option("--targets", options->targets,
                     "Modules to adapt, with commas between; all seven projections of a layer by default")
        ->type_name("LIST");
    command->add_option("--steps", options->steps, "Training steps")->check(positive)->capture_default_str();
    command->add_option("--batch", options->batch, "Windows per step")->check(positive)->capture_default_str();
    command->add_option("--lr", options->learning_rate, "Learning rate at its peak; 0.01 for LoRA, more for others")
        ->check(CLI::PositiveNumber);
    command->add_option("--lora-plus", options->lora_plus_ratio, "Rate of B over that of A (LoRA+)")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    command->add_flag("--lora-fa", options->lora_fa, "Freeze A of kinds with LoRA in them (LoRA-FA)");
    command->add_option("--riemannian", options->riemannian, "Precondition LoRA's gradients, with this delta: 0.01")
        ->check(CLI::PositiveNumber);
    command->add_option("--weight-decay", options->weight_decay, "Weight decay of AdamW")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    command->add_option("--seed", options->seed, "Of initial values, dropout and the choice of windows")
        ->capture_default_str();
    command
        ->add_option("--train-bytes", options->train_bytes,
                     "Learn from the first bytes of the text, at most nine tenths of it")
        ->check(positive)
        ->capture_default_str();
    command
        ->add_option("--eval-bytes", options->eval_bytes,
                     "Measure before and after on the bytes that follow; 0 measures nothing")
        ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 40))
        ->capture_default_str();
    add_common(*command, options->common);
    command->footer(
        "Example:\n"
        "  lowrank finetune models/stories260K --text tinyshakespeare.txt --rank 4 --output adapters/shakespeare");
    command->callback([options] { run_finetune(*options); });
}

}  // namespace tool
