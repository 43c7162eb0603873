// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_EDITS_WEIGHT_EDITOR_HPP
#define LOWRANK_LASER_EDITS_WEIGHT_EDITOR_HPP

/// \file
/// A weight as it was, with its factorizations: writes any edit of it, each factorization made once.
///
///     auto e = lowrank::weight_editor<float>::open({"mlp.up_proj.weight", up}).value();
///     auto size = e.write(e.truncation(0.1), up);                                            // W := W_k
///     auto four = e.write({e.name(), lowrank::kept_blocks::fraction(0.1, 96, 64, 4)}, up);   // 4 blocks of rows
///     auto thin = e.write({e.name(), lowrank::kept_entries::fraction(0.1, 96, 64)}, up);     // magnitude pruning
///
/// Groups of rows are the second idea of Sreeram, Maalouf, Sharma, Rus: Compress to Impress, arXiv 2510.20800; the
/// clusters are those of factor/partition.hpp.

#include <cstddef>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <lowrank/core/config.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/decomposition.hpp>
#include <lowrank/factor/partition.hpp>
#include <lowrank/factor/ranks/rank_choice.hpp>
#include <lowrank/laser/edits/component_set.hpp>
#include <lowrank/laser/edits/edit.hpp>
#include <lowrank/laser/edits/named_weight.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// How much an edit takes away, and what its factors need.
struct edit_size {
    double removed_norm = 0;  ///< ||W - W'||_F: of a W' that was written, rounding to the stored type included, else as
                              ///< the singular values say it.
    double relative_error = 0;  ///< removed_norm / ||W||_F; 0 for a zero weight.
    index parameters = 0;       ///< Numbers in the factors of what stays: sum over groups of k (rows + cols);
                                ///< of entries, those that stay.
    double weight_norm = 0;     ///< ||W||_F.
};

/// Writes edits of one weight from a copy of its bits.
template <storage T>
class weight_editor {
public:
    using scalar = compute_t<T>;

    /// Copies the weight. It is decomposed when an edit first needs it: pruning by magnitude never does.
    /// \return `non_finite` if the weight holds NaN or infinity.
    [[nodiscard]] static result<weight_editor> open(const named_weight<T>& w);
    /// Takes over a copy of the weight.
    [[nodiscard]] static result<weight_editor> open(std::string name, row_matrix<T> values);
    /// The same with a decomposition of the weight, all of it or its leading part: a partial one serves the edits that
    /// keep none of the components it lacks, a complete one is made where an edit keeps more.
    /// \pre    `known` has the weight's shape.
    /// \return Also what `known` says if it failed, and `mismatch` if it is that of another weight (its norm differs).
    [[nodiscard]] static result<weight_editor> open(std::string name, row_matrix<T> values,
                                                    decomposition<scalar> known);

    [[nodiscard]] const std::string& name() const noexcept { return name_; }
    [[nodiscard]] const_weight_view<T> original() const { return const_weight_view<T>(original_); }

    /// A decomposition that holds at least the first `bound` components: the one there is, or all of the weight. Its
    /// `why` says if the weight has none.
    [[nodiscard]] const decomposition<scalar>& components(index bound);
    /// All components of the weight.
    [[nodiscard]] const decomposition<scalar>& whole() { return components(std::numeric_limits<index>::max()); }

    /// How often the whole weight was decomposed here.
    [[nodiscard]] index factorizations() const noexcept { return factorizations_; }
    /// Bytes held: the copy and all factors made so far.
    [[nodiscard]] std::size_t bytes() const noexcept;

    /// The edit of this weight that keeps the first floor(fraction * min(rows, cols)) components.
    /// \pre 0 <= fraction <= 1
    [[nodiscard]] edit truncation(double fraction) const;

    /// The edit that keeps as many of the first components as a rule says.
    ///
    /// \pre    As `choose_rank`.
    /// \return What decomposing the weight says.
    [[nodiscard]] result<edit> truncation(const rank_choice& choice);

    /// Writes the edited weight into `to`, rounded once to the stored type.
    ///
    /// \pre    `to` has the weight's shape.
    /// \return `mismatch` if the edit was made for another shape, `non_finite` if the edited weight does not fit its
    ///         stored type (`to` is then broken: write something else), or what `cluster_rows` says.
    /// \cost   2 m n min(kept, dropped) flops; the first edit by blocks or clusters factorizes them.
    [[nodiscard]] result<edit_size> write(const edit& e, weight_view<T> to);

    /// The edit for an engine that multiplies by something else instead of being written to: two factors where
    /// components of the whole weight are kept, otherwise the edited weight.
    ///
    /// \return As `write`. The operator shares nothing with this object.
    /// \cost   For components (m + n) min(kept, dropped) scalars; otherwise as `write`, and m n scalars.
    [[nodiscard]] result<std::pair<weight_override<scalar>, edit_size>> as_override(const edit& e);

    /// How much the edit that keeps these components of the whole weight takes away. \pre keep.bound() <= min(m, n);
    /// the weight has a decomposition.
    [[nodiscard]] edit_size size_of_components(const component_set& keep);

private:
    using group = row_group<scalar>;

    static std::size_t factors_of(const decomposition<scalar>& s);
    static std::size_t factors_of(const std::vector<group>& groups);

    [[nodiscard]] edit_size size_of(const decomposition<scalar>& f, const component_set& keep) const;

    [[nodiscard]] edit_size sized(double removed_norm, index parameters) const;

    [[nodiscard]] status check(const edit& e) const;

    [[nodiscard]] status does_not_fit() const;

    /// Writes what stays and counts its numbers.
    [[nodiscard]] result<index> write_part(const kept_components& part, weight_view<T> to);

    /// Blocks are kept for all ranks.
    [[nodiscard]] result<index> write_part(const kept_blocks& part, weight_view<T> to);

    /// Clusters depend on the rank; the latest ones are kept.
    [[nodiscard]] result<index> write_part(const kept_clusters& part, weight_view<T> to);

    /// Zero for every entry whose number in the order by magnitude is not kept.
    [[nodiscard]] result<index> write_part(const kept_entries& part, weight_view<T> to) const;

    [[nodiscard]] result<index> write_groups(const std::vector<group>& groups, const component_set& keep,
                                             weight_view<T> to) const;

    [[nodiscard]] bool write_group(const group& g, const component_set& keep, weight_view<T> to,
                                   index& parameters) const;

    std::string name_ = {};
    row_matrix<T> original_ = {};
    double norm_ = 0;  ///< ||W||_F.
    std::optional<decomposition<scalar>> known_ = {};
    index factorizations_ = 0;
    std::map<index, std::vector<group>> blocks_ = {};
    std::vector<group> clusters_ = {};
    std::pair<index, index> cluster_key_ = {0, 0};
};

}  // namespace lowrank::inline LOWRANK_ABI

#ifdef LOWRANK_DEFINITIONS
#include <lowrank/laser/edits/weight_editor.ipp>
#endif

#endif  // LOWRANK_LASER_EDITS_WEIGHT_EDITOR_HPP
