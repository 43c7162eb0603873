// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_SEARCH_DETAIL_SEARCH_SESSION_HPP
#define LOWRANK_LASER_SEARCH_DETAIL_SEARCH_SESSION_HPP

/// \file
/// What every search shares: the candidates, their evaluation with journal and counts, and the held-out protocol.
///
///     detail::search_session session("my_search", *model, options);     // a detail::searched_model
///     return session.run([&](search_result& out) -> status {
///         out.candidates = session.candidates(0);
///         auto scores = session.evaluate(out.candidates[0], options.validation);
///         ...
///         session.judge(out, 0, *std::move(scores));
///         return {};
///     });

#include <cstddef>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/progress.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/laser/evidence/evaluation.hpp>
#include <lowrank/laser/search/detail/searched_model.hpp>
#include <lowrank/laser/search/search_options.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// The same edits of the same weights.
LOWRANK_API bool same_edits(std::span<const candidate_edit> a, std::span<const candidate_edit> b);

/// The edits as the journal has them.
LOWRANK_API std::string text_of(std::span<const candidate_edit> edits);

class search_session {
public:
    LOWRANK_API search_session(const char* function, searched_model& model, const search_options& options);

    /// The whole search: the unedited model on the validation samples, the strategy `find(result)`, which tries
    /// candidates, and the report on the held-out samples.
    LOWRANK_API [[nodiscard]] search_result run(const std::function<status(search_result&)>& find);

    /// The candidates that the options ask for, not yet tried: each edits all of `weights` in the same way, with the
    /// edits of `base` in place. Ways that one of the weights is too small for are left out.
    LOWRANK_API [[nodiscard]] std::vector<search_candidate> candidates(
        const std::string& name, std::span<const index> weights, const std::vector<candidate_edit>& base = {}) const;
    LOWRANK_API [[nodiscard]] std::vector<search_candidate> candidates(
        index weight, const std::vector<candidate_edit>& base = {}) const;

    /// Scores the candidate on a range, with its edits in place, and fills in their sizes. Why it cannot be scored is
    /// said in `c.why` if it is the candidate's fault; other failures end the search.
    LOWRANK_API [[nodiscard]] result<sample_scores> evaluate(search_candidate& c, sample_range range);

    /// Asks the model, if it has the hook, for the scores of all candidates that truncate one and the same weight, at
    /// once. `evaluate` then finds them. Does nothing unless the candidates differ in their last edit alone.
    LOWRANK_API [[nodiscard]] status prefetch_scores(std::span<const search_candidate> wanted, sample_range range);

    /// Candidate i of the result has these scores on all validation samples: it is the winner if it is strictly better
    /// than the unedited model and all judged before it.
    LOWRANK_API void judge(search_result& out, std::size_t i, sample_scores scores);

    /// Scores the unedited model on the held-out samples, once.
    LOWRANK_API [[nodiscard]] status held_out_before(search_result& out);

    /// Asks to go on with a piece of work; `step` counts the one before it as done.
    LOWRANK_API [[nodiscard]] status proceed(std::string_view what, bool step = true);
    LOWRANK_API void count(index samples, index layers);
    /// More work than was known.
    void extend(std::size_t steps) { at_.total += static_cast<index>(steps); }

    [[nodiscard]] searched_model& model() noexcept { return *model_; }
    [[nodiscard]] const search_options& options() const noexcept { return *options_; }

private:
    /// Starts the journal and scores the unedited model on the validation samples.
    LOWRANK_API [[nodiscard]] status begin(search_result& out);

    /// The held-out protocol: the validation samples have chosen the winner; the held-out samples are scored for the
    /// unedited model and for the winner alone.
    LOWRANK_API [[nodiscard]] status finish(search_result& out);

    /// The same for a candidate without whose scores the search cannot go on.
    LOWRANK_API [[nodiscard]] result<sample_scores> evaluate_or_fail(search_candidate c, sample_range range);

    /// Scores a range with the model as it is; `edits` says how that is, `first` is the lowest edited layer, `layers`
    /// if there is none. The unedited model counts as run from the start. `known` are scores that were prefetched.
    LOWRANK_API [[nodiscard]] result<sample_scores> score_range(sample_range range, const std::string& edits,
                                                                index first, const sample_scores* known = nullptr);

    [[nodiscard]] status named(const status& why) const { return failed_in(function_, why.code, why.message); }

    LOWRANK_API [[nodiscard]] index first_layer(std::span<const candidate_edit> edits) const;

    LOWRANK_API static void take_sizes(search_candidate& c);

    const char* function_;
    searched_model* model_;
    const search_options* options_;
    progress at_;
    sample_scores unedited_ = {};                           ///< On the validation samples,
    sample_scores best_scores_ = {};                        ///< those of the winner there,
    std::optional<sample_scores> before_ = {};              ///< and of the unedited model on the held-out samples.
    std::map<std::string, sample_scores> prefetched_ = {};  ///< Of candidates not yet evaluated, by their text,
    sample_range prefetched_range_ = {};                    ///< on these samples.
    index evaluated_ = 0;
    index sample_layers_ = 0;
    index held_out_layers_ = 0;
};

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/laser/search/detail/search_session.ipp>
#endif

#endif  // LOWRANK_LASER_SEARCH_DETAIL_SEARCH_SESSION_HPP
