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

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/partition.hpp>
#include <lowrank/factor/ranks/rank_choice.hpp>
#include <lowrank/factor/svd.hpp>
#include <lowrank/laser/edits/edit.hpp>
#include <lowrank/laser/edits/named_weight.hpp>

namespace lowrank::inline LOWRANK_ABI {

/// How much an edit takes away, in exact arithmetic, and what its factors need.
struct edit_size {
    double removed_norm = 0;    ///< ||W - W'||_F.
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
    [[nodiscard]] static result<weight_editor> open(const named_weight<T>& w) {
        row_matrix<T> copy(w.weight.rows(), w.weight.cols());
        detail::copy_bits<T>(w.values(), weight_view<T>(copy));
        return open(w.name, std::move(copy));
    }
    /// Takes over a copy of the weight.
    [[nodiscard]] static result<weight_editor> open(std::string name, row_matrix<T> values) {
        if (!all_finite(values)) {
            return status{errc::non_finite, name + ": the weight holds NaN or infinity; repair or exclude it"};
        }
        weight_editor out;
        out.name_ = std::move(name);
        out.norm_ = norm_of(values);
        out.original_ = std::move(values);
        return out;
    }
    /// The same with a decomposition of the weight, all of it or its leading part: a partial one serves the edits that
    /// keep none of the components it lacks, a complete one is made where an edit keeps more.
    /// \pre    `known` has the weight's shape.
    /// \return Also what `known` says if it failed, and `mismatch` if it is that of another weight (its norm differs).
    [[nodiscard]] static result<weight_editor> open(std::string name, row_matrix<T> values,
                                                    decomposition<scalar> known) {
        if (!known) {
            return status{known.why.code, name + ": " + known.why.message};
        }
        auto out = open(std::move(name), std::move(values));
        if (out) {
            detail::expects_shape("weight_editor::open", "known", known.rows(), known.cols(), out->original_.rows(),
                                  out->original_.cols());
            if (std::abs(known.norm() - out->norm_) > detail::norm_tolerance(known) * out->norm_) {
                return status{errc::mismatch, out->name_ +
                                                  ": the decomposition is that of another weight (their norms "
                                                  "differ); compute it again"};
            }
            out->known_ = std::move(known);
        }
        return out;
    }

    [[nodiscard]] const std::string& name() const noexcept { return name_; }
    [[nodiscard]] const_weight_view<T> original() const { return const_weight_view<T>(original_); }

    /// A decomposition that holds at least the first `bound` components: the one there is, or all of the weight. Its
    /// `why` says if the weight has none.
    [[nodiscard]] const decomposition<scalar>& components(index bound) {
        if (!known_ || (!known_->complete() && known_->size() < bound)) {
            known_ = svd(original_);
            ++factorizations_;
        }
        return *known_;
    }
    /// All components of the weight.
    [[nodiscard]] const decomposition<scalar>& whole() { return components(std::numeric_limits<index>::max()); }

    /// How often the whole weight was decomposed here.
    [[nodiscard]] index factorizations() const noexcept { return factorizations_; }
    /// Bytes held: the copy and all factors made so far.
    [[nodiscard]] std::size_t bytes() const noexcept {
        std::size_t numbers = known_ ? factors_of(*known_) : 0;
        for (const auto& [count, groups] : blocks_) {
            numbers += factors_of(groups);
        }
        numbers += factors_of(clusters_);
        return numbers * sizeof(scalar) + static_cast<std::size_t>(original_.size()) * sizeof(T);
    }

    /// The edit of this weight that keeps the first floor(fraction * min(rows, cols)) components.
    /// \pre 0 <= fraction <= 1
    [[nodiscard]] edit truncation(double fraction) const {
        return {name_, kept_components::fraction(fraction, original_.rows(), original_.cols())};
    }

    /// The edit that keeps as many of the first components as a rule says.
    ///
    /// \pre    As `choose_rank`.
    /// \return What decomposing the weight says.
    [[nodiscard]] result<edit> truncation(const rank_choice& choice) {
        auto k = rank_within(components(0), choice);
        if (!k && *known_) {
            k = rank_within(whole(), choice);  // the rule needs more than there was
        }
        if (!*known_) {
            return known_->why;
        }
        return edit{name_, kept_components{component_set::first(*k), std::min(original_.rows(), original_.cols())}};
    }

