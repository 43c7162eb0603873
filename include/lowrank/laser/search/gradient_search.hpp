// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_SEARCH_GRADIENT_SEARCH_HPP
#define LOWRANK_LASER_SEARCH_GRADIENT_SEARCH_HPP

/// \file
/// One backward pass says which matrices are promising; only those are tried.
///
///     const lowrank::search_options how{.validation = {0, 400}, .held_out = {400, 2000}};
///     auto found = lowrank::gradient_search(model, how, {.matrices = 3});
///     log(found.scores[0].loss_change(5));       // predicted change of the mean loss: matrix 0 at rank 5
///
/// Sreeram, Maalouf, Sharma, Rus: Compress to Impress, arXiv 2510.20800: gradients of the singular values on 100
/// samples rank the matrices, and the top ones are scanned, whole and cut into blocks of rows (`groups` of the
/// options). The derivation of the gradients is in sigma_gradient.hpp; how the paper turns them into one score is not
/// published, so that the policy is an option here. With `probed` the gradient's ranking is corrected by a measurement
/// on a few samples.

#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/laser/scores/sigma_gradient.hpp>
#include <lowrank/laser/search/detail/search_session.hpp>
#include <lowrank/laser/search/detail/searched_model.hpp>
#include <lowrank/laser/search/halving_search.hpp>
#include <lowrank/laser/search/search_model.hpp>
#include <lowrank/laser/search/search_options.hpp>

namespace lowrank::inline LOWRANK_ABI {

struct gradient_options {
    index samples = 100;  ///< The backward pass sees so many of the validation samples, the first ones.
    screening_policy policy = screening_policy::trusted_tail;
    index matrices = 5;  ///< So many of the best matrices are scanned.
    /// Before that, the edits of so many of the best matrices are tried on the first `probe_samples`, and what they
    /// measure decides which matrices are scanned; 0: the gradient alone decides. A gradient sees the neighbourhood of
    /// the weights, and the best truncations often lie far outside it.
    index probed = 0;
    index probe_samples = 4;
    halving_options scan = {};  ///< How the candidates of the chosen matrices are compared.
};

namespace detail {

/// Tries the edits of the first `gradient.probed` weights of `order` on a few samples and sorts these weights by their
/// best edit: in turn the one with the most right answers and the one with the smallest mean log-loss.
LOWRANK_API [[nodiscard]] status probe(search_session& session, const gradient_options& gradient,
                                       std::vector<index>& order);

/// The search on an opened model.
LOWRANK_API [[nodiscard]] search_result run_gradient(searched_model& model, const search_options& options,
                                                     const gradient_options& gradient);

}  // namespace detail

/// The best edit among those of the matrices that the gradient recommends, judged as in `halving_search`.
///
/// When the search returns, for whatever reason, every weight has the bits it had.
///
/// \pre    As for `halving_search`; the model has the `gradients` hook; samples, matrices >= 1.
/// \return As `halving_search`, with `scores` and `order`: the weights by the gradient, the probed ones as measured.
///         Each candidate of a whole matrix that was tried has its predicted change.
/// \cost   A backward pass on `samples`, one spectrum per weight, probed * fractions * probe_samples evaluations, and a
///         race among matrices * fractions candidates.
/// \note   Deterministic if the model's hooks are. The journal does not hold the backward pass: a resumed search
///         repeats it.
template <storage T>
[[nodiscard]] search_result gradient_search(const search_model<T>& model, const search_options& options,
                                            const gradient_options& gradient = {}) {
    return detail::run_gradient(*detail::open_model("gradient_search", model, options), options, gradient);
}

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/laser/search/gradient_search.ipp>
#endif

#endif  // LOWRANK_LASER_SEARCH_GRADIENT_SEARCH_HPP
