// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_SEARCH_SEARCH_OPTIONS_HPP
#define LOWRANK_LASER_SEARCH_SEARCH_OPTIONS_HPP

/// \file
/// What all searches over edits take and return.
///
///     lowrank::search_options how{.validation = {0, 200}, .held_out = {200, 1000}, .fractions = {0.4, 0.1, 0.01}};
///     how.groups = {1, 2, 4, 8};      // also cut each matrix into blocks of rows

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/parallel.hpp>
#include <lowrank/core/progress.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/spectrum.hpp>
#include <lowrank/laser/edits/edit.hpp>
#include <lowrank/laser/edits/journal.hpp>
#include <lowrank/laser/edits/named_weight.hpp>
#include <lowrank/laser/evidence/evaluation.hpp>
#include <lowrank/laser/evidence/evidence.hpp>

namespace lowrank::inline LOWRANK_ABI {

struct search_options {
    sample_range validation = {};  ///< The samples that choose. At least one.
    sample_range held_out = {};    ///< The samples that report; disjoint from those that choose. May be empty.
    /// Fractions rho of the full rank to try; rank = floor(rho * min(m, n)). LASER's grid (its table 5).
    std::vector<double> fractions = {0.9, 0.8, 0.6, 0.4, 0.2, 0.1, 0.05, 0.01};
    double confidence = 0.95;            ///< Of the intervals in the evidence.
    index samples_per_call = 64;         ///< The evaluator gets at most so many samples at once.
    executor exec = {};                  ///< Runs the evaluator's calls.
    progress_callback on_progress = {};  ///< Called before each evaluation of a candidate; false cancels.
    search_journal* log = nullptr;       ///< Remembers evaluations, so that an interrupted search can be resumed.
    /// Numbers of row groups to try, each factorized by itself; 1 is the matrix as a whole. Numbers above the rows of a
    /// matrix are left out for it.
    std::vector<index> groups = {1};
    /// Shares of the entries to keep by magnitude (`edit::entries`), beside the truncations; empty: no pruning.
    std::vector<double> densities = {};
    bool clusters = false;  ///< Try clusters of rows beside contiguous blocks, for each number of groups above 1.
    bool unimodal = false;  ///< Look for each matrix's best fraction by golden section instead of trying all.
    /// Factorizations kept at a time, in bytes: (m + n) min(m, n) scalars and a copy for each m x n matrix. Those that
    /// do not fit are made again when they are needed; the current one always stays.
    std::size_t factor_bytes = std::size_t{1} << 30;
};

/// One edit that was tried.
struct search_candidate {
    index weight = 0;           ///< Which of the weights given.
    double fraction = 0;        ///< rho, or the share of entries kept,
    index rank = 0;             ///< and the rank it means for this shape (of each group of rows, if there are groups;
                                ///< the full rank for entries).
    double relative_error = 0;  ///< ||W - W'||_F / ||W||_F, exact.
    score validation = {};      ///< On the samples that choose; a halving search judges poor candidates on fewer.
    status why = {};            ///< Not ok: the edited model's loss is not finite; it cannot win.
    edit what = {};             ///< The edit itself.
    index parameters = 0;       ///< Numbers in the factors of what stays.
    std::optional<double> predicted = {};  ///< Change of the mean log-loss to first order, where a gradient was asked.
};

/// What every search reports, whatever it looks for.
struct search_record {
    score baseline = {};                           ///< The unedited model on the samples that choose.
    score held_out_before = {};                    ///< The unedited model on the samples that report,
    score held_out_after = {};                     ///< the model with what was found there,
    std::optional<paired_evidence> evidence = {};  ///< and how sure the difference is. None if nothing was found.
    index evaluated_samples = 0;                   ///< How many samples the evaluator has scored,
    index evaluated_sample_layers = 0;             ///< and through how many layers they went in all.
    index held_out_sample_layers = 0;              ///< Of these the report took so many, whatever the method.
    index factorizations = 0;                      ///< Spectra that were computed.
    status why = {};                               ///< Not ok: why the search ended early.

    explicit operator bool() const noexcept { return static_cast<bool>(why); }
};

template <real S>
struct search_result : search_record {
    score best = {};  ///< The best of the unedited model and all candidates, on the samples that choose.
    std::optional<index> winner = {};               ///< Into `candidates`; none: the unedited model is the best.
    std::vector<search_candidate> candidates = {};  ///< All that were tried, weight by weight, in the order given.
    edit best_edit = {};                            ///< The winner, ready to be stored;
    std::optional<spectrum<S>> best_spectrum = {};  ///< with its weight's spectrum, ready to be applied.
    std::optional<paired_evidence> selection = {};  ///< As `evidence`, on the samples that choose: see `corrected_p`.

    /// The weight the winner edits. \pre there is a winner, and `weights` are those of the search
    template <storage T>
    [[nodiscard]] weight_view<T> winning_weight(std::span<const named_weight<T>> weights) const {
        detail::expects(winner.has_value(), "search_result::winning_weight: no candidate beat the unedited model");
        return weights[static_cast<std::size_t>(candidates[static_cast<std::size_t>(*winner)].weight)].weight;
    }
    template <storage T>
    [[nodiscard]] weight_view<T> winning_weight(const std::vector<named_weight<T>>& weights) const {
        return winning_weight(std::span<const named_weight<T>>(weights));
    }
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_SEARCH_SEARCH_OPTIONS_HPP
