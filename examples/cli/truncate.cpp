// SPDX-License-Identifier: MIT
/// \file
/// `lowrank truncate`: a new checkpoint whose chosen matrices have lower rank, with the error of each as it was written.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <lowrank/core/checksum.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/factor/ranks/noise_threshold.hpp>
#include <lowrank/factor/ranks/rank_rules.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/laser/edits/edit.hpp>

#include "checkpoint_edit.hpp"
#include "commands.hpp"
#include "console.hpp"
#include "matrices.hpp"
#include "options.hpp"
#include "staging.hpp"

namespace tool {
namespace {

using lowrank::index;

struct truncate_options {
    common_options common;
    output_options output;
    std::filesystem::path model;
    std::vector<std::string> matrices;
    std::string how;  ///< The option that chooses the rank.
    double number = 0;
    std::string rule;
};

struct truncated_matrix {
    std::string name;
    index rows = 0;
    index cols = 0;
    index rank = 0;
    double norm = 0;
    double error = 0;
    double relative_error = 0;
};

template <lowrank::real S>
index rank_by_rule(const std::string& rule, const lowrank::decomposition<S>& s) {
    if (rule == "marchenko-pastur") {
        return lowrank::marchenko_pastur_rank(s.s, s.rows(), s.cols());
    }
    if (rule == "gavish-donoho") {
        return lowrank::gavish_donoho_rank(s.s, s.rows(), s.cols());
    }
    if (rule == "effective-rank") {
        return std::min(s.size(), static_cast<index>(std::ceil(lowrank::effective_rank(s.s))));
    }
    return lowrank::break_even_rank(s.rows(), s.cols());
}

template <lowrank::real S>
index chosen_rank(const truncate_options& options, const lowrank::decomposition<S>& s) {
    if (options.how == "--rank") {
        return static_cast<index>(options.number);
    }
    if (options.how == "--rho") {
        return lowrank::rank_from_fraction(options.number, s.rows(), s.cols());
    }
    if (options.how == "--parameters") {
        return lowrank::rank_from_parameter_ratio(options.number, s.rows(), s.cols());
    }
    if (options.how == "--energy") {
        return lowrank::rank_from_energy(s.s, options.number);
    }
    if (options.how == "--error") {
        return lowrank::rank_from_relative_error(s.s, options.number);
    }
    return rank_by_rule(options.rule, s);
}

/// Names what was asked for that the checkpoint does not have, before anything is computed. Returns the names of what
/// the patterns meet and is no matrix: norms, biases, convolutions.
std::vector<std::string> check_choice(const truncate_options& options, const matrix_choice& chosen) {
    std::vector<std::string> passed_over;
    bool any = false;
    for (const auto& t : list_tensors(options.model)) {
        if (!chosen.contains(t.name)) {
            continue;
        }
        if (t.shape.size() != 2) {
            passed_over.push_back(t.name);
            continue;
        }
        any = true;
        if (!lowrank::is_real(t.type)) {
            fail(t.name + " is not a matrix of F64, F32, F16 or BF16 numbers, so it cannot be truncated",
                 lowrank::errc::unsupported);
        }
        const auto full = static_cast<double>(std::min(t.shape[0], t.shape[1]));
        if (options.how == "--rank" && options.number > full) {
            fail(format("rank %.0f is larger than the full rank %.0f of %s", options.number, full, t.name.c_str()),
                 lowrank::errc::mismatch);
        }
    }
    chosen.require_all_used();
    if (!any && !passed_over.empty()) {
        fail("--matrix meets no matrix: " + passed_over.front() +
                 (passed_over.size() > 1 ? format(" and %zu others are", passed_over.size() - 1) : " is") +
                 " of another shape; 'lowrank inspect' lists the matrices",
             lowrank::errc::not_found);
    }
    return passed_over;
}

/// Of what the truncated matrices depend on beside the model.
std::uint64_t checksum_of(const truncate_options& options) {
    std::string text = options.how + "\n" + format("%a", options.number) + "\n" + options.rule;
    for (const auto& pattern : options.matrices) {
        text += "\n" + pattern;
    }
    return lowrank::checksum(text.data(), text.size(), 1);
}

void print_report(const truncate_options& options, const std::vector<truncated_matrix>& done,
                  const std::vector<std::string>& passed_over, const lowrank::edit_checkpoint_report& report) {
    if (options.common.json) {
        json matrices = json::array();
        for (const auto& m : done) {
            matrices.push_back({{"matrix", m.name},
                                {"shape", {m.rows, m.cols}},
                                {"rank", m.rank},
                                {"full_rank", std::min(m.rows, m.cols)},
                                {"norm", m.norm},
                                {"error", m.error},
                                {"relative_error", m.relative_error},
                                {"factored_parameters", m.rank * (m.rows + m.cols)}});
        }
        print_json({{"command", "truncate"},
                    {"model", options.model.string()},
                    {"output", options.output.folder.string()},
                    {"resumed_files", report.kept_files},
                    {"resumed_matrices", report.kept_edits},
                    {"passed_over", passed_over},
                    {"matrices", matrices}});
        return;
    }
    table rows({"matrix", "shape", "rank", "error", "rel. error", "as factors"});
    for (const auto& m : done) {
        const double share = static_cast<double>(m.rank * (m.rows + m.cols)) / static_cast<double>(m.rows * m.cols);
        rows.add({m.name, format("%lldx%lld", static_cast<long long>(m.rows), static_cast<long long>(m.cols)),
                  std::to_string(m.rank), format("%.6g", m.error), format("%.6f", m.relative_error),
                  format("%.0f %%", 100.0 * share)});
    }
    print(rows.text());
    if (!passed_over.empty()) {
        print(format("passed over %zu that %s no matrix: %s%s\n", passed_over.size(),
                     passed_over.size() == 1 ? "is" : "are", passed_over.front().c_str(),
                     passed_over.size() == 1 ? "" : ", ..."));
    }
    if (report.kept_files + report.kept_edits > 0) {
        print(format("%lld files and %lld matrices of others were finished by an earlier run\n",
                     static_cast<long long>(report.kept_files), static_cast<long long>(report.kept_edits)));
    }
    print("written to " + options.output.folder.string() + "\n");
}

void run_truncate(const truncate_options& options) {
    if (options.how.empty()) {
        throw usage_error("say how much to keep: --rank, --rho, --parameters, --energy, --error or --rule");
    }
    const matrix_choice chosen(options.matrices);
    const auto passed_over = check_choice(options, chosen);
    staged_folder out(options.output.folder, options.output.force, {options.model}, options.output.resume);
    progress_bar bar("truncating");
    const auto report = write_edited_checkpoint(
        options.model, out.path(),
        [&](const lowrank::tensor_info& t) { return t.shape.size() == 2 && chosen.contains(t.name); },
        [&](const lowrank::tensor_info& t, std::span<std::byte> bytes) {
            std::vector<double> facts;
            with_matrix(t, bytes, [&]<lowrank::storage T>(lowrank::weight_view<T> w) {
                const auto spectrum = take_named(t.name, lowrank::svd(w));
                const index rank = chosen_rank(options, spectrum);
                const double norm = lowrank::norm_of(w);
                const auto done = take_named(t.name, lowrank::truncate_weight<T>(w, spectrum, rank));
                facts = {static_cast<double>(w.rows()),
                         static_cast<double>(w.cols()),
                         static_cast<double>(rank),
                         norm,
                         done.removed_norm,
                         done.relative_error};
            });
            return facts;
        },
        bar, checksum_of(options));
    out.commit();
    std::vector<truncated_matrix> done;
    for (const auto& [name, facts] : report.edited) {
        if (facts.size() != 6) {
            fail("the journal of " + options.output.folder.string() + " is not of this command",
                 lowrank::errc::invalid_format);
        }
        done.push_back({name, static_cast<index>(facts[0]), static_cast<index>(facts[1]), static_cast<index>(facts[2]),
                        facts[3], facts[4], facts[5]});
    }
    print_report(options, done, passed_over, report);
}

}  // namespace

void add_truncate(CLI::App& app) {
    auto options = std::make_shared<truncate_options>();
    auto* command =
        app.add_subcommand("truncate", "Replace matrices by their best approximations of lower rank (SVD truncation)");
    command->add_option("model", options->model, "Model folder, of any architecture")->type_name("MODEL")->required();
    command
        ->add_option(
            "--matrix", options->matrices,
            "Matrices to truncate: names, ends of names or patterns with * and ?; may be given several times. Vectors "
            "that a pattern meets stay as they are")
        ->type_name("PATTERN")
        ->take_all()
        ->allow_extra_args(false)
        ->required();
    auto* group = command->add_option_group("how much to keep", "one of these");
    const auto add = [&](const char* name, const char* what, const CLI::Validator& allowed) {
        group
            ->add_option_function<double>(
                name,
                [options, name](const double& x) {
                    options->how = name;
                    options->number = x;
                },
                what)
            ->check(allowed);
    };
    const auto share = CLI::Range(0.0, 1.0);
    group
        ->add_option_function<std::int64_t>(
            "--rank",
            [options](const std::int64_t& k) {
                options->how = "--rank";
                options->number = static_cast<double>(k);
            },
            "This many singular values")
        ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 31));
    add("--rho", "This fraction of the full rank, floor(rho min(m, n)) (LASER)", share);
    add("--parameters", "The rank whose factors hold this share of the matrix's numbers", share);
    add("--energy", "The smallest rank with this share of the sum of squared singular values", share);
    add("--error", "The smallest rank whose relative Frobenius error is at most this", share);
    group
        ->add_option_function<std::string>(
            "--rule",
            [options](const std::string& rule) {
                options->how = "--rule";
                options->rule = rule;
            },
            "marchenko-pastur or gavish-donoho: what noise cannot explain; effective-rank; break-even: factors as "
            "large as the matrix")
        ->check(CLI::IsMember({"marchenko-pastur", "gavish-donoho", "effective-rank", "break-even"}));
    group->require_option(0, 1);
    add_output(*command, options->output, true, "The new checkpoint folder");
    add_resume(*command, options->output);
    add_common(*command, options->common);
    command->footer(
        "Example:\n"
        "  lowrank truncate models/stories260K --matrix 'mlp.*' --energy 0.95 --output smaller\n"
        "  lowrank truncate models/stories260K --matrix layers.4.mlp.up_proj --rho 0.1 --output edited");
    command->callback([options] { run_truncate(*options); });
}

}  // namespace tool
