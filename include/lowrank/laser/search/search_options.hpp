// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_SEARCH_SEARCH_OPTIONS_HPP
#define LOWRANK_LASER_SEARCH_SEARCH_OPTIONS_HPP

/// \file
/// What all searches over edits take and return.
///
///     lowrank::search_options how{.validation = {0, 200}, .held_out = {200, 1000}, .fractions = {0.4, 0.1, 0.01}};
///     how.groups = {1, 2, 4, 8};      // also cut each matrix into blocks of rows
///
/// What only one strategy needs is in that strategy's own options.

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/parallel.hpp>
#include <lowrank/core/progress.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/laser/edits/edit.hpp>
#include <lowrank/laser/edits/journal.hpp>
#include <lowrank/laser/edits/weight_editor.hpp>
#include <lowrank/laser/evidence/evaluation.hpp>
#include <lowrank/laser/evidence/evidence.hpp>
#include <lowrank/laser/scores/sigma_gradient.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// A range that has to be given: there is no default.
struct required_range : sample_range {
    required_range(index first, index last) : sample_range{first, last} {}
    required_range(sample_range range) : sample_range(range) {}  // NOLINT(google-explicit-constructor)
};

/// What every search needs to know. It does not compile without the validation samples.
struct search_options {
    required_range validation;   ///< The validation samples choose the edit. At least one.
    sample_range held_out = {};  ///< The held-out samples report on it; disjoint from validation. May be empty.
    /// Fractions rho of the full rank to try; rank = floor(rho * min(m, n)). LASER's grid (its table 5).
    std::vector<double> fractions = {0.9, 0.8, 0.6, 0.4, 0.2, 0.1, 0.05, 0.01};
    /// Numbers of row groups to try, each factorized by itself; 1 is the matrix as a whole. Numbers above the rows of a
    /// matrix are left out for it.
    std::vector<index> groups = {1};
    bool clusters = false;  ///< Try clusters of rows as well as contiguous blocks, for each number of groups above 1.
    /// Shares of the entries to keep by magnitude (`kept_entries`), in addition; empty: no pruning.
    std::vector<double> densities = {};
    double confidence = 0.95;            ///< Of the intervals in the evidence.
    index samples_per_call = 64;         ///< The evaluator gets at most so many samples at once.
    executor exec = {};                  ///< Runs the evaluator's calls.
    progress_callback on_progress = {};  ///< Called before each evaluation of a candidate; false cancels.
    search_journal* log = nullptr;       ///< Remembers evaluations, so that an interrupted search can be resumed.
    /// Factorizations kept at a time, in bytes: (m + n) min(m, n) scalars and a copy for each m x n matrix. Those that
    /// do not fit are made again when they are needed; the current one is always kept.
    std::size_t factor_bytes = std::size_t{1} << 30;
};

/// One edit of a candidate.
struct candidate_edit {
    edit what = {};
    index weight = 0;       ///< Which of the model's weights.
    double fraction = 0;    ///< rho, or the share of entries kept,
    index rank = 0;         ///< and the rank it means for this shape (of each group of rows, if there are groups;
                            ///< the full rank for entries).
    edit_size size = {};    ///< How much it takes away.
    score validation = {};  ///< The model with this edit and those before it; set in a winner.
};

/// What was tried: edits that are in place together. Those that a search kept earlier come first, the new ones last.
struct search_candidate {
    std::string name = {};  ///< Of the weight that is edited, or of the group of weights.
    std::vector<candidate_edit> edits = {};
    /// ||W - W'||_F / ||W||_F over all weights that are edited: of what was written, or, where ranks are tried together
    /// and nothing is written, as the singular values say it.
    double relative_error = 0;
    index parameters = 0;   ///< Numbers in the factors of what stays of them.
    score validation = {};  ///< On the validation samples; a halving search scores poor candidates on fewer.
    status why = {};        ///< Not ok: the edit cannot be written, or the loss is not finite; it cannot win.
    std::optional<double> predicted = {};  ///< Change of the mean log-loss to first order, where a gradient was taken.

    /// The edit that is new in this candidate, or the last of those.
    [[nodiscard]] const candidate_edit& newest() const { return edits.back(); }
};

/// A round of a halving search: all `candidates` were scored on the same `samples`, then the better ones went on.
struct search_round {
    index candidates = 0;
    index samples = 0;
    /// By how many standard errors the best candidate beats the median one, and how many the best of so many equal
    /// candidates would show by chance. Below that the round could not tell the candidates apart.
    double separation = 0;
    double by_chance = 0;
};

/// What every search returns; `why` says why one ended early.
struct search_result : fallible {
    score baseline = {};                            ///< The unedited model on the validation samples.
    score best = {};                                ///< The best of the unedited model and all candidates, there.
    std::optional<index> winner = {};               ///< Into `candidates`; none: the unedited model is the best.
    std::vector<search_candidate> candidates = {};  ///< All that were tried, in order.
    /// The unedited model against the winner, on the validation samples: see `corrected_p`. None for a greedy search,
    /// whose candidates depend on the samples.
    std::optional<paired_evidence> selection = {};
    score held_out_before = {};                    ///< The unedited model on the held-out samples,
    score held_out_after = {};                     ///< the model with the winner there,
    std::optional<paired_evidence> evidence = {};  ///< The difference and its interval. None without a winner.
    std::vector<search_round> rounds = {};         ///< Of a halving search.
    std::string warning = {};                      ///< Not empty: the search had too little information, and why.
    std::vector<sigma_scores> scores = {};         ///< Of each weight, if a gradient was taken;
    std::vector<index> order = {};                 ///< then the weights, the most promising first.
    index evaluated_samples = 0;                   ///< How many samples the evaluator has scored,
    index evaluated_sample_layers = 0;             ///< and through how many layers they went in all.
    index held_out_sample_layers = 0;              ///< Of these, the report on the held-out samples.
    index factorizations = 0;                      ///< Spectra that were computed.

    /// The winner, or null.
    LOWRANK_API [[nodiscard]] const search_candidate* winning() const;
    /// The winner's edits, for `apply_edits`; none without a winner.
    LOWRANK_API [[nodiscard]] std::vector<edit> edits() const;
};

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/laser/search/search_options.ipp>
#endif

#endif  // LOWRANK_LASER_SEARCH_SEARCH_OPTIONS_HPP
