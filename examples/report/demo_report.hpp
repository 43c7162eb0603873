// SPDX-License-Identifier: MIT
#ifndef LOWRANK_EXAMPLES_REPORT_DEMO_REPORT_HPP
#define LOWRANK_EXAMPLES_REPORT_DEMO_REPORT_HPP

/// \file
/// What the demo found, in three forms: sentences, JSON, a page.
///
///     print(report::demo_text(found));
///     lowrank::write_file(folder / "report.html", report::demo_page(found));

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <lowrank/core/types.hpp>
#include <lowrank/laser/evidence/evidence.hpp>
#include <lowrank/laser/search/search_options.hpp>

namespace report {

/// What a search with fewer evaluations found.
struct quick_search {
    std::string method = {};
    std::string edit = {};
    lowrank::index sample_layers = 0;  ///< Without the held-out ones.
    double seconds = 0;
};

struct demo_results {
    std::string output = {};
    std::uint64_t seed = 0;
    double noise_share = 0.6;  ///< How often the noise word stands in the place of the answer in training.
    std::uint64_t parameters = 0;
    double seconds = 0;

    std::vector<double> training_loss = {};  ///< Per step.
    double training_seconds = 0;

    std::vector<std::string> matrices = {};  ///< Module paths of the weights searched.
    std::vector<double> fractions = {};
    lowrank::search_result search = {};
    lowrank::vector<float> best_spectrum = {};   ///< Of the winning matrix,
    lowrank::vector<float> first_spectrum = {};  ///< and before training.
    double noise_before = 0;                     ///< Share of held-out questions answered with the noise word.
    double noise_after = 0;
    double search_seconds = 0;
    double exhaustive_seconds = 0;
    std::vector<quick_search> quick = {};
    lowrank::search_result composed = {};  ///< The best edit first, others beside it.

    lowrank::score recovered_before = {};  ///< Held-out questions of the task, truncated model,
    lowrank::score recovered_after = {};   ///< and with LoRA on lessons without noise.
    lowrank::paired_evidence recovered_evidence = {};

    std::vector<double> adapter_loss = {};
    std::uint64_t adapter_parameters = 0;
    lowrank::score adapter_before = {};  ///< On held-out questions of the shifted task.
    lowrank::score adapter_after = {};
    lowrank::paired_evidence adapter_evidence = {};
    double adapter_seconds = 0;

    bool reloaded_same_bits = false;  ///< Model weights written and read back.
    double reload_difference = 0;     ///< Largest difference of logits, adapter in memory against adapter read back.
    double adapter_effect = 0;        ///< Largest difference the adapter makes,
    double largest_logit = 0;         ///< and the largest logit, for comparison.
    double merge_difference = 0;      ///< Largest difference of logits, adapter beside the weights against merged.
    bool merged_changed = false;      ///< Merging did change the weights.
    double receipt_bytes = 0;         ///< What undoing the merges needs in addition to the adapter,
    double merged_bytes = 0;          ///< of so many bytes of weights.
    bool unmerged_same_bits = false;
    bool unmerged_same_logits = false;
};

[[nodiscard]] std::string demo_text(const demo_results& found);
[[nodiscard]] nlohmann::ordered_json demo_json(const demo_results& found);
[[nodiscard]] std::string demo_page(const demo_results& found);

}  // namespace report

#endif  // LOWRANK_EXAMPLES_REPORT_DEMO_REPORT_HPP
