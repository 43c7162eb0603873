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
#include <map>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/partition.hpp>
#include <lowrank/factor/spectrum.hpp>
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

    /// Copies the weight and factorizes it.
    /// \return What `make_spectrum` says, with the weight's name.
    [[nodiscard]] static result<weight_editor> open(const named_weight<T>& w) {
        row_matrix<T> copy(w.weight.rows(), w.weight.cols());
        detail::copy_bits<T>(w.values(), weight_view<T>(copy));
        return open(w.name, std::move(copy));
    }
    /// Takes over a copy of the weight.
    [[nodiscard]] static result<weight_editor> open(std::string name, row_matrix<T> values) {
        auto made = make_spectrum(const_weight_view<T>(values));
        if (!made) {
            return status{made.error().code, name + ": " + made.error().message};
        }
        weight_editor out;
        out.name_ = std::move(name);
        out.original_ = std::move(values);
        out.whole_ = *std::move(made);
        return out;
    }

    [[nodiscard]] const std::string& name() const noexcept { return name_; }
    [[nodiscard]] const_weight_view<T> original() const { return const_weight_view<T>(original_); }
    [[nodiscard]] const spectrum<scalar>& whole() const noexcept { return whole_; }

    /// Bytes held: the copy and all factors made so far.
    [[nodiscard]] std::size_t bytes() const noexcept {
        std::size_t numbers = factors_of(whole_);
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
            return std::pair(override_by_components(whole_, part->keep), size_of_components(part->keep));
        }
        row_matrix<T> edited(original_.rows(), original_.cols());
        const auto size = write(e, edited);
        if (!size) {
            return size.error();
        }
        return std::pair(weight_override<scalar>{any_operator<scalar>(owned_operator<T>(std::move(edited)))}, *size);
    }

    /// How much the edit that keeps these components of the whole weight takes away. \pre keep.bound() <= min(m, n)
    [[nodiscard]] edit_size size_of_components(const component_set& keep) const {
        return sized(whole_.error(keep.members()), keep.size() * (original_.rows() + original_.cols()));
    }

private:
    struct group {
        std::vector<index> rows;
        spectrum<scalar> factors;
    };

    static std::size_t factors_of(const spectrum<scalar>& s) {
        return static_cast<std::size_t>((s.rows() + s.cols() + 1) * s.size());
    }
    static std::size_t factors_of(const std::vector<group>& groups) {
        std::size_t sum = 0;
        for (const auto& g : groups) {
            sum += factors_of(g.factors);
        }
        return sum;
    }

    [[nodiscard]] result<std::vector<group>> factorize(std::span<const index> labels, index count) const {
        std::vector<group> groups;
        for (auto& rows : detail::rows_by_label(labels, count)) {
            if (rows.empty()) {
                continue;
            }
            matrix<scalar> block(static_cast<index>(rows.size()), original_.cols());
            for (std::size_t i = 0; i < rows.size(); ++i) {
                block.row(static_cast<index>(i)) = original_.row(rows[i]).template cast<scalar>();
            }
            auto made = make_spectrum(block);
            if (!made) {
                return made.error();
            }
            groups.push_back({std::move(rows), *std::move(made)});
        }
        return groups;
    }

    [[nodiscard]] edit_size sized(double removed_norm, index parameters) const {
        const double whole = whole_.norm();
        return {removed_norm, whole > 0 ? removed_norm / whole : 0.0, parameters, whole};
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

    [[nodiscard]] result<edit_size> write_part(const kept_components& part, weight_view<T> to) const {
        if (!detail::write_components<T>(original(), whole_, part.keep, to)) {
            return does_not_fit();
        }
        return size_of_components(part.keep);
    }

    /// Blocks are kept for all ranks.
    [[nodiscard]] result<edit_size> write_part(const kept_blocks& part, weight_view<T> to) {
        auto known = blocks_.find(part.blocks);
        if (known == blocks_.end()) {
            auto made = factorize(contiguous_blocks(original_.rows(), part.blocks), part.blocks);
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
                return found.error();
            }
            auto made = factorize(found->labels, part.clusters);
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
        const double unit = whole_.size() > 0 && whole_.values()(0) > 0 ? static_cast<double>(whole_.values()(0)) : 1.0;
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
        const double error = g.factors.error(kept);
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
    spectrum<scalar> whole_ = {};
    std::map<index, std::vector<group>> blocks_ = {};
    std::vector<group> clusters_ = {};
    std::pair<index, index> cluster_key_ = {0, 0};
};

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_EDITS_WEIGHT_EDITOR_HPP
