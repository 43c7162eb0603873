// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_EDITS_WEIGHT_EDITOR_HPP
#define LOWRANK_LASER_EDITS_WEIGHT_EDITOR_HPP

/// \file
/// A weight as it was, with its factorizations: writes any edit of it, each factorization made once.
///
///     auto w = lowrank::weight_editor<float>::open({"mlp.up_proj.weight", up}).value();
///     for (double rho : {0.4, 0.1}) {
///         auto size = w.write(w.truncation(rho), up);           // W := W_k
///         auto four = w.write(w.truncation(rho, 4), up);        // each of 4 blocks of rows by itself
///         auto thin = w.write(w.pruning(rho), up);              // the largest entries instead of components
///     }
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
#include <vector>

#include <lowrank/core/check.hpp>
#include <lowrank/core/config.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/status.hpp>
#include <lowrank/core/types.hpp>
#include <lowrank/factor/partition.hpp>
#include <lowrank/factor/ranks/rank_rules.hpp>
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
};

/// Writes edits of one weight from a copy of its bits.
template <storage T>
class weight_editor {
public:
    using scalar = compute_t<T>;

    /// Copies the weight and factorizes it.
    /// \return What `make_spectrum` says, with the weight's name.
    [[nodiscard]] static result<weight_editor> open(const named_weight<T>& w) {
        auto made = make_spectrum(w.values());
        if (!made) {
            return status{made.error().code, w.name + ": " + made.error().message};
        }
        weight_editor out;
        out.name_ = w.name;
        out.original_.resize(w.weight.rows(), w.weight.cols());
        detail::copy_bits<T>(w.values(), weight_view<T>(out.original_));
        out.whole_ = *std::move(made);
        return out;
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

    /// min(rows, cols); with groups min(ceil(rows / groups), cols): the `components` of an edit.
    [[nodiscard]] index components(index groups = 1) const {
        return std::min((original_.rows() + groups - 1) / groups, original_.cols());
    }

    /// The edit that keeps the first floor(fraction * components(groups)) components of each group.
    /// \pre 0 <= fraction <= 1; 1 <= groups <= rows; one group is not clustered
    [[nodiscard]] edit truncation(double fraction, index groups = 1, bool clustered = false) const {
        detail::expects_in_range("weight_editor::truncation", "groups", groups, index{1}, original_.rows());
        const index all = components(groups);
        return {name_, component_set::first(rank_from_fraction(fraction, all, all)), all, groups, clustered};
    }

    /// The edit that keeps the floor(density * rows * cols) entries of largest magnitude.
    /// \pre 0 <= density <= 1
    [[nodiscard]] edit pruning(double density) const {
        const index all = original_.size();
        return {.weight = name_,
                .keep = component_set::first(rank_from_fraction(density, all, all)),
                .components = all,
                .entries = true};
    }

    /// Writes the edited weight into `to`, rounded once to the stored type.
    ///
    /// \pre    `to` has the weight's shape.
    /// \return `mismatch` if the edit was made for another shape, `non_finite` if the edited weight does not fit its
    ///         stored type (`to` is then broken: write something else), or what `cluster_rows` says.
    /// \cost   2 m n min(kept, dropped) flops; the first edit by blocks or clusters factorizes them.
    [[nodiscard]] result<edit_size> write(const edit& e, weight_view<T> to) {
        detail::expects_shape("weight_editor::write", "to", to.rows(), to.cols(), original_.rows(), original_.cols());
        if (e.entries) {
            return write_entries(e, to);
        }
        if (status why = check_components(e); !why) {
            return why;
        }
        edit_size size;
        bool finite = true;
        if (e.groups == 1) {
            finite = detail::write_components<T>(original(), whole_, e.keep, to);
            size = size_of_components(e.keep);
        } else {
            const auto groups = grouped(e);
            if (!groups) {
                return groups.error();
            }
            double squares = 0;
            for (const auto& g : **groups) {
                finite = write_group(g, e.keep, to, size, squares) && finite;
            }
            size.removed_norm = std::sqrt(squares);
        }
        if (!finite) {
            return status{errc::non_finite, name_ + ": the edited weight does not fit its stored type"};
        }
        size.relative_error = whole_.norm() > 0 ? size.removed_norm / whole_.norm() : 0.0;
        return size;
    }

    /// The edit for an engine that multiplies by something else instead of being written to: two factors where single
    /// components of the whole weight are kept, otherwise the edited weight.
    ///
    /// \return As `write`. The map shares nothing with this object.
    /// \cost   For components (m + n) min(kept, dropped) scalars; otherwise as `write`, and m n scalars.
    [[nodiscard]] result<std::pair<placed_edit<scalar>, edit_size>> place(const edit& e) {
        if (e.groups == 1 && !e.entries) {
            if (status why = check_components(e); !why) {
                return why;
            }
            return std::pair(place_components(whole_, e.keep), size_of_components(e.keep));
        }
        row_matrix<T> edited(original_.rows(), original_.cols());
        const auto size = write(e, edited);
        if (!size) {
            return size.error();
        }
        return std::pair(placed_edit<scalar>{any_operator<scalar>(owned_operator<T>(std::move(edited)))}, *size);
    }

    /// How much the edit that keeps these components of the whole weight takes away. \pre keep.bound() <= components()
    [[nodiscard]] edit_size size_of_components(const component_set& keep) const {
        edit_size size{.removed_norm = whole_.error(keep.members())};
        size.relative_error = whole_.norm() > 0 ? size.removed_norm / whole_.norm() : 0.0;
        size.parameters = keep.size() * (original_.rows() + original_.cols());
        return size;
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

    /// The groups an edit is made by. Blocks stay for all ranks; clusters depend on the rank, the latest ones stay.
    [[nodiscard]] result<const std::vector<group>*> grouped(const edit& e) {
        if (!e.clustered) {
            if (const auto known = blocks_.find(e.groups); known != blocks_.end()) {
                return &known->second;
            }
            auto made = factorize(contiguous_blocks(original_.rows(), e.groups), e.groups);
            if (!made) {
                return made.error();
            }
            return &blocks_.emplace(e.groups, *std::move(made)).first->second;
        }
        if (cluster_key_ != std::pair(e.groups, e.keep.bound())) {
            const auto found = cluster_rows(original_, e.groups, e.keep.bound());
            if (!found) {
                return found.error();
            }
            auto made = factorize(found->labels, e.groups);
            if (!made) {
                return made.error();
            }
            clusters_ = *std::move(made);
            cluster_key_ = {e.groups, e.keep.bound()};
        }
        return &clusters_;
    }

    [[nodiscard]] status check_components(const edit& e) const {
        if (e.groups < 1 || e.groups > std::max<index>(original_.rows(), 1) || e.components != components(e.groups) ||
            e.keep.bound() > e.components) {
            return {errc::mismatch, name_ + " has " + std::to_string(components(std::max<index>(e.groups, 1))) +
                                        " components by " + std::to_string(e.groups) + " groups, the edit is for " +
                                        std::to_string(e.components)};
        }
        return {};
    }

    /// Magnitude pruning: zero for every entry whose place by magnitude is not kept.
    [[nodiscard]] result<edit_size> write_entries(const edit& e, weight_view<T> to) const {
        const index all = original_.size();
        if (e.groups != 1 || e.components != all || e.keep.bound() > all) {
            return status{errc::mismatch, name_ + " has " + std::to_string(all) + " entries, the edit is for " +
                                              std::to_string(e.components)};
        }
        std::vector<index> order(static_cast<std::size_t>(all));
        std::iota(order.begin(), order.end(), index{0});
        const auto magnitude = [&](index i) { return std::abs(static_cast<scalar>(original_.data()[i])); };
        const auto larger = [&](index a, index b) {
            const scalar x = magnitude(a), y = magnitude(b);
            return x > y || (x == y && a < b);
        };
        // A prefix needs no full order.
        const auto& ranges = e.keep.ranges();
        if (ranges.size() == 1 && ranges.front().begin == 0) {
            std::nth_element(order.begin(), order.begin() + (ranges.front().end - (ranges.front().end == all ? 1 : 0)),
                             order.end(), larger);
        } else {
            std::sort(order.begin(), order.end(), larger);
        }
        detail::copy_bits<T>(original(), to);
        const double unit = whole_.size() > 0 && whole_.values()(0) > 0 ? static_cast<double>(whole_.values()(0)) : 1.0;
        double squares = 0;
        const component_set dropped = e.keep.complement(all);
        for (const auto& range : dropped.ranges()) {
            for (index place = range.begin; place < range.end; ++place) {
                const index i = order[static_cast<std::size_t>(place)];
                const double x = static_cast<double>(magnitude(i)) / unit;
                squares += x * x;
                to(i / original_.cols(), i % original_.cols()) = T(0);
            }
        }
        edit_size size{.removed_norm = unit * std::sqrt(squares)};
        size.relative_error = whole_.norm() > 0 ? size.removed_norm / whole_.norm() : 0.0;
        size.parameters = e.keep.size();
        return size;
    }

    [[nodiscard]] bool write_group(const group& g, const component_set& keep, weight_view<T> to, edit_size& size,
                                   double& squares) const {
        std::vector<index> kept = keep.members();
        std::erase_if(kept, [&](index i) { return i >= g.factors.size(); });
        const double error = g.factors.error(kept);
        squares += error * error;
        size.parameters += static_cast<index>(kept.size()) * (g.factors.rows() + g.factors.cols());
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