    /// Writes the edited weight into `to`, rounded once to the stored type.
    ///
    /// \pre    `to` has the weight's shape.
    /// \return `mismatch` if the edit was made for another shape, `non_finite` if the edited weight does not fit its
    ///         stored type (`to` is then broken: write something else), or what `cluster_rows` says.
    /// \cost   2 m n min(kept, dropped) flops; the first edit by blocks or clusters factorizes them.
    [[nodiscard]] result<edit_size> write(const edit& e, weight_view<T> to) {
        detail::expects_shape("weight_editor::write", "to", to.rows(), to.cols(), original_.rows(), original_.cols());
        if (status why = check(e); !why) {
            return why;
        }
        return std::visit([&](const auto& part) { return write_part(part, to); }, e.kept);
    }

    /// The edit for an engine that multiplies by something else instead of being written to: two factors where
    /// components of the whole weight are kept, otherwise the edited weight.
    ///
    /// \return As `write`. The operator shares nothing with this object.
    /// \cost   For components (m + n) min(kept, dropped) scalars; otherwise as `write`, and m n scalars.
    [[nodiscard]] result<std::pair<weight_override<scalar>, edit_size>> as_override(const edit& e) {
        if (status why = check(e); !why) {
            return why;
        }
        if (const auto* part = std::get_if<kept_components>(&e.kept)) {
            const auto& f = components(part->keep.bound());
            if (!f) {
                return f.why;
            }
            return std::pair(override_by_components(f, part->keep), size_of(f, part->keep));
        }
        row_matrix<T> edited(original_.rows(), original_.cols());
        const auto size = write(e, edited);
        if (!size) {
            return size.error();
        }
        return std::pair(weight_override<scalar>{any_operator<scalar>(owned_operator<T>(std::move(edited)))}, *size);
    }

    /// How much the edit that keeps these components of the whole weight takes away. \pre keep.bound() <= min(m, n);
    /// the weight has a decomposition.
    [[nodiscard]] edit_size size_of_components(const component_set& keep) {
        return size_of(components(keep.bound()), keep);
    }

private:
    using group = row_group<scalar>;

    static std::size_t factors_of(const decomposition<scalar>& s) {
        return static_cast<std::size_t>((s.rows() + s.cols() + 1) * s.size());
    }
    static std::size_t factors_of(const std::vector<group>& groups) {
        std::size_t sum = 0;
        for (const auto& g : groups) {
            sum += factors_of(g.factors);
        }
        return sum;
    }

    [[nodiscard]] edit_size size_of(const decomposition<scalar>& f, const component_set& keep) const {
        return sized(f.error_at(keep.members()), keep.size() * (original_.rows() + original_.cols()));
    }

    [[nodiscard]] edit_size sized(double removed_norm, index parameters) const {
        return {removed_norm, norm_ > 0 ? removed_norm / norm_ : 0.0, parameters, norm_};
    }

    [[nodiscard]] status check(const edit& e) const {
        const index count =
            std::visit([&](const auto& part) { return part.count_in(original_.rows(), original_.cols()); }, e.kept);
        if (count < 0 || e.of() != count || e.keep().bound() > count) {
            return {errc::mismatch, name_ + " is " + std::to_string(original_.rows()) + " x " +
                                        std::to_string(original_.cols()) + ", the edit " + e.keep().text() + " of " +
                                        std::to_string(e.of()) + " is for another shape; make it again"};
        }
        return {};
    }

    [[nodiscard]] status does_not_fit() const {
        return {errc::non_finite, name_ + ": the edited weight does not fit its stored type"};
    }

    [[nodiscard]] result<edit_size> write_part(const kept_components& part, weight_view<T> to) {
        const auto& f = components(part.keep.bound());
        if (!f) {
            return f.why;
        }
        if (!detail::write_components<T>(original(), f, part.keep, to)) {
            return does_not_fit();
        }
        return size_of(f, part.keep);
    }

