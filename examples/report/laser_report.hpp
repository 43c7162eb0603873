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

/// A candidate in the table: one edit of a matrix, or of a group of them.
struct laser_candidate {
    lowrank::index weight = 0;  ///< Into the matrices.
    double fraction = 0;
    lowrank::index rank = 0;
    double relative_error = 0;
    lowrank::index parameters = 0;
    lowrank::score validation = {};
    lowrank::status why = {};
    lowrank::edit what = {};
    std::optional<double> predicted = {};
};

struct laser_results {
    std::string model = {};
    std::string method = {};
    std::string metric = {};
    std::uint64_t seed = 0;
    std::vector<std::string> matrices = {};
    std::vector<double> fractions = {};
    std::vector<laser_candidate> candidates = {};
    lowrank::search_result found = {};                 ///< Without its candidates; `winner` is into those above.
    std::vector<lowrank::candidate_edit> steps = {};   ///< The edits to make, in order; none: leave the model alone.
    std::optional<lowrank::score> random_change = {};  ///< Held-out: a random change of the same size instead.
    std::vector<laser_spectrum> spectra = {};
    double seconds = 0;

    [[nodiscard]] bool accuracy() const { return metric == "accuracy"; }
};

[[nodiscard]] nlohmann::ordered_json laser_json(const laser_results& found);
[[nodiscard]] std::string laser_text(const laser_results& found, std::size_t top);
[[nodiscard]] std::string laser_page(const laser_results& found);

}  // namespace report

#endif  // LOWRANK_EXAMPLES_REPORT_LASER_REPORT_HPP
