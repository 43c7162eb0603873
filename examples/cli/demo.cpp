// SPDX-License-Identifier: MIT
#include "demo.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <lowrank/factor/svd.hpp>
#include <lowrank/io/containers/atomic_file.hpp>
#include <lowrank/io/peft.hpp>
#include <lowrank/laser/edits/edit.hpp>
#include <lowrank/laser/search/gradient_search.hpp>
#include <lowrank/laser/search/greedy_search.hpp>
#include <lowrank/laser/search/halving_search.hpp>
#include <lowrank/laser/search/search.hpp>
#include <lowrank/lora/merge/merge.hpp>

#include "llama/adapters.hpp"
#include "llama/forward.hpp"
#include "llama/load.hpp"
#include "llama/search_hooks.hpp"
#include "llama/train.hpp"
#include "report/demo_report.hpp"

#include "console.hpp"
#include "demo_task.hpp"
#include "staging.hpp"
#include "threads.hpp"

namespace tool {
namespace {

namespace fs = std::filesystem;
using lowrank::index;

constexpr int batch_sequences = 32;
constexpr index training_steps = 1200;
constexpr index adapter_steps = 250;
constexpr index recovery_steps = 60;
constexpr index validation_questions = 250;
constexpr index held_out_questions = 1000;

double seconds_since(std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Two layers, 64 wide: recall needs two layers of attention, one that looks one word back and one that uses it.
llama::config demo_config() {
    llama::config c;
    c.vocab_size = recall_task::vocabulary;
    c.hidden_size = 64;
    c.intermediate_size = 128;
    c.num_hidden_layers = 2;
    c.num_attention_heads = c.num_key_value_heads = 4;
    c.head_dim = 16;
    c.max_position_embeddings = recall_task::length;
    return c;
}

/// One sample per sequence: was its question answered right, and -log p of the right answer.
lowrank::result<lowrank::sample_scores> answers(const llama::model<float>& model, const llama::batch& questions,
                                                lowrank::sample_range range, const lowrank::executor& run = {}) {
    std::vector<index> chosen(static_cast<std::size_t>(range.size()));
    std::iota(chosen.begin(), chosen.end(), range.begin);
    const auto asked = llama::select(questions, chosen);
    const auto scored = llama::evaluate(model, asked, run);
    if (!scored) {
        return scored.error();
    }
    lowrank::sample_scores out;
    for (index s = 0; s < asked.sequences(); ++s) {
        const auto last = static_cast<std::size_t>(asked.first(s + 1) - 1);
        out.add(scored->top1[last], -scored->log_probability[last]);
    }
    return out;
}

/// Logits of every word of a batch.
lowrank::matrix<float> all_logits(const llama::model<float>& model, const llama::batch& b) {
    lowrank::workspace ws;
    return llama::logits(model, llama::forward(model, b, ws), ws);
}

bool same_bits(const llama::model<float>& a, const llama::model<float>& b) {
    std::vector<lowrank::const_weight_view<float>> of_a;
    llama::for_each_weight(a, [&](const std::string&, lowrank::const_weight_view<float> w) { of_a.push_back(w); });
    bool same = true;
    std::size_t i = 0;
    llama::for_each_weight(b, [&](const std::string&, lowrank::const_weight_view<float> w) {
        const auto& other = of_a[i++];
        same = same && other.rows() == w.rows() && other.cols() == w.cols() &&
               std::memcmp(other.data(), w.data(), static_cast<std::size_t>(w.size()) * sizeof(float)) == 0;
    });
    return same && i == of_a.size();
}

class demo {
public:
    explicit demo(const demo_options& options)
        : options_(options),
          pool_(options.threads),
          task_(options.seed, {.triggers = {0, 1}, .noise_share = found_.noise_share}),
          shifted_(options.seed, {.triggers = {2, 3}, .noise_share = 0}),
          questions_(task_.questions(0, validation_questions + held_out_questions)),
          noise_questions_(task_.questions(validation_questions, held_out_questions, true)),
          shifted_questions_(shifted_.questions(0, held_out_questions)) {}

    void run() {
        const auto start = std::chrono::steady_clock::now();
        const bool made_folder = make_folder();
        try {
            train();
            search();
            adapt();
            store_and_merge();
            found_.seconds = seconds_since(start);
            write();
        } catch (...) {
            std::error_code ignored;
            adapter_folder_.reset();
            model_folder_.reset();
            if (made_folder) {
                fs::remove(options_.output, ignored);
            }
            throw;
        }
        options_.json ? print_json(report::demo_json(found_)) : print(report::demo_text(found_));
    }

private:
    bool make_folder() {
        std::error_code error;
        const bool made = fs::create_directories(options_.output, error);
        if (error) {
            fail("cannot create the folder " + options_.output.string() + ": " + error.message(),
                 lowrank::errc::io_failure);
        }
        require_writable_file(options_.output / "report.html", true);
        model_folder_.emplace(options_.output / "model", true, std::vector<fs::path>{});
        adapter_folder_.emplace(options_.output / "adapter", true, std::vector<fs::path>{});
        found_.output = options_.output.string();
        found_.seed = options_.seed;
        return made;
    }

    [[nodiscard]] double accuracy(const llama::batch& b) {
        return take(llama::evaluate(model_, b, pool_.as_executor())).accuracy();
    }

    void train() {
        const auto start = std::chrono::steady_clock::now();
        model_ = llama::random_model<float>(demo_config(), options_.seed);
        // Words that lie further apart let attention form in a third of the steps.
        model_.embed_tokens *= 4.0F;
        untrained_ = model_;
        progress_bar bar("1/4 training a transformer");
        llama::training_options how{.steps = training_steps, .learning_rate = 3e-3};
        how.beta2 = 0.98;
        how.weight_decay = 0.01;
        how.final_share = 0.1;
        how.group_tokens = 512;
        how.seed = options_.seed;
        how.on_progress = bar.callback();
        how.run = pool_.as_executor();
        const auto done = take(llama::train_weights<float>(
            model_, [&](index step) { return task_.lessons(step * batch_sequences, batch_sequences); }, how));
        found_.training_loss = done.loss;
        found_.training_seconds = seconds_since(start);
        llama::for_each_weight(model_, [&](const std::string&, lowrank::const_weight_view<float> w) {
            found_.parameters += static_cast<std::uint64_t>(w.size());
        });
    }

    void search() {
        const auto start = std::chrono::steady_clock::now();
        found_.noise_before = accuracy(noise_questions_);
        std::vector<lowrank::named_weight<float>> weights;
        llama::searchable<float> engine(model_, questions_,
                                        {.kind = llama::sample_kind::last_token, .run = pool_.as_executor()});
        const auto searched = engine.hooks();
        weights = searched.weights;
        for (const auto& w : weights) {
            found_.matrices.push_back(w.name.substr(0, w.name.size() - std::string_view(".weight").size()));
        }
        progress_bar bar("2/4 searching the best truncation");
        lowrank::search_options how{.validation = {0, validation_questions},
                                    .held_out = {validation_questions, validation_questions + held_out_questions},
                                    .samples_per_call = validation_questions + held_out_questions};
        how.on_progress = bar.callback();
        found_.fractions = how.fractions;
        found_.search = lowrank::exhaustive_search(searched, how);
        lowrank::throw_if_failed(found_.search.why);
        found_.exhaustive_seconds = seconds_since(start);
        if (found_.search.winner) {
            search_with_less(searched, how);
            compose(searched, how);
        }
        if (found_.search.winner) {
            const auto edits = found_.search.edits();
            const auto singular_values = [&](const llama::model<float>& model) {
                const auto* p = llama::find_projection(model, edits.front().weight);
                return take(lowrank::svd(p->weight)).s;
            };
            found_.first_spectrum = singular_values(untrained_);
            found_.best_spectrum = singular_values(model_);
            // The edit can be undone: do it once before it stays.
            const auto done = take(lowrank::apply_edits<float>(weights, edits));
            lowrank::throw_if_failed(lowrank::undo_edits<float>(weights, done));
            (void)take(lowrank::apply_edits<float>(weights, edits));
        }
        found_.noise_after = accuracy(noise_questions_);
        found_.search_seconds = seconds_since(start);
    }

    /// The same question to the searches that look at less.
    void search_with_less(const lowrank::search_model<float>& searched, const lowrank::search_options& how) {
        const auto note = [&](const char* method, const auto& search) {
            const auto begin = std::chrono::steady_clock::now();
            const auto found = search();
            lowrank::throw_if_failed(found.why);
            found_.quick.push_back({.method = method,
                                    .edit = found.winner ? lowrank::to_text(found.edits().front()) : std::string(),
                                    .sample_layers = found.evaluated_sample_layers - found.held_out_sample_layers,
                                    .seconds = seconds_since(begin)});
        };
        note("halving", [&] { return lowrank::halving_search(searched, how, {.first_samples = 16}); });
        note("gradient", [&] {
            return lowrank::gradient_search(searched, how,
                                            {.samples = 50, .matrices = 3, .scan = {.first_samples = 8}});
        });
    }

    /// More edits beside the best one, each kept only if it helps further: the best first, then from the last layer
    /// down.
    void compose(const lowrank::search_model<float>& searched, const lowrank::search_options& how) {
        std::vector<index> order(searched.weights.size());
        std::iota(order.rbegin(), order.rend(), index{0});
        std::stable_partition(order.begin(), order.end(), [&](index w) {
            return searched.weights[static_cast<std::size_t>(w)].name == found_.search.edits().front().weight;
        });
        found_.composed = lowrank::greedy_search(lowrank::reordered(searched, order), how);
        lowrank::throw_if_failed(found_.composed.why);
    }

    /// What both LoRA runs share: rank 4 on every projection.
    [[nodiscard]] llama::finetune_options finetuning(index steps, double learning_rate) {
        llama::finetune_options how{.lora = {.r = 4, .lora_alpha = 8}};
        how.training.steps = steps;
        how.training.learning_rate = learning_rate;
        how.training.group_tokens = 512;
        how.training.seed = options_.seed;
        how.training.run = pool_.as_executor();
        return how;
    }

    /// LoRA on the task the model was made for, without the noise, on the truncated model.
    void recover() {
        const lowrank::sample_range all{validation_questions, validation_questions + held_out_questions};
        const recall_task clean(options_.seed, {.triggers = {0, 1}, .noise_share = 0});
        auto tuned = model_;
        const auto how = finetuning(recovery_steps, 5e-3);
        // Lessons behind those of the training.
        (void)take(llama::train_adapters<float>(
            tuned,
            [&](index step) { return clean.lessons((training_steps + step) * batch_sequences, batch_sequences); },
            how));
        const auto before = take(answers(model_, questions_, all, pool_.as_executor()));
        const auto after = take(answers(tuned, questions_, all, pool_.as_executor()));
        found_.recovered_before = lowrank::summarize(before);
        found_.recovered_after = lowrank::summarize(after);
        found_.recovered_evidence = lowrank::compare_paired(before, after);
    }

    void adapt() {
        const auto start = std::chrono::steady_clock::now();
        const auto run = pool_.as_executor();
        recover();
        const lowrank::sample_range all{0, held_out_questions};
        const auto before = take(answers(model_, shifted_questions_, all, run));
        progress_bar bar("3/4 adapting with LoRA");
        auto how = finetuning(adapter_steps, 1e-2);
        how.training.on_progress = bar.callback();
        auto done = take(llama::train_adapters<float>(
            model_, [&](index step) { return shifted_.lessons(step * batch_sequences, batch_sequences); }, how));
        found_.adapter_loss = done.report.loss;
        const auto after = take(answers(model_, shifted_questions_, all, run));
        found_.adapter_before = lowrank::summarize(before);
        found_.adapter_after = lowrank::summarize(after);
        found_.adapter_evidence = lowrank::compare_paired(before, after);

        adapter_.config.r = how.lora.r;
        adapter_.config.lora_alpha = how.lora.lora_alpha;
        adapter_.config.target_modules = how.target_modules;
        adapter_.config.base_model_name_or_path = (options_.output / "model").string();
        adapter_.config.task_type = "CAUSAL_LM";
        for (auto& [name, module] : done.adapters) {
            found_.adapter_parameters += static_cast<std::uint64_t>(module.lora_A.size() + module.lora_B.size());
            adapter_.modules.insert_or_assign(name, std::move(module));
        }
        found_.adapter_seconds = seconds_since(start);
    }

    /// Saves, reads back, merges, compares, unmerges.
    void store_and_merge() {
        progress_bar bar("4/4 storing, reloading, merging");
        std::vector<index> some(64);
        std::iota(some.begin(), some.end(), index{0});
        const auto probe = llama::select(shifted_questions_, some);
        const auto trained_logits = all_logits(model_, probe);

        llama::detach(model_);
        lowrank::throw_if_failed(llama::save(model_, model_folder_->path()));
        lowrank::throw_if_failed(lowrank::write_peft(adapter_folder_->path(), adapter_));
        auto loaded = take(llama::load<float>(model_folder_->path()));
        const auto read_back = lowrank::lora_layers(take(lowrank::read_peft(adapter_folder_->path())));
        found_.reloaded_same_bits = same_bits(loaded, model_);
        const auto base_logits = all_logits(loaded, probe);

        lowrank::throw_if_failed(llama::attach(loaded, read_back));
        const auto attached_logits = all_logits(loaded, probe);
        found_.reload_difference = static_cast<double>((attached_logits - trained_logits).cwiseAbs().maxCoeff());
        llama::detach(loaded);

        std::vector<std::pair<std::string, lowrank::merge_receipt>> receipts;
        for (const auto& [name, module] : read_back) {
            auto view = llama::find_weight(loaded, name + ".weight").value();
            receipts.emplace_back(name, take(lowrank::merge<float>(view, module.delta())));
            found_.receipt_bytes += static_cast<double>(view.size()) * receipts.back().second.bits_per_weight() / 8;
            found_.merged_bytes += static_cast<double>(view.size()) * sizeof(float);
        }
        found_.merged_changed = !same_bits(loaded, model_);
        const auto merged_logits = all_logits(loaded, probe);
        found_.largest_logit = static_cast<double>(attached_logits.cwiseAbs().maxCoeff());
        found_.merge_difference = static_cast<double>((merged_logits - attached_logits).cwiseAbs().maxCoeff());
        found_.adapter_effect = static_cast<double>((attached_logits - base_logits).cwiseAbs().maxCoeff());

        for (auto it = receipts.rbegin(); it != receipts.rend(); ++it) {
            const auto& module = read_back.at(it->first);
            auto view = llama::find_weight(loaded, it->first + ".weight").value();
            lowrank::throw_if_failed(lowrank::unmerge<float>(view, it->second, module.delta()));
        }
        found_.unmerged_same_bits = same_bits(loaded, model_);
        found_.unmerged_same_logits = all_logits(loaded, probe) == base_logits;
    }

    void write() {
        stop_if_interrupted();
        const auto page = report::demo_page(found_);
        model_folder_->commit();
        adapter_folder_->commit();
        lowrank::throw_if_failed(lowrank::write_file(options_.output / "report.html", page));
    }

    demo_options options_;
    report::demo_results found_ = {};
    thread_pool pool_;
    recall_task task_;
    recall_task shifted_;
    llama::batch questions_;
    llama::batch noise_questions_;
    llama::batch shifted_questions_;
    llama::model<float> untrained_ = {};
    llama::model<float> model_ = {};
    lowrank::peft_adapter adapter_ = {};
    std::optional<staged_folder> model_folder_;
    std::optional<staged_folder> adapter_folder_;
};

}  // namespace

int run_demo(const demo_options& options) {
    demo(options).run();
    return exit_ok;
}

}  // namespace tool