    /// Blocks are kept for all ranks.
    [[nodiscard]] result<edit_size> write_part(const kept_blocks& part, weight_view<T> to) {
        auto known = blocks_.find(part.blocks);
        if (known == blocks_.end()) {
            auto made = svd_by_rows(original_, contiguous_blocks(original_.rows(), part.blocks));
            if (!made) {
                return made.error();
            }
            known = blocks_.emplace(part.blocks, *std::move(made)).first;
        }
        return write_groups(known->second, part.keep, to);
    }

    /// Clusters depend on the rank; the latest ones are kept.
    [[nodiscard]] result<edit_size> write_part(const kept_clusters& part, weight_view<T> to) {
        if (const std::pair key(part.clusters, part.keep.bound()); cluster_key_ != key) {
            const auto found = cluster_rows(original_, part.clusters, part.keep.bound());
            if (!found) {
                return found.why;
            }
            auto made = svd_by_rows(original_, found.labels);
            if (!made) {
                return made.error();
            }
            clusters_ = *std::move(made);
            cluster_key_ = key;
        }
        return write_groups(clusters_, part.keep, to);
    }

    /// Zero for every entry whose number in the order by magnitude is not kept.
    [[nodiscard]] result<edit_size> write_part(const kept_entries& part, weight_view<T> to) const {
        const index all = part.of;
        std::vector<index> order(static_cast<std::size_t>(all));
        std::iota(order.begin(), order.end(), index{0});
        const auto magnitude = [&](index i) { return std::abs(static_cast<scalar>(original_.data()[i])); };
        const auto larger = [&](index a, index b) {
            const scalar x = magnitude(a), y = magnitude(b);
            return x > y || (x == y && a < b);
        };
        // A prefix needs no full order.
        const auto& ranges = part.keep.ranges();
        if (ranges.size() == 1 && ranges.front().begin == 0) {
            std::nth_element(order.begin(), order.begin() + (ranges.front().end - (ranges.front().end == all ? 1 : 0)),
                             order.end(), larger);
        } else {
            std::sort(order.begin(), order.end(), larger);
        }
        detail::copy_bits<T>(original(), to);
        const double unit = norm_ > 0 ? norm_ : 1.0;
        double squares = 0;
        const component_set dropped = part.keep.complement(all);
        for (const auto& range : dropped.ranges()) {
            for (index number = range.begin; number < range.end; ++number) {
                const index i = order[static_cast<std::size_t>(number)];
                const double x = static_cast<double>(magnitude(i)) / unit;
                squares += x * x;
                to(i / original_.cols(), i % original_.cols()) = T(0);
            }
        }
        return sized(unit * std::sqrt(squares), part.keep.size());
    }

    [[nodiscard]] result<edit_size> write_groups(const std::vector<group>& groups, const component_set& keep,
                                                 weight_view<T> to) const {
        index parameters = 0;
        double squares = 0;
        bool finite = true;
        for (const auto& g : groups) {
            finite = write_group(g, keep, to, parameters, squares) && finite;
        }
        return finite ? result<edit_size>(sized(std::sqrt(squares), parameters)) : does_not_fit();
    }

    [[nodiscard]] bool write_group(const group& g, const component_set& keep, weight_view<T> to, index& parameters,
                                   double& squares) const {
        std::vector<index> kept = keep.members();
        std::erase_if(kept, [&](index i) { return i >= g.factors.size(); });
        const double error = g.factors.error_at(kept);
        squares += error * error;
        parameters += static_cast<index>(kept.size()) * (g.factors.rows() + g.factors.cols());
        const bool all = static_cast<index>(kept.size()) == g.factors.size();
        const low_rank<scalar> part = g.factors.select(kept);
        bool finite = true;
        for (std::size_t i = 0; i < g.rows.size(); ++i) {
            const index row = g.rows[i];
            if (all) {
                detail::copy_bits<T>(original().middleRows(row, 1), to.middleRows(row, 1));
                continue;
            }
            if (kept.empty()) {
                to.row(row).setZero();
                continue;
            }
            const matrix<scalar> values = part.left.row(static_cast<index>(i)) * part.right;
            to.row(row) = values.template cast<T>();
            finite = finite && all_finite(to.middleRows(row, 1));
        }
        return finite;
    }

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

#endif  // LOWRANK_LASER_EDITS_WEIGHT_EDITOR_HPP
