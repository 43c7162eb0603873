// SPDX-License-Identifier: MIT
/// \file
/// `lowrank merge`: adapters become part of the weights, with an audit of what rounding lost.

#include <algorithm>
#include <map>
#include <memory>
#include <set>

#include <lowrank/factor/low_rank.hpp>
#include <lowrank/lora/merge.hpp>

#include "checkpoint_edit.hpp"
#include "commands.hpp"
#include "console.hpp"
#include "models.hpp"
#include "options.hpp"
#include "staging.hpp"
#include "threads.hpp"

namespace tool {
namespace {

using lowrank::index;
using lowrank::low_rank;

struct merge_options {
    common_options common;
    output_options output;
    std::filesystem::path model;
    std::vector<std::string> adapters;
    bool check = false;
};

struct merged_matrix {
    std::string name;
    std::string dtype;
    index rank = 0;
    double change_norm = 0;
    lowrank::merge_audit audit = {};
    double receipt_bits_per_weight = 0;
};

/// The sum of all changes of one tensor as a single product, so that the merge rounds once.
using changes = std::map<std::string, low_rank<double>>;

void add_change(low_rank<double>& sum, const low_rank<double>& more) {
    if (sum.rank() == 0) {
        sum = more;
        return;
    }
    low_rank<double> both{.left = lowrank::matrix<double>(sum.rows(), sum.rank() + more.rank()),
                          .right = lowrank::matrix<double>(sum.rank() + more.rank(), sum.cols())};
    both.left << sum.left, more.left;
    both.right << sum.right, more.right;
    sum = std::move(both);
}

/// The tensor a module's weight is stored as: under its own path, or without the first part of it, which some
/// checkpoints leave out.
const lowrank::tensor_info* find_weight(const std::map<std::string, lowrank::tensor_info>& tensors,
                                        const std::string& module) {
    auto at = tensors.find(module + ".weight");
    if (at == tensors.end() && module.find('.') != std::string::npos) {
        at = tensors.find(module.substr(module.find('.') + 1) + ".weight");
    }
    return at == tensors.end() ? nullptr : &at->second;
}

changes collect_changes(const merge_options& options, const std::vector<adapter_choice>& adapters) {
    std::map<std::string, lowrank::tensor_info> tensors;
    for (auto& tensor : list_tensors(options.model)) {
        tensors.emplace(tensor.name, tensor);
    }
    changes all;
    for (const auto& choice : adapters) {
        const auto adapter = load_applicable_adapter(choice.folder);
        const auto add = [&](const std::string& module, const lowrank::lora_adapter<float>& lora, bool transposed) {
            const auto* tensor = find_weight(tensors, module);
            if (tensor == nullptr) {
                fail(choice.folder.string() + ": the adapter changes " + module + ", which is not a weight of " +
                         options.model.string() + "; it belongs to another model",
                     lowrank::errc::mismatch);
            }
            const auto delta = lora.delta();
            low_rank<double> change{.left = delta.left.cast<double>() * choice.strength,
                                    .right = delta.right.cast<double>()};
            if (transposed) {
                change = {.left = change.right.transpose(), .right = change.left.transpose()};
            }
            if (tensor->shape.size() != 2 || tensor->shape[0] != static_cast<std::uint64_t>(change.rows()) ||
                tensor->shape[1] != static_cast<std::uint64_t>(change.cols())) {
                fail(choice.folder.string() + ": the adapter of " + module + " is for a " +
                         std::to_string(change.rows()) + " x " + std::to_string(change.cols()) +
                         " weight, the model's has another shape; it belongs to another model",
                     lowrank::errc::mismatch);
            }
            add_change(all[tensor->name], change);
        };
        for (const auto& [module, lora] : adapter.modules) {
            add(module, lora, adapter.config.fan_in_fan_out);  // GPT-2 stores its weights in x out
        }
        for (const auto& [module, lora] : adapter.embeddings) {
            add(module, lora, true);
        }
    }
    return all;
}

template <lowrank::storage T>
merged_matrix merge_one(const lowrank::tensor_info& tensor, lowrank::weight_view<T> w, const low_rank<double>& change,
                        bool check, thread_pool& pool) {
    using S = lowrank::compute_t<T>;
    const low_rank<S> delta{.left = change.left.template cast<S>(), .right = change.right.template cast<S>()};
    const lowrank::row_matrix<T> before = w;
    const lowrank::merge_options<S> how{.exec = pool.as_executor()};
    const auto receipt = lowrank::merge(w, delta, how);
    if (!receipt) {
        fail(tensor.name + ": " + receipt.error().message, receipt.error().code);
    }
    if (check) {
        lowrank::row_matrix<T> back = w;
        lowrank::throw_if_failed(lowrank::unmerge(lowrank::weight_view<T>(back), *receipt, delta, how));
        if (std::memcmp(back.data(), before.data(), static_cast<std::size_t>(back.size()) * sizeof(T)) != 0) {
            fail(tensor.name + ": unmerging did not give back the bits of before, nothing was written",
                 lowrank::errc::mismatch);
        }
    }
    return {.name = tensor.name,
            .dtype = std::string(lowrank::name_of(tensor.type)),
            .rank = delta.rank(),
            .change_norm = lowrank::frobenius_norm(delta),
            .audit = receipt->audit,
            .receipt_bits_per_weight = receipt->bits_per_weight()};
}

void print_report(const merge_options& options, const std::vector<merged_matrix>& merged) {
    std::uint64_t entries = 0;
    std::uint64_t touched = 0;
    std::uint64_t unchanged = 0;
    double worst = 0;
    for (const auto& m : merged) {
        entries += m.audit.entries;
        touched += m.audit.touched;
        unchanged += m.audit.unchanged;
        worst = std::max(worst, m.audit.relative_error);
    }
    const double lost = touched > 0 ? static_cast<double>(unchanged) / static_cast<double>(touched) : 0.0;
    if (options.common.json) {
        json matrices = json::array();
        for (const auto& m : merged) {
            matrices.push_back({{"matrix", m.name},
                                {"dtype", m.dtype},
                                {"rank", m.rank},
                                {"change_norm", m.change_norm},
                                {"entries", m.audit.entries},
                                {"unchanged_fraction", m.audit.unchanged_fraction()},
                                {"relative_error", m.audit.relative_error},
                                {"worst_error", m.audit.worst_error},
                                {"receipt_bits_per_weight", m.receipt_bits_per_weight}});
        }
        print_json({{"command", "merge"},
                    {"model", options.model.string()},
                    {"output", options.output.folder.string()},
                    {"weights", entries},
                    {"unchanged_fraction", lost},
                    {"worst_relative_error", worst},
                    {"unmerge_restores_bits", options.check ? json(true) : json(nullptr)},
                    {"matrices", matrices}});
        return;
    }
    table rows({"matrix", "dtype", "rank", "change norm", "rel. error", "unchanged"});
    for (const auto& m : merged) {
        rows.add({m.name, m.dtype, std::to_string(m.rank), format("%.4g", m.change_norm),
                  format("%.2e", m.audit.relative_error), format("%.2f %%", 100.0 * m.audit.unchanged_fraction())});
    }
    print(rows.text() + format("\n%zu matrices merged, %s weights; rounding lost the change of %.2f %% of them\n",
                               merged.size(), grouped(entries).c_str(), 100.0 * lost));
    if (options.check) {
        print("checked: unmerging gives back the same bits\n");
    }
    print("written to " + options.output.folder.string() + "\n");
}

void run_merge(const merge_options& options) {
    std::vector<adapter_choice> adapters;
    std::vector<std::filesystem::path> inputs = {options.model};
    for (const auto& text : options.adapters) {
        adapters.push_back(parse_adapter(text));
        inputs.push_back(adapters.back().folder);
    }
    staged_folder out(options.output.folder, options.output.force, inputs);
    thread_pool pool(options.common.threads);
    const auto change = collect_changes(options, adapters);
    std::vector<merged_matrix> merged;
    progress_bar bar("merging");
    write_edited_checkpoint(
        options.model, out.path(), [&](const lowrank::tensor_info& t) { return change.contains(t.name); },
        [&](const lowrank::tensor_info& t, std::vector<std::byte>& bytes) {
            with_matrix(t, bytes,
                        [&](auto w) { merged.push_back(merge_one(t, w, change.at(t.name), options.check, pool)); });
        },
        bar);
    out.commit();
    print_report(options, merged);
}

}  // namespace

void add_merge(CLI::App& app) {
    auto options = std::make_shared<merge_options>();
    auto* command = app.add_subcommand("merge", "Merge adapters into a model's weights and write a new checkpoint");
    command->add_option("model", options->model, "Model folder or shards, of any architecture with such weight names")
        ->type_name("MODEL")
        ->required();
    add_adapters(*command, options->adapters, true);
    add_output(*command, options->output, true, "The new checkpoint folder");
    command->add_flag("--check", options->check, "Prove for every matrix that unmerging gives back the same bits");
    add_common(*command, options->common);
    command->footer(
        "Weights keep their dtype; several adapters are summed first and rounded once.\n"
        "Example:\n"
        "  lowrank merge models/stories260K --adapter adapters/shakespeare:0.5 --output merged --check");
    command->callback([options] { run_merge(*options); });
}

}  // namespace tool
