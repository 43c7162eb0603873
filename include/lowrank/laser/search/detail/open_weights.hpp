// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_SEARCH_DETAIL_OPEN_WEIGHTS_HPP
#define LOWRANK_LASER_SEARCH_DETAIL_OPEN_WEIGHTS_HPP

/// \file
/// Weights while a search works on them: factorized, edited, and as they were when a scope ends.
///
///     detail::editor_cache<float> editors(model, factor_bytes);
///     detail::edits_in_place<float> in_place(model, editors);
///     lowrank::status why = in_place.put(candidate);            // its edits, and no others

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/laser/edits/edit.hpp>
#include <lowrank/laser/edits/named_weight.hpp>
#include <lowrank/laser/edits/weight_editor.hpp>
#include <lowrank/laser/search/search_model.hpp>
#include <lowrank/laser/search/search_options.hpp>

namespace lowrank::inline LOWRANK_ABI {
namespace detail {

/// Names and bits of the weights a search starts from.
template <storage T>
std::uint64_t search_fingerprint(std::span<const named_weight<T>> weights);
/// The same of a model that may keep its weights elsewhere.
template <storage T>
result<std::uint64_t> search_fingerprint(const search_model<T>& model);

/// Factorized weights, the least recently used ones dropped when they do not fit.
template <storage T>
class editor_cache {
public:
    /// Borrows the model.
    editor_cache(const search_model<T>& model, std::size_t budget)
        : model_(&model), budget_(budget), open_(model.weights.size()), used_(model.weights.size(), 0) {}

    /// \pre the weight is not edited at this time. The pointer is valid until the next call.
    [[nodiscard]] result<weight_editor<T>*> get(index weight);

    /// How often a whole weight was decomposed.
    [[nodiscard]] index factorizations() const noexcept;
    /// About what a factorized weight of this shape holds.
    [[nodiscard]] std::size_t bytes_of(index weight) const;

private:
    [[nodiscard]] result<weight_editor<T>> open(index weight) const;

    /// Drops others than `wanted` until all and `more` bytes fit.
    void make_room(std::size_t wanted, std::size_t more = 0);

    const search_model<T>* model_;
    std::size_t budget_;
    std::vector<std::unique_ptr<weight_editor<T>>> open_;
    std::vector<std::uint64_t> used_;
    std::uint64_t clock_ = 0;
    index closed_factorizations_ = 0;  ///< Of editors that were dropped.
};

/// The edits of one candidate at a time, written to the weights or handed to the engine. They are taken back when the
/// scope ends, however it ends.
template <storage T>
class edits_in_place {
public:
    edits_in_place(const search_model<T>& model, editor_cache<T>& editors) : model_(&model), editors_(&editors) {}
    ~edits_in_place() { keep_first(0); }
    edits_in_place(const edits_in_place&) = delete;
    edits_in_place& operator=(const edits_in_place&) = delete;

    /// Puts the candidate's edits in place and no others, and fills in their sizes. Edits that it shares with what is
    /// in place, from the first on, are not written again. An edit that cannot be written is said in `c.why`; then no
    /// more edits than those before it are in place.
    /// \pre    a weight is edited once at most
    /// \return What factorizing a weight says.
    [[nodiscard]] status put(search_candidate& c);

private:
    struct placed {
        index weight = 0;
        edit what = {};
        row_matrix<T> before = {};  ///< The bits of a weight that was written to.
        edit_size size = {};
    };

    [[nodiscard]] result<edit_size> write(const candidate_edit& e, weight_editor<T>& editor);

    /// Takes back all edits but the first `count`.
    void keep_first(std::size_t count);

    const search_model<T>* model_;
    editor_cache<T>* editors_;
    std::vector<placed> in_place_ = {};
};

}  // namespace detail
}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/laser/search/detail/open_weights.ipp>
#endif

#endif  // LOWRANK_LASER_SEARCH_DETAIL_OPEN_WEIGHTS_HPP
