// SPDX-License-Identifier: MIT
#ifndef LOWRANK_EXAMPLES_REPORT_LASER_REPORT_HPP
#define LOWRANK_EXAMPLES_REPORT_LASER_REPORT_HPP

/// \file
/// What a search of `lowrank laser` found, in three forms: sentences, JSON, a page.
///
///     print(report::laser_text(found, 10));
///     lowrank::write_file("report.html", report::laser_page(found));

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <lowrank/core/types.hpp>
#include <lowrank/laser/evidence/evidence.hpp>
#include <lowrank/laser/scores/sigma_gradient.hpp>
#include <lowrank/laser/search/greedy_search.hpp>
#include <lowrank/laser/search/search_options.hpp>

namespace report {

/// The spectrum of a matrix that was edited, and the ranks that noise thresholds would keep.
struct laser_spectrum {
    std::string matrix = {};
    std::vector<double> values = {};
    lowrank::index kept = 0;
    lowrank::index marchenko_pastur = 0;
    lowrank::index gavish_donoho = 0;
};

struct laser_results {
    std::string model = {};
    std::string method = {};
    std::string metric = {};
    std::uint64_t seed = 0;
    std::vector<std::string> matrices = {};
    std::vector<double> fractions = {};
    lowrank::score baseline = {};
    lowrank::score best = {};
    std::vector<lowrank::search_candidate> candidates = {};
    std::optional<lowrank::index> winner = {};     ///< Into the candidates; greedy has steps instead.
    std::vector<lowrank::greedy_step> steps = {};  ///< The edits to make, in order; none: leave the model alone.
    lowrank::score held_out_before = {};
    lowrank::score held_out_after = {};
    std::optional<lowrank::paired_evidence> evidence = {};
    std::optional<lowrank::paired_evidence> selection = {};
    std::optional<lowrank::score> random_change = {};  ///< Held-out: a random change of the same size instead.
    std::vector<lowrank::sigma_scores> scores = {};    ///< Per matrix, where a gradient was asked.
    std::vector<lowrank::index> order = {};
    std::vector<laser_spectrum> spectra = {};
    lowrank::index evaluated_samples = 0;
    lowrank::index evaluated_sample_layers = 0;
    lowrank::index held_out_sample_layers = 0;
    lowrank::index factorizations = 0;
    double seconds = 0;

    [[nodiscard]] bool accuracy() const { return metric == "accuracy"; }
};

[[nodiscard]] nlohmann::ordered_json laser_json(const laser_results& found);
[[nodiscard]] std::string laser_text(const laser_results& found, std::size_t top);
[[nodiscard]] std::string laser_page(const laser_results& found);

}  // namespace report

#endif  // LOWRANK_EXAMPLES_REPORT_LASER_REPORT_HPP
