// SPDX-License-Identifier: MIT
#ifndef LOWRANK_LASER_EDITS_WEIGHT_EDITOR_IPP
#define LOWRANK_LASER_EDITS_WEIGHT_EDITOR_IPP

#include <lowrank/laser/edits/weight_editor.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <variant>

#include <lowrank/core/check.hpp>
#include <lowrank/core/dense.hpp>
#include <lowrank/core/finite.hpp>
#include <lowrank/core/linear_operator.hpp>
#include <lowrank/core/storage.hpp>
#include <lowrank/factor/low_rank.hpp>
#include <lowrank/factor/svd.hpp>

namespace lowrank::inline LOWRANK_ABI {

template <storage T>
result<weight_editor<T>> weight_editor<T>::open(const named_weight<T>& w) {
    row_matrix<T> copy(w.weight.rows(), w.weight.cols());
    detail::copy_bits<T>(w.values(), weight_view<T>(copy));
    return open(w.name, std::move(copy));
}

template <storage T>
result<weight_editor<T>> weight_editor<T>::open(std::string name, row_matrix<T> values) {
    if (!all_finite(values)) {
        return status{errc::non_finite, name + ": the weight holds NaN or infinity; repair or exclude it"};
    }
    weight_editor out;
    out.name_ = std::move(name);
    out.norm_ = norm_of(values);
    out.original_ = std::move(values);
    return out;
}

template <storage T>
result<weight_editor<T>> weight_editor<T>::open(std::string name, row_matrix<T> values, decomposition<scalar> known) {
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

template <storage T>
auto weight_editor<T>::components(index bound) -> const decomposition<scalar>& {
    if (!known_ || (!known_->complete() && known_->size() < bound)) {
        known_ = svd(original_);
        ++factorizations_;
    }
    return *known_;
}

template <storage T>
std::size_t weight_editor<T>::bytes() const noexcept {
    std::size_t numbers = known_ ? factors_of(*known_) : 0;
    for (const auto& [count, groups] : blocks_) {
        numbers += factors_of(groups);
    }
    numbers += factors_of(clusters_);
    return numbers * sizeof(scalar) + static_cast<std::size_t>(original_.size()) * sizeof(T);
}

template <storage T>
edit weight_editor<T>::truncation(double fraction) const {
    return {name_, kept_components::fraction(fraction, original_.rows(), original_.cols())};
}

template <storage T>
result<edit> weight_editor<T>::truncation(const rank_choice& choice) {
    auto k = rank_within(components(0), choice);
    if (!k && *known_) {
        k = rank_within(whole(), choice);  // the rule needs more than there was
    }
    if (!*known_) {
        return known_->why;
    }
    return edit{name_, kept_components{component_set::first(*k), std::min(original_.rows(), original_.cols())}};
}

template <storage T>
result<edit_size> weight_editor<T>::write(const edit& e, weight_view<T> to) {
    detail::expects_shape("weight_editor::write", "to", to.rows(), to.cols(), original_.rows(), original_.cols());
    if (status why = check(e); !why) {
        return why;
    }
    const auto parameters = std::visit([&](const auto& part) { return write_part(part, to); }, e.kept);
    if (!parameters) {
        return parameters.error();
    }
    const const_weight_view<T> written(to.data(), to.rows(), to.cols(), to.outerStride());
    return sized(detail::change_norm<T>(original(), written), *parameters);
}

template <storage T>
auto weight_editor<T>::as_override(const edit& e) -> result<std::pair<weight_override<scalar>, edit_size>> {
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

template <storage T>
edit_size weight_editor<T>::size_of_components(const component_set& keep) {
    return size_of(components(keep.bound()), keep);
}

template <storage T>
std::size_t weight_editor<T>::factors_of(const decomposition<scalar>& s) {
    return static_cast<std::size_t>((s.rows() + s.cols() + 1) * s.size());
}

template <storage T>
std::size_t weight_editor<T>::factors_of(const std::vector<group>& groups) {
    std::size_t sum = 0;
    for (const auto& g : groups) {
        sum += factors_of(g.factors);
    }
    return sum;
}

template <storage T>
edit_size weight_editor<T>::size_of(const decomposition<scalar>& f, const component_set& keep) const {
    return sized(f.error_at(keep.members()), keep.size() * (original_.rows() + original_.cols()));
}

template <storage T>
edit_size weight_editor<T>::sized(double removed_norm, index parameters) const {
    return {removed_norm, norm_ > 0 ? removed_norm / norm_ : 0.0, parameters, norm_};
}

template <storage T>
status weight_editor<T>::check(const edit& e) const {
    const index count =
        std::visit([&](const auto& part) { return part.count_in(original_.rows(), original_.cols()); }, e.kept);
    if (count < 0 || e.of() != count || e.keep().bound() > count) {
        return {errc::mismatch, name_ + " is " + std::to_string(original_.rows()) + " x " +
                                    std::to_string(original_.cols()) + ", the edit " + e.keep().text() + " of " +
                                    std::to_string(e.of()) + " is for another shape; make it again"};
    }
    return {};
}

template <storage T>
status weight_editor<T>::does_not_fit() const {
    return {errc::non_finite, name_ + ": the edited weight does not fit its stored type"};
}

template <storage T>
result<index> weight_editor<T>::write_part(const kept_components& part, weight_view<T> to) {
    const auto& f = components(part.keep.bound());
    if (!f) {
        return f.why;
    }
    if (!detail::write_components<T>(original(), f, part.keep, to)) {
        return does_not_fit();
    }
    return part.keep.size() * (original_.rows() + original_.cols());
}

template <storage T>
result<index> weight_editor<T>::write_part(const kept_blocks& part, weight_view<T> to) {
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

template <storage T>
result<index> weight_editor<T>::write_part(const kept_clusters& part, weight_view<T> to) {
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

template <storage T>
result<index> weight_editor<T>::write_part(const kept_entries& part, weight_view<T> to) const {
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
    const component_set dropped = part.keep.complement(all);
    for (const auto& range : dropped.ranges()) {
        for (index number = range.begin; number < range.end; ++number) {
            const index i = order[static_cast<std::size_t>(number)];
            to(i / original_.cols(), i % original_.cols()) = T(0);
        }
    }
    return part.keep.size();
}

template <storage T>
result<index> weight_editor<T>::write_groups(const std::vector<group>& groups, const component_set& keep,
                                             weight_view<T> to) const {
    index parameters = 0;
    bool finite = true;
    for (const auto& g : groups) {
        finite = write_group(g, keep, to, parameters) && finite;
    }
    return finite ? result<index>(parameters) : does_not_fit();
}

template <storage T>
bool weight_editor<T>::write_group(const group& g, const component_set& keep, weight_view<T> to,
                                   index& parameters) const {
    std::vector<index> kept = keep.members();
    std::erase_if(kept, [&](index i) { return i >= g.factors.size(); });
    parameters += static_cast<index>(kept.size()) * (g.factors.rows() + g.factors.cols());
    const bool all = static_cast<index>(kept.size()) == g.factors.size();
    const low_rank<scalar> part = g.factors.select(kept);
    row_matrix<scalar> values;
    bool finite = true;
    for (std::size_t i = 0; i < g.rows.size(); ++i) {
        const index row = g.rows[i];
        if (all) {
            detail::copy_bits<T>(original().middleRows(row, 1), to.middleRows(row, 1));
            continue;
        }
        values.setZero(1, to.cols());
        add_product(scalar(1), dense_view<const scalar>(part.left).middle_rows(static_cast<index>(i), 1), part.right,
                    values);
        for (index j = 0; j < to.cols(); ++j) {
            to(row, j) = to_storage<T>(static_cast<double>(values(j)));
        }
        finite = finite && all_finite(&to(row, 0), to.cols());
    }
    return finite;
}

#ifdef LOWRANK_COMPILED
template class weight_editor<float>;
template class weight_editor<double>;
template class weight_editor<half>;
template class weight_editor<bfloat16>;
#endif

}  // namespace lowrank::inline LOWRANK_ABI

#endif  // LOWRANK_LASER_EDITS_WEIGHT_EDITOR_IPP
